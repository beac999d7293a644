//! Memory for large results.
//!
//! glibc maps a large block from the system and gives it back when it is freed, so that every large
//! tensor starts as untouched pages. In a training step their first touch may take longer than the
//! arithmetic. Two things help: memory that stays with the process, and pages of 2 MiB instead of
//! 4 KiB. And no thread should write all of a result before the others may begin.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Has glibc keep up to 256 MiB of freed memory, unless the user has told it what to keep (mallopt(3)).
/// Other allocators have ways of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_freed() {
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
pub(crate) fn keep_freed() {}

/// An empty vector with room for `len` elements.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::with_capacity(len);
    prefer_large_pages(room.as_ptr(), len);
    room
}

/// `len` zeros, written by all threads if they are many.
pub(crate) fn zeros<T: Copy + Default + Send + Sync>(len: usize) -> Vec<T> {
    /// Zeros that are worth a task.
    const BLOCK: usize = 1 << 18;
    in_blocks(len, BLOCK, |_, _| ()).0
}

/// A vector of `len` elements, filled by `work` in blocks of `size`, in parallel if there are
/// several; and what `work` returns for each block. It gets the block's start and the block, zeros
/// that its own thread has just written: they are in its cache, and no thread waits for another that
/// writes them all.
pub(crate) fn in_blocks<T: Copy + Default + Send + Sync, R: Send>(
    len: usize,
    size: usize,
    work: impl Fn(usize, &mut [T]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let mut data = room(len);
    let fill = |(block, unwritten): (usize, &mut [MaybeUninit<T>])| {
        unwritten.fill(MaybeUninit::new(T::default()));
        // SAFETY: filled with zeros one line above.
        work(block * size, unsafe { unwritten.assume_init_mut() })
    };
    let unwritten = &mut data.spare_capacity_mut()[..len];
    let results = if len <= size {
        vec![fill((0, unwritten))]
    } else {
        unwritten.par_chunks_mut(size).enumerate().map(fill).collect()
    };
    // SAFETY: the blocks are all `len` elements, and each was filled.
    unsafe { data.set_len(len) };
    (data, results)
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
    fn blocks_are_filled_each_from_its_start() {
        for len in [0, 1, 6, 7, 8, 7 * 11 + 3] {
            let (data, sums) = in_blocks(len, 7, |start, block: &mut [u64]| {
                assert!(block.iter().all(|&x| x == 0));
                block.iter_mut().zip(start as u64..).for_each(|(to, i)| *to = i);
                block.iter().sum::<u64>()
            });
            assert_eq!(data, (0..len as u64).collect::<Vec<_>>());
            let expected: Vec<u64> = data.chunks(7).map(|block| block.iter().sum()).collect();
            assert_eq!(sums, if len == 0 { vec![0] } else { expected });
        }
    }

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
