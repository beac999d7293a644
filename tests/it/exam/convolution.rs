//! Convolutions and shifts.

use burn::tensor::Tensor;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// A convolution with a residual: `left` and `right` positions of padding.
fn convolution(
    setup: &Setup,
    kernel: usize,
    (left, right): (usize, usize),
    dilation: usize,
) -> Subject {
    let taps = taps(setup, kernel);
    Subject::embedded(move |x| x.clone() + convolve(&x, &taps, left, right, dilation))
}

/// Part of each position is replaced by its neighbour's, then comes an attention.
fn shifted(setup: &Setup, shift: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let half = setup.width / 2;
    Subject::embedded(move |x| {
        let kept = x.clone().narrow(2, 0, half);
        let rest = shift(x.clone().narrow(2, half, half));
        layer.forward(Tensor::cat(vec![kept, rest], 2), &mask)
    })
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, first, cause, build| Form::new(name, first, cause, build);
    vec![
        form(
            "3 taps, centred",
            |_| First::Cell(0, 1),
            |_| CentredWindow { reach: 1 },
            |s| convolution(s, 3, (1, 1), 1),
        ),
        form(
            "5 taps, centred",
            |_| First::Cell(0, 1),
            |_| CentredWindow { reach: 2 },
            |s| convolution(s, 5, (2, 2), 1),
        ),
        form(
            "3 taps two apart, centred",
            |_| First::Cell(0, 2),
            |_| CentredWindow { reach: 2 },
            |s| convolution(s, 3, (2, 2), 2),
        ),
        form(
            "4 taps, padded one short",
            |_| First::Cell(0, 1),
            |_| OffByOne,
            |s| convolution(s, 4, (2, 1), 1),
        ),
        form(
            "3 taps, padded on the right",
            |_| First::Cell(0, 1),
            |_| WrongAlignment { by: Some(2) },
            |s| convolution(s, 3, (0, 2), 1),
        ),
        form(
            "3 taps on a circle",
            |s| First::Cell(0, s.length - 2),
            |_| WrapsAround,
            |s| {
                let taps = taps(s, 3);
                Subject::embedded(move |x| {
                    let [_, length, _] = x.dims();
                    let end = x.clone().narrow(1, length - 2, 2);
                    x.clone() + convolve(&Tensor::cat(vec![end, x], 1), &taps, 0, 0, 1)
                })
            },
        ),
        form(
            "a shift that wraps",
            |s| First::Cell(0, s.length - 1),
            |s| GlobalKeys { keys: vec![s.length - 1] },
            |s| {
                // What wraps to the first position is then seen by all.
                shifted(s, |x| x.roll(&[1], &[1]))
            },
        ),
        form(
            "a shift the wrong way",
            |_| First::Cell(0, 1),
            |_| OffByOne,
            |s| shifted(s, |x| x.roll(&[-1], &[1])),
        ),
        form(
            "pooled by 4 and repeated",
            |_| First::Cell(0, 1),
            |_| BlockSummary { keys: BLOCK },
            |s| {
                let (means, inner) = (s.block_means(0), s.square(71));
                Subject::embedded(move |x| x.clone() + project(&mix(&means, &x), &inner).tanh())
            },
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("3 taps, padded on the left", |s| convolution(s, 3, (2, 0), 1)),
        ("3 taps two apart, padded on the left", |s| convolution(s, 3, (4, 0), 2)),
        ("a shift with zeros", |s| {
            shifted(s, |x| {
                let [batch, length, width] = x.dims();
                let first = Tensor::zeros([batch, 1, width], &x.device());
                Tensor::cat(vec![first, x.narrow(1, 0, length - 1)], 1)
            })
        }),
        ("pooled by 4 and repeated in the next block", |s| {
            let (means, inner) = (s.block_means(1), s.square(71));
            Subject::embedded(move |x| x.clone() + project(&mix(&means, &x), &inner).tanh())
        }),
    ]
}
