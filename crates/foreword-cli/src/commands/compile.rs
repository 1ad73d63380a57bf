//! `foreword compile`: turns a soft prompt into the keys and values that its model makes of it.

use std::path::{Path, PathBuf};

use foreword::Result;
use foreword::chat::Chat;
use foreword::format::TENSORS_FILE;
use foreword::prefix::{compile, compile_below};
use foreword::record;
use foreword::settings::{Method, Placement};
use foreword::{Model, Place, PromptDirectory};

use crate::args::CompileArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use foreword::UserError;
use foreword::display::{bytes, count};
use foreword::events::Compiled;
use foreword::prompt::open::{describe, model_name, read};
use foreword::run::members::other_members;

/// Runs the verb.
pub(crate) fn run(args: &CompileArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let directory = read(&args.prompt)?;
    if directory.method() == Method::Prefix {
        return Err(UserError::new(format!("{} is a KV prefix already", args.prompt.display())).into());
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.prompt));
    let place = Place::check(out, args.force, false)?;
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&place.out) == real(&args.prompt) {
        return Err(UserError::new("--out is the soft prompt's own directory")
            .hint("give another directory: the soft prompt is what training can go on from")
            .into());
    }
    let name = model_name(&args.prompt, args.model.as_deref(), Some(&directory))?;
    let model = Model::open_with(&name, &args.machine.resources(), printer)?;
    for warning in record::check_fit(&directory, &model)? {
        printer.warn(&describe(&warning));
    }
    let others = other_members(&args.prompt).len();
    if others > 0 {
        printer.warn(&format!(
            "the prompt leads an ensemble: it is compiled alone, without the {others} below it"
        ));
    }
    let placement = directory.passport.as_ref().map_or(Placement::Front, |passport| passport.task.placement);
    let recorded = directory.passport.as_ref().and_then(|passport| passport.task.chat.as_ref());
    let chat = recorded.map(|chat| Chat::of_record(&model, chat, placement)).transpose()?;
    let rows = match (&chat, placement) {
        (Some(chat), Placement::AfterBos | Placement::System) => {
            compile_below(&model, chat.leading(), &directory.rows)?
        }
        _ => compile(&model, placement, &directory.rows)?,
    };
    let (n_virtual, width) = (rows.n_virtual(), rows.width());

    let adapter = record::adapter(&model, (Method::Prefix, placement), n_virtual)?;
    let mut passport = directory.passport;
    if let Some(passport) = &mut passport {
        let training = &mut passport.training;
        (training.method, training.width) = (Method::Prefix, width);
        training.settings.insert(record::COMPILED_FROM.to_owned(), passport.tensors_digest.clone().into());
    }
    PromptDirectory { rows, adapter, passport }.write(&place.out, place.overwrite)?;

    let size = |dir: &Path| std::fs::metadata(dir.join(TENSORS_FILE)).map_or(0, |metadata| metadata.len());
    let (before, after) = (size(&args.prompt), size(&place.out));
    printer.json(&Compiled {
        out: place.out.display().to_string(),
        virtual_tokens: n_virtual,
        width,
        bytes: after,
    })?;
    printer.answer(&format!(
        "{}: a KV prefix of {n_virtual} virtual tokens × {} numbers, {} instead of {}",
        place.out.display(),
        count(width as u64),
        bytes(after),
        bytes(before)
    ))?;
    printer.say(
        "It gives what the soft prompt gives, to the bit where both are asked with the same --dtype and --device, and its \
         virtual tokens are never computed again.",
    );
    Ok(Exit::Done)
}

/// Beside the soft prompt.
fn default_out(prompt: &Path) -> PathBuf {
    let name = prompt.file_name().unwrap_or_default().to_string_lossy();
    prompt.with_file_name(format!("{name}-prefix"))
}
