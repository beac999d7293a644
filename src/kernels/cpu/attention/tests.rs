//! The kernel against the formula, on every instruction set at hand.

use proptest::prelude::*;
use pulp::Arch;

use super::slices::{backward_on, forward_on, statistics_len};
use super::{BiasGradient, GradientSlices, Inputs, Real, Source, Strided, real, strided};
use crate::kernels::Coding;
use crate::kernels::cpu::simd::{arch, tests::archs};
use crate::kernels::naive::{self, Array};
use crate::kernels::{
    HiddenCells, Plan, RowSpans, Scoring, SeededDropout, Slopes, Span, Visibility,
};

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
    fn numbers<T: Real>(&mut self, len: usize) -> Vec<T> {
        (0..len).map(|_| T::of_f64(self.number())).collect()
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A request: a plan, and what else attention reads.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) plan: Plan,
    pub(super) bias: Option<[usize; 4]>,
    pub(super) sinks: Option<Vec<f64>>,
    pub(super) seed: u64,
}

impl Case {
    /// Sizes are `[batch, heads, kv_heads, queries, keys, head_dim, value_dim]`.
    pub(super) fn new(sizes: [usize; 7]) -> Self {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes;
        let plan = Plan {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
            value_dim,
            visibility: Visibility::default(),
            scoring: Scoring { scale: 1.0 / (head_dim as f64).sqrt(), softcap: None, slopes: None },
            dropout: None,
        };
        Self { plan, bias: None, sinks: None, seed: 1 }
    }

    pub(super) fn causal(sizes: [usize; 7]) -> Self {
        let mut case = Self::new(sizes);
        let (queries, keys) = (sizes[3] as i64, sizes[4] as i64);
        let end = |i: i64| (i + 1 + keys - queries).clamp(0, keys) as u32;
        let rows = (0..queries).map(|i| RowSpans::one(Span { start: 0, end: end(i) }));
        case.plan.visibility.spans = Some(rows.collect());
        case
    }

    /// A window of `window` keys, and the first `sinks` keys.
    pub(super) fn window_and_sinks(sizes: [usize; 7], window: u32, sinks: u32) -> Self {
        let mut case = Self::causal(sizes);
        let rows = case.plan.visibility.spans.iter().flat_map(|rows| rows.iter());
        let rows = rows.map(|row| {
            let end = row.first().end;
            let window = Span::of(end.saturating_sub(window), end);
            RowSpans::two(window, Span::of(0, sinks.min(end)))
        });
        case.plan.visibility.spans = Some(rows.collect());
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
        let sizes = [batch, heads, kv_heads, queries, keys, head_dim, value_dim];
        let mut case = Self::new(sizes);
        case.seed = seed;
        let share = |random: &mut Random, full: usize| if random.one_in(2) { 1 } else { full };
        if random.one_in(2) {
            let rows = share(&mut random, batch) * queries;
            let wide = random.one_in(2);
            let two = random.one_in(2);
            let mut span = |start: usize| {
                let (start, end) = (random.below(start), random.below(keys + 3));
                Span { start: start as u32, end: end as u32 }
            };
            let rows = (0..rows).map(|_| {
                let first = span(if wide { 3 } else { keys + 1 });
                if two { RowSpans::two(first, span(keys + 1)) } else { RowSpans::one(first) }
            });
            case.plan.visibility.spans = Some(rows.collect());
        } else if random.one_in(2) {
            case.plan.visibility.spans = Self::causal(sizes).plan.visibility.spans;
        } else if random.one_in(2) {
            let (window, sinks) = (1 + random.below(keys + 1), random.below(9));
            let windowed = Self::window_and_sinks(sizes, window as u32, sinks as u32);
            case.plan.visibility.spans = windowed.plan.visibility.spans;
        }
        if random.one_in(3) {
            let rows = share(&mut random, batch);
            let kept: Vec<_> = (0..rows).map(|_| random.below(keys + 1)).collect();
            let scattered = random.one_in(2);
            case.plan.visibility.hidden_keys =
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
            case.plan.visibility.hidden_cells = Some(HiddenCells { shape, hidden });
        }
        if random.one_in(3) {
            case.bias = Some(full.map(|full| share(&mut random, full)));
        }
        if random.one_in(4) {
            let listed = random.one_in(2);
            let gaps = |random: &mut Random| {
                let mut position = -3;
                (0..keys)
                    .map(|_| {
                        position += 1 + random.below(3) as i64;
                        position
                    })
                    .collect()
            };
            case.plan.scoring.slopes = Some(Slopes {
                slopes: (0..heads).map(|_| random.number().abs()).collect(),
                first_query: keys as i64 - queries as i64,
                key_positions: listed.then(|| gaps(&mut random)),
            });
        }
        if random.one_in(4) {
            case.plan.scoring.softcap = Some(0.5 + random.number().abs());
        }
        if random.one_in(4) {
            case.sinks = Some((0..heads).map(|_| random.number()).collect());
        }
        if random.one_in(4) {
            case.plan.dropout = Some(SeededDropout { probability: 0.3, seed });
        }
        if random.one_in(4) {
            case.plan.scoring.scale = random.number();
        }
        case
    }
}

