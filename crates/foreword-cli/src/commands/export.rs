//! `foreword export`: exports a prompt for other tools.

use foreword::Result;
use foreword::format::foreign::to_npy;
use foreword::format::write_whole;
use foreword::settings::Method;
use foreword::{Overwrite, PromptDirectory};

use crate::args::{ExportArgs, ExportFormat};
use crate::exit::Exit;
use crate::printer::Printer;
use foreword::UserError;
use foreword::display::count;
use foreword::events::Exported;
use foreword::plan::output::{check_file, is_same};
use foreword::prompt::read;

/// Runs the verb.
pub(crate) fn run(args: &ExportArgs, printer: &Printer) -> Result<Exit> {
    let directory = read(&args.prompt)?;
    let method = directory.method();
    let PromptDirectory { rows, adapter, passport } = directory;
    let (n_virtual, width) = (rows.n_virtual(), rows.width());
    let to = match args.to {
        ExportFormat::Npy => {
            if method == Method::Prefix {
                printer.warn(
                    "an .npy file does not say that these rows are keys and values, and `import` takes them for a soft prompt's; \
                     --to peft says it",
                );
            }
            check_file(&args.path, args.force)?;
            write_whole(&args.path, &to_npy(&rows))?;
            "npy"
        }
        ExportFormat::Peft => {
            if adapter.is_none() {
                let placement =
                    passport.map_or(String::new(), |passport| passport.task.placement.to_string());
                return Err(UserError::new(format!(
                    "the prompt {} has the placement {placement}, and PEFT puts every prompt at the front",
                    args.prompt.display()
                ))
                .hint("--to npy writes its rows; `foreword train --placement front` makes a prompt for PEFT")
                .into());
            }
            if is_same(&args.path, &args.prompt) {
                return Err(UserError::new(
                    "that is the prompt's own directory, whose passport would be lost",
                )
                .hint("PEFT loads it as it is; give another directory for a copy without the passport")
                .into());
            }
            let overwrite = if args.force { Overwrite::Replace } else { Overwrite::Refuse };
            PromptDirectory { rows, adapter, passport: None }.write(&args.path, overwrite)?;
            "peft"
        }
    };
    let path = args.path.display();
    printer.json(&Exported { path: path.to_string(), to, virtual_tokens: n_virtual, width })?;
    printer.answer(&format!("{path}: {n_virtual} virtual tokens × {} numbers", count(width as u64)))?;
    Ok(Exit::Done)
}
