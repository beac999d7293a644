//! The problems: small, of distinct primes, one for each thing that attention can be asked.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use crate::attention::{Alibi, Kernel, Score};
use crate::kernels::SeededDropout;
use crate::kernels::naive::{self, Array, Solution};
use crate::mask::{Grid, LoweredMask, Mask};

/// One problem.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub name: &'static str,
    pub mask: LoweredMask,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    value_dim: usize,
    softcap: Option<f64>,
    /// Its shape, which broadcasts.
    bias: Option<[usize; 4]>,
    alibi: bool,
    sinks: bool,
    dropout: Option<SeededDropout>,
    /// Whether queries, keys and values are read with heads and tokens swapped, as a layer does.
    swapped: bool,
    /// Whether hidden keys and values hold NaN.
    nan: bool,
    /// Whether it is run in half precision, too.
    half: bool,
}

/// A problem with its answers, for one element type.
pub(super) struct Solved {
    pub case: Case,
    pub dtype: DType,
    plain: Solution,
    /// If it is another one, with dropout.
    training: Option<Solution>,
}

impl Solved {
    /// All cases that are seen in `dtype`.
    pub fn all(cases: &[Case], dtype: DType) -> Vec<Self> {
        let seen = |case: &&Case| case.half || matches!(dtype, DType::F32 | DType::F64);
        let solve = |case: &Case| Self {
            case: case.clone(),
            dtype,
            plain: case.solution(dtype, false),
            training: case.dropout.map(|_| case.solution(dtype, true)),
        };
        cases.iter().filter(seen).map(solve).collect()
    }

    pub fn plain(&self) -> &Solution {
        &self.plain
    }

    pub fn training(&self) -> &Solution {
        self.training.as_ref().unwrap_or(&self.plain)
    }
}

/// The tensors of a case.
pub(super) struct CaseInputs {
    pub query: Tensor<4>,
    pub key: Tensor<4>,
    pub value: Tensor<4>,
    pub bias: Option<Tensor<4>>,
    pub sinks: Option<Tensor<1>>,
    /// The gradient that arrives at the output.
    pub upstream: Tensor<4>,
}

const BATCH: usize = 2;
const HEADS: usize = 3;
const QUERIES: usize = 23;
const KEYS: usize = 37;

impl Case {
    fn new(name: &'static str, mask: Mask, grid: &Grid) -> Self {
        Self {
            name,
            mask: mask.lower(grid).expect("a mask that fits its grid"),
            heads: HEADS,
            kv_heads: HEADS,
            head_dim: 13,
            value_dim: 7,
            softcap: None,
            bias: None,
            alibi: false,
            sinks: false,
            dropout: None,
            swapped: false,
            nan: false,
            half: false,
        }
    }

    /// All of them. The masks are made on `device`.
    pub fn all(device: &Device) -> Vec<Self> {
        let window = |keys| Mask::window_keys(keys).expect("a window of some keys");
        let causal = Mask::look_ahead;
        // The same sizes wherever they will do: for a GPU, others are other shaders to compile.
        let grid = Grid::bottom_right(BATCH, QUERIES, KEYS);
        let on_grid = |name, mask| Self::new(name, mask, &grid);
        vec![
            on_grid("all visible", Mask::all_visible()),
            Self { half: true, ..on_grid("look-ahead", causal()) },
            on_grid("window", causal() & window(5)),
            on_grid("window with sinks", causal() & (window(5) | Mask::sinks(3))),
            on_grid("prefix", causal() | Mask::prefix(29)),
            on_grid("documents", causal() & Mask::document_lengths([[17, 20], [29, 8]])),
            on_grid("right padding", causal() & Mask::lengths([37, 19])),
            on_grid("left padding, dead rows", causal() & Mask::pad_counts([0, 19])),
            on_grid("hidden keys", causal() & hidden_keys(device)),
            on_grid("hidden cells by head", hidden_cells(device)),
            Self { heads: 6, kv_heads: 2, half: true, ..on_grid("grouped heads", causal()) },
            Self { swapped: true, ..on_grid("heads behind tokens", causal()) },
            Self { softcap: Some(0.7), ..on_grid("softcap", causal()) },
            Self { bias: Some([1, HEADS, QUERIES, KEYS]), ..on_grid("bias", causal()) },
            Self { alibi: true, ..on_grid("ALiBi", causal()) },
            Self { sinks: true, ..on_grid("sinks", causal() & Mask::lengths([37, 31])) },
            Self {
                dropout: Some(SeededDropout { probability: 0.3, seed: 11 }),
                ..on_grid("dropout", causal())
            },
            Self { nan: true, ..on_grid("NaN in padding", causal() & Mask::lengths([37, 19])) },
            Self {
                heads: 6,
                kv_heads: 2,
                ..Self::new("one query", causal(), &Grid::bottom_right(BATCH, 1, 131))
            },
            Self {
                heads: 6,
                kv_heads: 2,
                head_dim: 61,
                value_dim: 59,
                nan: true,
                half: true,
                ..Self::new(
                    "several panels",
                    causal() & Mask::lengths([141]),
                    &Grid::bottom_right(1, 131, 149),
                )
            },
            Self {
                head_dim: 67,
                value_dim: 71,
                half: true,
                ..Self::new("several tiles", causal(), &Grid::bottom_right(1, 79, 149))
            },
            Self {
                head_dim: 67,
                value_dim: 71,
                ..Self::new(
                    "sinks tiles away",
                    causal() & (window(5) | Mask::sinks(3)),
                    &Grid::bottom_right(1, 79, 149),
                )
            },
        ]
    }

