//! Rotary positions: queries and keys turned by angles that grow with the position.
//!
//! ```text
//! (a, b) at position p  becomes  (a cos pf - b sin pf, b cos pf + a sin pf)
//! ```
//!
//! for each pair of channels with its frequency `f` (Su et al. 2021, "RoFormer", section 3.2.2). The
//! product of a query with a key then depends on the distance of their positions alone. Which two
//! channels make a pair is the layout; weights trained in one are wrong in the other.
//!
//! Angles are computed in f64, since in f32 that of a late position is off by more than the rounding
//! of the result, and only once in each pass for all layers that share them.

use std::sync::{Arc, OnceLock};

use burn::config::Config;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::rotary_scaling::{RotaryScaling, frequencies};
use crate::kernels::{self, Rotation};
use crate::mask::Grid;
use crate::sequence::PositionIds;
use crate::{Error, Result};

/// Rotary positions of an attention.
///
/// ```
/// use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig};
///
/// let attention = MultiHeadAttentionConfig::new(64, 4).with_rotary(Some(RotaryConfig::new()));
/// ```
#[derive(Config, Debug, Copy, PartialEq)]
pub struct RotaryConfig {
    /// The longest wavelength is about `2π · base` tokens.
    #[config(default = 10000.0)]
    pub base: f64,
    /// How many channels of each head are turned, the first ones; all if not given.
    pub dim: Option<usize>,
    /// Which channels make a pair.
    #[config(default = "RotaryLayout::Half")]
    pub layout: RotaryLayout,
    /// How the frequencies are stretched to a context longer than the trained one, if they are.
    pub scaling: Option<RotaryScaling>,
}

/// Which two of `dim` rotated channels are turned together.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum RotaryLayout {
    /// Channel `i` with channel `i + dim / 2`: Hugging Face's Llama and all its kin, GPT-NeoX.
    Half,
    /// Channel `2i` with channel `2i + 1`: the paper, GPT-J, Meta's own Llama files, Burn's
    /// `RotaryEncoding`.
    Interleaved,
}

impl RotaryConfig {
    /// The rotation for heads of `head_dim` channels.
    pub(super) fn init(&self, head_dim: usize) -> Result<Rotary> {
        let refuse =
            |field, expected: String, got: String| Err(Error::Config { field, expected, got });
        let dim = self.dim.unwrap_or(head_dim);
        if dim == 0 || !dim.is_multiple_of(2) || dim > head_dim {
            return refuse(
                "RotaryConfig::dim",
                format!("an even number of the {head_dim} channels of a head, since they pair up"),
                dim.to_string(),
            );
        }
        if !(self.base.is_finite() && self.base > 1.0) {
            return refuse(
                "RotaryConfig::base",
                "a number above 1, 10000 for example".into(),
                self.base.to_string(),
            );
        }
        self.scaling.iter().try_for_each(RotaryScaling::check)?;
        Ok(Rotary {
            frequencies: frequencies(self.base, dim, self.scaling).into(),
            amplitude: self.scaling.map_or(1.0, |scaling| scaling.amplitude()),
            layout: self.layout,
        })
    }
}

/// What the positions of a pass are multiplied by. Built by [`RotaryConfig`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Of each pair, in radians a token.
    frequencies: Arc<[f64]>,
    amplitude: f64,
    layout: RotaryLayout,
}

impl Rotary {
    /// The angles of tokens at `positions`, `[rows, queries]` row-major.
    fn angles(&self, rows: usize, positions: impl Iterator<Item = i64>) -> Angles {
        let turn = |angle: f64| {
            let (sin, cos) = angle.sin_cos();
            [self.amplitude * cos, self.amplitude * sin]
        };
        let of_position = |position: i64| self.frequencies.iter().map(move |f| position as f64 * f);
        let turns: Arc<[[f64; 2]]> = positions.flat_map(of_position).map(turn).collect();
        let narrow = [0, 1].map(|side| turns.iter().map(|turn| turn[side] as f32).collect());
        Angles {
            rows,
            pairs: self.frequencies.len(),
            layout: self.layout,
            turns,
            narrow,
            tensors: Arc::default(),
        }
    }
}

/// The angles of one pass over one batch: cheap to clone, shared by the layers.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    /// The batch, or 1 if all its rows have the same positions.
    rows: usize,
    pairs: usize,
    layout: RotaryLayout,
    /// Cosine and sine of each pair of each token, `[rows, tokens, pairs]` row-major.
    turns: Arc<[[f64; 2]]>,
    /// Cosines, then sines in f32, for the kernel on the CPU.
    narrow: [Arc<[f32]>; 2],
    /// The same on a device, `[rows, tokens, 1, pairs]` each, for the first one that asks.
    tensors: Arc<OnceLock<[Tensor<4>; 2]>>,
}

