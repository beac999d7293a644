//! Which instruction set the crate's CPU operations run on: the best that the machine has.
//!
//! The products of `linear` are the gemm crate's, which decides for itself.

use std::sync::OnceLock;

use pulp::Arch;

/// The instruction set to run on.
pub(crate) fn arch() -> Arch {
    #[cfg(test)]
    if let Some(arch) = tests::LIMIT.get() {
        return arch;
    }
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(Arch::new)
}

/// Asks memory for so many bytes, whether they exist or not.
#[inline(always)]
pub(crate) fn prefetch<T>(from: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, so that any address will do; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>().wrapping_add(line)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, bytes);
}

/// Whether caches find plain rows ahead by themselves, so that asking for them only gets in their way:
/// seen on AMD's Zen 4, where rows came faster by a tenth. SSE4a is an instruction set of AMD's alone.
pub(crate) fn caches_read_ahead() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("sse4a");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether an x86 with AVX-512 multiplies bytes by fours (VNNI).
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_vnni() -> bool {
    #[cfg(test)]
    if tests::WITHOUT_VNNI.get() {
        return false;
    }
    std::is_x86_feature_detected!("avx512vnni")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use pulp::Arch;

    thread_local! {
        /// What this thread runs on instead of the best.
        pub(super) static LIMIT: Cell<Option<Arch>> = const { Cell::new(None) };
    }

    thread_local! {
        /// Whether this thread goes without.
        pub(super) static WITHOUT_VNNI: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `work` on one thread, on the best instruction set without VNNI.
    pub(crate) fn without_vnni<R: Send>(work: impl FnOnce() -> R + Send) -> R {
        on(Arch::new(), || {
            WITHOUT_VNNI.set(true);
            work()
        })
    }

    /// Runs `work` on one thread, on this instruction set.
    pub(crate) fn on<R: Send>(arch: Arch, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            LIMIT.set(Some(arch));
            work()
        })
    }

    /// Every instruction set that this machine can run, the best first.
    pub(crate) fn archs() -> Vec<Arch> {
        let mut archs = vec![Arch::new(), avx2(), portable()];
        archs.dedup_by_key(|arch| std::mem::discriminant(arch));
        archs
    }

    /// At most AVX2; of other families the best.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    fn avx2() -> Arch {
        pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3)
    }

    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    fn avx2() -> Arch {
        Arch::new()
    }

    /// No vector instructions beyond those that the compiler may use anyway.
    #[cfg(not(target_family = "wasm"))]
    fn portable() -> Arch {
        Arch::Scalar
    }

    #[cfg(target_family = "wasm")]
    fn portable() -> Arch {
        Arch::new()
    }
}
