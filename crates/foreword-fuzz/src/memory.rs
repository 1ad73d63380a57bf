//! An allocator that counts, so that a reader that takes too much memory is seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Beyond this the process ends rather than the machine: no allocation is granted.
const MOST_BYTES: usize = 4 << 30;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a count of what is held.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn take(n_bytes: usize) -> bool {
    let now = NOW.fetch_add(n_bytes, Ordering::Relaxed).saturating_add(n_bytes);
    PEAK.fetch_max(now, Ordering::Relaxed);
    if now > MOST_BYTES {
        NOW.fetch_sub(n_bytes, Ordering::Relaxed);
    }
    now <= MOST_BYTES
}

fn give_back(n_bytes: usize) {
    NOW.fetch_sub(n_bytes, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; a null pointer says that there is no memory.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        if take(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        if take(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !take(new_size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `realloc`.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        give_back(if moved.is_null() { new_size } else { layout.size() });
        moved
    }
}

/// The most bytes that `work` held at a time, beyond those that were held before it.
pub(crate) fn peak_of(work: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}
