//! What attention refuses, and how.

use super::*;

/// The text of the panic that `run` ends in.
fn refusal(run: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = std::panic::catch_unwind(run).expect_err("expected a panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string())).unwrap()
}

on_each_backend! {
    fn refusals_say_what_was_expected_and_what_came(device: Device) {
        let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
        let run = |shapes: [[usize; 4]; 3], grid: Grid, score: Score, request: Request| {
            let [query, key, value] = shapes.map(zeros);
            let mask = LoweredMask::all_visible(grid);
            refusal(std::panic::AssertUnwindSafe(|| {
                scaled_dot_product_attention(query, key, value, &mask, &score, &request);
            }))
        };
        let (q, k, v) = ([2, 4, 5, 3], [2, 2, 7, 3], [2, 2, 7, 6]);
        let grid = || Grid::bottom_right(2, 5, 7);
        let (score, any) = (Score::new, Request::new);

        let cases = [
            (run([q, [2, 3, 7, 3], [2, 3, 7, 6]], grid(), score(), any()), "divides the 4 heads, got 3"),
            (run([q, [2, 2, 7, 5], v], grid(), score(), any()), "[batch, kv_heads, keys, head_dim]"),
            (run([q, k, [2, 2, 6, 6]], grid(), score(), any()), "key"),
            (
                run([q, k, v], Grid::bottom_right(2, 5, 8), score(), any()),
                "expected a grid of batch 2, 5 queries, 7 keys, got batch 2, 5 queries, 8 keys",
            ),
            (
                run([q, k, v], grid(), score().with_bias(zeros([2, 3, 5, 7])), any()),
                "broadcasts to [2, 4, 5, 7], got [2, 3, 5, 7]",
            ),
            (
                run([q, k, v], grid(), score().with_alibi(Alibi::new(3)), any()),
                "expected 4 slopes, one a head, got 3",
            ),
            (
                run([q, k, v], grid(), score().with_sinks(Tensor::zeros([2], &device)), any()),
                "sinks: expected 4 scores, one a head, got 2",
            ),
            (run([q, k, v], grid(), score().with_softcap(0.0), any()), "above 0, in the range of f32, got 0"),
            (run([q, k, v], grid(), score().with_scale(f64::NAN), any()), "number in the range of f32, got NaN"),
            (run([q, k, v], grid(), score().with_dropout(1.0), any()), "[0, 1), got 1"),
            (
                run([q, k, v], grid(), score(), by(Kernel::Backend).with_weights(true)),
                "got a request for weights",
            ),
            (
                run([q, k, v], grid(), score(), by(Kernel::Fused).with_weights(true)),
                "Kernel::Fused: expected a device and elements that it runs on and no weights",
            ),
            (
                run([q, k, v], grid(), score().with_softcap(2.0), by(Kernel::Backend)),
                "got a softcap",
            ),
            (
                run(
                    [q, k, v],
                    grid(),
                    score().with_sinks(Tensor::zeros([4], &device)),
                    by(Kernel::Backend),
                ),
                "got sinks",
            ),
        ];
        for (text, expected) in cases {
            assert!(text.contains(expected), "expected {expected:?} in {text:?}");
        }

        let tracked =
            || Tensor::<4>::random([1, 1, 2, 2], Distribution::Default, &device.clone().autodiff());
        let mask = LoweredMask::all_visible(Grid::square(1, 2));
        let text = refusal(std::panic::AssertUnwindSafe(|| {
            let request = by(Kernel::Backend);
            scaled_dot_product_attention(tracked(), tracked(), tracked(), &mask, &score(), &request);
        }));
        assert!(text.contains("autodiff"), "{text}");
    }
}
