//! Writing, overwriting, and files that do not belong together.

use std::fs;
use std::path::Path;

use foreword_format::{
    ADAPTER_FILE, AdapterConfig, CHECKPOINT_DIR, FormatError, Overwrite, PASSPORT_FILE, Placement,
    PromptDirectory, TENSORS_FILE, check_vacant,
};

use crate::fixtures::{check_error, check_refused, names, passport, prompt, rows, snapshot};

/// A directory with all three files of [`prompt`].
fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    prompt().write(dir.path(), Overwrite::Refuse).unwrap();
    dir
}

/// A prompt that differs from [`prompt`] in everything and has no adapter_config.json.
fn other_prompt() -> PromptDirectory {
    let rows = rows(5, 2);
    let mut passport = passport(&rows);
    passport.task.placement = Placement::Suffix;
    PromptDirectory { passport: Some(passport), rows, adapter: None }
}

#[test]
fn what_is_written_is_read_and_the_same_bytes_each_time() {
    let (one, two) = (written(), written());
    assert_eq!(PromptDirectory::read(one.path()).unwrap(), prompt());
    assert_eq!(snapshot(one.path()), snapshot(two.path()));
    assert_eq!(names(one.path()), [ADAPTER_FILE, TENSORS_FILE, PASSPORT_FILE]);
}

#[test]
fn the_digest_of_the_tensors_is_computed_when_writing() {
    let mut stale = prompt();
    stale.passport.as_mut().unwrap().tensors_digest = String::new();
    let dir = tempfile::tempdir().unwrap();
    stale.write(dir.path(), Overwrite::Refuse).unwrap();
    assert_eq!(PromptDirectory::read(dir.path()).unwrap(), prompt());
}

#[test]
fn a_passport_alone_describes_the_tensors() {
    let dir = tempfile::tempdir().unwrap();
    other_prompt().write(dir.path(), Overwrite::Refuse).unwrap();
    assert_eq!(names(dir.path()), [TENSORS_FILE, PASSPORT_FILE]);
    assert_eq!(PromptDirectory::read(dir.path()).unwrap(), other_prompt());

    let dir = written();
    fs::remove_file(dir.path().join(ADAPTER_FILE)).unwrap();
    assert_eq!(PromptDirectory::read(dir.path()).unwrap(), PromptDirectory { adapter: None, ..prompt() });
}