impl Angles {
    /// Turns each head of `x`.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, tokens, heads * head_dim]`
    /// - output: the same
    pub(crate) fn turn(&self, x: Tensor<3>, head_dim: usize) -> Tensor<3> {
        if kernels::runs_on(&x) {
            return self.turn_on_host(x, head_dim, None);
        }
        let [batch, tokens, width] = x.dims();
        let x = x.reshape([batch, tokens, width / head_dim, head_dim]); // [batch, tokens, heads, head_dim]
        let [cos, sin] = self.on(&x.device(), x.dtype());
        let dim = 2 * self.pairs;
        let turned = x.clone().narrow(3, 0, dim); // [batch, tokens, heads, dim]
        let turned = match self.layout {
            RotaryLayout::Half => {
                let [a, b] =
                    [0, self.pairs].map(|start| turned.clone().narrow(3, start, self.pairs));
                Tensor::cat(pair(a, b, cos, sin).to_vec(), 3) // [batch, tokens, heads, dim]
            }
            RotaryLayout::Interleaved => {
                let split = turned.reshape([batch, tokens, width / head_dim, self.pairs, 2]); // [batch, tokens, heads, pairs, 2]
                let [a, b] =
                    [0, 1].map(|side| split.clone().narrow(4, side, 1).squeeze_dim::<4>(4)); // [batch, tokens, heads, pairs]
                let both = pair(a, b, cos, sin).map(|side| side.unsqueeze_dim::<5>(4)).to_vec();
                Tensor::cat(both, 4).reshape([batch, tokens, width / head_dim, dim]) // [batch, tokens, heads, dim]
            }
        };
        let all = match head_dim - dim {
            0 => turned,
            rest => Tensor::cat(vec![turned, x.narrow(3, dim, rest)], 3),
        };
        all.reshape([batch, tokens, width]) // [batch, tokens, heads * head_dim]
    }

    /// Turns the first `heads`, of `x` as the kernel on the CPU takes it.
    pub(super) fn turn_first(&self, x: Tensor<3>, head_dim: usize, heads: usize) -> Tensor<3> {
        self.turn_on_host(x, head_dim, Some(heads))
    }

    fn turn_on_host(&self, x: Tensor<3>, head_dim: usize, heads: Option<usize>) -> Tensor<3> {
        let rotation = Rotation {
            rows: self.rows,
            pairs: self.pairs,
            head_dim,
            heads,
            interleaved: self.layout == RotaryLayout::Interleaved,
            table: self.narrow.clone(),
        };
        kernels::rotate(x, rotation)
    }

    /// Cosines and sines, `[rows, tokens, 1, pairs]`.
    fn on(&self, device: &Device, dtype: DType) -> [Tensor<4>; 2] {
        let make = || {
            let tokens = self.turns.len() / (self.rows * self.pairs).max(1);
            let shape = [self.rows, tokens, 1, self.pairs];
            [0, 1].map(|side| {
                let values = self.turns.iter().map(|turn| turn[side]).collect();
                Tensor::from_data(TensorData::new(values, shape), (device, dtype))
            })
        };
        let [cos, sin] = self.tensors.get_or_init(make);
        if cos.device() == *device && cos.dtype() == dtype {
            return [cos.clone(), sin.clone()];
        }
        make()
    }
}

/// One turn of all pairs.
fn pair(a: Tensor<4>, b: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> [Tensor<4>; 2] {
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    [first, b * cos + a * sin]
}

/// The angles that the layers of one pass ask for: computed once for each different rotation.
pub(crate) struct PassAngles<'a> {
    positions: Option<&'a PositionIds>,
    grid: &'a Grid,
    known: Vec<(Rotary, Angles)>,
}

impl<'a> PassAngles<'a> {
    /// Of queries at `positions`, or, if they are not given, where the grid has them.
    pub(crate) fn new(positions: Option<&'a PositionIds>, grid: &'a Grid) -> Self {
        Self { positions, grid, known: Vec::new() }
    }

    /// The angles of one rotation.
    pub(crate) fn of(&mut self, rotary: &Rotary) -> Angles {
        if let Some((_, angles)) = self.known.iter().find(|(known, _)| known == rotary) {
            return angles.clone();
        }
        let angles = match self.positions {
            Some(ids) => rotary.angles(ids.rows(), ids.as_slice().iter().map(|&id| id as i64)),
            None => {
                let positions = (0..self.grid.queries()).map(|i| self.grid.query_position(i));
                rotary.angles(1, positions)
            }
        };
        self.known.push((rotary.clone(), angles.clone()));
        angles
    }
}

/// The angles of keys where the grid has them.
pub(super) fn key_angles(rotary: &Rotary, grid: &Grid) -> Angles {
    rotary.angles(1, (0..grid.keys()).map(|j| grid.key_position(j)))
}
