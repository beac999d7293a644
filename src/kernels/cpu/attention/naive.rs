//! The formula as loops over cells, in `f64`.

use super::problem::{broadcast_strides, offset, result_row};
use super::{Gradients, Inputs, Problem, Real, Strided};

/// The score of a visible cell, and what the softcap multiplies its gradient by.
fn score<T: Real>(problem: &Problem, inputs: &Inputs<T>, [b, h, i, j]: [usize; 4]) -> (f64, f64) {
    let at = |tensor: &Strided<T>, index| tensor.get(index).to_f64();
    let kv = problem.kv_head(h);
    let dot: f64 = (0..problem.head_dim)
        .map(|c| at(&inputs.query, [b, h, i, c]) * at(&inputs.key, [b, kv, j, c]))
        .sum();
    let (mut score, mut slope) = (dot * problem.scale, 1.0);
    if let Some(cap) = problem.softcap {
        let tanh = (score / cap).tanh();
        (score, slope) = (cap * tanh, 1.0 - tanh * tanh);
    }
    if let Some(bias) = &inputs.bias {
        score += at(bias, [b, h, i, j]);
    }
    if let Some(alibi) = &problem.alibi {
        score -= alibi.slopes[h]
            * (alibi.grid.query_position(i) - alibi.grid.key_position(j)).abs() as f64;
    }
    (score, slope)
}

/// The weights of one query before dropout (with the softcap's slopes), its maximum and its sum.
fn weights<T: Real>(
    problem: &Problem,
    inputs: &Inputs<T>,
    [b, h, i]: [usize; 3],
) -> (Vec<Option<(f64, f64)>>, f64, f64) {
    let scores: Vec<Option<(f64, f64)>> = (0..problem.keys)
        .map(|j| problem.is_visible(b, h, i, j).then(|| score(problem, inputs, [b, h, i, j])))
        .collect();
    if scores.iter().all(Option::is_none) {
        return (scores, f64::NEG_INFINITY, 0.0);
    }
    let sink = problem.sinks.map_or(f64::NEG_INFINITY, |sinks| sinks[h]);
    let max = scores
        .iter()
        .flatten()
        .fold(sink, |max, &(score, _)| if score.is_nan() { score } else { max.max(score) });
    let sum = (sink - max).exp()
        + scores.iter().flatten().map(|&(score, _)| (score - max).exp()).sum::<f64>();
    let weights = scores.iter().map(|s| s.map(|(s, slope)| ((s - max).exp() / sum, slope)));
    (weights.collect(), max, sum)
}

/// What dropout multiplies a weight by.
fn dropout_factor(problem: &Problem, [b, h, i, j]: [usize; 4]) -> f64 {
    let Some(dropout) = problem.dropout else { return 1.0 };
    let stays = dropout.row(b, h, i).bits(j as u32) >= dropout.threshold();
    if stays { dropout.scale() } else { 0.0 }
}

pub(super) fn forward<T: Real>(
    problem: &Problem,
    inputs: &Inputs<T>,
    out: &mut [T],
    statistics: &mut [T],
) {
    let Problem { batch, heads, queries, value_dim, .. } = *problem;
    let rows = batch * heads * queries;
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..queries {
                let row = (b * heads + h) * queries + i;
                let (weights, max, sum) = weights(problem, inputs, [b, h, i]);
                statistics[row] = T::of_f64(max);
                statistics[rows + row] = T::of_f64(sum);
                for c in 0..value_dim {
                    let mut total = 0.0;
                    for (j, weight) in weights.iter().enumerate() {
                        if let &Some((weight, _)) = weight {
                            let v = inputs.value.get([b, problem.kv_head(h), j, c]);
                            total += weight * dropout_factor(problem, [b, h, i, j]) * v.to_f64();
                        }
                    }
                    out[result_row([heads, queries, value_dim], [b, h, i]) + c] = T::of_f64(total);
                }
            }
        }
    }
}

pub(super) fn backward<T: Real>(
    problem: &Problem,
    inputs: &Inputs<T>,
    d_out: Strided<T>,
    gradients: Gradients<T>,
) {
    let Problem { batch, heads, kv_heads, queries, keys, head_dim, value_dim, .. } = *problem;
    let at = |tensor: &Strided<T>, index| tensor.get(index).to_f64();
    let mut dq = vec![0.0; batch * heads * queries * head_dim];
    let mut dk = vec![0.0; batch * kv_heads * keys * head_dim];
    let mut dv = vec![0.0; batch * kv_heads * keys * value_dim];
    let bias_shape = gradients.bias.as_ref().map_or([1; 4], |bias| bias.shape);
    let bias_strides = broadcast_strides(&bias_shape);
    let mut d_bias = vec![0.0; bias_shape.iter().product()];
    let mut d_sinks = vec![0.0; heads];
    for b in 0..batch {
        for h in 0..heads {
            let kv = problem.kv_head(h);
            for i in 0..queries {
                let (weights, max, sum) = weights(problem, inputs, [b, h, i]);
                let row = result_row([heads, queries, head_dim], [b, h, i]);
                // d_weight of each visible cell, and its mean under the weights
                let d_weights: Vec<f64> = (0..keys)
                    .map(|j| {
                        if weights[j].is_none() {
                            return 0.0;
                        }
                        let dot: f64 = (0..value_dim)
                            .map(|c| at(&d_out, [b, h, i, c]) * at(&inputs.value, [b, kv, j, c]))
                            .sum();
                        dot * dropout_factor(problem, [b, h, i, j])
                    })
                    .collect();
                let visible = || weights.iter().enumerate().filter_map(|(j, w)| w.map(|w| (j, w)));
                let mean: f64 = visible().map(|(j, (w, _))| w * d_weights[j]).sum();
                if let (Some(sinks), true) = (problem.sinks, sum > 0.0) {
                    d_sinks[h] -= (sinks[h] - max).exp() / sum * mean;
                }
                for (j, (weight, slope)) in visible() {
                    let d_score = weight * (d_weights[j] - mean);
                    d_bias[offset(&bias_strides, [b, h, i, j])] += d_score;
                    let d_dot = d_score * slope * problem.scale;
                    let key_row = result_row([kv_heads, keys, head_dim], [b, kv, j]);
                    let value_row = result_row([kv_heads, keys, value_dim], [b, kv, j]);
                    for c in 0..head_dim {
                        dq[row + c] += d_dot * at(&inputs.key, [b, kv, j, c]);
                        dk[key_row + c] += d_dot * at(&inputs.query, [b, h, i, c]);
                    }
                    let dropped = weight * dropout_factor(problem, [b, h, i, j]);
                    for c in 0..value_dim {
                        dv[value_row + c] += dropped * at(&d_out, [b, h, i, c]);
                    }
                }
            }
        }
    }
    let write = |to: &mut [T], from: &[f64]| {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = T::of_f64(from);
        }
    };
    for (to, from) in [(gradients.query, &dq), (gradients.key, &dk), (gradients.value, &dv)] {
        if let Some(to) = to {
            write(to, from);
        }
    }
    if let Some(bias) = gradients.bias {
        write(bias.data, &d_bias);
    }
    if let Some(sinks) = gradients.sinks {
        sinks.copy_from_slice(&d_sinks);
    }
}