/// The tensors of a case.
#[derive(Clone, Debug)]
pub(super) struct Data<T> {
    pub(super) query: Vec<T>,
    pub(super) key: Vec<T>,
    pub(super) value: Vec<T>,
    pub(super) bias: Vec<T>,
    pub(super) d_out: Vec<T>,
}

/// Everything the kernel returns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Results<T> {
    pub(super) out: Vec<T>,
    pub(super) query: Vec<T>,
    pub(super) key: Vec<T>,
    pub(super) value: Vec<T>,
    pub(super) bias: Vec<T>,
    pub(super) sinks: Vec<f64>,
}

impl<T: Real> Data<T> {
    pub(super) fn of(case: &Case) -> Self {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
        let mut random = Random::new(case.seed ^ 0xABCD);
        Self {
            query: random.numbers(batch * heads * queries * head_dim),
            key: random.numbers(batch * kv_heads * keys * head_dim),
            value: random.numbers(batch * kv_heads * keys * value_dim),
            bias: random.numbers(case.bias.map_or(0, |shape| shape.iter().product())),
            d_out: random.numbers(batch * heads * queries * value_dim),
        }
    }

    fn inputs<'a>(&'a self, case: &'a Case) -> Inputs<'a, T> {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
        // queries with heads inside, as a projection leaves them
        let strides = [queries * heads * head_dim, head_dim, heads * head_dim, 1];
        Inputs {
            query: Source::Real(Strided::new(
                &self.query,
                [batch, heads, queries, head_dim],
                strides,
            )),
            key: Source::Real(Strided::contiguous(&self.key, [batch, kv_heads, keys, head_dim])),
            value: Source::Real(Strided::contiguous(
                &self.value,
                [batch, kv_heads, keys, value_dim],
            )),
            bias: case.bias.map(|shape| {
                let full = [batch, heads, queries, keys];
                Strided::new(&self.bias, full, strided::broadcast_strides(&shape))
            }),
            sinks: case.sinks.as_deref(),
        }
    }

