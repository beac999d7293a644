//! The numbers of the kernel, alone and in vectors.

use std::cell::Cell;
use std::fmt::Debug;
use std::ops::{AddAssign, MulAssign};
use std::thread::LocalKey;

use pulp::Simd;

/// What the kernel computes in, `f32` or `f64`, alone and in vectors of `lanes`.
///
/// The vector operations are inlined into functions that pulp compiles for each instruction set.
pub(crate) trait Real:
    Copy + Default + PartialOrd + Debug + AddAssign + MulAssign + Send + Sync + 'static
{
    type Vector<S: Simd>: Copy;
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;
    /// The least finite number.
    const LEAST: Self;
    /// Below this power of two `exp2` is exactly 0.
    const LEAST_EXPONENT: Self;
    /// `1.5 * 2^(mantissa bits)`: adding it rounds to an integer that then stands in the low bits.
    const ROUND: Self;
    /// Coefficients of `(2^r - 1) / r` for `r` in `-0.5..=0.5`, highest power first; minimax.
    const EXP2: &'static [Self];

    /// Where this thread keeps the memory that it works in.
    fn buffer() -> &'static LocalKey<Cell<Vec<Self>>>;

    fn to_f64(self) -> f64;
    fn of_f64(value: f64) -> Self;
    fn of_f32(value: f32) -> Self;
    fn is_finite(self) -> bool;

    fn lanes<S: Simd>() -> usize;
    /// The slice in whole vectors; a rest shorter than a vector is left out.
    fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>];
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn div<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a * b + c`, rounded once where the machine can.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// The larger one; which one if either is NaN is open.
    fn max<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `then` where `a < b`, `otherwise` elsewhere (NaN too).
    fn if_less<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        then: Self::Vector<S>,
        otherwise: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// `value * 2^n` for `rounded = n + ROUND`, by adding to the exponent.
    fn scale_exponent<S: Simd>(
        simd: S,
        value: Self::Vector<S>,
        rounded: Self::Vector<S>,
    ) -> Self::Vector<S>;
    fn sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
    /// Four rows as four columns.
    fn transposed(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4];
}

/// `2^x` for `x <= 1`, within an ulp or so; exactly 0 below [`Real::LEAST_EXPONENT`]; NaN stays.
///
/// At the clamp the exponent is one less than that of any normal number and the fraction is 0, so
/// that the bits are those of 0.
#[inline(always)]
pub(super) fn exp2<T: Real, S: Simd>(simd: S, x: T::Vector<S>) -> T::Vector<S> {
    let least = T::splat(simd, T::LEAST_EXPONENT);
    let x = T::if_less(simd, x, least, least, x);
    let (fraction, exponent) = exp2_parts::<T, S>(simd, x);
    let power = T::add(simd, fraction, T::splat(simd, T::ONE));
    T::scale_exponent(simd, power, exponent)
}

/// `2^x - 1` for `x` in `0..=64`, of full relative precision.
#[inline(always)]
pub(super) fn exp2_minus_one<T: Real, S: Simd>(simd: S, x: T::Vector<S>) -> T::Vector<S> {
    let one = T::splat(simd, T::ONE);
    let (fraction, exponent) = exp2_parts::<T, S>(simd, x);
    let whole = T::scale_exponent(simd, one, exponent);
    T::mul_add(simd, whole, fraction, T::sub(simd, whole, one))
}

/// `x = n + r` with `n` whole and `r` in `-0.5..=0.5`: gives `2^r - 1` and `n + ROUND`.
#[inline(always)]
fn exp2_parts<T: Real, S: Simd>(simd: S, x: T::Vector<S>) -> (T::Vector<S>, T::Vector<S>) {
    let round = T::splat(simd, T::ROUND);
    let exponent = T::add(simd, x, round);
    let r = T::sub(simd, x, T::sub(simd, exponent, round));
    let mut polynomial = T::splat(simd, T::EXP2[0]);
    for &coefficient in &T::EXP2[1..] {
        polynomial = T::mul_add(simd, polynomial, r, T::splat(simd, coefficient));
    }
    (T::mul(simd, polynomial, r), exponent)
}

macro_rules! real {
    (
        $real:ident, $vector:ident, $lanes:ident, $as_simd:ident, $as_mut_simd:ident, $splat:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $mul_add:ident, $max:ident, $less:ident,
        $select:ident, $sum:ident, $least:literal, $round:literal, $scale:ident, $transposed:ident, $exp2:expr
    ) => {
        impl Real for $real {
            type Vector<S: Simd> = S::$vector;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $real::NEG_INFINITY;
            const LEAST: Self = $real::MIN;
            const LEAST_EXPONENT: Self = $least;
            const ROUND: Self = $round;
            const EXP2: &'static [Self] = $exp2;
            fn buffer() -> &'static LocalKey<Cell<Vec<Self>>> {
                thread_local! {
                    static BUFFER: Cell<Vec<$real>> = const { Cell::new(Vec::new()) };
                }
                &BUFFER
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn of_f64(value: f64) -> Self {
                value as $real
            }
            #[inline(always)]
            fn of_f32(value: f32) -> Self {
                value as $real
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn vectors<S: Simd>(slice: &[Self]) -> &[S::$vector] {
                S::$as_simd(slice).0
            }
            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [S::$vector] {
                S::$as_mut_simd(slice).0
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn sub<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn div<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$div(a, b)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                c: S::$vector,
            ) -> S::$vector {
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn max<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$max(a, b)
            }
            #[inline(always)]
            fn if_less<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                then: S::$vector,
                otherwise: S::$vector,
            ) -> S::$vector {
                simd.$select(simd.$less(a, b), then, otherwise)
            }
            #[inline(always)]
            fn scale_exponent<S: Simd>(
                simd: S,
                value: S::$vector,
                rounded: S::$vector,
            ) -> S::$vector {
                $scale(simd, value, rounded)
            }
            #[inline(always)]
            fn transposed(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
                $transposed(rows)
            }

            #[inline(always)]
            fn sum<S: Simd>(simd: S, a: S::$vector) -> Self {
                simd.$sum(a)
            }
        }
    };
}

#[inline(always)]
fn transposed<T: Copy>(rows: [[T; 4]; 4]) -> [[T; 4]; 4] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// By shuffles of whole registers, whatever the compiler would make of single numbers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed_f32(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::{__m128, _MM_TRANSPOSE4_PS};
    // SAFETY: four numbers and a register of them are the same 16 bytes, and x86-64 always has SSE.
    unsafe {
        let [mut a, mut b, mut c, mut d] =
            rows.map(|row| std::mem::transmute::<[f32; 4], __m128>(row));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        [a, b, c, d].map(|column| std::mem::transmute::<__m128, [f32; 4]>(column))
    }
}

#[cfg(not(target_arch = "x86_64"))]
use transposed as transposed_f32;

#[inline(always)]
fn scale_exponent_f32<S: Simd>(simd: S, value: S::f32s, rounded: S::f32s) -> S::f32s {
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(value), exponent))
}

#[inline(always)]
fn scale_exponent_f64<S: Simd>(simd: S, value: S::f64s, rounded: S::f64s) -> S::f64s {
    // pulp has no generic 64-bit shift; the compiler makes a vector shift of this loop
    let mut lanes = [0u64; 8];
    let lanes = &mut lanes[..S::F64_LANES];
    S::as_mut_simd_u64s(lanes).0[0] = simd.transmute_u64s_f64s(rounded);
    for lane in lanes.iter_mut() {
        *lane <<= 52;
    }
    let exponent = S::as_simd_u64s(lanes).0[0];
    simd.transmute_f64s_u64s(simd.add_u64s(simd.transmute_u64s_f64s(value), exponent))
}

real!(
    f32,
    f32s,
    F32_LANES,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    div_f32s,
    mul_add_e_f32s,
    max_f32s,
    less_than_f32s,
    select_f32s,
    reduce_sum_f32s,
    -127.0,
    12_582_912.0,
    scale_exponent_f32,
    transposed_f32,
    &[
        0.000_155_946_78_f32,
        0.001_340_664_3,
        0.009_617_693,
        0.055_503_104,
        0.240_226_52,
        0.693_147_24,
    ]
);
real!(
    f64,
    f64s,
    F64_LANES,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    div_f64s,
    mul_add_e_f64s,
    max_f64s,
    less_than_f64s,
    select_f64s,
    reduce_sum_f64s,
    -1023.0,
    6_755_399_441_055_744.0,
    scale_exponent_f64,
    transposed,
    &[
        4.078071929588337e-10_f64,
        7.072570412814423e-9,
        1.0180647659234139e-7,
        1.3215442675329823e-6,
        1.5252727385193868e-5,
        1.540353044157213e-4,
        1.3333558153439966e-3,
        9.618129107607003e-3,
        5.550410866479039e-2,
        2.4022650695910097e-1,
        6.931471805599457e-1,
    ]
);
