//! The kernels for matrix units: where they run, and their launches.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeDim;

use super::device::{COLUMNS, Config, OWN, matrix};
use super::launch::{Inputs, Scalars, count, optional};
use crate::kernels::Plan;

/// Whether matrix units compute what rows of `panel` in all are to be multiplied with: f16 or bf16, by
/// products of 16 x 16 x 16 summed in f32, with planes of 32 units, and shared memory for so many tiles
/// of a width. Where few rows fill no panel, they don't.
pub(super) fn fits(plan: &Plan, inputs: &Inputs, panel: usize, tiles: usize) -> bool {
    let Inputs { query, key, .. } = inputs;
    if !matches!(query.dtype, DType::F16 | DType::BF16) || query.dtype != key.dtype || panel <= 32 {
        return false;
    }
    let element = dtype_to_storage_type(query.dtype);
    let edge = matrix::EDGE as u32;
    let product = MmaConfig {
        a_type: element,
        b_type: element,
        cd_type: ElemType::Float(FloatKind::F32),
        m: edge,
        n: edge,
        k: edge,
    };
    let device = query.client.properties();
    let plane = matrix::PLANE as u32;
    let chunks = plan.head_dim.max(plan.value_dim).div_ceil(COLUMNS);
    device.features.matmul.cmma.contains(&product)
        && device.hardware.plane_size_min == plane
        && device.hardware.plane_size_max == plane
        && matrix::bytes(chunks, tiles) <= device.hardware.max_shared_memory_size
}

/// Numbers of a row that are read at once: four where all four of each tensor stand together, in places that
/// a device may read so.
fn vector(tensors: &[&CubeTensor]) -> usize {
    let four = |tensor: &CubeTensor| {
        let [strides @ .., last] = &tensor.meta.strides()[..] else { return false };
        let bytes = tensor.handle.offset_start.unwrap_or(0);
        *last == 1
            && tensor.meta.shape()[3].is_multiple_of(OWN)
            && strides.iter().all(|stride| stride.is_multiple_of(OWN))
            && bytes.is_multiple_of(4 * OWN as u64)
    };
    if tensors.iter().all(|tensor| four(tensor)) { OWN } else { 1 }
}

pub(super) fn forward(
    plan: &Plan,
    inputs: &Inputs,
    output: &CubeTensor,
    statistics: &CubeTensor,
    cfg: Config,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    let s = Scalars::of(plan);
    let vector = vector(&[query, key, value]);
    run!(
        matrix::forward::matrix_forward,
        query.client,
        count(plan.queries.div_ceil(matrix::ROWS), plan.heads, plan.batch),
        matrix::UNITS,
        vector,
        [query, key, value, map, output, statistics],
        optional(inputs.bias.as_ref()),
        optional(inputs.sinks.as_ref()),
        optional(inputs.draws.as_ref()),
        @ s,
        cfg,
        dtype_to_storage_type(query.dtype),
    );
}

pub(super) fn query_gradient(
    plan: &Plan,
    inputs: &Inputs,
    d_output: &CubeTensor,
    numbers: &CubeTensor,
    d_query: &CubeTensor,
    cfg: Config,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    let s = Scalars::of(plan);
    let vector = vector(&[query, key, value, d_output]);
    run!(
        matrix::query_gradient::matrix_query_gradient,
        query.client,
        count(plan.queries.div_ceil(matrix::ROWS), plan.heads, plan.batch),
        matrix::UNITS,
        vector,
        [query, key, value, d_output, map, numbers, d_query],
        optional(inputs.bias.as_ref()),
        optional(inputs.draws.as_ref()),
        @ s,
        cfg,
        dtype_to_storage_type(query.dtype),
    );
}

pub(super) fn key_value_gradients(
    plan: &Plan,
    inputs: &Inputs,
    d_output: &CubeTensor,
    numbers: &CubeTensor,
    [d_key, d_value]: [Option<&CubeTensor>; 2],
    cfg: Config,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    let s = Scalars::of(plan);
    let vector = vector(&[query, key, value, d_output]);
    run!(
        matrix::key_value_gradients::matrix_key_value_gradients,
        query.client,
        count(plan.keys.div_ceil(matrix::ROWS), plan.kv_heads, plan.batch),
        matrix::UNITS,
        vector,
        [query, key, value, d_output, map, numbers],
        optional(d_key),
        optional(d_value),
        optional(inputs.bias.as_ref()),
        optional(inputs.draws.as_ref()),
        @ s,
        cfg,
        dtype_to_storage_type(query.dtype),
    );
}
