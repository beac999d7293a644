//! One table of cases for every device that the crate's own kernel runs on: naive = flex = ndarray =
//! wgpu. Sizes around panels and tiles, masks of every form, every option alone and all at once.

use super::*;
use crate::masks::random_masks;

/// Differences that are allowed, of the largest entry: sums of a few hundred terms in f32.
const FORWARD: f64 = 3e-6;

/// The same of gradients, which sum products of such sums.
const BACKWARD: f64 = 2e-5;

/// One attention with everything.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    /// `[batch, heads, kv_heads, queries, keys, head_dim, value_dim]`
    sizes: [usize; 7],
    grid: Grid,
    mask: Mask,
    softcap: Option<f64>,
    /// Axes of the bias that are not broadcast.
    bias: Option<[bool; 4]>,
    alibi: bool,
    sinks: bool,
    dropout: Option<u64>,
}

const DROPPED: f64 = 0.3;

fn case(name: &'static str, sizes: [usize; 7], mask: Mask) -> Case {
    let [batch, _, _, queries, keys, ..] = sizes;
    let grid = Grid::bottom_right(batch, queries, keys);
    Case {
        name,
        sizes,
        grid,
        mask,
        softcap: None,
        bias: None,
        alibi: false,
        sinks: false,
        dropout: None,
    }
}

/// Flags of which about `tenths` tenths are true.
fn flags<const D: usize>(shape: [usize; D], tenths: u64, device: &Device) -> Tensor<D, Bool> {
    let count = shape.iter().product();
    let flags = Array::random([1, 1, 1, count], 99).values;
    let flags: Vec<bool> = flags.iter().map(|x| *x < tenths as f64 * 0.3 - 1.5).collect();
    Tensor::from_data(TensorData::new(flags, shape), device)
}

/// The table. Widths of at most 32 numbers share what a GPU compiles.
fn cases(device: &Device) -> Vec<Case> {
    let causal = Mask::look_ahead;
    let padded = |lengths: [usize; 2]| Mask::lengths(lengths);
    let hidden = |shape: [usize; 4]| Mask::from_hidden(&flags(shape, 4, device)).unwrap();
    let visible_keys = |keys| Mask::from_visible_keys(&flags([2, keys], 7, device));
    let documents = || Mask::document_lengths([vec![41, 59, 27], vec![100, 27]]);
    let window_and_sinks = |window| Mask::window_keys(window).unwrap() | causal() & Mask::sinks(3);
    let small = [2, 2, 2, 37, 53, 19, 23];
    let positions: Vec<i64> = (0..43).filter(|k| k % 4 != 1).collect();
    let rolled = Grid::with_key_positions(1, 5, 40, positions).unwrap();
    let everything = Case {
        softcap: Some(3.0),
        bias: Some([false, true, true, true]),
        alibi: true,
        sinks: true,
        dropout: Some(7),
        ..case(
            "everything at once",
            [2, 6, 2, 67, 71, 29, 31],
            window_and_sinks(11) & visible_keys(71) & hidden([1, 6, 67, 71]),
        )
    };
    let mut cases = vec![
        case("all visible", small, Mask::all_visible()),
        case("causal", [1, 2, 2, 131, 131, 19, 23], causal()),
        case("one query", [2, 2, 1, 1, 131, 19, 23], causal()),
        case("a few queries", [2, 6, 2, 5, 1031, 19, 23], causal() & visible_keys(1031)),
        case("a few in a window", [1, 2, 2, 5, 601, 19, 23], window_and_sinks(300)),
        Case {
            softcap: Some(0.7),
            bias: Some([true, true, false, true]),
            alibi: true,
            sinks: true,
            ..case(
                "a few with everything",
                [2, 6, 2, 3, 307, 19, 23],
                causal() & hidden([2, 6, 3, 307]),
            )
        },
        case("more queries than keys", [1, 2, 2, 97, 31, 19, 23], causal()),
        case("grouped heads", [2, 6, 2, 71, 71, 13, 17], causal()),
        case("wide heads", [1, 2, 2, 37, 37, 72, 40], causal()),
        case("a window", [1, 2, 2, 151, 151, 19, 23], Mask::window_keys(17).unwrap()),
        case("a window with sinks", [1, 2, 2, 151, 151, 19, 23], window_and_sinks(17)),
        case("documents", [2, 2, 2, 127, 127, 19, 23], causal() & documents()),
        case("right padding", small, causal() & padded([53, 29])),
        case("left padding, dead rows", small, causal() & Mask::pad_counts([0, 31])),
        case("scattered keys", small, causal() & visible_keys(53)),
        case("cells by head", small, hidden([1, 2, 37, 53])),
        case("cells by key", small, hidden([2, 1, 1, 53])),
        case("cells by query", small, hidden([1, 2, 37, 1])),
        case("nothing visible", small, !Mask::all_visible()),
        Case { softcap: Some(0.7), ..case("softcap", small, causal()) },
        Case { alibi: true, ..case("ALiBi", small, causal()) },
        Case {
            alibi: true,
            grid: rolled,
            ..case("ALiBi, listed positions", [1, 2, 2, 5, 32, 19, 23], causal())
        },
        Case { sinks: true, ..case("sinks", small, causal() & Mask::pad_counts([0, 31])) },
        Case { dropout: Some(42), ..case("dropout", small, causal()) },
        everything,
    ];
    for axes in [[true; 4], [false, true, true, true], [true, false, true, false]] {
        cases.push(Case { bias: Some(axes), ..case("bias", small, causal() & padded([53, 29])) });
    }
    for axes in [[false, true, false, true], [true, true, false, false], [false; 4]] {
        let sizes = [2, 2, 2, 67, 35, 19, 23];
        cases.push(Case { bias: Some(axes), ..case("bias", sizes, causal() & padded([35, 29])) });
    }
    cases
}

