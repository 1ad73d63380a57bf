//! `foreword similar`: the nearest of several tuned prompts.

use std::path::Path;

use foreword::Result;
use foreword::record::same_model;
use foreword::similarity::{Similarity, similarity};
use foreword::{Passport, PromptDirectory};

use crate::args::SimilarArgs;
use crate::command_line::quoted_path;
use crate::exit::Exit;
use crate::printer::{Printer, Table};
use foreword::UserError;
use foreword::display::learned;
use foreword::events::{Incomparable, SimilarLine, Similars};
use foreword::prompt::read;

/// Runs the verb.
pub(crate) fn run(args: &SimilarArgs, printer: &Printer) -> Result<Exit> {
    let one = read(&args.prompt)?;
    let Some(passport) = &one.passport else {
        return Err(UserError::new(format!(
            "the prompt {} has no foreword.json, so nothing says which model it was made for",
            args.prompt.display()
        ))
        .hint("only prompts that Foreword trained can be compared")
        .into());
    };
    let (mut near, mut not) = (Vec::new(), Vec::new());
    for path in args.others.iter().filter(|path| !is_same(path, &args.prompt)) {
        match beside((&one, passport), path) {
            Ok((other, found)) => near.push((path.as_path(), other, found)),
            Err(why) => not.push((path.as_path(), why)),
        }
    }
    // The earlier of equals stays first.
    near.sort_by(|a, b| b.2.pooled.total_cmp(&a.2.pooled));

    let lines = near.iter().map(|(path, other, found)| SimilarLine::of(path, other, *found));
    printer.json(&Similars {
        prompt: args.prompt.display().to_string(),
        similar: lines.collect(),
        not_comparable: not.iter().map(|(path, why)| Incomparable::of(path, why)).collect(),
    })?;
    printer.answer(&format!(
        "nearest to {}, a prompt of {}:",
        args.prompt.display(),
        passport.base_model.name
    ))?;
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
    for (path, why) in &not {
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

/// How near another prompt is, or why that can't be said.
fn beside(
    (one, passport): (&PromptDirectory, &Passport),
    path: &Path,
) -> Result<(PromptDirectory, Similarity), String> {
    let other = read(path).map_err(|error| error.to_string())?;
    let Some(of) = &other.passport else {
        return Err("it has no foreword.json, so nothing says which model it was made for".to_owned());
    };
    same_model(&passport.base_model, &of.base_model)?;
    if one.method() != other.method() {
        return Err(format!("it is a {}, and the other is not", learned(other.method())));
    }
    let found = similarity(&one.rows, &other.rows).ok_or("its rows have another width")?;
    Ok((other, found))
}

fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}