#[test]
fn an_existing_directory_is_refused_and_left_alone() {
    let dir = written();
    let before = snapshot(dir.path());
    let error = other_prompt().write(dir.path(), Overwrite::Refuse).unwrap_err();
    check_error(&error, &[ADAPTER_FILE, "--force", "--out"]);
    assert_eq!(snapshot(dir.path()), before);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
    let error = prompt().write(dir.path(), Overwrite::Refuse).unwrap_err();
    check_error(&error, &["notes.txt", "--force"]);
    assert_eq!(names(dir.path()), ["notes.txt"]);

    let file = dir.path().join("notes.txt");
    for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
        let error = prompt().write(&file, overwrite).unwrap_err();
        assert!(matches!(error, FormatError::NotADirectory { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_vacant_directory_may_hold_the_checkpoint_of_its_run() {
    let dir = tempfile::tempdir().unwrap();
    check_vacant(dir.path()).unwrap();
    check_vacant(&dir.path().join("absent/too")).unwrap();
    fs::create_dir(dir.path().join(CHECKPOINT_DIR)).unwrap();
    check_vacant(dir.path()).unwrap();
    prompt().write(dir.path(), Overwrite::Refuse).unwrap();
    assert!(matches!(check_vacant(dir.path()), Err(FormatError::Exists { .. })));

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(CHECKPOINT_DIR), b"a file").unwrap();
    assert!(matches!(check_vacant(dir.path()), Err(FormatError::Exists { .. })));
}

#[test]
fn replacing_leaves_only_the_new_prompt_and_files_that_are_not_ours() {
    let dir = written();
    fs::write(dir.path().join("notes.txt"), b"mine").unwrap();
    other_prompt().write(dir.path(), Overwrite::Replace).unwrap();
    assert_eq!(PromptDirectory::read(dir.path()).unwrap(), other_prompt());
    assert_eq!(names(dir.path()), [TENSORS_FILE, PASSPORT_FILE, "notes.txt"]);

    let bare = PromptDirectory { passport: None, ..prompt() };
    bare.write(dir.path(), Overwrite::Replace).unwrap();
    assert_eq!(PromptDirectory::read(dir.path()).unwrap(), bare);
    assert_eq!(names(dir.path()), [ADAPTER_FILE, TENSORS_FILE, "notes.txt"]);
}

#[test]
fn a_replacement_that_cannot_be_made_keeps_the_old_prompt() {
    for file in [ADAPTER_FILE, TENSORS_FILE, PASSPORT_FILE] {
        let dir = written();
        fs::remove_file(dir.path().join(file)).unwrap();
        fs::create_dir(dir.path().join(file)).unwrap();
        fs::write(dir.path().join(file).join("inside"), b"").unwrap();
        let (before, names_before) = (snapshot(dir.path()), names(dir.path()));
        assert_eq!(before.len(), 2);
        let error = other_prompt().write(dir.path(), Overwrite::Replace).unwrap_err();
        assert!(matches!(&error, FormatError::NotAFile { path } if path.ends_with(file)), "{error}");
        assert_eq!(snapshot(dir.path()), before, "{file}");
        assert_eq!(names(dir.path()), names_before, "{file}");
    }
}

#[test]
fn nothing_is_made_for_a_prompt_that_contradicts_itself() {
    #[track_caller]
    fn check(spoil: impl FnOnce(&mut PromptDirectory), parts: &[&str]) {
        let mut prompt = prompt();
        spoil(&mut prompt);
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("out");
        check_error(&prompt.write(&dir, Overwrite::Replace).unwrap_err(), parts);
        assert!(!dir.exists());
    }
    check(|prompt| prompt.rows = rows(2, 4), &[ADAPTER_FILE, "virtual tokens 3", TENSORS_FILE, "says 2"]);
    check(|prompt| prompt.rows = rows(3, 5), &["row width 4", "says 5"]);
    check(
        |prompt| prompt.adapter = Some(AdapterConfig::causal_lm(3, 5).unwrap()),
        &[ADAPTER_FILE, "row width 5"],
    );
    check(
        |prompt| prompt.passport.as_mut().unwrap().training.n_virtual = 4,
        &[PASSPORT_FILE, "virtual tokens 4"],
    );
    check(|prompt| prompt.passport.as_mut().unwrap().task.placement = Placement::AfterBos, &["after-bos"]);
    check(|prompt| (prompt.adapter, prompt.passport) = (None, None), &["neither"]);
    check(
        |prompt| {
            let metrics = &mut prompt.passport.as_mut().unwrap().metrics;
            metrics.insert("dev".to_owned(), [("loss".to_owned(), f64::NAN)].into());
        },
        &["metrics.dev.loss"],
    );
}

#[test]
fn tensors_that_were_changed_are_refused() {
    let dir = written();
    let other = rows(3, 4).into_values().into_iter().map(|value| value + 1.0).collect();
    let other = foreword_format::SoftPrompt::new(other, 3, 4).unwrap();
    fs::write(dir.path().join(TENSORS_FILE), other.to_safetensors().unwrap()).unwrap();
    check_refused(dir.path(), &[TENSORS_FILE, "changed after", "sha256:"]);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = written();
    let config = AdapterConfig::causal_lm(3, 8).unwrap().to_json().unwrap();
    fs::write(dir.path().join(ADAPTER_FILE), config).unwrap();
    check_refused(dir.path(), &[ADAPTER_FILE, "row width 8", TENSORS_FILE, "says 4"]);
    let config = AdapterConfig::causal_lm(2, 4).unwrap().to_json().unwrap();
    fs::write(dir.path().join(ADAPTER_FILE), config).unwrap();
    check_refused(dir.path(), &["stored rows 2", "says 3"]);

    let dir = tempfile::tempdir().unwrap();
    other_prompt().write(dir.path(), Overwrite::Refuse).unwrap();
    let config = AdapterConfig::causal_lm(5, 2).unwrap().to_json().unwrap();
    fs::write(dir.path().join(ADAPTER_FILE), config).unwrap();
    check_refused(dir.path(), &["placement is suffix"]);

    // A passport whose digest is right and whose size is not.
    let dir = written();
    fs::remove_file(dir.path().join(ADAPTER_FILE)).unwrap();
    let text = fs::read_to_string(dir.path().join(PASSPORT_FILE)).unwrap();
    fs::write(dir.path().join(PASSPORT_FILE), text.replace("\"n_virtual\": 3", "\"n_virtual\": 6")).unwrap();
    check_refused(dir.path(), &[PASSPORT_FILE, "virtual tokens 6", "says 3"]);
}

#[test]
fn missing_and_odd_files_are_named() {
    let dir = written();
    check_refused(&dir.path().join("absent"), &["absent", "not a directory"]);
    check_refused(&dir.path().join(TENSORS_FILE), &["not a directory"]);
    fs::remove_file(dir.path().join(ADAPTER_FILE)).unwrap();
    fs::remove_file(dir.path().join(PASSPORT_FILE)).unwrap();
    check_refused(dir.path(), &["neither adapter_config.json nor foreword.json"]);
    fs::remove_file(dir.path().join(TENSORS_FILE)).unwrap();
    check_refused(dir.path(), &[TENSORS_FILE, "does not exist"]);

    for file in [ADAPTER_FILE, TENSORS_FILE, PASSPORT_FILE] {
        let dir = written();
        fs::remove_file(dir.path().join(file)).unwrap();
        fs::create_dir(dir.path().join(file)).unwrap();
        check_refused(dir.path(), &[file, "not a regular file"]);
    }
}

#[test]
fn a_file_too_large_to_be_ours_is_not_read() {
    for (file, bytes) in
        [(TENSORS_FILE, (1 << 30) + 1), (PASSPORT_FILE, (16 << 20) + 1), (ADAPTER_FILE, 1 << 40)]
    {
        let dir = written();
        let file = dir.path().join(file);
        fs::File::create(&file).unwrap().set_len(bytes).unwrap(); // takes no room on disk
        check_refused(dir.path(), &[&bytes.to_string()]);
    }
}

#[test]
fn a_relative_path_is_as_good() {
    assert!(check_vacant(Path::new("tests/nothing-here")).is_ok());
    assert!(PromptDirectory::read(Path::new("tests/data/prompt-tuning")).is_ok());
}