    /// Forward and backward by the kernel.
    pub(super) fn run(&self, case: &Case, arch: Arch) -> Results<T> {
        let plan = &case.plan;
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
        let inputs = self.inputs(case);
        let junk = T::of_f64(777.0);
        let mut statistics = vec![T::of_f64(777.0); statistics_len(plan)];
        let mut results = Results {
            out: vec![junk; batch * queries * heads * value_dim],
            query: vec![T::ZERO; batch * queries * heads * head_dim],
            key: vec![T::ZERO; batch * keys * kv_heads * head_dim],
            value: vec![T::ZERO; batch * keys * kv_heads * value_dim],
            bias: vec![T::ZERO; self.bias.len()],
            sinks: vec![0.0; heads],
        };
        let len = results.out.len();
        results.out.clear();
        let out = &mut results.out.spare_capacity_mut()[..len];
        forward_on(arch, plan, &inputs, out, &mut statistics);
        // SAFETY: what the kernel has not written is the junk from before.
        unsafe { results.out.set_len(len) };
        let shape = [batch, heads, queries, value_dim];
        let strides = [queries * heads * value_dim, value_dim, heads * value_dim, 1];
        let gradients = GradientSlices {
            query: Some(&mut results.query),
            key: Some(&mut results.key),
            value: Some(&mut results.value),
            bias: case.bias.map(|shape| BiasGradient { data: &mut results.bias, shape }),
            sinks: Some(&mut results.sinks),
        };
        let out = Strided::new(&results.out, shape, strides);
        let d_out = Strided::contiguous(&self.d_out, shape);
        backward_on(arch, plan, &inputs, out, &statistics, d_out, gradients);
        results
    }

    /// The same by plain loops.
    fn naive(&self, case: &Case) -> Results<f64> {
        let plan = &case.plan;
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
        let wide =
            |shape, numbers: &[T]| Array::new(shape, numbers.iter().map(|x| x.to_f64()).collect());
        let query = wide([batch, queries, heads, head_dim], &self.query);
        let query = swapped(&query);
        let key = wide([batch, kv_heads, keys, head_dim], &self.key);
        let value = wide([batch, kv_heads, keys, value_dim], &self.value);
        let d_out = wide([batch, heads, queries, value_dim], &self.d_out);
        let given = case.bias.map(|shape| wide(shape, &self.bias));
        // To the loops, ALiBi is a bias like any other.
        let full = [batch, heads, queries, keys];
        let bias = |[b, h, q, k]: [usize; 4]| {
            given.as_ref().map_or(0.0, |bias| bias.at([b, h, q, k]))
                + plan.scoring.slopes.as_ref().map_or(0.0, |slopes| slopes.bias(h, q, k))
        };
        let bias = Array::new(full, cells(full).map(bias).collect());
        let factor = |[b, h, q, k]: [usize; 4]| match &plan.dropout {
            None => 1.0,
            Some(dropout) if dropout.row(b, h, q).bits(k as u32) < dropout.threshold() => 0.0,
            Some(dropout) => dropout.scale(),
        };
        let problem = naive::Problem {
            query: &query,
            key: &key,
            value: &value,
            scale: plan.scoring.scale,
            softcap: plan.scoring.softcap,
            bias: Some(&bias),
            sinks: case.sinks.as_deref(),
            hidden: &|[b, h, q, k]| !plan.is_visible(b, h, q, k),
            factor: &factor,
        };
        let solution = naive::attention(&problem, &d_out);
        let mut d_bias = case.bias.map_or_else(|| Array::zeros([0; 4]), Array::zeros);
        if case.bias.is_some() {
            let all = solution.d_bias.expect("a bias was given");
            cells(full).for_each(|cell| *d_bias.at_mut(cell) += all.at(cell));
        }
        Results {
            out: swapped(&solution.output).values,
            query: swapped(&solution.d_query).values,
            key: swapped(&solution.d_key).values,
            value: swapped(&solution.d_value).values,
            bias: d_bias.values,
            sinks: solution.d_sinks.unwrap_or_else(|| vec![0.0; heads]),
        }
    }
}

fn sizes_of(case: &Case) -> [usize; 7] {
    let Plan { batch, heads, kv_heads, queries, keys, head_dim, value_dim, .. } = case.plan;
    [batch, heads, kv_heads, queries, keys, head_dim, value_dim]
}

/// Every index into a shape, row-major.
fn cells([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..a * b * c * d).map(move |at| [at / d / c / b, at / d / c % b, at / d % c, at % d])
}

/// The array with its two middle axes swapped.
fn swapped(array: &Array) -> Array {
    let [a, b, c, d] = array.shape;
    let shape = [a, c, b, d];
    Array::new(shape, cells(shape).map(|[a, c, b, d]| array.at([a, b, c, d])).collect())
}

