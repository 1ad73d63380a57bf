//! `foreword explain`: the mathematics of prompt tuning on one text, with a prompt's real values.

mod page;
mod story;
mod terminal;

use std::path::{Path, PathBuf};

use anyhow::Result;
use foreword::explain::{default_rate, walk};
use foreword::format::write_whole;
use foreword::init::Sources;
use foreword::settings::{Init, Method};
use foreword::{PromptDirectory, SoftPrompt, Verbalizer};

use crate::args::{ExplainArgs, SourceArgs};
use crate::commands::quickstart;
use crate::exit::{Exit, Given};
use crate::printer::Printer;
use crate::resolve::begin::label_words;
use crate::resolve::prompt::{Asked, AskedFields, Ready, Verb};
use crate::resolve::texts::{self, Shown};
use crate::wire::Explained;
use crate::words::either;

use story::{Began, Story};

/// Runs the verb.
pub(crate) fn run(args: &ExplainArgs, printer: &mut Printer) -> Result<Exit> {
    let prompt = args.prompt.clone().unwrap_or_else(|| quickstart::OUT.into());
    if args.prompt.is_none() && !prompt.exists() {
        return Err(Given::wrong(format!("there is no prompt to explain: {} is not here", prompt.display()))
            .hint("`foreword quickstart` makes it; --prompt DIR takes another")
            .into());
    }
    let source = SourceArgs { prompt, model: args.model.clone() };
    let html = args.html.as_deref().map(|path| place(path, &source)).transpose()?;
    let asked = Asked {
        verb: Verb::Classify,
        source: &source,
        ensemble: false,
        task: &args.task,
        labels: Some(&args.labels),
        fields: AskedFields::default(),
        objective: None,
        about: None,
        label_names: None,
        machine: &args.machine,
    };
    let texts = args.text.as_slice();
    texts::refuse_files(texts)?;
    let mut ready = asked.resolve(None, printer)?;
    let Some(soft) = ready.prompts.first().cloned() else {
        return Err(Given::wrong("the bare model has no prompt to explain").hint("give --prompt DIR").into());
    };
    if ready.task.method == Method::Prefix {
        return Err(Given::wrong("the prompt is a KV prefix, which has no rows to walk through")
            .hint("explain a soft prompt (foreword train --method prompt)")
            .into());
    }
    let text = args.text.clone().unwrap_or_else(|| quickstart::TEXT.to_owned());
    let data = texts::dataset(vec![text], &args.field.field, &mut ready, printer)?;
    let text = Shown::of(&ready, &data, printer)?.whole(&data, 0)?;
    let examples = ready.examples(&data, None, printer)?;
    let to = ready.task.classification()?;
    let (began, start) = init(&ready, &to.verbalizer, &source)?;
    let truth = truth(args, &to.verbalizer)?;
    let rate = args.learning_rate.unwrap_or_else(|| default_rate(&ready.model));
    let walkthrough = walk(&ready.model, &ready.task, &examples, truth, (&soft, &start), rate)?;

    let answer = Explained::of(&text, &to.verbalizer, truth, &soft, &began.init, &walkthrough);
    printer.json(&answer)?;
    let story = Story {
        ready: &ready,
        to,
        text: &text,
        truth,
        began: &began,
        soft: &soft,
        usual_rate: args.learning_rate.is_none(),
        told: &walkthrough,
    };
    for step in terminal::steps(&story) {
        printer.answer(&step)?;
    }
    if let (Some(path), Some(said)) = (html, &args.html) {
        write_whole(&path, page::html(&story)?.as_bytes())?;
        printer.say(&format!("the page is in {}", said.display()));
    }
    Ok(Exit::Done)
}

/// Where the page goes: a file that can be written there, checked before any work is done. One that is there is replaced,
/// through a link too, but not one of the prompt's or the model's.
fn place(path: &Path, source: &SourceArgs) -> Result<PathBuf> {
    let unwritable = |why: &str| Given::wrong(format!("cannot write --html {}: {why}", path.display()));
    let path = if path.exists() {
        path.canonicalize().map_err(|error| unwritable(&error.to_string()))?
    } else {
        path.to_owned()
    };
    if path.exists() && !path.is_file() {
        return Err(unwritable("it is there and is not a file").into());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if path.file_name().is_none() || !folder.is_dir() {
        return Err(unwritable(&format!("{} is not a directory", folder.display())).into());
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let inputs = [Some(source.prompt.as_path()), source.model.as_deref().map(Path::new)];
    if let Some(input) = inputs.into_iter().flatten().find(|input| real(input) == real(folder)) {
        return Err(unwritable(&format!("{} is read for it", input.display()))
            .hint("give another folder")
            .into());
    }
    tempfile::tempfile_in(folder)
        .map_err(|error| unwritable(&format!("{} takes no files ({error})", folder.display())))?;
    Ok(path)
}

/// The label that is taken for the true one.
fn truth(args: &ExplainArgs, labels: &Verbalizer) -> Result<usize> {
    let Some(name) = &args.label else { return Ok(labels.n() - 1) };
    labels.index(name).ok_or_else(|| {
        Given::wrong(format!("{name:?} is none of the prompt's labels"))
            .hint(format!("they are {}", either(labels.names())))
            .into()
    })
}

/// What the prompt began as, or a sentence of ours where that is not recorded or is gone.
fn init(ready: &Ready, labels: &Verbalizer, source: &SourceArgs) -> Result<(Began, SoftPrompt)> {
    let recorded = PromptDirectory::read(&source.prompt)?.passport.map(|passport| passport.training);
    let seed = recorded.as_ref().map_or(0, |training| training.seed);
    let init = recorded
        .and_then(|training| training.init.parse().ok())
        .filter(|init| !matches!(init, Init::From(_) | Init::Demonstrations));
    let is_recorded = init.is_some();
    let init =
        init.unwrap_or_else(|| Init::Text(format!("Classify the text as {}.", either(&label_words(labels)))));
    let sources = Sources::of(&ready.model, Some(labels));
    let start = sources.soft_prompt(&init, ready.n_virtual(), seed)?;
    Ok((Began { init, is_recorded }, start))
}
