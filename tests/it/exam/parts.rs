//! What the exam's models are made of: tensor operations alone, weights from a seed.

use burn::tensor::activation::{gelu, softmax};
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The sizes and the seed that a model is built from.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub device: Device,
    pub width: usize,
    pub length: usize,
    pub batch: usize,
}

/// Positions in a block, tile, chunk or draft.
pub const BLOCK: usize = 4;

impl Setup {
    /// A matrix that keeps the size of what it multiplies; `salt` tells the matrices of one model
    /// apart.
    pub fn matrix(&self, salt: u64, shape: [usize; 2]) -> Tensor<2> {
        let mut rng = StdRng::seed_from_u64(self.seed * 1009 + salt);
        let most = (3.0 / shape[0] as f32).sqrt();
        let values: Vec<f32> =
            (0..shape[0] * shape[1]).map(|_| rng.random_range(-most..most)).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// A matrix from embedding to embedding.
    pub fn square(&self, salt: u64) -> Tensor<2> {
        self.matrix(salt, [self.width, self.width])
    }

    /// One number a feature, `[1, 1, width]`, between `least` and `most`.
    pub fn feature(&self, salt: u64, least: f32, most: f32) -> Tensor<3> {
        let mut rng = StdRng::seed_from_u64(self.seed * 1009 + salt);
        let values: Vec<f32> = (0..self.width).map(|_| rng.random_range(least..most)).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, self.width]), &self.device)
    }

    /// How much of each position goes to each other one: `[1, to, from]`.
    pub fn mixing(&self, weight: impl Fn(usize, usize) -> f32) -> Tensor<3> {
        let n = self.length;
        let values: Vec<f32> = (0..n * n).map(|cell| weight(cell / n, cell % n)).collect();
        Tensor::from_data(TensorData::new(values, [1, n, n]), &self.device)
    }

    /// The same with random weights where `is_open(to, from)`.
    pub fn random_mixing(&self, salt: u64, is_open: impl Fn(usize, usize) -> bool) -> Tensor<3> {
        let mut rng = StdRng::seed_from_u64(self.seed * 1009 + salt);
        let n = self.length;
        let values: Vec<f32> = (0..n * n)
            .map(|cell| (cell / n, cell % n))
            .map(|(to, from)| {
                let weight = rng.random_range(0.2..1.0f32) * [1.0, -1.0][rng.random_range(0..2)];
                if is_open(to, from) { weight } else { 0.0 }
            })
            .collect();
        Tensor::from_data(TensorData::new(values, [1, n, n]), &self.device)
    }

    /// Means over complete blocks; `delay` 0 hands each to its own block, 1 to the next one.
    pub fn block_means(&self, delay: usize) -> Tensor<3> {
        let complete = self.length / BLOCK * BLOCK;
        self.mixing(|to, from| {
            let is_of_block = from < complete && to / BLOCK == from / BLOCK + delay;
            // A block that is not complete has no mean to hand back.
            let is_handed = delay > 0 || to < complete;
            if is_of_block && is_handed { 1.0 / BLOCK as f32 } else { 0.0 }
        })
    }

    pub fn look_ahead(&self) -> Tensor<4, Bool> {
        hidden([self.length, self.length], &self.device, |query, key| key > query)
    }

    pub fn hidden(&self, is_hidden: impl Fn(usize, usize) -> bool) -> Tensor<4, Bool> {
        hidden([self.length, self.length], &self.device, is_hidden)
    }
}

/// `[1, 1, queries, keys]`, true = hidden.
pub fn hidden(
    [queries, keys]: [usize; 2],
    device: &Device,
    is_hidden: impl Fn(usize, usize) -> bool,
) -> Tensor<4, Bool> {
    let cells: Vec<bool> =
        (0..queries * keys).map(|cell| is_hidden(cell / keys, cell % keys)).collect();
    Tensor::from_data(TensorData::new(cells, [1, 1, queries, keys]), device)
}

/// `x` times a matrix, position by position.
pub fn project(x: &Tensor<3>, matrix: &Tensor<2>) -> Tensor<3> {
    x.clone().matmul(matrix.clone().unsqueeze())
}

/// Positions added up: `mixing` is `[1, to, from]`.
pub fn mix(mixing: &Tensor<3>, x: &Tensor<3>) -> Tensor<3> {
    let [batch, ..] = x.dims();
    let [_, to, from] = mixing.dims();
    mixing.clone().expand([batch, to, from]).matmul(x.clone())
}

/// One attention layer with a residual around it.
pub struct Attention {
    pub query: Tensor<2>,
    pub key: Tensor<2>,
    pub value: Tensor<2>,
    pub output: Tensor<2>,
    pub heads: usize,
}

impl Attention {
    pub fn new(setup: &Setup, salt: u64, heads: usize) -> Self {
        let [query, key, value, output] = [0, 1, 2, 3].map(|i| setup.square(10 * salt + i));
        Self { query, key, value, output, heads }
    }

