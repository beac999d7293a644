//! Attention in plain loops over f64, forward and backward: slow, obvious, and independent of every
//! kernel. The integration tests include this file, too, so it names nothing of the crate.

/// A row-major array `[a, b, c, d]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: [usize; 4],
    pub values: Vec<f64>,
}

impl Array {
    pub fn zeros(shape: [usize; 4]) -> Self {
        Self { shape, values: vec![0.0; shape.iter().product()] }
    }

    pub fn new(shape: [usize; 4], values: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { shape, values }
    }

    /// Uniform numbers in [-1.5, 1.5), the same for the same seed everywhere.
    pub fn random(shape: [usize; 4], seed: u64) -> Self {
        let mut array = Self::zeros(shape);
        let mut state = seed;
        for value in &mut array.values {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^= bits >> 31;
            *value = (bits >> 11) as f64 / (1u64 << 53) as f64 * 3.0 - 1.5;
        }
        array
    }

    /// Where an entry stands; an axis of size 1 is broadcast.
    fn offset(&self, index: [usize; 4]) -> usize {
        index
            .into_iter()
            .zip(self.shape)
            .fold(0, |offset, (index, size)| offset * size + if size == 1 { 0 } else { index })
    }

    pub fn at(&self, index: [usize; 4]) -> f64 {
        self.values[self.offset(index)]
    }

    pub fn at_mut(&mut self, index: [usize; 4]) -> &mut f64 {
        let offset = self.offset(index);
        &mut self.values[offset]
    }
}

/// What is asked; everything that the crate's attention takes.
pub struct Problem<'a> {
    /// `[batch, heads, queries, head_dim]`
    pub query: &'a Array,
    /// `[batch, kv_heads, keys, head_dim]`
    pub key: &'a Array,
    /// `[batch, kv_heads, keys, value_dim]`
    pub value: &'a Array,
    pub scale: f64,
    pub softcap: Option<f64>,
    /// Broadcasts to `[batch, heads, queries, keys]`.
    pub bias: Option<&'a Array>,
    /// One score a head, of a key that everyone sees and whose value is zero.
    pub sinks: Option<&'a [f64]>,
    /// `(batch, head, query, key)`
    pub hidden: &'a dyn Fn([usize; 4]) -> bool,
    /// What a weight is multiplied by after the softmax: 1, or dropout's 0 or `1 / (1 - p)`.
    pub factor: &'a dyn Fn([usize; 4]) -> f64,
}

/// Outputs, and the gradients of `sum(output * upstream)`.
pub struct Solution {
    pub output: Array,
    /// Before dropout.
    #[allow(dead_code)] // read by tests alone
    pub weights: Array,
    pub d_query: Array,
    pub d_key: Array,
    pub d_value: Array,
    pub d_bias: Option<Array>,
    pub d_sinks: Option<Vec<f64>>,
}

pub fn attention(problem: &Problem, upstream: &Array) -> Solution {
    let Problem { query, key, value, scale, softcap, bias, sinks, hidden, factor } = problem;
    let [batch, heads, queries, head_dim] = query.shape;
    let [_, kv_heads, keys, value_dim] = value.shape;
    let mut solution = Solution {
        output: Array::zeros([batch, heads, queries, value_dim]),
        weights: Array::zeros([batch, heads, queries, keys]),
        d_query: Array::zeros(query.shape),
        d_key: Array::zeros(key.shape),
        d_value: Array::zeros(value.shape),
        d_bias: bias.map(|bias| Array::zeros(bias.shape)),
        d_sinks: sinks.map(|sinks| vec![0.0; sinks.len()]),
    };
    for b in 0..batch {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            for q in 0..queries {
                let visible: Vec<_> = (0..keys).filter(|&k| !hidden([b, h, q, k])).collect();

                // Forward.
                let mut slopes = vec![0.0; keys]; // of the softcap
                let mut weights = vec![0.0; keys];
                let mut maximum = f64::NEG_INFINITY;
                for &k in &visible {
                    let dot: f64 =
                        (0..head_dim).map(|i| query.at([b, h, q, i]) * key.at([b, kv, k, i])).sum();
                    let (mut score, mut slope) = (dot * scale, *scale);
                    if let Some(cap) = softcap {
                        let tanh = (score / cap).tanh();
                        (score, slope) = (cap * tanh, slope * (1.0 - tanh * tanh));
                    }
                    if let Some(bias) = bias {
                        score += bias.at([b, h, q, k]);
                    }
                    (weights[k], slopes[k]) = (score, slope);
                    maximum = maximum.max(score);
                }
                let sink = sinks.map(|sinks| sinks[h]).filter(|_| !visible.is_empty());
                maximum = maximum.max(sink.unwrap_or(maximum));
                let of_sink = sink.map_or(0.0, |sink| (sink - maximum).exp());
                let mut sum = of_sink;
                for &k in &visible {
                    weights[k] = (weights[k] - maximum).exp();
                    sum += weights[k];
                }
                for &k in &visible {
                    weights[k] /= sum;
                    *solution.weights.at_mut([b, h, q, k]) = weights[k];
                    for i in 0..value_dim {
                        *solution.output.at_mut([b, h, q, i]) +=
                            weights[k] * factor([b, h, q, k]) * value.at([b, kv, k, i]);
                    }
                }

                // Backward.
                let mut d_weights = vec![0.0; keys];
                let mut mean = 0.0;
                for &k in &visible {
                    for i in 0..value_dim {
                        let g = upstream.at([b, h, q, i]) * factor([b, h, q, k]);
                        d_weights[k] += g * value.at([b, kv, k, i]);
                        *solution.d_value.at_mut([b, kv, k, i]) += g * weights[k];
                    }
                    mean += weights[k] * d_weights[k];
                }
                if let (Some(d_sinks), Some(_)) = (&mut solution.d_sinks, sink) {
                    d_sinks[h] -= of_sink / sum * mean;
                }
                for &k in &visible {
                    let d_score = weights[k] * (d_weights[k] - mean);
                    if let Some(d_bias) = &mut solution.d_bias {
                        *d_bias.at_mut([b, h, q, k]) += d_score;
                    }
                    for i in 0..head_dim {
                        *solution.d_query.at_mut([b, h, q, i]) +=
                            d_score * slopes[k] * key.at([b, kv, k, i]);
                        *solution.d_key.at_mut([b, kv, k, i]) +=
                            d_score * slopes[k] * query.at([b, h, q, i]);
                    }
                }
            }
        }
    }
    solution
}
