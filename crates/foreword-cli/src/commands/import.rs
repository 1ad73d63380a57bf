//! `foreword import`: makes a prompt of another tool into a prompt directory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use foreword::format::PeftTask;
use foreword::format::foreign::{Foreign, import};
use foreword::joint::Joiner;
use foreword::settings::{Joining, TaskKind};
use foreword::train::{DEFAULT_MAX_LENGTH, DEFAULT_OBJECTIVE, DEFAULT_PLACEMENT};
use foreword::{Classification, Generation, Goal, Model, PromptDirectory, Task, Verbalizer, record};

use crate::args::{ImportArgs, PlaceArgs};
use crate::device::Machine;
use crate::exit::{Exit, Given};
use crate::printer::Printer;
use crate::resolve;
use crate::resolve::run::Place;
use crate::resolve::wording::{LabelWording, Wording, in_words};
use crate::wire::Imported;
use crate::words::{count, learned};

/// Runs the verb.
pub(crate) fn run(args: &ImportArgs, printer: &mut Printer) -> Result<Exit> {
    let place = PlaceArgs { out: args.out.clone(), force: args.force, resume: false };
    let place = Place::check(&place, || default_out(&args.path))?;
    let foreign = import(&args.path, args.task_number)?;
    let model = args.model.as_deref().map(|name| resolve::model(name, &args.machine, printer)).transpose()?;
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
        return Err(Given::wrong(
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
    model: &Model<Machine>,
    printer: &Printer,
) -> Result<PromptDirectory> {
    if foreign.adapter.task == Some(PeftTask::Seq2SeqLm) {
        let made_for = foreign.adapter.base_model.as_deref().unwrap_or("one that it does not name");
        let name = &model.backbone.identity().name;
        return Err(Given::wrong(format!(
            "the prompt was made for an encoder-decoder model, {made_for}, and {name} is a decoder"
        ))
        .hint("without --model its rows are kept as they are, for other tools")
        .into());
    }
    let directory = PromptDirectory { rows: foreign.rows, adapter: Some(foreign.adapter), passport: None };
    record::check_fit(&directory, model)?;
    let labels = args.labels.labels.as_ref();
    let kind = if labels.is_some() { TaskKind::Classification } else { TaskKind::Generation };
    let wording = Wording::find((&args.task).into(), None, kind, None)?;
    let placement = args.task.placement.unwrap_or(DEFAULT_PLACEMENT);
    let chat = wording.chat(model, placement, printer)?;
    let joiner = Joiner { tokenizer: &model.tokenizer, chat: chat.as_ref(), joining: Joining::Whole };
    let strings =
        LabelWording { template: &wording.template, chat: joiner.chat, exact: args.labels.exact_labels };
    let goal = match labels {
        Some(labels) => Goal::Classification(Classification {
            verbalizer: Verbalizer::after(&strings.stated(&labels.0, printer), &wording.template, &joiner)?,
            objective: DEFAULT_OBJECTIVE,
        }),
        None => Goal::Generation(Generation::of(model, chat.as_ref())?),
    };
    let kind = goal.kind();
    let task = Task {
        template: wording.template,
        chat,
        joining: Joining::Whole,
        text_field: None,
        goal,
        method: directory.method(),
        placement,
        max_length: args.task.max_length.unwrap_or(DEFAULT_MAX_LENGTH),
    };
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
