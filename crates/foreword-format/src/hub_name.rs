//! Names of models on the Hugging Face hub, as requested and recorded.

use std::fmt;

/// `org/name`, optionally with `@revision`, and with the path of a `.gguf` file if the repository has several models:
/// `org/name/file.gguf@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    repository: String,
    file: Option<String>,
    revision: Option<String>,
}

impl HubName {
    /// Parses a name; `None` if it is not one, but for instance a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, Some(revision)),
            None => (text, None),
        };
        let mut parts = path.splitn(3, '/');
        let (owner, name) = (parts.next()?, parts.next()?);
        let file = parts.next();
        let is_known = is_part(owner)
            && is_part(name)
            && file.is_none_or(|file| file.ends_with(GGUF) && is_relative(file))
            && revision.is_none_or(is_relative);
        is_known.then(|| Self {
            repository: format!("{owner}/{name}"),
            file: file.map(str::to_owned),
            revision: revision.map(str::to_owned),
        })
    }

    /// The same repository at another revision; `None` if that is not valid.
    #[must_use]
    pub fn at(self, revision: &str) -> Option<Self> {
        is_relative(revision).then(|| Self { revision: Some(revision.to_owned()), ..self })
    }

    /// `org/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The `.gguf` file in the repository, if there is one in the name.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The branch, tag or commit, if there is one in the name.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        Ok(())
    }
}

const GGUF: &str = ".gguf";

/// Whether it is a valid name of an owner or a repository.
fn is_part(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.len() <= 96
        && part.chars().all(known)
        && part.starts_with(edge)
        && part.ends_with(edge)
        && !part.contains("..")
        && !part.contains("--")
}

/// Whether `path` stays below its root and contains nothing special to a file system or a URL.
fn is_relative(path: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/' | '=' | '#');
    path.len() <= 512
        && path.chars().all(known)
        && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, Option<String>, Option<String>)> {
        let name = HubName::parse(text)?;
        assert_eq!(name.to_string(), text);
        Some((name.repository, name.file, name.revision))
    }

    #[test]
    fn repositories_revisions_and_gguf_files_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        let repository = "Qwen/Qwen2.5-0.5B".to_owned();
        assert_eq!(parts("Qwen/Qwen2.5-0.5B"), Some((repository.clone(), None, None)));
        assert_eq!(parts("Qwen/Qwen2.5-0.5B@refs/pr/3"), Some((repository.clone(), None, some("refs/pr/3"))));
        assert_eq!(
            parts("Qwen/Qwen2.5-0.5B/q4/model-Q4_K_M.gguf@v1.0"),
            Some((repository, some("q4/model-Q4_K_M.gguf"), some("v1.0")))
        );
    }

    #[test]
    fn paths_and_what_could_leave_a_directory_are_no_names() {
        let paths = [
            "model",
            "./model",
            "../model",
            "/models/llama",
            "a/b/c",
            "a/b/",
            "a//b",
            "C:\\models\\a",
            "~/m",
        ];
        let sly = [
            "a/..",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
            "a/b@/x",
            "a/b/../c.gguf",
            "a/b@.x",
            "a/b@x y",
            "a/b@x@y",
        ];
        let not_allowed = ["a/b--c", "-a/b", "a/b.", "ä/b", "a/b?c"];
        for text in paths.iter().chain(&sly).chain(&not_allowed) {
            assert_eq!(HubName::parse(text), None, "{text}");
        }
        assert_eq!(HubName::parse("a/b").and_then(|name| name.at("../x")), None);
        assert_eq!(HubName::parse("a/b").and_then(|name| name.at("v1")), HubName::parse("a/b@v1"));
    }
}