/// The largest difference, relative to the largest entry or `floor`.
fn difference<T: Real>(got: &[T], expected: &[f64], floor: f64) -> f64 {
    let largest = expected.iter().fold(floor, |largest, x| x.abs().max(largest));
    got.iter().zip(expected).fold(0.0, |worst, (got, &expected)| {
        let got = got.to_f64();
        let difference = if got == expected { 0.0 } else { (got - expected).abs() / largest };
        if difference <= worst { worst } else { difference } // NaN stays
    })
}

fn agrees<T: Real>(case: &Case, output: f64, gradient: f64) {
    let data = Data::<T>::of(case);
    let expected = data.naive(case);
    for arch in archs() {
        let got = data.run(case, arch);
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
        let alibi = if case.plan.scoring.slopes.is_some() { 4.0 } else { 1.0 };
        agrees::<f32>(&case, alibi * 2e-6, alibi * 1e-5);
    }
}

/// Keys and values as codes, and what these stand for.
struct Coded {
    codes: [burn::tensor::TensorData; 2],
    numbers: [Vec<f32>; 2],
}

impl Coded {
    fn of(coding: Coding, case: &Case, data: &Data<f32>) -> Self {
        let [batch, _, kv_heads, _, keys, head_dim, value_dim] = sizes_of(case);
        let parts = [(&data.key, head_dim), (&data.value, value_dim)];
        let codes = parts.map(|(part, width)| coding.encode(part, [batch, kv_heads, keys, width]));
        let [key, value] = &codes;
        let numbers = [coding.decode(key, head_dim), coding.decode(value, value_dim)];
        Self { codes, numbers }
    }

    fn source<T: Real>(&self, coding: Coding, part: usize, width: usize) -> Source<'_, T> {
        let codes = &self.codes[part];
        let shape = codes.shape().dims();
        match coding {
            Coding::Q8_0 => {
                Source::q8_0(Strided::contiguous(codes.as_slice().unwrap(), shape), width)
            }
            _ => Source::halves(coding, Strided::contiguous(codes.as_slice().unwrap(), shape)),
        }
    }
}

fn forward<T: Real>(arch: Arch, plan: &Plan, inputs: &Inputs<T>) -> [Vec<T>; 2] {
    let len = plan.batch * plan.queries * plan.heads * plan.value_dim;
    let mut out = vec![T::of_f64(777.0); len];
    let mut statistics = vec![T::of_f64(777.0); statistics_len(plan)];
    out.clear();
    forward_on(arch, plan, inputs, &mut out.spare_capacity_mut()[..len], &mut statistics);
    // SAFETY: what the kernel has not written is the junk from before.
    unsafe { out.set_len(len) };
    [out, statistics]
}

/// Codes, read a tile at a time, give what their numbers give, to the bit.
fn codes_are_their_numbers<T: Real>(case: &Case) {
    let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
    let data = Data::<f32>::of(case);
    let wide = |numbers: &[f32]| numbers.iter().map(|&x| T::of_f32(x)).collect::<Vec<T>>();
    let [query, bias] = [&data.query, &data.bias].map(|numbers| wide(numbers));
    let strides = [queries * heads * head_dim, head_dim, heads * head_dim, 1];
    for coding in [Coding::Bf16, Coding::F16, Coding::Q8_0] {
        let coded = Coded::of(coding, case, &data);
        let [key, value] = coded.numbers.each_ref().map(|numbers| wide(numbers));
        let numbers = Inputs {
            query: Source::Real(Strided::new(&query, [batch, heads, queries, head_dim], strides)),
            key: Source::Real(Strided::contiguous(&key, [batch, kv_heads, keys, head_dim])),
            value: Source::Real(Strided::contiguous(&value, [batch, kv_heads, keys, value_dim])),
            bias: case.bias.map(|shape| {
                let full = [batch, heads, queries, keys];
                Strided::new(&bias, full, strided::broadcast_strides(&shape))
            }),
            sinks: case.sinks.as_deref(),
        };
        let codes = Inputs {
            key: coded.source(coding, 0, head_dim),
            value: coded.source(coding, 1, value_dim),
            ..numbers
        };
        for arch in archs() {
            let [got, expected] =
                [&codes, &numbers].map(|inputs| forward(arch, &case.plan, inputs));
            assert_eq!(got, expected, "{coding:?}, {arch:?}: {case:?}");
        }
    }
}

