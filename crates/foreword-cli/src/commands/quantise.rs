//! `foreword quantise`: a model as a GGUF file.

use std::path::Path;

use anyhow::{Context as _, Result};
use foreword::BackboneError;
use foreword::backbone::write_gguf;
use foreword::format::write_whole_by;

use crate::args::QuantiseArgs;
use crate::exit::{Exit, Given};
use crate::interrupt;
use crate::printer::Printer;
use crate::resolve::named;
use crate::resolve::place::check_file;
use crate::wire::Quantised;
use crate::words::{bytes, count};

/// Runs the verb.
pub(crate) fn run(args: &QuantiseArgs, printer: &mut Printer) -> Result<Exit> {
    if !named::is_gguf(&args.file) {
        return Err(Given::wrong(format!("{} does not end in .gguf", args.file.display()))
            .hint("give the file a name that ends so: that is how it is known as a model")
            .into());
    }
    check_file(&args.file, args.force)?;
    let files = named::files(&args.source, printer)?;
    // The file that is written has the tokenizer whole: what is doubtful in it can't be seen there any more.
    for notice in &files.notices {
        printer.warn(&notice.to_string());
    }
    let real = |path: &Path| path.canonicalize().ok();
    if real(&args.file).is_some_and(|out| real(Path::new(&args.source)) == Some(out)) {
        return Err(Given::wrong("OUT is the model itself").hint("give another file").into());
    }
    interrupt::watch().context("cannot watch for Ctrl-C")?;
    printer.begin_bar(100, "writing");
    let written = write_whole_by(&args.file, |out| -> Result<_> {
        let written = write_gguf(&files, args.to, out, |done| {
            printer.move_bar((done * 100.0) as u64, || format!("% of {}", args.file.display()));
            !interrupt::asked()
        });
        written.with_context(|| format!("the model {}", args.source))
    });
    printer.end_bar();
    let written = match written {
        Err(error) if error.chain().any(|e| matches!(e.downcast_ref(), Some(BackboneError::Stopped))) => {
            printer.say("stopped; nothing was written");
            return Ok(Exit::Interrupted);
        }
        other => other?,
    };
    interrupt::unwatch();
    if written.lacks_tokenizer {
        printer.warn(
            "GGUF has no words for this tokenizer: it is in the file whole, which Foreword reads, but llama.cpp will not find one",
        );
    }
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
    Ok(Exit::Done)
}

fn tensors_in_words(n: usize) -> String {
    if n == 1 { "1 tensor".to_owned() } else { format!("{} tensors", count(n as u64)) }
}