    /// Whether the kernel promises this case.
    pub fn is_for(&self, kernel: Kernel) -> bool {
        let plain = self.softcap.is_none() && self.bias.is_none() && !self.alibi && !self.sinks;
        match kernel {
            // A product with zero weights may spread a NaN.
            Kernel::Reference => !self.nan,
            Kernel::Backend => plain && !self.nan && self.dropout.is_none(),
            Kernel::Fused | Kernel::Auto => true,
        }
    }

    /// How a layer of this case scores, but for the tensors.
    pub fn score(&self) -> Score {
        let mut score = Score::new().with_scale(self.scale()).with_softcap(self.softcap);
        if self.alibi {
            score = score.with_alibi(Alibi::new(self.heads));
        }
        if let Some(SeededDropout { probability, seed }) = self.dropout {
            score = score.with_dropout(probability).with_dropout_seed(seed);
        }
        score
    }

    /// Not the default, which could be taken twice.
    fn scale(&self) -> f64 {
        0.9 / (self.head_dim as f64).sqrt()
    }

    fn shapes(&self) -> [[usize; 4]; 4] {
        let grid = self.mask.grid();
        let (batch, queries, keys) = (grid.batch(), grid.queries(), grid.keys());
        [
            [batch, self.heads, queries, self.head_dim],
            [batch, self.kv_heads, keys, self.head_dim],
            [batch, self.kv_heads, keys, self.value_dim],
            [batch, self.heads, queries, self.value_dim],
        ]
    }

    /// The numbers of the case as `dtype` holds them, and without NaN.
    fn numbers(&self, dtype: DType) -> ([Array; 4], Option<Array>, Option<Array>) {
        let mut seed = 0;
        let mut random = |shape| {
            seed += 1;
            let Array { shape, values } = Array::random(shape, seed);
            let held = TensorData::new(values, shape).convert_dtype(dtype);
            Array::new(shape, held.iter::<f64>().collect())
        };
        let tensors = self.shapes().map(&mut random);
        let bias = self.bias.map(&mut random);
        let sinks = self.sinks.then(|| random([1, 1, 1, self.heads]));
        (tensors, bias, sinks)
    }

    /// The tensors on `device`.
    pub fn inputs(&self, dtype: DType, device: &Device) -> CaseInputs {
        let ([query, mut key, mut value, upstream], bias, sinks) = self.numbers(dtype);
        if self.nan {
            for array in [&mut key, &mut value] {
                let [batch, kv_heads, keys, width] = array.shape;
                for (at, number) in array.values.iter_mut().enumerate() {
                    let (row, at) = (at / (kv_heads * keys * width), at / width % keys);
                    assert!(row < batch);
                    if self.is_seen_by_none(row, at) {
                        *number = f64::NAN;
                    }
                }
            }
        }
        let tensor = |Array { shape, values }: Array| {
            let data = TensorData::new(values, shape).convert_dtype(dtype);
            Tensor::<4>::from_data(data, (device, dtype))
        };
        CaseInputs {
            query: tensor(query),
            key: tensor(key),
            value: tensor(value),
            bias: bias.map(tensor),
            sinks: sinks.map(tensor).map(|sinks| sinks.flatten(0, 3)),
            upstream: tensor(upstream),
        }
    }