/// Queries in half precision, whatever their strides, and keys whose numbers stand apart.
#[test]
fn halves_by_stride_are_their_numbers() {
    for queries in [1, 2, 5, 70] {
        let case = Case::causal([2, 3, 3, queries, 70, 13, 13]);
        let data = Data::<f32>::of(&case);
        for coding in [Coding::Bf16, Coding::F16] {
            let [query, key] = [(&data.query, queries), (&data.key, 70)].map(|(numbers, rows)| {
                let codes = coding.encode(numbers, [2, 3, rows, 13]);
                (codes.try_to_vec::<u16>().unwrap(), coding.decode(&codes, 13))
            });
            let value = Strided::contiguous(&data.value, [2, 3, 70, 13]);
            // columns before rows
            let apart = [3 * 13 * 70, 13 * 70, 1, 70];
            let inputs = |query, key| Inputs {
                query,
                key,
                value: Source::Real(value),
                bias: None,
                sinks: None,
            };
            let rows =
                |rows: usize| [queries * 3 * 13, 13, 3 * 13, 1].map(|step| step.min(rows * 117));
            let (shape, strides) = ([2, 3, queries, 13], rows(queries));
            let halves = inputs(
                Source::halves(coding, Strided::new(&query.0, shape, strides)),
                Source::halves(coding, Strided::new(&key.0, [2, 3, 70, 13], apart)),
            );
            let numbers = inputs(
                Source::Real(Strided::new(&query.1, shape, strides)),
                Source::Real(Strided::new(&key.1, [2, 3, 70, 13], apart)),
            );
            for arch in archs() {
                let [got, expected] =
                    [&halves, &numbers].map(|inputs| forward(arch, &case.plan, inputs));
                assert_eq!(got, expected, "{coding:?}, {arch:?}, {queries} queries");
            }
        }
    }
}

