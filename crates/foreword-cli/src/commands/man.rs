//! `foreword man`: man pages, generated from the same definitions as the help.

use clap_mangen::Man;
use foreword::Result;

use crate::args::{self, ManArgs};
use crate::exit::Exit;
use crate::printer::Printer;
use foreword::display::either;
use foreword::{Error, UserError};

/// Runs the verb.
pub(crate) fn run(args: &ManArgs, printer: &Printer) -> Result<Exit> {
    let mut command = args::build_command();
    // Sets the full names of the verbs.
    command.build();
    let page = match &args.verb {
        None => command,
        Some(verb) => verb_of(&command, verb)?,
    };
    let mut text = Vec::new();
    let source = format!("{} {}", args::NAME, env!("CARGO_PKG_VERSION"));
    Man::new(page)
        .source(source)
        .render(&mut text)
        .map_err(|error| Error::other(error).context("cannot set the manual page"))?;
    printer.answer(String::from_utf8_lossy(&text).trim_end())?;
    Ok(Exit::Done)
}

fn verb_of(command: &clap::Command, name: &str) -> Result<clap::Command> {
    let found = command.find_subcommand(name).cloned();
    found.ok_or_else(|| {
        let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        UserError::new(format!("there is no verb {name:?}"))
            .hint(format!("the verbs are {}", either(&verbs).replace(" or ", " and ")))
            .into()
    })
}