/// Whether dropout drops a weight: the crate's decisions, which are the same on every device, once
/// more. (SplitMix64's step for the row, lowbias32 with a second key for the key.)
fn drops(seed: u64, [batch, head, query, key]: [usize; 4]) -> bool {
    let mix = |value: u64| {
        let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    let row = [batch, head, query].iter().fold(mix(seed), |row, &index| mix(row ^ index as u64));
    let mut bits = key as u32 ^ row as u32;
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x7feb_352d);
    bits = (bits ^ (bits >> 15)).wrapping_add((row >> 32) as u32).wrapping_mul(0x846c_a68b);
    bits ^= bits >> 16;
    bits < (DROPPED * 4_294_967_296.0).round() as u32
}

impl Case {
    fn array(&self, shape: [usize; 4], salt: u64) -> Array {
        Array::random(shape, self.sizes.iter().fold(salt, |seed, &n| seed * 31 + n as u64))
    }

    /// Compares `Kernel::Fused` with plain loops, forward and backward.
    fn check(&self, device: &Device, dtype: DType, forward: f64, backward: f64) {
        let [batch, heads, kv_heads, queries, keys, head_dim, value_dim] = self.sizes;
        let full = [batch, heads, queries, keys];
        // As the device holds them, whatever its elements are.
        let given = |shape, salt| {
            let tensor = tensor(&self.array(shape, salt), device, dtype);
            (array(tensor.clone()), tensor)
        };
        let query = given([batch, heads, queries, head_dim], 1);
        let key = given([batch, kv_heads, keys, head_dim], 2);
        let value = given([batch, kv_heads, keys, value_dim], 3);
        let upstream = given([batch, heads, queries, value_dim], 4);
        let bias = self.bias.map(|axes| {
            given(std::array::from_fn(|axis| if axes[axis] { full[axis] } else { 1 }), 5)
        });
        let sinks = self.sinks.then(|| given([1, 1, 1, heads], 6));
        let mask = self.mask.lower(&self.grid).unwrap();
        let hidden = |[b, h, q, k]: [usize; 4]| !mask.is_visible(b, h, q, k);

        // To the loops, ALiBi is a bias like any other.
        let slopes: Vec<f64> = (0..heads).map(|h| 0.5 / (h + 1) as f64).collect();
        let added = (self.bias.is_some() || self.alibi).then(|| {
            let mut added = Array::zeros(full);
            for cell @ [_, h, q, k] in cells(full) {
                let distance = self.grid.query_position(q) - self.grid.key_position(k);
                let distance = if self.alibi { slopes[h] * distance.abs() as f64 } else { 0.0 };
                let bias = bias.as_ref().map_or(0.0, |(bias, _)| bias.at(cell));
                *added.at_mut(cell) = bias - distance;
            }
            added
        });
        let factor = |cell| match self.dropout {
            Some(seed) if drops(seed, cell) => 0.0,
            Some(_) => 1.0 / (1.0 - DROPPED),
            None => 1.0,
        };
        let problem = naive::Problem {
            query: &query.0,
            key: &key.0,
            value: &value.0,
            scale: 1.0 / (head_dim as f64).sqrt(),
            softcap: self.softcap,
            bias: added.as_ref(),
            sinks: sinks.as_ref().map(|(sinks, _)| sinks.values.as_slice()),
            hidden: &hidden,
            factor: &factor,
        };
        let expected = naive::attention(&problem, &upstream.0);
        let d_bias = bias.as_ref().map(|(bias, _)| {
            let mut sum = Array::zeros(bias.shape);
            let d_added = expected.d_bias.as_ref().unwrap();
            cells(full).for_each(|cell| *sum.at_mut(cell) += d_added.at(cell));
            sum
        });
        let d_sinks = expected.d_sinks.clone().map(|sinks| Array::new([1, 1, 1, heads], sinks));

        let inputs =
            Inputs { query: query.1, key: key.1, value: value.1, upstream: upstream.1.clone() };
        let score = Score::new()
            .with_softcap(self.softcap)
            .with_bias(bias.map(|(_, bias)| bias))
            .with_alibi(self.alibi.then(|| Alibi::with_slopes(slopes)))
            .with_sinks(sinks.map(|(_, sinks)| sinks.flatten::<1>(0, 3)))
            .with_dropout(if self.dropout.is_some() { DROPPED } else { 0.0 })
            .with_dropout_seed(self.dropout);
        let what = format!("{}, {:?}, bias {:?}, {dtype:?}", self.name, self.sizes, self.bias);
        let got = train(&inputs, &mask, &score, &by(Kernel::Fused));
        let largest = [&expected.d_query, &expected.d_key, &expected.d_value]
            .map(|array| array.values.iter().fold(0.0f64, |most, x| most.max(x.abs())))
            .into_iter()
            .fold(0.1, f64::max);
        for (name, got, expected, allowed) in [
            ("output", Some(&got.output), Some(&expected.output), forward),
            ("d_query", Some(&got.d_query), Some(&expected.d_query), backward * largest),
            ("d_key", Some(&got.d_key), Some(&expected.d_key), backward * largest),
            ("d_value", Some(&got.d_value), Some(&expected.d_value), backward * largest),
            ("d_bias", got.d_bias.as_ref(), d_bias.as_ref(), backward * largest),
            ("d_sinks", got.d_sinks.as_ref(), d_sinks.as_ref(), backward * largest),
        ] {
            let (Some(got), Some(expected)) = (got, expected) else { continue };
            let tolerance = Tolerance { absolute: allowed, relative: allowed };
            assert_arrays_close(&format!("{what}: {name}"), got, expected, tolerance);
        }
        assert_hidden_is_zero(&what, &got, &hidden);
        let again = train(&inputs, &mask, &score, &by(Kernel::Fused));
        assert_eq!(again.output, got.output, "{what}: the same bits");
        assert_eq!(
            [again.d_query, again.d_key, again.d_value],
            [got.d_query, got.d_key, got.d_value],
            "{what}: the same bits"
        );
    }
}

