//! Random attentions against plain loops.

use super::*;

/// A random attention with everything.
#[derive(Clone, Debug)]
struct Random {
    batch: usize,
    kv_heads: usize,
    group: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    /// Axes of the dense mask that are not broadcast, and its share of hidden cells in tenths.
    hidden: Option<([bool; 4], u64)>,
    look_ahead: bool,
    scale: Option<f64>,
    softcap: Option<f64>,
    /// Axes of the bias that are not broadcast.
    bias: Option<[bool; 4]>,
    alibi: bool,
    sinks: bool,
    seed: u64,
}

impl Random {
    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn full(&self) -> [usize; 4] {
        [self.batch, self.heads(), self.queries, self.keys]
    }

    fn broadcast(&self, axes: [bool; 4]) -> [usize; 4] {
        std::array::from_fn(|axis| if axes[axis] { self.full()[axis] } else { 1 })
    }

    /// Compares the crate's attention with the loops, forward and backward.
    fn check(
        &self,
        device: &Device,
        dtype: DType,
        kernel: Kernel,
        forward: Tolerance,
        back: Tolerance,
    ) {
        let Self { batch, kv_heads, queries, keys, head_dim, value_dim, seed, .. } = *self;
        let heads = self.heads();
        let random =
            |shape, salt: u64| Array::random(shape, seed.wrapping_mul(31).wrapping_add(salt));
        let query = random([batch, heads, queries, head_dim], 1);
        let key = random([batch, kv_heads, keys, head_dim], 2);
        let value = random([batch, kv_heads, keys, value_dim], 3);
        let upstream = random([batch, heads, queries, value_dim], 4);
        let given_bias = self.bias.map(|axes| random(self.broadcast(axes), 5));
        let sinks = self.sinks.then(|| random([1, 1, 1, heads], 7));

        let grid = Grid::bottom_right(batch, queries, keys);
        let dense = self.hidden.map(|(axes, tenths)| {
            let mut flags = random(self.broadcast(axes), 6);
            flags
                .values
                .iter_mut()
                .for_each(|v| *v = (*v < tenths as f64 / 5.0 - 1.0) as u8 as f64);
            flags
        });
        let mut mask = Mask::all_visible();
        if self.look_ahead {
            mask = mask & Mask::look_ahead();
        }
        if let Some(dense) = &dense {
            let flags: Vec<bool> = dense.values.iter().map(|&flag| flag == 1.0).collect();
            let flags = TensorData::new(flags, dense.shape);
            mask = mask & Mask::from_hidden::<4>(&Tensor::from_data(flags, device)).unwrap();
        }
        let mask = mask.lower(&grid).unwrap();
        let hidden = |cell: [usize; 4]| {
            dense.as_ref().is_some_and(|dense| dense.at(cell) == 1.0)
                || self.look_ahead && cell[3] + queries > cell[2] + keys
        };

        // To the loops, ALiBi is a bias like any other; its gradient is not asked for.
        let slopes: Vec<f64> = (0..heads).map(|h| 0.5 / (h + 1) as f64).collect();
        let mut bias = given_bias.clone();
        if self.alibi {
            let mut both = Array::zeros(self.full());
            for cell in cells(self.full()) {
                let distance = (cell[3] + queries) as f64 - (cell[2] + keys) as f64;
                *both.at_mut(cell) = given_bias.as_ref().map_or(0.0, |bias| bias.at(cell))
                    - slopes[cell[1]] * distance.abs();
            }
            bias = Some(both);
        }
        let expected = naive::attention(
            &naive::Problem {
                query: &query,
                key: &key,
                value: &value,
                scale: self.scale.unwrap_or(1.0 / (head_dim as f64).sqrt()),
                softcap: self.softcap,
                bias: bias.as_ref(),
                sinks: sinks.as_ref().map(|sinks| sinks.values.as_slice()),
                hidden: &hidden,
                factor: &|_| 1.0,
            },
            &upstream,
        );

        let on_device = |array: &Array| tensor(array, device, dtype);
        let inputs = Inputs {
            query: on_device(&query),
            key: on_device(&key),
            value: on_device(&value),
            upstream: on_device(&upstream),
        };
        let score = Score::new()
            .with_scale(self.scale)
            .with_softcap(self.softcap)
            .with_bias(given_bias.as_ref().map(on_device))
            .with_alibi(self.alibi.then(|| Alibi::with_slopes(slopes)))
            .with_sinks(sinks.as_ref().map(|sinks| on_device(sinks).flatten::<1>(0, 3)));
        let request = by(kernel).with_weights(kernel == Kernel::Reference);
        let results = train(&inputs, &mask, &score, &request);

        let close = |name: &str, got: &Array, expected: &Array, tolerance| {
            assert_arrays_close(&format!("{self:?}, {kernel:?}: {name}"), got, expected, tolerance);
        };
        close("output", &results.output, &expected.output, forward);
        close("d_query", &results.d_query, &expected.d_query, back);
        close("d_key", &results.d_key, &expected.d_key, back);
        close("d_value", &results.d_value, &expected.d_value, back);
        if let Some(weights) = &results.weights {
            close("weights", weights, &expected.weights, forward);
        }
        if let (Some(got), Some(expected), false) = (&results.d_bias, &expected.d_bias, self.alibi)
        {
            close("d_bias", got, expected, back);
        }
        if let (Some(got), Some(expected)) = (&results.d_sinks, &expected.d_sinks) {
            let expected = Array::new([1, 1, 1, heads], expected.clone());
            close("d_sinks", got, &expected, back);
        }
        assert_hidden_is_zero(&format!("{self:?}, {kernel:?}"), &results, &hidden);
    }
}

