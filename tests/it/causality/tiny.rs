//! A tiny attention of its own, on tensor operations alone: what it gets wrong, it gets wrong
//! independently of this crate's layers.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub const WIDTH: usize = 6;
pub const LENGTH: usize = 11;
pub const BATCH: usize = 4;

/// One attention layer with a residual around it.
pub struct Tiny {
    query: Tensor<2>,
    key: Tensor<2>,
    value: Tensor<2>,
    output: Tensor<2>,
    heads: usize,
}

impl Tiny {
    pub fn new(seed: u64, heads: usize, device: &Device) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut matrix = || random_matrix([WIDTH, WIDTH], &mut rng, device);
        Self { query: matrix(), key: matrix(), value: matrix(), output: matrix(), heads }
    }

    fn split(&self, x: Tensor<3>, matrix: &Tensor<2>) -> Tensor<4> {
        let [batch, length, width] = x.dims();
        let x = x.matmul(matrix.clone().unsqueeze());
        x.reshape([batch, length, self.heads, width / self.heads]).swap_dims(1, 2) // [batch, heads, length, head_dim]
    }

    /// `[batch, heads, queries, keys]`
    pub fn scores(&self, queries: &Tensor<3>, keys: &Tensor<3>) -> Tensor<4> {
        let scale = (WIDTH as f64 / self.heads as f64).sqrt().recip();
        let queries = self.split(queries.clone(), &self.query);
        queries.matmul(self.split(keys.clone(), &self.key).swap_dims(2, 3)) * scale
    }

    /// The residual plus the values mixed by `weights`.
    pub fn mix(&self, queries: Tensor<3>, weights: Tensor<4>, keys: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = queries.dims();
        let mixed = weights.matmul(self.split(keys, &self.value)).swap_dims(1, 2);
        let mixed: Tensor<3> = mixed.reshape([batch, length, width]);
        queries + mixed.matmul(self.output.clone().unsqueeze())
    }

    /// Weights of `queries` over `keys`, hidden where `hidden` is true; broadcasts.
    pub fn weights(
        &self,
        queries: &Tensor<3>,
        keys: &Tensor<3>,
        hidden: &Tensor<4, Bool>,
    ) -> Tensor<4> {
        let scores = self.scores(queries, keys);
        let hidden = hidden.clone().expand(scores.dims());
        softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3)
    }

    /// The layer as it should be.
    pub fn forward(&self, x: Tensor<3>, hidden: &Tensor<4, Bool>) -> Tensor<3> {
        self.cross(x.clone(), x, hidden)
    }

    /// The same with keys of its own.
    pub fn cross(&self, x: Tensor<3>, keys: Tensor<3>, hidden: &Tensor<4, Bool>) -> Tensor<3> {
        let weights = self.weights(&x, &keys, hidden);
        self.mix(x, weights, keys)
    }
}

pub fn random_matrix(shape: [usize; 2], rng: &mut StdRng, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
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

/// The look-ahead mask of the right layer.
pub fn look_ahead(device: &Device) -> Tensor<4, Bool> {
    hidden([LENGTH, LENGTH], device, |query, key| key > query)
}

/// `[BATCH, 1, LENGTH, LENGTH]`: look-ahead, and the first `pads[row]` keys of each row hidden.
pub fn padded(pads: [usize; BATCH], device: &Device) -> Tensor<4, Bool> {
    let rows = pads
        .map(|pad| hidden([LENGTH, LENGTH], device, |query, key| key > query || key < pad))
        .to_vec();
    Tensor::cat(rows, 0)
}

/// Feeds one position after the other; `step(i, x_i, x_0..=x_i)`.
pub fn one_by_one(
    x: Tensor<3>,
    step: impl Fn(usize, Tensor<3>, Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let outputs = (0..x.dims()[1])
        .map(|i| step(i, x.clone().narrow(1, i, 1), x.clone().narrow(1, 0, i + 1)))
        .collect();
    Tensor::cat(outputs, 1)
}
