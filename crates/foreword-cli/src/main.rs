//! The `foreword` command. To follow a run, start at `commands/train.rs`.

mod args;
mod commands;

mod command_line;
mod exit;
mod interrupt;
mod memory;
mod printer;
mod report;
mod run;
mod table_out;
mod texts;

use std::process::ExitCode;

use foreword::Result;

use crate::args::{LowArgs, Verb};
use crate::exit::Exit;
use crate::printer::Printer;

/// This allocator keeps freed pages. That alone took one PyTorch loop from 593 to 5,500 tokens/s.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::keep_freed_pages();
    let args = match args::parse() {
        Ok(args) => args,
        Err(error) => {
            // If the stream is closed, there is nowhere left to report it.
            drop(error.print());
            return if error.use_stderr() { Exit::UserError } else { Exit::Done }.into();
        }
    };
    let output = args.verb.output();
    let printer = Printer::new(output);
    exit::on_panic(Printer::failure, Printer::bug);
    match run(&args, &printer) {
        Ok(exit) => exit.into(),
        Err(error) => {
            printer.error(&error.to_string(), error.hint().as_deref());
            Exit::from(error.kind()).into()
        }
    }
}

fn run(args: &LowArgs, printer: &Printer) -> Result<Exit> {
    match &args.verb {
        Verb::Train(args) => commands::train::run(args, printer),
        Verb::Eval(args) => commands::eval::run(args, printer),
        Verb::Compare(args) => commands::compare::run(args, printer),
        Verb::Classify(args) => commands::classify::run(args, printer),
        Verb::Generate(args) => commands::generate::run(args, printer),
        Verb::Explain(args) => commands::explain::run(args, printer),
        Verb::Compile(args) => commands::compile::run(args, printer),
        Verb::Import(args) => commands::import::run(args, printer),
        Verb::Export(args) => commands::export::run(args, printer),
        Verb::Inspect(args) => commands::inspect::run(args, printer),
        Verb::Quantise(args) => commands::quantise::run(args, printer),
        Verb::Similar(args) => commands::similar::run(args, printer),
        Verb::Models(args) => commands::models::run(args, printer),
        Verb::Quickstart(args) => commands::quickstart::run(args, printer),
        Verb::Completions(args) => commands::completions::run(args, printer),
        Verb::Man(args) => commands::man::run(args, printer),
    }
}
