//! The library's error: its kind, its hint and its message.

use foreword::error::{Diverged, WriteError, unwritable};
use foreword::record::RecordError;
use foreword::{DataError, Error, ErrorKind, FormatError, TrainError, UserError};
use std::io;
use std::path::PathBuf;

fn io_error() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
}

#[test]
fn wrong_input_is_the_users_and_a_failure_is_not() {
    let format = |action| FormatError::Io { action, path: PathBuf::from("p"), source: io_error() };
    let cases: [(anyhow::Error, ErrorKind); 8] = [
        (UserError::new("x").into(), ErrorKind::User),
        (format("open").into(), ErrorKind::User),
        (format("write").into(), ErrorKind::Failed),
        (RecordError::Format(format("write")).into(), ErrorKind::Failed),
        (RecordError::Format(format("read")).into(), ErrorKind::User),
        (TrainError::NoExamples.into(), ErrorKind::User),
        (Diverged { step: 2 }.into(), ErrorKind::Failed),
        (WriteError { what: "stdout".into(), source: io_error() }.into(), ErrorKind::Failed),
    ];
    for (error, kind) in cases {
        let error = Error::from(error);
        assert_eq!(error.kind(), kind, "{error}");
        // The same inside an error that wraps it.
        assert_eq!(Error::from(anyhow::Error::new(error).context("c")).kind(), kind);
    }
    assert_eq!(Error::from(anyhow::Error::from(io_error())).kind(), ErrorKind::Failed);
}

#[test]
fn a_full_disk_is_nobodys_fault() {
    let error = Error::from(unwritable("--log l".to_owned(), io_error(), |why| UserError::new(why)));
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Failed, "cannot write --log l: the disk is full")
    );
    let read_only = io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "read-only");
    let error = Error::from(unwritable("x".to_owned(), read_only, |why| UserError::new(why)));
    assert_eq!(error.kind(), ErrorKind::User);
}

#[test]
fn a_cause_is_said_once() {
    let error = DataError::Io { path: PathBuf::from("a.csv"), source: io_error() };
    assert_eq!(Error::from(anyhow::Error::from(error)).to_string(), "cannot read a.csv: the disk is full");
    let error = FormatError::Io { action: "write", path: PathBuf::from("p"), source: io_error() };
    assert_eq!(Error::from(anyhow::Error::from(error)).to_string(), "cannot write p: the disk is full");
}

#[test]
fn an_error_keeps_its_hint() {
    let error = Error::from(UserError::new("wrong").hint("try this"));
    assert_eq!(error.hint().as_deref(), Some("try this"));
    assert_eq!(Error::from(anyhow::Error::new(error).context("more")).hint().as_deref(), Some("try this"));
}
