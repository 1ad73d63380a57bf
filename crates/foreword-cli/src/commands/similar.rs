//! `foreword similar`: the nearest of several tuned prompts.

use std::path::Path;

use foreword::Result;
use foreword::events::{Incomparable, SimilarLine, Similars};
use foreword::exchange::{Neighbours, neighbours};

use crate::args::SimilarArgs;
use crate::command_line::quoted_path;
use crate::exit::Exit;
use crate::printer::{Printer, Table};

/// Runs the verb.
pub(crate) fn run(args: &SimilarArgs, printer: &Printer) -> Result<Exit> {
    let Neighbours { model, near, not_comparable } = neighbours(&args.prompt, &args.others)?;
    let lines = near.iter().map(|(path, other, found)| SimilarLine::of(path, other, *found));
    printer.json(&Similars {
        prompt: args.prompt.display().to_string(),
        similar: lines.collect(),
        not_comparable: not_comparable.iter().map(|(path, why)| Incomparable::of(path, why)).collect(),
    })?;
    printer.answer(&format!("nearest to {}, a prompt of {}:", args.prompt.display(), model))?;
    let mut table = Table::new(["", "means", "best matches", "virtual tokens", "  trained for"]);
    for (path, other, found) in &near {
        table.row([
            path.display().to_string(),
            format!("{:.3}", found.pooled),
            format!("{:.3}", found.matched),
            other.rows.n_virtual().to_string(),
            other
                .passport
                .as_ref()
                .map_or_else(String::new, |passport| format!("{:?}", passport.task.template)),
        ]);
    }
    if near.is_empty() {
        printer.answer("none of them can be compared")?;
    } else {
        printer.answer(&table.to_string())?;
        printer.answer(
            "means: cosine of the mean rows (SPoT, Vu et al. 2022). best matches: mean cosine of each row and its nearest.\n\
             Prompts that began as the same text are near for that reason too.",
        )?;
    }
    for (path, why) in &not_comparable {
        printer.answer(&format!("not comparable: {}: {why}", path.display()))?;
    }
    if let Some((path, ..)) = near.first() {
        let init = format!("from:{}", path.display());
        printer.say(&format!(
            "to begin with the nearest: foreword train … --init {}",
            quoted_path(Path::new(&init))
        ));
    }
    Ok(Exit::Done)
}
