//! The kernel against the formula, on every instruction set at hand.

use proptest::prelude::*;

use super::arch::Arch;
use super::*;
use crate::attention::dropout_rng::SeededDropout;
use crate::mask::{Grid, HiddenCells, Span};

/// Small random numbers that any test can make again.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % end
    }
    fn number(&mut self) -> f64 {
        self.below(1 << 20) as f64 / (1 << 19) as f64 - 1.0
    }
    fn numbers<E: Element>(&mut self, len: usize) -> Vec<E> {
        (0..len).map(|_| E::of_real(E::Real::of_f64(self.number()))).collect()
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A problem with everything it borrows.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) sizes: [usize; 7],
    pub(super) scale: f64,
    pub(super) softcap: Option<f64>,
    pub(super) spans: Option<Vec<Span>>,
    pub(super) hidden_keys: Option<Vec<bool>>,
    pub(super) hidden_cells: Option<HiddenCells>,
    pub(super) bias: Option<[usize; 4]>,
    pub(super) slopes: Option<Vec<f64>>,
    pub(super) grid: Grid,
    pub(super) sinks: Option<Vec<f64>>,
    pub(super) dropout: Option<SeededDropout>,
    pub(super) seed: u64,
}

impl Case {
    /// Sizes are `[batch, heads, kv_heads, queries, keys, head_dim, value_dim]`.
    pub(super) fn new(sizes: [usize; 7]) -> Self {
        let [batch, _, _, queries, keys, head_dim, _] = sizes;
        Self {
            sizes,
            scale: 1.0 / (head_dim as f64).sqrt(),
            softcap: None,
            spans: None,
            hidden_keys: None,
            hidden_cells: None,
            bias: None,
            slopes: None,
            grid: Grid::bottom_right(batch, queries, keys),
            sinks: None,
            dropout: None,
            seed: 1,
        }
    }

    pub(super) fn causal(sizes: [usize; 7]) -> Self {
        let mut case = Self::new(sizes);
        let (queries, keys) = (sizes[3] as i64, sizes[4] as i64);
        let span = |i: i64| Span { start: 0, end: (i + 1 + keys - queries).clamp(0, keys) as u32 };
        case.spans = Some((0..queries).map(span).collect());
        case
    }

    /// Anything the kernel can be asked, decided by the seed.
    fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kv_heads = 1 + random.below(3);
        let heads = kv_heads * (1 + random.below(3));
        // lengths around the widths of vectors, panels and tiles
        let mut length = |most: usize| match random.below(4) {
            0 => random.below(6),
            1 => 14 + random.below(6),
            2 => 94 + random.below(6),
            _ => most - 3 + random.below(6),
        };
        let (queries, keys) = (length(60), length(128));
        let dim = |random: &mut Random| [1, 3, 5, 8, 13, 16, 17, 24][random.below(8)];
        let (head_dim, value_dim) = (dim(&mut random), dim(&mut random));
        let batch = 1 + random.below(3);
        let mut case = Self::new([batch, heads, kv_heads, queries, keys, head_dim, value_dim]);
        case.seed = seed;
        let share = |random: &mut Random, full: usize| if random.one_in(2) { 1 } else { full };
        if random.one_in(2) {
            let rows = share(&mut random, batch) * queries;
            let wide = random.one_in(2);
            case.spans = Some(
                (0..rows)
                    .map(|_| {
                        let start = random.below(if wide { 3 } else { keys + 1 });
                        let end = random.below(keys + 3);
                        Span { start: start as u32, end: end as u32 }
                    })
                    .collect(),
            );
        } else if random.one_in(2) {
            case.spans = Self::causal(case.sizes).spans;
        }
        if random.one_in(3) {
            let rows = share(&mut random, batch);
            let kept: Vec<_> = (0..rows).map(|_| random.below(keys + 1)).collect();
            let scattered = random.one_in(2);
            case.hidden_keys =
                Some(
                    (0..rows * keys)
                        .map(|at| {
                            if scattered { random.one_in(3) } else { at % keys >= kept[at / keys] }
                        })
                        .collect(),
                );
        }
        let full = [batch, heads, queries, keys];
        if random.one_in(3) {
            let shape = full.map(|full| share(&mut random, full));
            let hidden = (0..shape.iter().product()).map(|_| random.one_in(3)).collect();
            case.hidden_cells = Some(HiddenCells { shape, hidden });
        }
        if random.one_in(3) {
            case.bias = Some(full.map(|full| share(&mut random, full)));
        }
        if random.one_in(4) {
            case.slopes = Some((0..heads).map(|_| random.number().abs()).collect());
        }
        if random.one_in(4) {
            case.softcap = Some(0.5 + random.number().abs());
        }
        if random.one_in(4) {
            case.sinks = Some((0..heads).map(|_| random.number()).collect());
        }
        if random.one_in(4) {
            case.dropout = Some(SeededDropout { probability: 0.3, seed });
        }
        if random.one_in(4) {
            case.scale = random.number();
        }
        case
    }

    pub(super) fn problem(&self) -> Problem<'_> {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = self.sizes;
        let grid = &self.grid;
        Problem {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
            value_dim,
            scale: self.scale,
            softcap: self.softcap,
            spans: self.spans.as_deref(),
            hidden_keys: self.hidden_keys.as_deref(),
            hidden_cells: self.hidden_cells.as_ref(),
            alibi: self.slopes.as_deref().map(|slopes| Alibi { slopes, grid }),
            sinks: self.sinks.as_deref(),
            dropout: self.dropout,
        }
    }
}

/// The tensors of a case.
#[derive(Clone, Debug)]
pub(super) struct Data<E> {
    pub(super) query: Vec<E>,
    pub(super) key: Vec<E>,
    pub(super) value: Vec<E>,
    pub(super) bias: Vec<E>,
    pub(super) d_out: Vec<E>,
}