    /// A tensor with the same numbers, read as the case wants.
    pub fn as_read(&self, tensor: Tensor<4>) -> Tensor<4> {
        if !self.swapped {
            return tensor;
        }
        let [batch, heads, tokens, width] = tensor.dims();
        // Through one axis, so that the numbers move and the swap back is one of strides.
        let flat = tensor.swap_dims(1, 2).reshape([batch, tokens * heads * width]); // [batch, tokens * heads * width]
        flat.reshape([batch, tokens, heads, width]).swap_dims(1, 2) // [batch, heads, tokens, width]
    }

    /// What is right, in training (with dropout) or not.
    fn solution(&self, dtype: DType, training: bool) -> Solution {
        let ([query, key, value, upstream], bias, sinks) = self.numbers(dtype);
        let grid = self.mask.grid();
        let bias = bias.or_else(|| self.alibi.then(|| self.alibi_bias(grid)));
        let dropout = self.dropout.filter(|_| training);
        let factor = |[batch, head, query, key]: [usize; 4]| match &dropout {
            None => 1.0,
            Some(dropout) => {
                let dropped =
                    dropout.row(batch, head, query).bits(key as u32) < dropout.threshold();
                if dropped { 0.0 } else { dropout.scale() }
            }
        };
        let problem = naive::Problem {
            query: &query,
            key: &key,
            value: &value,
            scale: self.scale(),
            softcap: self.softcap,
            bias: bias.as_ref(),
            sinks: sinks.as_ref().map(|sinks| &sinks.values[..]),
            hidden: &|[batch, head, query, key]| !self.mask.is_visible(batch, head, query, key),
            factor: &factor,
        };
        naive::attention(&problem, &upstream)
    }

    fn alibi_bias(&self, grid: &Grid) -> Array {
        let mut bias = Array::zeros([1, self.heads, grid.queries(), grid.keys()]);
        for (head, slope) in Alibi::new(self.heads).slopes().iter().enumerate() {
            for query in 0..grid.queries() {
                for key in 0..grid.keys() {
                    let distance = grid.query_position(query) - grid.key_position(key);
                    *bias.at_mut([0, head, query, key]) = -slope * distance.abs() as f64;
                }
            }
        }
        bias
    }

    /// Whether a query of a head sees no key: its output is exactly 0, and so is its gradient.
    pub fn is_dead(&self, batch: usize, head: usize, query: usize) -> bool {
        let keys = self.mask.grid().keys();
        !(0..keys).any(|key| self.mask.is_visible(batch, head, query, key))
    }

    /// Whether no query of any head sees a key: its gradients are exactly 0.
    pub fn is_seen_by_none(&self, batch: usize, key: usize) -> bool {
        let sees = |head, query| self.mask.is_visible(batch, head, query, key);
        let queries = self.mask.grid().queries();
        !(0..self.heads).any(|head| (0..queries).any(|query| sees(head, query)))
    }
}

/// Every third or so key of each row, but for the first.
fn hidden_keys(device: &Device) -> Mask {
    let flags = (0..BATCH * KEYS).map(|i| i % KEYS > 0 && i * i % 7 < 3).collect::<Vec<_>>();
    let flags = TensorData::new(flags, [BATCH, KEYS]);
    Mask::from_hidden_keys(&Tensor::<2, Bool>::from_data(flags, device))
}

/// Cells without a pattern, others for each head.
fn hidden_cells(device: &Device) -> Mask {
    let shape = [1, HEADS, QUERIES, KEYS];
    let flags = (0..shape.iter().product()).map(|i: usize| i * i % 11 < 4).collect::<Vec<_>>();
    let flags = Tensor::<4, Bool>::from_data(TensorData::new(flags, shape), device);
    Mask::from_hidden(&flags).expect("a mask of rank 4")
}
