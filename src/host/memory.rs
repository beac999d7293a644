//! Memory that stays with the process.
//!
//! glibc maps a large block from the system and gives it back when it is freed, so that every large
//! tensor starts as untouched pages. In a training step their first touch may take longer than the
//! arithmetic. It learns better from the first large block that is freed (mallopt(3), dynamic mmap
//! threshold); most programs have none that is large enough.

use std::hint::black_box;
use std::sync::Once;

/// The largest block that glibc learns from has 32 MiB, with what it notes beside it.
const LARGEST: usize = (32 << 20) - (1 << 16);

/// Has the allocator keep up to 64 MiB of freed memory. The block is never touched, so it costs
/// nothing; other allocators learn nothing from it.
pub(super) fn keep_freed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGEST))));
}