    /// Queries, keys and values before they are split into heads.
    pub fn parts(&self, x: &Tensor<3>) -> [Tensor<3>; 3] {
        [&self.query, &self.key, &self.value].map(|matrix| project(x, matrix))
    }

    pub fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, length, width] = x.dims();
        x.reshape([batch, length, self.heads, width / self.heads]).swap_dims(1, 2) // [batch, heads, length, head_dim]
    }

    /// `[batch, heads, queries, keys]`
    pub fn scores(&self, queries: Tensor<3>, keys: Tensor<3>) -> Tensor<4> {
        let [.., width] = queries.dims();
        let scale = (width as f64 / self.heads as f64).sqrt().recip();
        self.split(queries).matmul(self.split(keys).swap_dims(2, 3)) * scale
    }

    /// The residual plus the values mixed by `weights`.
    pub fn mix(&self, x: Tensor<3>, weights: Tensor<4>, values: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let mixed: Tensor<3> =
            weights.matmul(self.split(values)).swap_dims(1, 2).reshape([batch, length, width]);
        x + project(&mixed, &self.output)
    }

    /// Attention over given queries, keys and values.
    pub fn over(
        &self,
        x: Tensor<3>,
        [queries, keys, values]: [Tensor<3>; 3],
        hidden: &Tensor<4, Bool>,
    ) -> Tensor<3> {
        let scores = self.scores(queries, keys);
        self.mix(x, masked_softmax(scores, hidden), values)
    }

    pub fn forward(&self, x: Tensor<3>, hidden: &Tensor<4, Bool>) -> Tensor<3> {
        self.cross(x.clone(), x, hidden)
    }

    /// The same with keys of its own.
    pub fn cross(&self, x: Tensor<3>, keys: Tensor<3>, hidden: &Tensor<4, Bool>) -> Tensor<3> {
        let [queries, ..] = self.parts(&x);
        let [_, keys, values] = self.parts(&keys);
        self.over(x, [queries, keys, values], hidden)
    }

    /// `forward` for inputs of any length.
    pub fn causal(&self, x: Tensor<3>) -> Tensor<3> {
        let length = x.dims()[1];
        let mask = hidden([length, length], &x.device(), |query, key| key > query);
        self.forward(x, &mask)
    }
}

pub fn masked_softmax(scores: Tensor<4>, hidden: &Tensor<4, Bool>) -> Tensor<4> {
    let hidden = hidden.clone().expand(scores.dims());
    softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3)
}

/// A convolution over positions, each feature by itself: `taps` `[width, 1, kernel]`, with `left` and
/// `right` positions of zeros around the sequence.
pub fn convolve(
    x: &Tensor<3>,
    taps: &Tensor<3>,
    left: usize,
    right: usize,
    dilation: usize,
) -> Tensor<3> {
    let [batch, _, width] = x.dims();
    let zeros = |count| Tensor::zeros([batch, count, width], &x.device());
    let mut padded = vec![x.clone()];
    if left > 0 {
        padded.insert(0, zeros(left));
    }
    if right > 0 {
        padded.push(zeros(right));
    }
    let options = ConvOptions::new([1], [0], [dilation], width);
    conv1d(Tensor::cat(padded, 1).swap_dims(1, 2), taps.clone(), None, options).swap_dims(1, 2)
}

/// Taps for [`convolve`], none of them near 0.
pub fn taps(setup: &Setup, kernel: usize) -> Tensor<3> {
    let mut rng = StdRng::seed_from_u64(setup.seed * 1009 + 77);
    let values: Vec<f32> = (0..setup.width * kernel)
        .map(|_| rng.random_range(0.2..1.0f32) * [1.0, -1.0][rng.random_range(0..2)])
        .collect();
    Tensor::from_data(TensorData::new(values, [setup.width, 1, kernel]), &setup.device)
}

/// A feed-forward layer with a residual, position by position.
pub fn feed_forward(x: Tensor<3>, up: &Tensor<2>, down: &Tensor<2>) -> Tensor<3> {
    x.clone() + project(&gelu(project(&x, up)), down)
}

/// Tokens looked up in a table `[vocabulary, width]`.
pub fn embed(table: &Tensor<2>, tokens: Tensor<2, Int>) -> Tensor<3> {
    let [batch, length] = tokens.dims();
    let width = table.dims()[1];
    table.clone().select(0, tokens.reshape([batch * length])).reshape([batch, length, width]) // [batch, length, width]
}

/// The positions of `x`, one after the other, through `step`.
pub fn step_by_step(
    x: &Tensor<3>,
    mut step: impl FnMut(usize, Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let steps = (0..x.dims()[1]).map(|i| step(i, x.clone().narrow(1, i, 1)));
    Tensor::cat(steps.collect(), 1)
}
