//! Files that are no data, by their first bytes: what they are, and how to get data out of them.

use super::super::DataError;
use std::path::Path;

/// The first bytes of a kind of file, what it is, and the shortest way to data.
const KINDS: &[(&[u8], &str, &str)] = &[
    (
        b"PK\x03\x04",
        "an Excel workbook or a zip archive",
        "save the sheet as CSV UTF-8, or unzip it, and give the file that comes out",
    ),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV UTF-8"),
    (b"BZh9", "packed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it with unxz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it with 7z x"),
    (b"\x04\x22\x4d\x18", "packed with lz4", "unpack it with unlz4"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (
        b"SQLite format 3\0",
        "an SQLite database",
        "export a table: sqlite3 -header -csv FILE 'select * from TABLE'",
    ),
    (b"%PDF", "a PDF", "extract its text first"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or .jsonl"),
    (b"FEA1", "a Feather file of version 1", "write it again with pandas.read_feather(FILE).to_parquet(OUT)"),
    (b"\x89HDF", "an HDF5 file", "write it as Parquet: pandas.read_hdf(FILE).to_parquet(OUT)"),
    (b"\x93NUMPY", "a NumPy array", "write it as .csv or .jsonl"),
    (b"\x80\x02", "a Python pickle", "write it as Parquet: pandas.read_pickle(FILE).to_parquet(OUT)"),
    (b"\x80\x03", "a Python pickle", "write it as Parquet: pandas.read_pickle(FILE).to_parquet(OUT)"),
    (b"\x80\x04", "a Python pickle", "write it as Parquet: pandas.read_pickle(FILE).to_parquet(OUT)"),
    (b"\x80\x05", "a Python pickle", "write it as Parquet: pandas.read_pickle(FILE).to_parquet(OUT)"),
    (b"GGUF", "a model, not data", "give it with --model"),
    (
        b"version https://git-lfs.github.com/",
        "a pointer of Git LFS, not the file itself",
        "fetch it with git lfs pull",
    ),
    (b"<!DOCTYPE html", "a web page, not the file behind it", "download the raw file"),
    (b"<!doctype html", "a web page, not the file behind it", "download the raw file"),
    (b"<html", "a web page, not the file behind it", "download the raw file"),
    (b"<?xml", "XML", "write its examples as .jsonl or .csv"),
];

/// A tar archive has its mark in its first header.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Refuses files of other kinds.
pub(super) fn check(bytes: &[u8], path: &Path) -> Result<(), DataError> {
    let is_tar = bytes.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1));
    let found = KINDS.iter().find(|(first, ..)| bytes.starts_with(first));
    let found = found.map(|&(_, what, how)| (what, how));
    match found.or(is_tar.then_some(("a tar archive", "unpack it with tar -xf"))) {
        Some((what, how)) => Err(DataError::Foreign { path: path.to_owned(), what, how }),
        None => Ok(()),
    }
}
