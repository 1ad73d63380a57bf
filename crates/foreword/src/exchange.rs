//! Makes prompts from prompts: compiles them to KV prefixes, imports them from other tools, compares them.

use std::path::{Path, PathBuf};

use crate::chat::Chat;
use crate::display::learned;
use crate::error::{Result, UserError};
use crate::events::{Compiled, Imported};
use crate::format::foreign::{Foreign, import as read_foreign};
use crate::format::{PeftTask, TENSORS_FILE};
use crate::notice::Observer;
use crate::plan::output::is_same;
use crate::prefix::{compile, compile_below};
use crate::prompt::format::{LabelFormat, PromptFormat, TaskParts, in_words};
use crate::prompt::open::{describe, model_name, read};
use crate::record::same_model;
use crate::run::members::other_members;
use crate::settings::{Method, Placement, TaskKind};
use crate::similarity::{Similarity, similarity};
use crate::task_file::TaskTable;
use crate::{Model, OutputDir, PromptDirectory, Resources, TaskFile, record};

/// A compiled soft prompt.
#[derive(Debug)]
pub struct CompiledPrompt {
    /// The JSON output.
    pub line: Compiled,
    /// Size of the soft prompt's rows in bytes.
    pub bytes_before: u64,
}

/// Writes the model's keys and values for the soft prompt in `prompt` as a KV prefix.
///
/// # Errors
/// If it is not a soft prompt, its model can't be found, or its placement is suffix.
pub fn compile_prompt(
    prompt: &Path,
    model: Option<&str>,
    output: impl FnOnce() -> Result<OutputDir>,
    resources: &Resources,
    observer: &dyn Observer,
) -> Result<CompiledPrompt> {
    let directory = read(prompt)?;
    if directory.method() == Method::Prefix {
        return Err(UserError::new(format!("{} is a KV prefix already", prompt.display())).into());
    }
    let output = output()?;
    if is_same(&output.out, prompt) {
        return Err(UserError::new("--out is the soft prompt's own directory")
            .hint("give another directory: the soft prompt is what training can go on from")
            .into());
    }
    let name = model_name(prompt, model, Some(&directory))?;
    let resources = resources.with_ignored_keys_of(Some(&directory));
    let model = Model::open_with(&name, &resources, observer)?;
    for warning in record::check_fit(&directory, &model)? {
        observer.warn(&describe(&warning));
    }
    let others = other_members(prompt).len();
    if others > 0 {
        observer.warn(&format!(
            "the prompt leads an ensemble: only it is compiled, without the {others} below it"
        ));
    }
    let compiled = compiled(directory, &model)?;
    let (virtual_tokens, width) = (compiled.rows.n_virtual(), compiled.rows.width());
    compiled.write(&output.out, output.overwrite)?;
    let size = |dir: &Path| std::fs::metadata(dir.join(TENSORS_FILE)).map_or(0, |metadata| metadata.len());
    let out = output.out.display().to_string();
    let line = Compiled { out, virtual_tokens, width, bytes: size(&output.out) };
    Ok(CompiledPrompt { line, bytes_before: size(prompt) })
}

fn compiled(directory: PromptDirectory, model: &Model) -> Result<PromptDirectory> {
    let placement = directory.passport.as_ref().map_or(Placement::Front, |passport| passport.task.placement);
    let recorded = directory.passport.as_ref().and_then(|passport| passport.task.chat.as_ref());
    let chat = recorded.map(|chat| Chat::of_record(model, chat, placement)).transpose()?;
    let rows = match (&chat, placement) {
        (Some(chat), Placement::AfterBos | Placement::System) => {
            compile_below(model, chat.leading(), &directory.rows)?
        }
        _ => compile(model, placement, &directory.rows)?,
    };
    let adapter = record::adapter(model, (Method::Prefix, placement), rows.n_virtual())?;
    let mut passport = directory.passport;
    if let Some(passport) = &mut passport {
        let training = &mut passport.training;
        (training.method, training.width) = (Method::Prefix, rows.width());
        training.settings.insert(record::COMPILED_FROM.to_owned(), passport.tensors_digest.clone().into());
    }
    Ok(PromptDirectory { rows, adapter, passport })
}

/// A prompt imported from another tool.
#[derive(Debug)]
pub struct ImportedPrompt {
    /// The JSON output.
    pub line: Imported,
    /// What it holds: a soft prompt or a KV prefix.
    pub method: Method,
    /// Whether it is used like a prompt from PEFT, with the model and the task given on each call.
    pub is_as_from_peft: bool,
}

/// Converts a prompt from another tool to a prompt directory. With a model in `stated`, checks the prompt and adds a
/// passport with the task in `stated`. `number`: the index of the task in a multitask prompt.
///
/// # Errors
/// If it can't be read, or does not fit the model.
pub fn import_prompt(
    path: &Path,
    number: Option<usize>,
    stated: &TaskFile,
    output: &OutputDir,
    resources: &Resources,
    observer: &dyn Observer,
) -> Result<ImportedPrompt> {
    let foreign = read_foreign(path, number)?;
    let model =
        stated.model.as_deref().map(|name| Model::open_with(name, resources, observer)).transpose()?;
    for note in &foreign.notes {
        observer.warn(&format!("{}: {note}", path.display()));
    }
    let Foreign { rows, format, .. } = &foreign;
    let (virtual_tokens, width, format) = (rows.n_virtual(), rows.width(), format.clone());
    let is_for_a_decoder = foreign.adapter.task != Some(PeftTask::Seq2SeqLm);
    let directory = match &model {
        Some(model) => on_model(stated, foreign, model, observer)?,
        None => alone(stated, foreign, observer)?,
    };
    let method = directory.method();
    directory.write(&output.out, output.overwrite)?;
    let (out, passport) = (output.out.display().to_string(), model.is_some());
    let line = Imported { out, format, virtual_tokens, width, passport };
    Ok(ImportedPrompt { line, method, is_as_from_peft: !passport && is_for_a_decoder })
}

