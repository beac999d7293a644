//! Memory for large results.
//!
//! glibc maps a large block from the system and gives it back when it is freed, so that every large
//! tensor starts as untouched pages. In a training step their first touch may take longer than the
//! arithmetic. Two things help: memory that stays with the process, and pages of 2 MiB instead of
//! 4 KiB.

/// Has glibc keep up to 256 MiB of freed memory, unless the user has told it what to keep (mallopt(3)).
/// Other allocators have ways of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn keep_freed() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let told = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"];
        if told.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        // SAFETY: takes two numbers, and changes what is done with memory that nobody holds.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
            // Blocks below stay; the largest number that glibc takes.
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        }
    });
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn keep_freed() {}

/// An empty vector with room for `len` elements.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::with_capacity(len);
    prefer_large_pages(room.as_ptr(), len);
    room
}

/// `len` zeros.
pub(crate) fn zeros<T: Copy + Default>(len: usize) -> Vec<T> {
    let zeros = vec![T::default(); len];
    prefer_large_pages(zeros.as_ptr(), len);
    zeros
}

/// Has the system back untouched memory of `len` elements by large pages, where it lets programs
/// choose; most have them on request only.
#[cfg(target_os = "linux")]
fn prefer_large_pages<T>(start: *const T, len: usize) {
    /// Of x86-64, and of others with pages of 4 KiB.
    const LARGE_PAGE: usize = 2 << 20;
    let end = (start.addr() + len * size_of::<T>()) / LARGE_PAGE * LARGE_PAGE;
    let first = start.addr().next_multiple_of(LARGE_PAGE);
    if first < end {
        let first = start.with_addr(first).cast_mut().cast();
        // SAFETY: whole pages within one allocation; the advice changes neither what they hold nor
        // who may use them. If the system refuses it, nothing has changed.
        unsafe { libc::madvise(first, end - first.addr(), libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_large_pages<T>(_: *const T, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_holds_what_is_written() {
        for len in [0, 1, 1000, 3 << 20] {
            assert!(zeros::<f32>(len).iter().all(|&x| x == 0.0));
            let mut room = room::<u64>(len);
            assert!(room.is_empty() && room.capacity() >= len);
            room.extend(0..len as u64);
            assert!(room.iter().enumerate().all(|(i, &x)| x == i as u64));
        }
    }
}
