//! Suggests a verb where that of another tool was given.

use clap::error::{ContextKind, ContextValue};

/// Verbs of other tools, with ours.
const MEANT: [(&str, &str); 22] = [
    ("predict", "classify"),
    ("label", "classify"),
    ("infer", "classify"),
    ("tag", "classify"),
    ("fit", "train"),
    ("tune", "train"),
    ("finetune", "train"),
    ("fine-tune", "train"),
    ("learn", "train"),
    ("evaluate", "eval"),
    ("score", "eval"),
    ("test", "eval"),
    ("write", "generate"),
    ("complete", "generate"),
    ("chat", "generate"),
    ("run", "generate"),
    ("show", "inspect"),
    ("info", "inspect"),
    ("convert", "import"),
    ("list", "models"),
    ("demo", "quickstart"),
    ("init", "quickstart"),
];

/// Suggests our verb where that of another tool was given.
pub(super) fn with_meant_verb(mut error: clap::Error) -> clap::Error {
    let given = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(given)) => given.to_lowercase(),
        _ => return error,
    };
    if let Some((_, meant)) = MEANT.iter().find(|(other, _)| *other == given) {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![(*meant).to_owned()]));
    }
    error
}
