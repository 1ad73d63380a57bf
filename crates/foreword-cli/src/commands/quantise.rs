//! `foreword quantise`: writes a model as a GGUF file.

use std::path::Path;

use foreword::Result;
use foreword::backbone::{GgufSummary, write_gguf};
use foreword::format::write_whole_by;
use foreword::{BackboneError, Cancel, Error, source};

use crate::args::QuantiseArgs;
use crate::exit::Exit;
use crate::interrupt;
use crate::printer::Printer;
use foreword::UserError;
use foreword::display::{bytes, count};
use foreword::events::Quantised;
use foreword::plan::output::check_file;

/// Runs the verb.
pub(crate) fn run(args: &QuantiseArgs, printer: &Printer) -> Result<Exit> {
    if !source::is_gguf(&args.file) {
        return Err(UserError::new(format!("{} does not end in .gguf", args.file.display()))
            .hint("give the file a name that ends so: that is how it is known as a model")
            .into());
    }
    check_file(&args.file, args.force)?;
    let files = source::files(&args.source, printer)?;
    let files = source::ignoring(files, &args.source, &args.ignore_config.keys)?;
    // The written file includes the tokenizer; problems in it can't be seen there any more.
    for notice in &files.notices {
        printer.warn(&notice.to_string());
    }
    let real = |path: &Path| path.canonicalize().ok();
    if real(&args.file).is_some_and(|out| real(Path::new(&args.source)) == Some(out)) {
        return Err(UserError::new("OUT is the model itself").hint("give another file").into());
    }
    let cancel = Cancel::default();
    interrupt::watch(cancel.clone(), "stopping")
        .map_err(|error| Error::other(error).context("cannot listen for Ctrl-C"))?;
    printer.begin_bar(100, "writing");
    let written = write_whole_by(&args.file, |out| -> Result<_> {
        let written = write_gguf(&files, args.to, out, |done| {
            printer.move_bar((done * 100.0) as u64, || format!("% of {}", args.file.display()));
            !cancel.is_cancelled()
        });
        written.map_err(|error| Error::from(error).context(format!("the model {}", args.source)))
    });
    printer.end_bar();
    let written = match written {
        Err(error) if matches!(error.find(), Some(BackboneError::Stopped)) => {
            printer.say("stopped; nothing was written");
            return Ok(Exit::Interrupted);
        }
        other => other?,
    };
    interrupt::unwatch();
    if let Some(notice) = &written.notice {
        printer.warn(&notice.to_string());
    }
    if written.lacks_tokenizer {
        printer.warn(
            "GGUF has no words for this tokenizer: it is in the file whole, which Foreword reads, but llama.cpp will not find one",
        );
    }
    show(args, &written, printer)?;
    Ok(Exit::Done)
}

/// Prints the result.
fn show(args: &QuantiseArgs, written: &GgufSummary, printer: &Printer) -> Result<()> {
    printer.json(&Quantised {
        out: args.file.display().to_string(),
        to: args.to.as_str(),
        bytes: written.bytes,
        from_bytes: written.source_bytes,
        numbers: written.formats.iter().map(|&(dtype, _, numbers)| (dtype.name(), numbers)).collect(),
        other_format: written.n_fallback,
    })?;
    let (before, after) = (bytes(written.source_bytes), bytes(written.bytes));
    printer.answer(&format!("{}: {after}, of {before} of weights", args.file.display()))?;
    for (dtype, tensors, numbers) in &written.formats {
        printer.answer(&format!(
            "  {:<5} {} numbers in {}",
            dtype.name(),
            count(*numbers),
            tensors_in_words(*tensors)
        ))?;
    }
    if written.n_fallback > 0 {
        printer.say(&format!(
            "{} could not be {}: their rows are no whole blocks, so they take the next larger format.",
            tensors_in_words(written.n_fallback),
            args.to.as_str()
        ));
    }
    Ok(())
}

fn tensors_in_words(n: usize) -> String {
    if n == 1 { "1 tensor".to_owned() } else { format!("{} tensors", count(n as u64)) }
}