/// Memory that ends with the last row of the last head, of which the first query sees nothing.
#[test]
fn rows_that_stand_apart_are_read_no_further_than_they_are_seen() {
    let mut case = Case::new([1, 4, 2, 2, 150, 8, 12]);
    let spans = [Span { start: 0, end: 100 }, Span { start: 60, end: 150 }];
    case.plan.visibility.spans = Some(spans.into_iter().map(RowSpans::one).collect());
    let data = Data::<f32>::of(&case);
    let heads_inside = |numbers: &[f32], width: usize| {
        let rows = (0..150).flat_map(|row| [row, 150 + row]);
        rows.flat_map(|row| numbers[row * width..][..width].to_vec()).collect::<Vec<f32>>()
    };
    let (key, value) = (heads_inside(&data.key, 8), heads_inside(&data.value, 12));
    let expected = data.inputs(&case);
    let apart = Inputs {
        key: Source::Real(Strided::new(&key, [1, 2, 150, 8], [300 * 8, 8, 2 * 8, 1])),
        value: Source::Real(Strided::new(&value, [1, 2, 150, 12], [300 * 12, 12, 2 * 12, 1])),
        ..data.inputs(&case)
    };
    for arch in archs() {
        let [got, expected] = [&apart, &expected].map(|inputs| forward(arch, &case.plan, inputs));
        assert_eq!(got, expected, "{arch:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_codes_are_their_numbers(seed in any::<u64>()) {
        codes_are_their_numbers::<f32>(&Case::random(seed));
    }
}

/// Rows of one, two and three blocks of Q8_0, whole and cut off, grouped and not; also in f64.
#[test]
fn codes_of_wide_rows_are_their_numbers() {
    for width in [31, 32, 33, 64, 70] {
        for queries in [1, 2, 40] {
            codes_are_their_numbers::<f32>(&Case::causal([2, 3, 1, queries, 150, width, 64]));
            codes_are_their_numbers::<f64>(&Case::causal([1, 2, 2, queries, 40, 64, width]));
        }
    }
}

/// Windows and sinks, whose ranges lie in one tile, in neighbouring tiles or far apart.
#[test]
fn two_ranges_agree_with_the_formula() {
    for (length, window, sinks) in
        [(40, 8, 3), (150, 30, 4), (150, 1, 1), (300, 20, 130), (700, 64, 4), (700, 130, 100)]
    {
        let case = Case::window_and_sinks([1, 2, 1, length, length, 5, 8], window, sinks);
        agrees::<f32>(&case, 2e-6, 1e-5);
        let case = Case::window_and_sinks([2, 2, 2, 1, length + 2000, 8, 5], window, sinks);
        agrees::<f64>(&case, 1e-12, 1e-12);
    }
}

/// Look-ahead at lengths on, before and after every edge of vectors, panels and tiles.
#[test]
fn lengths_around_every_edge() {
    for length in [1, 2, 7, 8, 9, 15, 16, 17, 95, 96, 97, 127, 128, 129, 191, 193, 257] {
        agrees::<f32>(&Case::causal([1, 2, 1, length, length, 5, 3]), 2e-6, 1e-5);
        agrees::<f64>(&Case::new([1, 1, 1, 3, length, 4, 8]), 1e-12, 1e-12);
        agrees::<f64>(&Case::causal([1, 1, 1, length, 5, 9, 2]), 1e-12, 1e-12);
    }
}

/// Up to four of the queries that see the same keys read each value together, and others alone.
#[test]
fn groups_of_any_size() {
    for heads in 1..=9 {
        for queries in [1, 2] {
            agrees::<f32>(&Case::causal([2, heads, 1, queries, 131, 13, 37]), 2e-6, 1e-5);
            let windowed = Case::window_and_sinks([1, heads, 1, queries, 300, 8, 64], 150, 3);
            agrees::<f32>(&windowed, 2e-6, 1e-5);
        }
    }
}

#[test]
fn nothing_to_do() {
    for sizes in [
        [0, 2, 1, 3, 3, 4, 4],
        [1, 2, 1, 0, 3, 4, 4],
        [1, 2, 1, 3, 0, 4, 4],
        [2, 2, 2, 0, 0, 4, 4],
        [1, 1, 1, 2, 3, 0, 4],
        [1, 1, 1, 2, 3, 4, 0],
    ] {
        let mut case = Case::causal(sizes);
        case.plan.scoring.scale = 1.0;
        agrees::<f32>(&case, 2e-6, 1e-5);
    }
}

/// Scores of -20,000 that differ by little: a rounded log-sum-exp would lose the weights.
#[test]
fn large_scores_keep_their_weights() {
    let case = Case::causal([1, 1, 1, 40, 40, 16, 4]);
    assert_eq!(case.plan.scoring.scale, 0.25);
    let mut data = Data::<f32>::of(&case);
    for (at, q) in data.query.iter_mut().enumerate() {
        *q = if at % 16 == 0 { 256.0 } else { (*q * 8.0).round() / 8.0 };
    }
    for (at, k) in data.key.iter_mut().enumerate() {
        *k = if at % 16 == 0 { -320.0 } else { (*k * 8.0).round() / 8.0 };
    }
    let exact = data.naive(&case);
    for arch in archs() {
        let got = data.run(&case, arch);
        assert!(difference(&got.out, &exact.out, 0.1) < 2e-6);
        assert!(difference(&got.value, &exact.value, 1.0) < 1e-5);
        assert!(difference(&got.query, &exact.query, 1.0) < 1e-5);
        assert!(difference(&got.key, &exact.key, 1.0) < 1e-5);
    }
}

/// The bits depend neither on the number of threads nor on which of them was faster.
#[test]
fn same_bits_on_any_number_of_threads() {
    let mut shared_bias = Case::causal([2, 4, 2, 300, 300, 16, 16]);
    shared_bias.bias = Some([1, 1, 300, 300]);
    let mut row_bias = Case::causal([2, 2, 2, 200, 260, 8, 16]);
    row_bias.bias = Some([1, 2, 1, 1]);
    let one_head = Case::causal([1, 1, 1, 700, 700, 32, 32]);
    let few = Case::causal([1, 4, 2, 2, 3000, 32, 16]);
    let two_ranges = Case::window_and_sinks([2, 4, 2, 700, 700, 8, 8], 40, 140);
    for case in [shared_bias, row_bias, one_head, few, two_ranges] {
        let data = Data::<f32>::of(&case);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| data.run(&case, arch()))
        };
        let expected = run(1);
        for threads in [2, 2, 3, 5, 1] {
            assert!(run(threads) == expected, "{threads} threads, {:?}", sizes_of(&case));
        }
    }
}