fn random_attention() -> impl Strategy<Value = Random> {
    let sizes = (1..4usize, 1..4usize, 1..4usize, 1..8usize, 1..8usize, 1..6usize, 1..6usize);
    let hidden = proptest::option::of((any::<[bool; 4]>(), 0..11u64));
    let options = (
        proptest::option::of(0.05..2.0),
        proptest::option::of(0.5..20.0),
        proptest::option::of(any::<[bool; 4]>()),
        any::<bool>(),
        any::<bool>(),
    );
    (sizes, hidden, any::<bool>(), options, any::<u64>()).prop_map(
        |(sizes, hidden, look_ahead, (scale, softcap, bias, alibi, sinks), seed)| {
            let (batch, kv_heads, group, queries, keys, head_dim, value_dim) = sizes;
            Random {
                batch,
                kv_heads,
                group,
                queries,
                keys,
                head_dim,
                value_dim,
                hidden,
                look_ahead,
                scale,
                softcap,
                bias,
                alibi,
                sinks,
                seed,
            }
        },
    )
}

on_each_backend! {
    /// Any shape, mask, bias, grouping and option, in f64 on CPUs.
    fn agrees_with_plain_loops(device: Device) {
        // Software Vulkan claims f64 too, and multiplies f64 tensors by scalars wrongly.
        let (dtype, forward, back) = if is_cpu(&device) {
            (DType::F64, F64, F64)
        } else {
            (DType::F32, OUTPUT.on(&device), GRADIENT.on(&device))
        };
        let cases = if is_cpu(&device) { 96 } else { 6 };
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
        proptest!(config, |(random in random_attention())| {
            for kernel in training_kernels(&device) {
                random.check(&device, dtype, kernel, forward, back);
            }
        });
    }

    /// Lengths around the tile sizes of kernels, in f32; twice, for a wgpu that tunes itself.
    fn agrees_with_plain_loops_at_every_length(device: Device) {
        let lengths: &[usize] = if is_cpu(&device) {
            &[1, 2, 7, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129]
        } else {
            &[1, 17, 65]
        };
        for &length in lengths {
            let random = Random {
                batch: 1,
                kv_heads: 1,
                group: 2,
                queries: length,
                keys: length,
                head_dim: 5,
                value_dim: 3,
                hidden: None,
                look_ahead: true,
                scale: None,
                softcap: None,
                bias: None,
                alibi: false,
                sinks: false,
                seed: length as u64,
            };
            for kernel in training_kernels(&device) {
                for _ in 0..2 {
                    random.check(
                        &device,
                        DType::F32,
                        kernel,
                        OUTPUT.on(&device),
                        GRADIENT.on(&device),
                    );
                }
            }
        }
    }
}
