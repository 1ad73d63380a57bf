//! Places that take a file.

use foreword::plan::output::check_file;
use std::path::Path;

#[test]
fn a_file_goes_into_a_folder_that_is_there_and_takes_no_others_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let refused = |path: &Path, force| check_file(path, force).unwrap_err().to_string();
    std::fs::write(path("there"), "").unwrap();
    assert!(check_file(&path("new"), false).is_ok() && check_file(&path("there"), true).is_ok());
    assert!(refused(&path("there"), false).ends_with("there: it already exists"));
    assert!(refused(dir.path(), true).ends_with(": it is a directory"));
    assert!(refused(&path("nowhere/new"), true).ends_with("nowhere is not a directory"));
    assert!(refused(&path("there/new"), true).ends_with("there is not a directory"));
    assert!(check_file(Path::new("a-name-that-is-not-here"), false).is_ok());
}
