//! From dot products to scores: scale, softcap, bias and ALiBi.

use cubecl::prelude::*;

use super::{Config, header, rows::from_header};

/// `scale * dot`, capped.
#[cube]
pub fn capped(dot: f32, scale: f32, cap: f32, #[comptime] cfg: Config) -> f32 {
    let mut score = dot * scale;
    if comptime!(cfg.softcap) {
        score = cap * tanh(score / cap);
    }
    score
}

/// `tanh`, also where `exp(2 * x)` overflows: what is fast on Metal is the quotient of two of them.
#[cube]
fn tanh(x: f32) -> f32 {
    // 1 from 9.1 on, as f32 has it.
    let mut tanh = x.tanh();
    if x > 15.0f32 {
        tanh = 1.0f32;
    }
    if x < -15.0f32 {
        tanh = -1.0f32;
    }
    tanh
}

/// What the cap multiplies the gradient of a capped score by.
#[cube]
pub fn cap_slope(score: f32, cap: f32, #[comptime] cfg: Config) -> f32 {
    let mut slope = 1.0f32;
    if comptime!(cfg.softcap) {
        let tanh = score / cap;
        slope = 1.0f32 - tanh * tanh;
    }
    slope
}

/// The slope of a head, if there are slopes.
#[cube]
pub fn slope_of(map: &Tensor<i32>, head: usize, #[comptime] cfg: Config) -> f32 {
    let mut slope = 0.0f32;
    if comptime!(cfg.slopes) {
        slope = f32::reinterpret(map[from_header(map, header::SLOPES) + head]);
    }
    slope
}

/// An additive bias, `[batch, heads, queries, keys]`, with strides of 0 where it broadcasts; read if it
/// is there.
pub type Bias<F> = ComptimeOption<OwnedTensor<F>>;

/// Where a head's biases begin.
#[cube]
pub fn bias_base<F: Float>(bias: &Bias<F>, batch: usize, head: usize) -> usize {
    let mut base = 0usize;
    #[comptime]
    match bias {
        ComptimeOption::Some(bias) => {
            base = batch * bias.stride(0) + head * bias.stride(1);
        }
        ComptimeOption::None => {}
    }
    base
}

/// What is added to the capped score of a cell, which is visible.
#[cube]
pub fn added<F: Float>(
    bias: &Bias<F>,
    base: usize,
    map: &Tensor<i32>,
    slope: f32,
    query: usize,
    key: usize,
    #[comptime] cfg: Config,
) -> f32 {
    let mut sum = 0.0f32;
    #[comptime]
    match bias {
        ComptimeOption::Some(bias) => {
            sum = f32::cast_from(bias[base + query * bias.stride(2) + key * bias.stride(3)]);
        }
        ComptimeOption::None => {}
    }
    if comptime!(cfg.slopes) {
        let positions = from_header(map, header::POSITIONS);
        let mut position = map[comptime!(header::FIRST_KEY)] + key as i32;
        if positions != 0 {
            position = map[positions + key];
        }
        let index = query as i32;
        sum -= slope * f32::cast_from(max(index - position, position - index));
    }
    sum
}
