//! What this program's memory has come to, and the one thing that its allocator is told.

/// Tells the allocator to keep what is freed. Every step takes and frees the same large buffers; given back to the system,
/// each of their pages has to be cleared again: 14,000 page faults and a third of the time of a step of the bundled model.
#[allow(unsafe_code)]
pub(crate) fn keep_freed_pages() {
    /// `mi_option_purge_delay` of mimalloc's versions 2 and 3: milliseconds, −1 for never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the call stores a number in a table of the allocator's, at an index that the table has.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

/// Peak resident set in bytes, where the system tells it.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Bytes that the machine could still give, where the system tells it.
pub(crate) fn free_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Page faults so far that needed no disk, where the system tells them.
pub(crate) fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; the count is the eighth field after it.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(7)?.parse().ok()
}
