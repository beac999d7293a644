//! Which instruction set the crate's CPU operations run on: the best that the machine has, or less
//! where the environment variable `BURN_DECODER_SIMD` says so.
//!
//! The products of `linear` are the gemm crate's, which decides for itself.

use std::sync::OnceLock;

use pulp::Arch;

/// The instruction set to run on. The variable is read once.
///
/// # Panics
///
/// If `BURN_DECODER_SIMD` is neither unset, `avx2` nor `portable`.
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| match std::env::var_os("BURN_DECODER_SIMD") {
        None => Arch::new(),
        Some(limit) if limit == "avx2" => avx2(),
        Some(limit) if limit == "portable" => portable(),
        Some(other) => panic!("BURN_DECODER_SIMD: expected avx2 or portable, got {other:?}"),
    })
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

/// Every instruction set that this machine can run, the best first.
#[cfg(test)]
pub(crate) fn archs() -> Vec<Arch> {
    let mut archs = vec![Arch::new(), avx2(), portable()];
    archs.dedup_by_key(|arch| std::mem::discriminant(arch));
    archs
}
