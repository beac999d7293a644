//! Which kernel runs, compiled for what, by how many cubes.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{ComptimeOptionArgs, CubeCount, CubeDim, CubePrimitive, OwnedTensor};

use super::device::{
    COLUMNS, Config, UNITS, bias_gradient, decode, forward, key_value_gradients, query_gradient,
    row_numbers, sinks_gradient,
};
use super::launch_matrix;
use crate::kernels::Plan;
use crate::kernels::dropout::mix;

/// The inputs of one attention. All floats are of one type; but forward, keys and values may be of
/// another.
pub(super) struct Inputs {
    pub(super) query: CubeTensor,
    pub(super) key: CubeTensor,
    pub(super) value: CubeTensor,
    pub(super) map: CubeTensor,
    /// By strides that broadcast, `[batch, heads, queries, keys]`.
    pub(super) bias: Option<CubeTensor>,
    pub(super) sinks: Option<CubeTensor>,
    /// The seed of dropout, where the device drew it.
    pub(super) draws: Option<CubeTensor>,
}

/// The numbers that every kernel takes.
pub(super) struct Scalars {
    pub(super) scale: f32,
    pub(super) cap: f32,
    pub(super) seed: [u32; 2],
    pub(super) threshold: u32,
    pub(super) kept: f32,
}

impl Scalars {
    pub(super) fn of(plan: &Plan) -> Self {
        let (seed, threshold, kept) = plan.dropout.map_or((0, 0, 1.0), |dropout| {
            (mix(dropout.seed), dropout.threshold(), dropout.scale())
        });
        Self {
            scale: plan.scoring.scale as f32,
            cap: plan.scoring.softcap.unwrap_or(1.0) as f32,
            seed: [seed as u32, (seed >> 32) as u32],
            threshold,
            kept: kept as f32,
        }
    }
}

/// What a kernel is compiled for, see [`Config::fitted`].
fn config(plan: &Plan, query: &CubeTensor, panel: usize, scores: usize, sums: usize) -> Config {
    Config {
        rows: 64,
        column_quads: 1,
        head_chunks: plan.head_dim.div_ceil(COLUMNS),
        value_chunks: plan.value_dim.div_ceil(COLUMNS),
        softcap: plan.scoring.softcap.is_some(),
        slopes: plan.scoring.slopes.is_some(),
        dropout: plan.dropout.is_some(),
    }
    .fitted(panel, scores, sums, query.client.properties().hardware.max_shared_memory_size)
}

/// Heads are the first axis: cubes of neighbouring heads begin together.
pub(super) fn count(panels: usize, heads: usize, batch: usize) -> CubeCount {
    CubeCount::Static(heads as u32, panels as u32, batch as u32)
}

/// A tensor that may be missing, as the argument of a kernel.
pub(super) fn optional<C: CubePrimitive>(
    tensor: Option<&CubeTensor>,
) -> ComptimeOptionArgs<OwnedTensor<C>> {
    tensor.map(|tensor| tensor.clone().into_tensor_arg()).into()
}

/// Launches a kernel, given the client, the numbers of cubes and of their units, how many numbers of the
/// inputs are read at once if it asks that, the tensors, and the rest of its arguments.
macro_rules! run {
    // `@ s` stands for the six scalars.
    ($kernel:path, $client:expr, $count:expr, $units:expr, $($vector:ident,)? [$($tensor:expr),*], $($before:expr,)* @ $s:ident, $($after:expr),* $(,)?) => {
        run!(
            $kernel, $client, $count, $units, $($vector,)? [$($tensor),*], $($before,)*
            $s.scale, $s.cap, $s.seed[0], $s.seed[1], $s.threshold, $s.kept, $($after),*
        )
    };
    ($kernel:path, $client:expr, $count:expr, $units:expr, $($vector:ident,)? [$($tensor:expr),*], $($rest:expr),* $(,)?) => {{
        use $kernel as launched;
        let dim = CubeDim::new_1d($units as u32);
        let client = $client.clone();
        // SAFETY: the kernels guard every index that they make of sizes, and the map was packed for
        // these sizes.
        unsafe {
            launched::launch_unchecked(
                &client,
                $count,
                dim,
                $($vector,)?
                $($tensor.clone().into_tensor_arg(),)*
                $($rest,)*
            )
        };
    }};
}

pub(super) fn forward(plan: &Plan, inputs: &Inputs, output: &CubeTensor, statistics: &CubeTensor) {
    let Inputs { query, key, value, map, .. } = inputs;
    let cfg = config(plan, query, plan.queries, 1, plan.value_dim.div_ceil(COLUMNS));
    let s = Scalars::of(plan);
    if launch_matrix::fits(plan, inputs, plan.queries, 1) {
        return launch_matrix::forward(plan, inputs, output, statistics, cfg);
    }
    run!(
        forward::forward,
        query.client,
        count(plan.queries.div_ceil(cfg.rows), plan.heads, plan.batch),
        cfg.units(),
        [query, key, value, map, output, statistics],
        optional(inputs.bias.as_ref()),
        optional(inputs.sinks.as_ref()),
        optional(inputs.draws.as_ref()),
        @ s,
        cfg,
        [query, key].map(|tensor| dtype_to_storage_type(tensor.dtype)),
    );
}

/// Whether few queries share their keys, so that a panel would be mostly padding.
pub(super) fn is_decoding(plan: &Plan) -> bool {
    plan.queries * (plan.heads / plan.kv_heads) <= decode::ROWS && plan.dropout.is_none()
}