on_each_backend! {
    fn every_case_of_the_table(device: Device) {
        let factor = crate::backends::tolerance_factor(&device);
        for case in cases(&device) {
            case.check(&device, DType::F32, FORWARD * factor, BACKWARD * factor);
        }
    }

    /// Whatever a mask can say, as spans, keys or cells, on grids that roll.
    fn random_expressions(device: Device) {
        let factor = crate::backends::tolerance_factor(&device);
        let number = if is_cpu(&device) { 64 } else { 24 };
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(number) };
        // Few queries take another way, but for those that are dropped from.
        let dropout = proptest::option::of(any::<u64>());
        proptest!(config, |((mask, grid, heads) in random_masks(), dropout in dropout)| {
            let sizes = [grid.batch(), heads, 1, grid.queries(), grid.keys(), 5, 3];
            let random = Case { grid, dropout, ..case("a random expression", sizes, mask) };
            random.check(&device, DType::F32, FORWARD * factor, BACKWARD * factor);
        });
    }

    /// f16 and bf16 as they are: rounded once when they are written, and nowhere else.
    fn half_precision(device: Device) {
        for (dtype, ulp) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
            if !device.supports_dtype(dtype) {
                println!("skipped: no {dtype:?} on {device:?}");
                continue;
            }
            let sizes = [1, 4, 2, 67, 71, 19, 23];
            let mask = Mask::look_ahead() & Mask::pad_counts([9]);
            case("half precision", sizes, mask).check(&device, dtype, ulp, 2.0 * ulp);
        }
    }
}
