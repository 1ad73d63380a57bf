//! Models in several GGUF files, as `llama-gguf-split` writes them: `model-00001-of-00003.gguf` and so on. The first has the
//! metadata, each has its own tensors.

use std::path::{Path, PathBuf};

use foreword_kernels::Bytes;

use super::Gguf;
use crate::error::BackboneError;

/// Limit on parts: their names have five digits.
const MAX_PARTS: usize = 99_999;

/// The name without its part's number, that number, and how many parts there are: `model-00002-of-00003` is the second of
/// three of `model`.
fn numbered(stem: &str) -> Option<(&str, usize, usize)> {
    let number = |digits: &str| {
        let is_number = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { digits.parse::<usize>().ok() } else { None }
    };
    let (rest, n) = stem.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let (part, n) = (number(part)?, number(n)?);
    (1..=n).contains(&part).then_some((name, part, n))
}

/// Whether a file is a part other than the first, by its name.
#[must_use]
pub fn is_later_part(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    numbered(&stem).is_some_and(|(_, part, _)| part > 1)
}

/// The name of the model in a file, and all its files in order, by the file's name.
pub(crate) fn beside(path: &Path) -> (String, Vec<PathBuf>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Some((name, _, n)) = numbered(&stem).filter(|&(_, _, n)| n > 1) else {
        return (stem, vec![path.to_owned()]);
    };
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    let part = |i: usize| path.with_file_name(format!("{name}-{i:05}-of-{n:05}.{ending}"));
    (name.to_owned(), (1..=n).map(part).collect())
}

impl<'a> Gguf<'a> {
    /// Reads the metadata of the first part, and the tables of tensors of all.
    pub(crate) fn parse_parts(parts: &'a [(String, Bytes)]) -> Result<Self, BackboneError> {
        let Some(((file, bytes), others)) = parts.split_first() else {
            return Err(BackboneError::Gguf { file: String::new(), detail: "there is no file".to_owned() });
        };
        let mut whole = Self::parse(file, bytes)?;
        whole.check_part(0, parts.len())?;
        for (i, (file, bytes)) in others.iter().enumerate() {
            let part = Self::parse(file, bytes)?;
            part.check_part(i + 1, parts.len())?;
            for (name, mut info) in part.tensors {
                info.part = i + 1;
                if whole.tensors.insert(name, info).is_some() {
                    let detail = format!("tensor `{name}` is in an earlier part, too");
                    return Err(BackboneError::GgufMetadata { file: file.clone(), detail });
                }
            }
        }
        match whole.count("split.tensors.count")? {
            Some(n) if parts.len() > 1 && n != whole.tensors.len() => Err(whole.wrong(format!(
                "the model has {n} tensors, but its {} parts have {}: they don't belong together",
                parts.len(),
                whole.tensors.len()
            ))),
            _ => Ok(whole),
        }
    }

    /// Fails if the file is not part `i` of `n`, from 0.
    fn check_part(&self, i: usize, n: usize) -> Result<(), BackboneError> {
        let stated = self.count("split.count")?.filter(|n| (1..=MAX_PARTS).contains(n)).unwrap_or(1);
        let number = self.count("split.no")?.unwrap_or(0);
        if (stated, number) == (n, i) {
            return Ok(());
        }
        let says = format!("it is part {} of {stated} of a model", number.saturating_add(1));
        Err(self.wrong(if n == 1 {
            format!(
                "{says}: give the file with the name that llama.cpp gave it (`NAME-{:05}-of-{stated:05}.gguf`), with the other parts \
                 beside it, or join them (`llama-gguf-split --merge FIRST OUT`)",
                number.saturating_add(1)
            )
        } else {
            format!("{says}, but by its name it is part {} of {n}", i + 1)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        assert_eq!(numbered("tiny-00002-of-00003"), Some(("tiny", 2, 3)));
        assert_eq!(numbered("a-of-b-00001-of-00001"), Some(("a-of-b", 1, 1)));
        for other in [
            "tiny",
            "tiny-2-of-3",
            "tiny-00004-of-00003",
            "tiny-00000-of-00003",
            "-of-00003",
            "tiny-+0001-of-00003",
        ] {
            assert_eq!(numbered(other), None, "{other}");
        }
        let (name, files) = beside(Path::new("models/tiny-00002-of-00003.gguf"));
        assert_eq!((name.as_str(), files.len()), ("tiny", 3));
        assert_eq!(files[0], Path::new("models/tiny-00001-of-00003.gguf"));
        let (name, files) = beside(Path::new("models/tiny-00001-of-00001.gguf"));
        assert_eq!(
            (name.as_str(), &files[..]),
            ("tiny-00001-of-00001", &[PathBuf::from("models/tiny-00001-of-00001.gguf")][..])
        );
        assert!(
            is_later_part(Path::new("x-00002-of-00002.gguf"))
                && !is_later_part(Path::new("x-00001-of-00002.gguf"))
        );
    }
}
