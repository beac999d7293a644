//! What is promised of dead rows, hidden keys, groups, ranks, strides and types.

use super::*;

/// A dense mask of `[batch, queries, keys]` that hides whole rows.
fn dead_rows(
    [batch, queries, keys]: [usize; 3],
    dead: impl Fn(usize, usize) -> bool,
    device: &Device,
) -> LoweredMask {
    let flags = cells([batch, 1, queries, keys]).map(|[b, _, q, _]| dead(b, q)).collect::<Vec<_>>();
    let flags = TensorData::new(flags, [batch, 1, queries, keys]);
    let mask = Mask::from_hidden::<4>(&Tensor::from_data(flags, device)).unwrap();
    mask.lower(&Grid::bottom_right(batch, queries, keys)).unwrap()
}

on_each_backend! {
    fn dead_rows_are_exactly_zero(device: Device) {
        type Dead = fn(usize, usize) -> bool; // of batch entry and query
        let patterns: [(&str, Dead); 6] = [
            ("all", |_, _| true),
            ("first half", |_, q| q < 4),
            ("second half", |_, q| q >= 4),
            ("scattered", |b, q| (b * 7 + q * 5) % 3 == 0),
            ("every fourth", |_, q| q % 4 == 0),
            ("a whole batch entry", |b, _| b == 1),
        ];
        let halves = [DType::F16, DType::BF16].into_iter().filter(|&dtype| {
            // wgpu's half precision depends on the adapter; its f32 results are tested.
            is_cpu(&device) && device.supports_dtype(dtype)
        });
        for dtype in [DType::F32].into_iter().chain(halves) {
            let inputs = inputs([2, 2, 1], [8, 5], [3, 3], &device, dtype);
            for (name, dead) in patterns {
                let mask = dead_rows([2, 8, 5], dead, &device);
                for kernel in training_kernels(&device) {
                    let what = format!("{name}, {dtype:?}, {kernel:?}");
                    let results = train(&inputs, &mask, &Score::new(), &by(kernel));
                    let finite = |array: &Array| array.values.iter().all(|value| value.is_finite());
                    assert!(finite(&results.output) && finite(&results.d_query), "{what}");
                    assert!(finite(&results.d_key) && finite(&results.d_value), "{what}");
                    assert_hidden_is_zero(&what, &results, &|[b, _, q, _]| dead(b, q));
                }
                let request = by(Kernel::Backend);
                let output = array(forward(&inputs, &mask, &Score::new(), &request).output);
                for cell in cells(output.shape).filter(|&[b, _, q, _]| dead(b, q)) {
                    assert!(
                        output.at(cell) == 0.0,
                        "{name}, {dtype:?}, Backend: {}",
                        output.at(cell)
                    );
                }
            }
        }
    }

    /// Legitimate scores of -2e4 and +2e4 beside a hidden key: the hidden one gets nothing.
    fn extreme_scores_beside_a_hidden_key(device: Device) {
        for large in [-2e4f32, 2e4] {
            let query = Tensor::<4>::from_data([[[[large]]]], &device);
            let key = Tensor::<4>::from_data([[[[1.0], [1.0], [0.0]]]], &device);
            let value = Tensor::<4>::from_data([[[[1.0], [3.0], [1e6]]]], &device);
            let upstream = Tensor::<4>::ones([1, 1, 1, 1], &device);
            let inputs = Inputs { query, key, value, upstream };
            let mask = Mask::lengths([2]).lower(&Grid::bottom_right(1, 1, 3)).unwrap();
            let score = Score::new().with_scale(1.0);
            let results = train(&inputs, &mask, &score, &Request::new().with_weights(true));
            let weights = results.weights.unwrap().values;
            assert_close(
                "weights",
                TensorData::from(&weights[..2]),
                TensorData::from([0.5f64, 0.5]),
                OUTPUT,
            );
            assert_eq!(weights[2], 0.0);
            for kernel in inference_kernels(&device) {
                let output = array(forward(&inputs, &mask, &score, &by(kernel)).output).values[0];
                assert!((output - 2.0).abs() < 1e-4, "score {large}, {kernel:?}: {output}");
            }
        }
    }

    /// Whatever a bias says about a hidden key, even an infinity, stays unheard.
    fn a_bias_on_a_hidden_key_is_unheard(device: Device) {
        let inputs = inputs([1, 2, 2], [5, 5], [3, 2], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::square(1, 5)).unwrap();
        let quiet = Array::random([1, 2, 5, 5], 9);
        for extreme in [1e9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            // WGSL may assume that there are no infinities and NaNs: asked of CPUs only.
            if !extreme.is_finite() && !is_cpu(&device) {
                continue;
            }
            let mut loud = quiet.clone();
            for cell in cells(loud.shape).filter(|[_, _, q, k]| k > q) {
                *loud.at_mut(cell) = extreme;
            }
            for kernel in training_kernels(&device) {
                for softcap in [None, Some(3.0)] {
                    let run = |bias: &Array| {
                        let bias = tensor(bias, &device, DType::F32);
                        let score = Score::new().with_softcap(softcap).with_bias(bias);
                        let request = by(kernel).with_weights(kernel != Kernel::Fused);
                        train(&inputs, &mask, &score, &request)
                    };
                    let (expected, got) = (run(&quiet), run(&loud));
                    let what = format!("bias {extreme}, {kernel:?}");
                    assert_arrays_close(&what, &got.output, &expected.output, OUTPUT);
                    assert_arrays_close(&what, &got.d_query, &expected.d_query, GRADIENT);
                    let d_bias = got.d_bias.unwrap();
                    assert_arrays_close(&what, &d_bias, &expected.d_bias.unwrap(), GRADIENT);
                    for cell in cells(d_bias.shape).filter(|[_, _, q, k]| k > q) {
                        assert_eq!(d_bias.at(cell), 0.0, "{what}");
                        assert!(got.weights.as_ref().is_none_or(|w| w.at(cell) == 0.0), "{what}");
                    }
                }
            }
        }
    }

    /// A bias of -inf hides like a mask, if clumsily: whole rows of it give 0 and no NaN.
    fn a_bias_of_minus_infinity_is_a_dead_row(device: Device) {
        if !is_cpu(&device) {
            return; // WGSL may assume that there are no infinities.
        }
        let inputs = inputs([1, 2, 2], [3, 5], [3, 2], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 3, 5));
        let mut bias = Array::random([1, 1, 3, 5], 9);
        (0..5).for_each(|k| *bias.at_mut([0, 0, 1, k]) = f64::NEG_INFINITY);
        for kernel in training_kernels(&device) {
            let score = Score::new().with_bias(tensor(&bias, &device, DType::F32));
            let results = train(&inputs, &mask, &score, &by(kernel));
            assert_hidden_is_zero(&format!("{kernel:?}"), &results, &|[_, _, q, _]| q == 1);
            let d_bias = results.d_bias.unwrap().values;
            assert!(d_bias[5..10].iter().all(|&gradient| gradient == 0.0), "{kernel:?}: {d_bias:?}");
        }
    }

    /// Query head h reads key/value head h / group, as if each were written out `group` times.
    fn grouped_heads_are_repeated_heads(device: Device) {
        let (kv_heads, group) = (3, 2);
        let inputs = inputs([2, kv_heads * group, kv_heads], [5, 7], [4, 3], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 5, 7)).unwrap();
        let heads = |order: [i64; 6], tensor: &Tensor<4>| {
            tensor.clone().select(1, Tensor::from_data(TensorData::from(order), &device))
        };
        let repeated = |order| Inputs {
            key: heads(order, &inputs.key),
            value: heads(order, &inputs.value),
            ..inputs.clone()
        };
        for kernel in inference_kernels(&device) {
            let run = |inputs: &Inputs| {
                forward(inputs, &mask, &Score::new(), &by(kernel)).output.into_data()
            };
            let grouped = run(&inputs);
            let consecutive = run(&repeated([0, 0, 1, 1, 2, 2]));
            assert_close(&format!("{kernel:?}"), grouped.clone(), consecutive, OUTPUT.on(&device));
            let interleaved = to_f64(run(&repeated([0, 1, 2, 0, 1, 2])));
            let differ = to_f64(grouped).iter().zip(&interleaved).any(|(a, b)| (a - b).abs() > 0.1);
            assert!(differ, "the two mappings must not look alike");
        }
    }

    fn rank_3_is_rank_4_with_one_head(device: Device) {
        let inputs = inputs([2, 1, 1], [5, 7], [4, 3], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 5, 7)).unwrap();
        let (score, request) = (Score::new(), Request::new().with_weights(true));
        let four = forward(&inputs, &mask, &score, &request);
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value]
            .map(|tensor| tensor.clone().squeeze_dim::<3>(1));
        let three = scaled_dot_product_attention(query, key, value, &mask, &score, &request);
        assert_eq!(three.output.dims(), [2, 5, 3]);
        let weights = three.weights.unwrap();
        assert_eq!(weights.dims(), [2, 5, 7]);
        assert_eq!(array(three.output).values, array(four.output).values);
        assert_eq!(array(weights).values, array(four.weights.unwrap()).values);
    }

    /// Views with other strides, as `swap_dims` and `slice` make them, give what copies give.
    fn strides_do_not_matter(device: Device) {
        let inputs = inputs([2, 6, 3], [5, 5], [4, 4], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::square(2, 5)).unwrap();
        let view = |tensor: &Tensor<4>| {
            let swapped = tensor.clone().swap_dims(1, 2); // [batch, rows, heads, width]
            let copied = Tensor::<4>::from_data(swapped.into_data(), &device);
            copied.swap_dims(1, 2)
        };
        let views = Inputs {
            query: view(&inputs.query),
            key: view(&inputs.key),
            value: view(&inputs.value),
            ..inputs.clone()
        };
        for kernel in inference_kernels(&device) {
            let run = |inputs: &Inputs| {
                forward(inputs, &mask, &Score::new(), &by(kernel)).output.into_data()
            };
            assert_close(&format!("{kernel:?}"), run(&views), run(&inputs), OUTPUT.on(&device));
        }
    }

    fn weights_sum_to_one_over_the_visible_keys(device: Device) {
        let inputs = inputs([2, 2, 1], [5, 5], [3, 3], &device, DType::F32);
        let mask =
            (Mask::look_ahead() & Mask::pad_counts([0, 2])).lower(&Grid::square(2, 5)).unwrap();
        let request = Request::new().with_weights(true);
        let weights = array(forward(&inputs, &mask, &Score::new(), &request).weights.unwrap());
        for [b, h, q, _] in cells([2, 2, 5, 1]) {
            let row = (0..5).map(|k| weights.at([b, h, q, k]));
            let hidden = |k| k > q || (b == 1 && k < 2);
            assert!(row.clone().enumerate().all(|(k, weight)| (weight == 0.0) == hidden(k)));
            let expected = if (0..5).all(hidden) { 0.0 } else { 1.0 };
            let sum: f64 = row.sum();
            assert!((sum - expected).abs() < 1e-5, "row [{b}, {h}, {q}] sums to {sum}");
        }
    }

    fn empty_axes_have_results(device: Device) {
        let sizes = [
            ("batch", 0, 5, 7, 3),
            ("queries", 2, 0, 7, 3),
            ("keys", 2, 5, 0, 3),
            ("values", 2, 5, 7, 0),
        ];
        for (name, batch, queries, keys, value_dim) in sizes {
            let zeros =
                |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device).autodiff().require_grad();
            let mask = LoweredMask::all_visible(Grid::bottom_right(batch, queries, keys));
            let request = Request::new().with_weights(true);
            let attended = scaled_dot_product_attention(
                zeros([batch, 2, queries, 4]),
                zeros([batch, 2, keys, 4]),
                zeros([batch, 2, keys, value_dim]),
                &mask,
                &Score::new(),
                &request,
            );
            assert_eq!(attended.output.dims(), [batch, 2, queries, value_dim], "{name}");
            assert_eq!(attended.weights.unwrap().dims(), [batch, 2, queries, keys], "{name}");
            assert!(
                to_f64(attended.output.into_data()).iter().all(|&value| value == 0.0),
                "{name}"
            );
        }
    }

    /// Half precision only at the door: scores and softmax are f32, so the difference is one
    /// rounding of inputs and one of outputs, whatever the length.
    fn half_precision_is_computed_in_f32(device: Device) {
        for (dtype, tolerance) in [(DType::F16, F16), (DType::BF16, BF16)] {
            if !is_cpu(&device) || !device.supports_dtype(dtype) {
                continue;
            }
            let inputs = inputs([1, 2, 1], [67, 67], [5, 5], &device, dtype);
            let mask = Mask::look_ahead().lower(&Grid::square(1, 67)).unwrap();
            let in_f32 = |tensor: &Tensor<4>| tensor.clone().cast(FloatDType::F32);
            let wide = Inputs {
                query: in_f32(&inputs.query),
                key: in_f32(&inputs.key),
                value: in_f32(&inputs.value),
                upstream: in_f32(&inputs.upstream),
            };
            let expected = array(forward(&wide, &mask, &Score::new(), &Request::new()).output);
            for kernel in training_kernels(&device) {
                let got = forward(&inputs, &mask, &Score::new(), &by(kernel)).output;
                assert_eq!(got.dtype(), dtype);
                assert_arrays_close(
                    &format!("{dtype:?}, {kernel:?}"),
                    &array(got),
                    &expected,
                    tolerance,
                );
            }
        }
    }
}