/// A prompt without any information but its rows.
fn alone(stated: &TaskFile, foreign: Foreign, observer: &dyn Observer) -> Result<PromptDirectory> {
    if stated.task != TaskTable::default() || stated.prompt.placement.is_some() {
        return Err(UserError::new(
            "a template, labels or a placement are kept in a passport, which belongs to a model",
        )
        .hint("give the model with --model, or leave them out and give them when the prompt is used")
        .into());
    }
    if foreign.adapter.task == Some(PeftTask::Seq2SeqLm) {
        observer.warn(&format!(
            "the prompt was made for an encoder-decoder model{}, which Foreword does not run: its rows are kept, but \
             they mean nothing to a decoder",
            foreign.adapter.base_model.as_ref().map_or(String::new(), |name| format!(", {name}"))
        ));
    }
    Ok(PromptDirectory { rows: foreign.rows, adapter: Some(foreign.adapter), passport: None })
}

/// A prompt for a model, with the task from the flags.
fn on_model(
    stated: &TaskFile,
    foreign: Foreign,
    model: &Model,
    observer: &dyn Observer,
) -> Result<PromptDirectory> {
    if foreign.adapter.task == Some(PeftTask::Seq2SeqLm) {
        let made_for = foreign.adapter.base_model.as_deref().unwrap_or("one that it does not name");
        let name = model.backbone.name();
        return Err(UserError::new(format!(
            "the prompt was made for an encoder-decoder model, {made_for}, and {name} is a decoder"
        ))
        .hint("without --model its rows are kept as they are, for other tools")
        .into());
    }
    let directory = PromptDirectory { rows: foreign.rows, adapter: Some(foreign.adapter), passport: None };
    record::check_fit(&directory, model)?;
    let labels = stated.task.labels.as_ref();
    let kind = if labels.is_some() { TaskKind::Classification } else { TaskKind::Generation };
    let format = PromptFormat::find(&stated.task, None, kind, None)?;
    let placement = stated.prompt.placement();
    let chat = format.chat(model, placement, observer)?;
    let strings = LabelFormat::of(&format, chat.as_ref(), &stated.task);
    let labels = labels.map(|labels| strings.stated(labels, observer));
    let method = directory.method();
    let (text_field, recorded, stated) = (None, None, &stated.task);
    let parts = TaskParts { format, chat, labels, text_field, method, placement, stated, recorded };
    let task = parts.build(model, &())?;
    observer.tell("template", in_words(&task.template, task.chat.as_ref()));
    if kind == TaskKind::Generation {
        observer.tell("task", "to write texts; --labels names labels to choose from");
    }
    Ok(record::imported(model, &task, directory.rows, &foreign.format)?)
}

/// A prompt and other prompts for the same model.
#[derive(Debug)]
pub struct Neighbours {
    /// The name of the model.
    pub model: String,
    /// The others, nearest first.
    pub near: Vec<(PathBuf, PromptDirectory, Similarity)>,
    /// Those that can't be compared, with the reason.
    pub not_comparable: Vec<(PathBuf, String)>,
}

/// Compares the prompt in a directory with those in others; skips the prompt itself.
///
/// # Errors
/// If its model is not recorded.
pub fn neighbours(prompt: &Path, others: &[PathBuf]) -> Result<Neighbours> {
    let one = read(prompt)?;
    let Some(passport) = &one.passport else {
        return Err(UserError::new(format!(
            "the prompt {} has no foreword.json, so nothing says which model it was made for",
            prompt.display()
        ))
        .hint("only prompts that Foreword trained can be compared")
        .into());
    };
    let (mut near, mut not_comparable) = (Vec::new(), Vec::new());
    for path in others.iter().filter(|path| !is_same(path, prompt)) {
        match compared(&one, path) {
            Ok((other, found)) => near.push((path.clone(), other, found)),
            Err(why) => not_comparable.push((path.clone(), why)),
        }
    }
    // On a tie, the earlier one stays first.
    near.sort_by(|a, b| b.2.pooled.total_cmp(&a.2.pooled));
    Ok(Neighbours { model: passport.base_model.name.clone(), near, not_comparable })
}

/// The similarity of another prompt, or why it can't be computed.
fn compared(one: &PromptDirectory, path: &Path) -> Result<(PromptDirectory, Similarity), String> {
    let other = read(path).map_err(|error| error.to_string())?;
    let (Some(passport), Some(of)) = (&one.passport, &other.passport) else {
        return Err("it has no foreword.json, so nothing says which model it was made for".to_owned());
    };
    same_model(&passport.base_model, &of.base_model)?;
    if one.method() != other.method() {
        return Err(format!("it is a {}, and the other is not", learned(other.method())));
    }
    let found = similarity(&one.rows, &other.rows).ok_or("its rows have another width")?;
    Ok((other, found))
}
