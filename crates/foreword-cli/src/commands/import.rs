//! `foreword import`: makes a prompt of another tool into a prompt directory.

use std::path::{Path, PathBuf};

use foreword::Result;
use foreword::format::PeftTask;
use foreword::format::foreign::{Foreign, import};
use foreword::settings::TaskKind;
use foreword::train::DEFAULT_PLACEMENT;
use foreword::{Model, Place, PromptDirectory, TaskFile, record};

use crate::args::ImportArgs;
use crate::exit::Exit;
use crate::printer::Printer;
use foreword::UserError;
use foreword::display::{count, learned};
use foreword::events::Imported;
use foreword::prompt::format::{LabelFormat, PromptFormat, TaskParts, in_words};

/// Runs the verb.
pub(crate) fn run(args: &ImportArgs, printer: &Printer) -> Result<Exit> {
    args.machine.start_threads()?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.path));
    let place = Place::check(out, args.force, false)?;
    let foreign = import(&args.path, args.task_number)?;
    let model = args
        .model
        .as_deref()
        .map(|name| Model::open_with(name, &args.machine.resources(), printer))
        .transpose()?;
    for note in &foreign.notes {
        printer.warn(&format!("{}: {note}", args.path.display()));
    }
    let Foreign { rows, format, .. } = &foreign;
    let (n_virtual, width, format) = (rows.n_virtual(), rows.width(), format.clone());
    let is_for_a_decoder = foreign.adapter.task != Some(PeftTask::Seq2SeqLm);
    let directory = match &model {
        Some(model) => on_model(args, foreign, model, printer)?,
        None => alone(args, foreign, printer)?,
    };
    let what = learned(directory.method());
    directory.write(&place.out, place.overwrite)?;
    printer.json(&Imported {
        out: place.out.display().to_string(),
        format: &format,
        virtual_tokens: n_virtual,
        width,
        passport: model.is_some(),
    })?;
    printer.answer(&format!(
        "{}: a {what} of {n_virtual} virtual tokens × {} numbers, from {format}",
        place.out.display(),
        count(width as u64)
    ))?;
    if model.is_none() && is_for_a_decoder {
        let (out, flags) = (place.out.display(), "--model DIR --template TEXT --labels LABELS");
        printer.say(&format!(
            "It is as from PEFT: `foreword eval --prompt {out} {flags} --data FILE` measures it."
        ));
    }
    Ok(Exit::Done)
}

/// What nothing is known of but its rows.
fn alone(args: &ImportArgs, foreign: Foreign, printer: &Printer) -> Result<PromptDirectory> {
    let task = &args.task;
    let of_a_task = [task.template.is_some(), task.message.is_some(), task.system.is_some()];
    if of_a_task.contains(&true) || task.placement.is_some() || args.labels.labels.is_some() {
        return Err(UserError::new(
            "a template, labels or a placement are kept in a passport, which belongs to a model",
        )
        .hint("give the model with --model, or leave them out and give them when the prompt is used")
        .into());
    }
    if foreign.adapter.task == Some(PeftTask::Seq2SeqLm) {
        printer.warn(&format!(
            "the prompt was made for an encoder-decoder model{}, which Foreword does not run: its rows are kept, and no \
             decoder knows what they mean",
            foreign.adapter.base_model.as_ref().map_or(String::new(), |name| format!(", {name}"))
        ));
    }
    Ok(PromptDirectory { rows: foreign.rows, adapter: Some(foreign.adapter), passport: None })
}

/// A prompt for a model, with the task that the flags state.
fn on_model(
    args: &ImportArgs,
    foreign: Foreign,
    model: &Model,
    printer: &Printer,
) -> Result<PromptDirectory> {
    if foreign.adapter.task == Some(PeftTask::Seq2SeqLm) {
        let made_for = foreign.adapter.base_model.as_deref().unwrap_or("one that it does not name");
        let name = &model.backbone.identity().name;
        return Err(UserError::new(format!(
            "the prompt was made for an encoder-decoder model, {made_for}, and {name} is a decoder"
        ))
        .hint("without --model its rows are kept as they are, for other tools")
        .into());
    }
    let directory = PromptDirectory { rows: foreign.rows, adapter: Some(foreign.adapter), passport: None };
    record::check_fit(&directory, model)?;
    let mut stated = TaskFile::default();
    args.task.state(&mut stated);
    args.labels.state(&mut stated);
    let labels = stated.task.labels.as_ref();
    let kind = if labels.is_some() { TaskKind::Classification } else { TaskKind::Generation };
    let format = PromptFormat::find(&stated.task, None, kind, None)?;
    let placement = args.task.placement.unwrap_or(DEFAULT_PLACEMENT);
    let chat = format.chat(model, placement, printer)?;
    let strings = LabelFormat::of(&format, chat.as_ref(), &stated.task);
    let labels = labels.map(|labels| strings.stated(labels, printer));
    let method = directory.method();
    let (text_field, recorded, stated) = (None, None, &stated.task);
    let parts = TaskParts { format, chat, labels, text_field, method, placement, stated, recorded };
    let task = parts.build(model, &())?;
    printer.say(&format!("template  {}", in_words(&task.template, task.chat.as_ref())));
    if kind == TaskKind::Generation {
        printer.say("task      to write texts; --labels names labels to choose from");
    }
    Ok(record::imported(model, &task, directory.rows, &foreign.format)?)
}

/// Beside the current work: what was read, with -prompt.
fn default_out(path: &Path) -> PathBuf {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    PathBuf::from(format!("{}-prompt", stem.unwrap_or_default().to_string_lossy()))
}
