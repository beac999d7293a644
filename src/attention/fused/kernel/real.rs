//! The numbers of the kernel: what it computes in, and what it reads and writes.

use half::{bf16, f16};

/// What the kernel computes in: `f32` or `f64`.
pub(crate) trait Real: Element<Real = Self> + Default {
    fn to_f64(self) -> f64;
    fn of_f64(value: f64) -> Self;
}

/// What tensors hold. Half precision is computed in `f32`.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    type Real: Real;
    fn to_real(self) -> Self::Real;
    fn of_real(value: Self::Real) -> Self;
}

macro_rules! real {
    ($real:ty) => {
        impl Real for $real {
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn of_f64(value: f64) -> Self {
                value as $real
            }
        }
        impl Element for $real {
            type Real = $real;
            #[inline(always)]
            fn to_real(self) -> $real {
                self
            }
            #[inline(always)]
            fn of_real(value: $real) -> Self {
                value
            }
        }
    };
}
real!(f32);
real!(f64);

macro_rules! half {
    ($half:ty) => {
        impl Element for $half {
            type Real = f32;
            #[inline(always)]
            fn to_real(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn of_real(value: f32) -> Self {
                Self::from_f32(value)
            }
        }
    };
}
half!(f16);
half!(bf16);