/// NaN and infinity where nobody can see them: the bits of every result stay.
fn hidden_cannot_be_felt(case: &Case, spoil: f32) {
    let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = sizes_of(case);
    let plan = &case.plan;
    let data = Data::<f32>::of(case);
    let mut non_finite = data.clone();
    let group = heads / kv_heads;
    let mut any = false;
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for i in 0..queries {
            if (0..keys).all(|j| !plan.is_visible(b, h, i, j)) {
                any = true;
                let at = ((b * queries + i) * heads + h) * head_dim;
                non_finite.query[at..][..head_dim].fill(spoil);
                let at = ((b * heads + h) * queries + i) * value_dim;
                non_finite.d_out[at..][..value_dim].fill(spoil);
            }
        }
    }
    for (b, kv) in (0..batch).flat_map(|b| (0..kv_heads).map(move |h| (b, h))) {
        for j in 0..keys {
            let mut cells = (0..group).flat_map(|h| (0..queries).map(move |i| (kv * group + h, i)));
            if cells.all(|(h, i)| !plan.is_visible(b, h, i, j)) {
                any = true;
                let at = (b * kv_heads + kv) * keys + j;
                non_finite.key[at * head_dim..][..head_dim].fill(spoil);
                non_finite.value[at * value_dim..][..value_dim].fill(spoil);
            }
        }
    }
    assert!(any, "nothing hidden in {:?}", sizes_of(case));
    for arch in archs() {
        let (clean, non_finite) = (data.run(case, arch), non_finite.run(case, arch));
        assert!(clean.out.iter().all(|x| x.is_finite()));
        assert!(clean == non_finite, "{spoil} was felt, {arch:?}, {:?}", sizes_of(case));
    }
}

#[test]
fn nan_in_padding_and_dead_rows_cannot_be_felt() {
    for spoil in [f32::NAN, f32::INFINITY, f32::MAX] {
        for (queries, keys) in [(40, 40), (1, 300), (130, 150), (3, 20)] {
            // right padding under look-ahead, left padding, scattered
            for hidden in [|j: usize, keys: usize| j + 7 >= keys, |j, _| j < 5, |j, _| j % 3 == 1] {
                let mut case = Case::causal([2, 4, 2, queries, keys, 9, 8]);
                case.plan.visibility.hidden_keys =
                    Some((0..keys).map(|j| hidden(j, keys)).collect());
                hidden_cannot_be_felt(&case, spoil);
                let mut case = Case::new([1, 2, 2, queries, keys, 8, 16]);
                let hidden = (0..keys).map(|j| hidden(j, keys)).collect();
                case.plan.visibility.hidden_cells =
                    Some(HiddenCells { shape: [1, 1, 1, keys], hidden });
                case.plan.dropout = Some(SeededDropout { probability: 0.2, seed: 5 });
                hidden_cannot_be_felt(&case, spoil);
            }
        }
    }
}