/// Parts that the keys are divided into: enough cubes for a large device, of 256 keys at least.
pub(super) fn parts(plan: &Plan) -> usize {
    let cubes = 512_usize.div_ceil(plan.batch * plan.kv_heads);
    plan.keys.div_ceil(256).min(cubes).max(1)
}

/// [`forward`] for few queries; `partial` holds `parts * (2 + value_dim)` numbers a row.
pub(super) fn decode(
    plan: &Plan,
    inputs: &Inputs,
    partial: &CubeTensor,
    output: &CubeTensor,
    statistics: &CubeTensor,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    let cfg = config(plan, query, 1, 1, 1);
    let s = Scalars::of(plan);
    run!(
        decode::decode_parts,
        query.client,
        CubeCount::Static(parts(plan) as u32, plan.kv_heads as u32, plan.batch as u32),
        UNITS,
        [query, key, value, map, partial],
        optional(inputs.bias.as_ref()),
        s.scale,
        s.cap,
        cfg,
        [query, key].map(|tensor| dtype_to_storage_type(tensor.dtype)),
    );
    run!(
        decode::decode_whole,
        query.client,
        CubeCount::Static(plan.queries as u32, plan.heads as u32, plan.batch as u32),
        UNITS,
        [partial, output, statistics],
        optional(inputs.sinks.as_ref()),
        dtype_to_storage_type(query.dtype),
    );
}

pub(super) fn row_numbers(
    plan: &Plan,
    output: &CubeTensor,
    d_output: &CubeTensor,
    statistics: &CubeTensor,
    numbers: &CubeTensor,
) {
    run!(
        row_numbers::row_numbers,
        output.client,
        CubeCount::Static(
            plan.queries.div_ceil(row_numbers::ROWS) as u32,
            plan.heads as u32,
            plan.batch as u32,
        ),
        UNITS,
        [output, d_output, statistics, numbers],
        dtype_to_storage_type(output.dtype),
    );
}

pub(super) fn query_gradient(
    plan: &Plan,
    inputs: &Inputs,
    d_output: &CubeTensor,
    numbers: &CubeTensor,
    d_query: &CubeTensor,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    let cfg = config(plan, query, plan.queries, 2, plan.head_dim.div_ceil(COLUMNS));
    let s = Scalars::of(plan);
    if launch_matrix::fits(plan, inputs, plan.queries, 2) {
        return launch_matrix::query_gradient(plan, inputs, d_output, numbers, d_query, cfg);
    }
    run!(
        query_gradient::query_gradient,
        query.client,
        count(plan.queries.div_ceil(cfg.rows), plan.heads, plan.batch),
        cfg.units(),
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
) {
    // Each tensor is a binding, and what the kernel is told of their sizes is one more. And the sums of
    // both gradients, where they are wide, fit no registers.
    let bindings = 9 + [&inputs.bias, &inputs.draws].into_iter().flatten().count();
    let most = inputs.query.client.properties().hardware.max_bindings as usize;
    let wide = plan.head_dim + plan.value_dim > 384;
    if d_key.is_some() && d_value.is_some() && (bindings > most || wide) {
        key_value_gradients(plan, inputs, d_output, numbers, [d_key, None]);
        return key_value_gradients(plan, inputs, d_output, numbers, [None, d_value]);
    }
    let Inputs { query, key, value, map, .. } = inputs;
    let sums = [(d_key, plan.head_dim), (d_value, plan.value_dim)]
        .map(|(wanted, width)| wanted.map_or(0, |_| width.div_ceil(COLUMNS)));
    let cfg = config(plan, query, plan.keys, 2, sums.iter().sum());
    let s = Scalars::of(plan);
    if launch_matrix::fits(plan, inputs, plan.keys, 2) {
        return launch_matrix::key_value_gradients(
            plan,
            inputs,
            d_output,
            numbers,
            [d_key, d_value],
            cfg,
        );
    }
    run!(
        key_value_gradients::key_value_gradients,
        query.client,
        count(plan.keys.div_ceil(cfg.rows), plan.kv_heads, plan.batch),
        cfg.units(),
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

pub(super) fn bias_gradient(
    plan: &Plan,
    inputs: &Inputs,
    d_output: &CubeTensor,
    numbers: &CubeTensor,
    d_bias: &CubeTensor,
) {
    let Inputs { query, key, value, map, .. } = inputs;
    // One square a unit.
    let cfg = config(plan, query, plan.queries.min(64), 2, 1);
    let s = Scalars::of(plan);
    let [batch, heads, queries, keys] = d_bias.meta.shape().dims::<4>();
    run!(
        bias_gradient::bias_gradient,
        query.client,
        CubeCount::Static(
            keys.div_ceil(COLUMNS) as u32,
            queries.div_ceil(cfg.rows) as u32,
            (batch * heads) as u32,
        ),
        cfg.units(),
        [query, key, value, d_output, map, numbers, d_bias],
        optional(inputs.bias.as_ref()),
        optional(inputs.draws.as_ref()),
        @ s,
        cfg,
        dtype_to_storage_type(query.dtype),
    );
}

pub(super) fn sinks_gradient(
    plan: &Plan,
    sinks: &CubeTensor,
    numbers: &CubeTensor,
    d_sinks: &CubeTensor,
) {
    run!(
        sinks_gradient::sinks_gradient,
        sinks.client,
        CubeCount::Static(plan.heads as u32, 1, 1),
        UNITS,
        [sinks, numbers, d_sinks],
        plan.queries as u32,
        dtype_to_storage_type(sinks.dtype),
    );
}
