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

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use pulp::Arch;

    thread_local! {
        /// What this thread runs on instead of the best.
        pub(super) static LIMIT: Cell<Option<Arch>> = const { Cell::new(None) };
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
