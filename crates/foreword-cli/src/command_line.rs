//! This program's command line, quoted for a shell, for suggestions.

use std::path::Path;

/// Quotes an argument for a shell.
pub(crate) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// Quotes a path for a shell.
pub(crate) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// The command to call this program again.
pub(crate) fn program() -> String {
    std::env::args().next().map_or_else(|| "foreword".to_owned(), |program| quoted(&program))
}

/// The command line of this process, with one argument replaced; quoted for a shell.
pub(crate) fn this_command_with(argument: &str, instead: &str) -> String {
    let word = |word: String| if word == argument { instead.to_owned() } else { quoted(&word) };
    std::env::args().map(word).collect::<Vec<_>>().join(" ")
}

/// The command line of this process, without the flags on how to start.
pub(crate) fn this_command() -> String {
    std::env::args()
        .filter(|arg| arg != "--force" && arg != "--resume")
        .map(|arg| quoted(&arg))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_get_back_what_was_meant() {
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
