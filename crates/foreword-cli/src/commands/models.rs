//! `foreword models`: lists the available models and whether each is supported.

use foreword::Result;
use foreword::display::{bytes, in_a_line, rough};
use foreword::models::{cache_dir, models};

use crate::args::ModelsArgs;
use crate::exit::Exit;
use crate::printer::{Printer, Table};

/// Runs the verb.
pub(crate) fn run(args: &ModelsArgs, printer: &Printer) -> Result<Exit> {
    let models = models(args.dir.as_deref())?;
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
        .filter_map(|model| {
            let hint =
                model.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {}", in_a_line(hint)));
            Some(format!("{}: {}{hint}", model.model, in_a_line(model.why.as_ref()?)))
        })
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
    printer.say(&match cache_dir() {
        Some(cache) => format!("the Hugging Face cache is {}", cache.display()),
        None => "there is no Hugging Face cache: neither HF_HOME nor HOME is set".to_owned(),
    });
    Ok(Exit::Done)
}
