//! The one setting of the allocator.

/// Makes the allocator keep freed pages. Every step allocates and frees the same large buffers; if they go back to the
/// system, each of their pages has to be cleared again: 14,000 page faults and a third of the time of a step of the bundled
/// model.
#[allow(unsafe_code)]
pub(crate) fn keep_freed_pages() {
    /// `mi_option_purge_delay` of mimalloc 2 and 3: milliseconds, −1 for never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: the call stores a number in a table of the allocator, at a valid index.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
