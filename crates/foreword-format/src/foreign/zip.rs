//! The subset of ZIP that torch writes: uncompressed entries, found through the directory at the end of the file.

use std::collections::BTreeMap;

/// Maximum number of entries to look at.
const MOST_ENTRIES: usize = 10_000;
const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
/// Maximum length of the comment at the end.
const MOST_COMMENT: usize = 0xffff;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;

/// Whether the bytes begin like an archive.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(LOCAL)
}

/// The entries of an archive by name.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<&str, &[u8]>, String> {
    let cut = || "the archive is truncated or damaged".to_owned();
    let last = bytes.len().checked_sub(END_BYTES).ok_or_else(cut)?;
    let first = last.saturating_sub(MOST_COMMENT);
    let end = (first..=last).rev().find(|&at| bytes[at..].starts_with(END)).ok_or_else(cut)?;
    let n = half(bytes, end + 10).ok_or_else(cut)?;
    let mut at = word(bytes, end + 16).ok_or_else(cut)?;
    if n > MOST_ENTRIES || at == u32::MAX as usize {
        return Err(format!("the archive has more than {MOST_ENTRIES} entries, or 4 GB: it is no prompt"));
    }
    let mut entries = BTreeMap::new();
    for _ in 0..n {
        let head = bytes.get(at..at + ENTRY_BYTES).filter(|head| head.starts_with(ENTRY)).ok_or_else(cut)?;
        let (flags, packing) = (half(head, 8).ok_or_else(cut)?, half(head, 10).ok_or_else(cut)?);
        let (stored, size) = (word(head, 20).ok_or_else(cut)?, word(head, 24).ok_or_else(cut)?);
        let lengths = [28, 30, 32].map(|at| half(head, at).unwrap_or_default());
        let local = word(head, 42).ok_or_else(cut)?;
        let name = bytes.get(at + ENTRY_BYTES..at + ENTRY_BYTES + lengths[0]).ok_or_else(cut)?;
        let name = std::str::from_utf8(name).map_err(|_| cut())?;
        if flags & 1 != 0 || packing != 0 || stored != size {
            return Err(format!("the entry {name} is packed or encrypted, which torch's are not"));
        }
        entries.insert(name, contents(bytes, local, size).ok_or_else(cut)?);
        at += ENTRY_BYTES + lengths.iter().sum::<usize>();
    }
    Ok(entries)
}

/// The bytes of the entry whose local header is at `local`.
fn contents(bytes: &[u8], local: usize, size: usize) -> Option<&[u8]> {
    let head = bytes.get(local..local.checked_add(LOCAL_BYTES)?).filter(|head| head.starts_with(LOCAL))?;
    let start = local + LOCAL_BYTES + half(head, 26)? + half(head, 28)?;
    bytes.get(start..start.checked_add(size)?)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let half = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(half.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
}