/// NaN in key, value, query or upstream gradient `at` reaches exactly those who see it.
#[test]
fn nan_reaches_those_who_see_it_and_nobody_else() {
    let (queries, keys, dim) = (150, 150, 8);
    let case = Case::causal([1, 1, 1, queries, keys, dim, dim]);
    let data = Data::<f32>::of(&case);
    for at in [0, 5, 16, 95, 96, 127, 128, 149] {
        for arch in archs() {
            let clean = data.run(&case, arch);
            let row = |rows: &[f32], i: usize| rows[i * dim..][..dim].to_vec();
            let mut future = data.clone();
            future.key[at * dim + 1] = f32::NAN;
            future.value[at * dim] = f32::INFINITY;
            let got = future.run(&case, arch);
            for i in 0..queries {
                let felt = row(&got.out, i).iter().all(|x| x.is_nan());
                assert_eq!(felt, i >= at, "query {i}, key {at}");
                if i < at {
                    assert_eq!(row(&got.out, i), row(&clean.out, i), "query {i}, key {at}");
                    assert_eq!(row(&got.query, i), row(&clean.query, i), "query {i}, key {at}");
                }
            }
            let mut past = data.clone();
            past.query[at * dim + 1] = f32::NAN;
            past.d_out[at * dim] = f32::NEG_INFINITY;
            let got = past.run(&case, arch);
            for j in 0..keys {
                let felt = row(&got.key, j).iter().all(|x| x.is_nan());
                assert_eq!(felt, j <= at, "key {j}, query {at}");
                if j > at {
                    let (key, value) = (row(&got.key, j), row(&got.value, j));
                    assert_eq!(key, row(&clean.key, j), "key {j}, query {at}");
                    assert_eq!(value, row(&clean.value, j), "value {j}, query {at}");
                }
            }
        }
    }
}

/// The vectors' `2^x` against the library's, in units in the last place.
#[test]
fn exponentials_are_within_two_ulps() {
    struct Exp<'a, T>(&'a mut [T]);
    impl<T: Real> pulp::WithSimd for Exp<'_, T> {
        type Output = ();
        fn with_simd<S: pulp::Simd>(self, simd: S) {
            T::vectors_mut::<S>(self.0).iter_mut().for_each(|x| *x = real::exp2::<T, S>(simd, *x));
        }
    }
    for arch in archs() {
        let xs: Vec<f32> = (0..1 << 16).map(|i| -(i as f32) / 512.0).collect();
        let mut got = xs.clone();
        arch.dispatch(Exp(&mut got));
        for (x, got) in xs.iter().zip(got) {
            let exact = f64::from(*x).exp2();
            let error = (f64::from(got) - exact).abs();
            assert!(error <= 1.2e-7 * exact + 2.4e-38, "2^{x} = {got:e}, not {exact:e}");
            assert!(*x > -127.0 || got == 0.0, "2^{x} = {got:e}");
        }
        let xs: Vec<f64> = (0..1 << 16).map(|i| -(i as f64) / 60.0).collect();
        let mut got = xs.clone();
        arch.dispatch(Exp(&mut got));
        for (x, got) in xs.iter().zip(got) {
            let error = (got - x.exp2()).abs();
            assert!(error <= 4.5e-16 * x.exp2() + 4.5e-308, "2^{x} = {got:e}");
            assert!(*x > -1023.0 || got == 0.0, "2^{x} = {got:e}");
        }
        // as many as the widest vector has lanes
        let mut special = [0.0; 16];
        special[..8].copy_from_slice(&[
            f32::NAN,
            f32::NEG_INFINITY,
            -127.0,
            0.0,
            -1e30,
            f32::MIN,
            -126.9,
            -126.5,
        ]);
        arch.dispatch(Exp(&mut special));
        assert!(special[0].is_nan());
        assert_eq!(special[1..6], [0.0, 0.0, 1.0, 0.0, 0.0]);
        assert!(special[6..8].iter().all(|&x| (0.0..1e-37).contains(&x)));
    }
}
