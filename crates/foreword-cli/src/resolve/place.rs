//! Whether a file can be written where it is asked for, found out before any work is done.

use std::path::Path;

use anyhow::Result;

use crate::exit::{self, Given};

/// Refuses a place that takes no file; one that is there is replaced only by `force`.
pub(crate) fn check_file(path: &Path, force: bool) -> Result<()> {
    let name = path.display();
    let cannot = |why: &str| Given::wrong(format!("cannot write {name}: {why}"));
    if path.is_dir() {
        return Err(cannot("it is a directory").hint("give the name of a file in it").into());
    }
    if path.exists() && !force {
        return Err(cannot("it is there already").hint("give another file, or --force to replace it").into());
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(cannot(&format!("{} is not a directory", folder.display())).into());
    }
    tempfile::tempfile_in(folder).map_err(|error| {
        let given = |why: &str| cannot(&format!("{} takes no files ({why})", folder.display()));
        exit::unwritable(name.to_string(), error, given)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_into_a_folder_that_is_there_and_takes_no_others_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let refused = |path: &Path, force| check_file(path, force).unwrap_err().to_string();
        std::fs::write(path("there"), "").unwrap();
        assert!(check_file(&path("new"), false).is_ok() && check_file(&path("there"), true).is_ok());
        assert!(refused(&path("there"), false).ends_with("there: it is there already"));
        assert!(refused(dir.path(), true).ends_with(": it is a directory"));
        assert!(refused(&path("nowhere/new"), true).ends_with("nowhere is not a directory"));
        assert!(refused(&path("there/new"), true).ends_with("there is not a directory"));
        assert!(check_file(Path::new("a-name-that-is-not-here"), false).is_ok());
    }
}
