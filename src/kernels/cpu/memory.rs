//! Memory for large results: no thread writes all of a result before the others may begin.
//!
//! Where the memory comes from is the application's choice; the guide's page on speed says what an
//! allocator gives.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::threads;

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
    let fill = |start: usize, unwritten: &mut [MaybeUninit<T>]| {
        unwritten.fill(MaybeUninit::new(T::default()));
        // SAFETY: filled with zeros one line above.
        work(start, unsafe { unwritten.assume_init_mut() })
    };
    // SAFETY: `fill` writes all of its block.
    unsafe { written_in_blocks(len, size, fill) }
}

/// The same for work that does not need the zeros: it gets the block as memory gives it.
///
/// # Safety
///
/// `work` writes every element of each block that it gets.
pub(crate) unsafe fn written_in_blocks<T: Send, R: Send>(
    len: usize,
    size: usize,
    work: impl Fn(usize, &mut [MaybeUninit<T>]) -> R + Sync,
) -> (Vec<T>, Vec<R>) {
    let blocks = len.div_ceil(size).max(1);
    let (mut data, mut results) = (Vec::with_capacity(len), Vec::with_capacity(blocks));
    if blocks == 1 {
        results.push(work(0, &mut data.spare_capacity_mut()[..len]));
    } else {
        let elements = SharedSlice::new(&mut data.spare_capacity_mut()[..len]);
        let places = SharedSlice::new(&mut results.spare_capacity_mut()[..blocks]);
        threads::for_each(blocks, usize::MAX, |block| {
            let start = block * size;
            // SAFETY: each block is asked for once, and no two overlap.
            let unwritten = unsafe { elements.slice(start, size.min(len - start)) };
            let result = work(start, unwritten);
            // SAFETY: as above.
            let place = unsafe { places.slice(block, 1) };
            place[0].write(result);
        });
        // SAFETY: every block has left its result.
        unsafe { results.set_len(blocks) };
    }
    // SAFETY: the blocks are all `len` elements, and by the caller's promise each was written.
    unsafe { data.set_len(len) };
    (data, results)
}

/// A result of which every task writes its own part.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are only reached through `slice`, whose caller answers for parts not overlapping.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(result: &'a mut [T]) -> Self {
        Self { start: result.as_mut_ptr(), len: result.len(), owner: PhantomData }
    }

    /// Part of the result.
    ///
    /// # Safety
    ///
    /// While the slice lives, nobody else may hold one that overlaps it.
    #[inline]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len);
        // SAFETY: within the slice borrowed for 'a, as just asserted; not aliased, by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

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
    fn zeros_of_any_length_are_zero() {
        for len in [0, 1, 1000, 3 << 20] {
            assert!(zeros::<f32>(len).iter().all(|&x| x == 0.0));
        }
    }
}