/// Everything the kernel returns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Results<E> {
    pub(super) out: Vec<E>,
    pub(super) query: Vec<E>,
    pub(super) key: Vec<E>,
    pub(super) value: Vec<E>,
    pub(super) bias: Vec<E>,
    pub(super) sinks: Vec<f64>,
}

impl<E: Element> Data<E> {
    pub(super) fn of(case: &Case) -> Self {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = case.sizes;
        let mut random = Random::new(case.seed ^ 0xABCD);
        Self {
            query: random.numbers(batch * heads * queries * head_dim),
            key: random.numbers(batch * kv_heads * keys * head_dim),
            value: random.numbers(batch * kv_heads * keys * value_dim),
            bias: random.numbers(case.bias.map_or(0, |shape| shape.iter().product())),
            d_out: random.numbers(batch * heads * queries * value_dim),
        }
    }

    fn inputs<'a>(&'a self, case: &Case) -> Inputs<'a, E> {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = case.sizes;
        // queries with heads inside, as a projection leaves them
        let strides = [queries * heads * head_dim, head_dim, heads * head_dim, 1];
        Inputs {
            query: Strided::new(&self.query, [batch, heads, queries, head_dim], strides),
            key: Strided::contiguous(&self.key, [batch, kv_heads, keys, head_dim]),
            value: Strided::contiguous(&self.value, [batch, kv_heads, keys, value_dim]),
            bias: case.bias.map(|shape| {
                let full = [batch, heads, queries, keys];
                Strided::new(&self.bias, full, problem::broadcast_strides(&shape))
            }),
        }
    }

    /// Forward and backward; `arch` is `None` for the formula.
    pub(super) fn run(&self, case: &Case, arch: Option<Arch>) -> Results<E> {
        let problem = case.problem();
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = case.sizes;
        let inputs = self.inputs(case);
        let junk = E::of_real(E::Real::of_f64(777.0));
        let mut statistics = vec![E::Real::of_f64(777.0); statistics_len(&problem)];
        let mut results = Results {
            out: vec![junk; batch * queries * heads * value_dim],
            query: vec![junk; batch * queries * heads * head_dim],
            key: vec![junk; batch * keys * kv_heads * head_dim],
            value: vec![junk; batch * keys * kv_heads * value_dim],
            bias: vec![junk; self.bias.len()],
            sinks: vec![777.0; heads],
        };
        match arch {
            None => naive::forward(&problem, &inputs, &mut results.out, &mut statistics),
            Some(arch) => forward_on(arch, &problem, &inputs, &mut results.out, &mut statistics),
        }
        let shape = [batch, heads, queries, value_dim];
        let strides = [queries * heads * value_dim, value_dim, heads * value_dim, 1];
        let gradients = Gradients {
            query: Some(&mut results.query),
            key: Some(&mut results.key),
            value: Some(&mut results.value),
            bias: case.bias.map(|shape| BiasGradient { data: &mut results.bias, shape }),
            sinks: Some(&mut results.sinks),
        };
        let out = Strided::new(&results.out, shape, strides);
        let d_out = Strided::contiguous(&self.d_out, shape);
        match arch {
            None => naive::backward(&problem, &inputs, d_out, gradients),
            Some(arch) => backward_on(arch, &problem, &inputs, out, &statistics, d_out, gradients),
        }
        results
    }
}

/// The largest difference, relative to the largest entry or `floor`.
fn difference<E: Element>(got: &[E], expected: &[f64], floor: f64) -> f64 {
    let largest = expected.iter().fold(floor, |largest, x| x.abs().max(largest));
    got.iter().zip(expected).fold(0.0, |worst, (got, &expected)| {
        let got = got.to_real().to_f64();
        let difference = if got == expected { 0.0 } else { (got - expected).abs() / largest };
        if difference <= worst { worst } else { difference } // NaN stays
    })
}

pub(super) fn archs() -> [Arch; 2] {
    [Arch::detect(), Arch::Scalar]
}

fn agrees<E: Element>(case: &Case, output: f64, gradient: f64) {
    let data = Data::<E>::of(case);
    let wide = |numbers: &[E]| numbers.iter().map(|x| x.to_real().to_f64()).collect();
    let expected = Data::<f64> {
        query: wide(&data.query),
        key: wide(&data.key),
        value: wide(&data.value),
        bias: wide(&data.bias),
        d_out: wide(&data.d_out),
    }
    .run(case, None);
    for arch in archs() {
        let got = data.run(case, Some(arch));
        for (name, difference, allowed) in [
            ("out", difference(&got.out, &expected.out, 0.1), output),
            // gradients are sums of numbers of order one that may cancel: where a query sees one
            // key, nothing is left of them
            ("dq", difference(&got.query, &expected.query, 1.0), gradient),
            ("dk", difference(&got.key, &expected.key, 1.0), gradient),
            ("dv", difference(&got.value, &expected.value, 1.0), gradient),
            ("dbias", difference(&got.bias, &expected.bias, 1.0), gradient),
            ("dsinks", difference(&got.sinks, &expected.sinks, 1.0), gradient),
        ] {
            assert!(difference <= allowed, "{name} differs by {difference:e}, {arch:?}: {case:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_formula_f64(seed in any::<u64>()) {
        agrees::<f64>(&Case::random(seed), 1e-12, 1e-12);
    }

    #[test]
    fn agrees_with_the_formula_f32(seed in any::<u64>()) {
        let case = Case::random(seed);
        // ALiBi makes scores of 30 and more here, of which f32 keeps 2e-6
        let alibi = if case.slopes.is_some() { 4.0 } else { 1.0 };
        agrees::<f32>(&case, alibi * 2e-6, 1e-5);
    }
}
