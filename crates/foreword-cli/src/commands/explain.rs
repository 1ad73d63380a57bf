//! `foreword explain`: the mathematics of prompt tuning on one text, with the real values of a prompt.

mod page;
mod story;
mod terminal;

use std::path::{Path, PathBuf};

use foreword::Result;
use foreword::explain::{default_rate, walk};
use foreword::format::write_whole;
use foreword::init::Sources;
use foreword::plan::output::real;
use foreword::settings::{Init, Method};
use foreword::{LoadedPrompt, OpenRequest, PromptDirectory, Purpose, SoftPrompt, Verbalizer};

use crate::args::{ExplainArgs, SourceArgs};
use crate::commands::quickstart;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::texts::refuse_files;
use foreword::UserError;
use foreword::display::either;
use foreword::events::explained;
use foreword::plan::candidates::label_words;
use foreword::prompt::texts::{ExampleText, dataset};

use story::{Began, Story};

/// Runs the verb.
pub(crate) fn run(args: &ExplainArgs, printer: &Printer) -> Result<Exit> {
    let prompt = args.prompt.clone().unwrap_or_else(|| quickstart::OUT.into());
    if args.prompt.is_none() && !prompt.exists() {
        return Err(UserError::new(format!(
            "there is no prompt to explain: {} is not here",
            prompt.display()
        ))
        .hint("`foreword quickstart` makes it; --prompt DIR takes another")
        .into());
    }
    args.machine.start_threads()?;
    let source = SourceArgs { prompt, model: args.model.clone() };
    let html = args.html.as_deref().map(|path| place(path, &source)).transpose()?;
    refuse_files(args.text.as_slice())?;
    let mut stated = source.stated();
    args.task.state(&mut stated);
    args.labels.state(&mut stated);
    let resources = args.machine.resources();
    let request = OpenRequest::new(&source.prompt, &stated, &resources);
    let mut ready = OpenRequest { purpose: Purpose::Classify, ..request }.open(None, printer)?;
    let soft = soft_prompt(&ready)?;
    let text = args.text.clone().unwrap_or_else(|| quickstart::TEXT.to_owned());
    let data = dataset(vec![text], &args.field.pairs(), &mut ready, printer)?;
    let text = ExampleText::of(&ready, &data, printer)?.whole(&data, 0)?;
    let examples = ready.examples(&data, None, printer)?;
    let to = ready.task.classification()?;
    let (began, start) = init(&ready, &to.verbalizer, &source)?;
    let truth = truth(args, &to.verbalizer)?;
    let rate = args.learning_rate.unwrap_or_else(|| default_rate(&*ready.model));
    let walkthrough = walk(&*ready.model, &ready.task, &examples, truth, (&soft, &start), rate)?;

    let answer = explained(&text, &to.verbalizer, truth, &soft, &began.init, &walkthrough);
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

/// The rows to explain.
fn soft_prompt(prompt: &LoadedPrompt) -> Result<SoftPrompt> {
    let Some(soft) = prompt.prompts.first() else {
        return Err(UserError::new("the bare model has no prompt to explain")
            .hint("give --prompt DIR")
            .into());
    };
    if prompt.task.method == Method::Prefix {
        return Err(UserError::new("the prompt is a KV prefix, which has no rows to walk through")
            .hint("explain a soft prompt (foreword train --method prompt)")
            .into());
    }
    Ok(soft.clone())
}

/// The output path of the page, checked before any work: it must be writable. An existing file is replaced, also through a
/// link, unless it belongs to the prompt or the model.
fn place(path: &Path, source: &SourceArgs) -> Result<PathBuf> {
    let unwritable = |why: &str| UserError::new(format!("cannot write --html {}: {why}", path.display()));
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
    let inputs = [Some(source.prompt.as_path()), source.model.as_deref().map(Path::new)];
    if let Some(input) = inputs.into_iter().flatten().find(|input| real(input) == real(folder)) {
        return Err(unwritable(&format!("{} is read for it", input.display()))
            .hint("give another folder")
            .into());
    }
    tempfile::tempfile_in(folder)
        .map_err(|error| unwritable(&format!("{} is not writable ({error})", folder.display())))?;
    Ok(path)
}

/// The true label: as set, or the default.
fn truth(args: &ExplainArgs, labels: &Verbalizer) -> Result<usize> {
    let Some(name) = &args.label else { return Ok(labels.n() - 1) };
    labels.index(name).ok_or_else(|| {
        UserError::new(format!("{name:?} is none of the prompt's labels"))
            .hint(format!("they are {}", either(labels.names())))
            .into()
    })
}

/// The init of the prompt, or a sentence of ours if it is not recorded or no longer available.
fn init(ready: &LoadedPrompt, labels: &Verbalizer, source: &SourceArgs) -> Result<(Began, SoftPrompt)> {
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
