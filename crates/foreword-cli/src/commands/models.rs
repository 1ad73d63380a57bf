//! `foreword models`: which models are here, and which of them can be used.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use foreword::ModelInfo;
use foreword::backbone::files::{CONFIG, WEIGHTS};
use foreword_hub::{Cached, cache_dir, cached};

use crate::args::ModelsArgs;
use crate::exit::{Exit, Given};
use crate::printer::{Printer, Table};
use crate::resolve::named::{bundled, is_gguf};
use crate::wire::ModelLine;
use crate::words::{bytes, in_a_line, rough};

/// Folders below the one that is given.
const DEEPEST: usize = 6;

/// Runs the verb.
pub(crate) fn run(args: &ModelsArgs, printer: &mut Printer) -> Result<Exit> {
    let files = bundled();
    let mut models = vec![ModelLine::of(files.name.clone(), "bundled", (None, None), ModelInfo::of(&files))];
    let cache = cache_dir();
    if let Some(cache) = &cache {
        models.extend(cached(cache).iter().map(of_cache));
    }
    if let Some(dir) = &args.dir {
        if !dir.is_dir() {
            return Err(Given::wrong(format!("{} is not a directory", dir.display()))
                .hint("give a directory below which models lie, or none")
                .into());
        }
        models.extend(below(dir).iter().map(|path| {
            let (place, survey) = if path.is_dir() {
                ("directory", ModelInfo::directory(path))
            } else {
                ("gguf", ModelInfo::gguf(path))
            };
            ModelLine::of(path.display().to_string(), place, (Some(path), None), survey)
        }));
    }
    let mut table = Table::new(["", "family", "parameters", "size", "supported"]);
    for model in &models {
        printer.json(model)?;
        table.row([
            model.model.clone(),
            model.family.as_deref().map_or_else(|| "?".to_owned(), in_a_line),
            model.parameters.map_or_else(|| "?".to_owned(), rough),
            bytes(model.bytes),
            if model.supported { "yes" } else { "no" }.to_owned(),
        ]);
    }
    printer.answer(&table.to_string())?;
    let refused: Vec<String> = models
        .iter()
        .filter_map(|model| Some(format!("{}: {}", model.model, in_a_line(model.why.as_ref()?))))
        .collect();
    if !refused.is_empty() {
        printer.answer(&format!("\nNot supported:\n{}", refused.join("\n")))?;
    }
    let notes: Vec<String> = models
        .iter()
        .flat_map(|model| model.notes.iter().map(|note| format!("{}: {}", model.model, in_a_line(note))))
        .collect();
    if !notes.is_empty() {
        printer.answer(&format!("\nWorth knowing:\n{}", notes.join("\n")))?;
    }
    printer.say(
        "checked: the configuration, the tokenizer, and the name, shape and format of every tensor; the weights' numbers were \
         not read",
    );
    printer.say(&match cache {
        Some(cache) => format!("the Hugging Face cache is {}", cache.display()),
        None => "there is no Hugging Face cache: neither HF_HOME nor HOME is set".to_owned(),
    });
    Ok(Exit::Done)
}

/// A model of the hub, by the name that finds this commit of it.
fn of_cache(cached: &Cached) -> ModelLine {
    let Cached { repository, revision, commit, path } = cached;
    let name = match revision.as_deref() {
        Some("main") => repository.clone(),
        Some(revision) => format!("{repository}@{revision}"),
        None => format!("{repository}@{commit}"),
    };
    ModelLine::of(name, "cache", (Some(path), Some(commit.clone())), ModelInfo::directory(path))
}

/// The directories with a model and the GGUF files at or below `dir`, in their order. Hidden ones and links are left out.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut models = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if folder.join(CONFIG).is_file() || folder.join(WEIGHTS).is_file() {
            models.push(folder.clone());
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let entries: Vec<fs::DirEntry> = entries.filter(|entry| !is_hidden(entry)).collect();
        let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
        let files = entries.iter().filter(|entry| is_file(entry)).map(fs::DirEntry::path);
        models.extend(files.filter(|path| is_gguf(path)));
        let inner = entries.iter().filter(|entry| depth < DEEPEST && is_folder(entry));
        folders.extend(inner.map(|entry| (entry.path(), depth + 1)));
    }
    models.sort();
    models
}
