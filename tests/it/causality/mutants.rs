//! Mutants: layers that leak, or hide, on purpose, each in one way seen in the wild. Each must be
//! caught and rightly named, over 20 seeds.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use burn_decoder::causality::{CausalityCheck, Diagnosis, Path, Report};
use burn_decoder::mask::Mask;
use rand::{SeedableRng, rngs::StdRng};

use super::tiny::*;

/// Runs the mutant made from a seed.
type Run = fn(u64, &Device) -> Report;

struct Mutant {
    name: &'static str,
    path: Path,
    diagnosis: Diagnosis,
    run: Run,
}

fn check<'a>(
    device: &Device,
    seed: u64,
    layer: impl Fn(Tensor<3>) -> Tensor<3> + 'a,
) -> CausalityCheck<'a, Tensor<3>> {
    CausalityCheck::embeddings(WIDTH, LENGTH, device, layer).with_batch(BATCH).with_seed(seed)
}

fn report<I: burn_decoder::causality::ModelInput>(check: CausalityCheck<'_, I>) -> Report {
    check.run().expect("the check fits the model")
}

/// A layer with another mask than look-ahead: hidden where `is_hidden(query, key)`.
fn with_mask(seed: u64, device: &Device, is_hidden: fn(usize, usize) -> bool) -> Report {
    let layer = Tiny::new(seed, 2, device);
    let mask = hidden([LENGTH, LENGTH], device, is_hidden);
    report(check(device, seed, |x| layer.forward(x, &mask)))
}

/// The same, set against a promise that is given.
fn with_mask_against(
    promise: Mask,
    seed: u64,
    device: &Device,
    is_hidden: fn(usize, usize) -> bool,
) -> Report {
    let layer = Tiny::new(seed, 2, device);
    let mask = hidden([LENGTH, LENGTH], device, is_hidden);
    let check = check(device, seed, |x| layer.forward(x, &mask));
    report(check.with_promise(promise).with_layers(1))
}

/// A right layer, with another way to run it.
fn with_cached(
    seed: u64,
    device: &Device,
    cached: impl Fn(&Tiny, Tensor<3>) -> Tensor<3>,
) -> Report {
    let layer = Tiny::new(seed, 2, device);
    let mask = look_ahead(device);
    let check = check(device, seed, |x| layer.forward(x, &mask));
    report(check.with_cached(|x| cached(&layer, x)))
}

/// Everything the queries are given is visible.
fn nothing_hidden(queries: usize, keys: usize, device: &Device) -> Tensor<4, burn::tensor::Bool> {
    hidden([queries, keys], device, |_, _| false)
}

const PADS: [usize; BATCH] = [0, 3, 1, 5];

fn left_padded() -> Mask {
    Mask::look_ahead() & Mask::pad_counts(PADS)
}

fn mutants() -> Vec<Mutant> {
    let mutant = |name, path, diagnosis, run| Mutant { name, path, diagnosis, run };
    let plain = |name, diagnosis, run| mutant(name, Path::Plain, diagnosis, run);
    vec![
        plain("off by one", Diagnosis::OffByOne, |seed, device| {
            with_mask(seed, device, |query, key| key > query + 1)
        }),
        plain("inverted", Diagnosis::MaskInverted, |seed, device| {
            // The last query keeps its own key, or its softmax would run over nothing.
            with_mask(seed, device, |query, key| key <= query && key + 1 < LENGTH)
        }),
        plain("transposed", Diagnosis::MaskInverted, |seed, device| {
            with_mask(seed, device, |query, key| key < query)
        }),
        plain("missing", Diagnosis::MaskMissing, |seed, device| {
            with_mask(seed, device, |_, _| false)
        }),
        plain("added as 0 and 1", Diagnosis::MaskMissing, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let hidden = look_ahead(device);
            report(check(device, seed, |x| {
                let weights = softmax(layer.scores(&x, &x) - hidden.clone().float(), 3);
                layer.mix(x.clone(), weights, x)
            }))
        }),
        plain("second layer without a mask", Diagnosis::MaskMissing, |seed, device| {
            let (first, second) = (Tiny::new(seed, 2, device), Tiny::new(seed + 1000, 2, device));
            let (mask, none) = (look_ahead(device), nothing_hidden(LENGTH, LENGTH, device));
            report(check(device, seed, |x| second.forward(first.forward(x, &mask), &none)))
        }),
        plain("after the softmax", Diagnosis::AppliedAfterSoftmax, |seed, device| {
            let layer = Tiny::new(seed, 1, device);
            let hidden = look_ahead(device);
            report(check(device, seed, |x| {
                let weights = softmax(layer.scores(&x, &x), 3).mask_fill(hidden.clone(), 0.0);
                layer.mix(x.clone(), weights, x)
            }))
        }),
        plain("after the softmax, weights told", Diagnosis::AppliedAfterSoftmax, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let hidden = look_ahead(device);
            let forward = |x: Tensor<3>| {
                let weights = softmax(layer.scores(&x, &x), 3);
                let hidden = hidden.clone().expand(weights.dims());
                let weights = weights.mask_fill(hidden, 0.0);
                (layer.mix(x.clone(), weights.clone(), x), weights)
            };
            report(check(device, seed, |x| forward(x).0).with_weights(forward))
        }),
        plain("a single head", Diagnosis::SomeHeads { heads: vec![1] }, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let masks = [look_ahead(device), nothing_hidden(LENGTH, LENGTH, device)];
            let hidden = Tensor::cat(masks.to_vec(), 1); // [1, heads, queries, keys]
            let forward = |x: Tensor<3>| {
                let weights = layer.weights(&x, &x, &hidden);
                (layer.mix(x.clone(), weights.clone(), x), weights)
            };
            report(check(device, seed, |x| forward(x).0).with_weights(forward))
        }),
        mutant("lost when weights are returned", Path::Weights, Diagnosis::MaskMissing, {
            |seed, device| {
                let layer = Tiny::new(seed, 2, device);
                let (mask, none) = (look_ahead(device), nothing_hidden(LENGTH, LENGTH, device));
                let check = check(device, seed, |x| layer.forward(x, &mask));
                report(check.with_weights(|x| {
                    let weights = layer.weights(&x, &x, &none);
                    (layer.mix(x.clone(), weights.clone(), x), weights)
                }))
            }
        }),
        mutant("lost under dropout", Path::Dropout, Diagnosis::MaskMissing, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let (mask, none) = (look_ahead(device), nothing_hidden(LENGTH, LENGTH, device));
            let dropout = burn::nn::DropoutConfig::new(0.1).init();
            let check = check(device, seed, |x| layer.forward(x, &mask));
            report(check.with_dropout(|x| dropout.forward(layer.forward(x, &none))))
        }),
        plain("dead rows with a finite fill", Diagnosis::DeadRows, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let mask = padded(PADS, device);
            let check = check(device, seed, |x| {
                let scores = layer.scores(&x, &x);
                let mask = mask.clone().expand(scores.dims());
                let weights = softmax(scores.mask_fill(mask, -1e4), 3);
                layer.mix(x.clone(), weights, x)
            });
            report(check.with_promise(left_padded()))
        }),
        plain("a finite fill above the scores", Diagnosis::FiniteFill, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let hidden = look_ahead(device);
            report(check(device, seed, |x| {
                let scores = layer.scores(&x, &x) * 3e4;
                let hidden = hidden.clone().expand(scores.dims());
                let weights = softmax(scores.mask_fill(hidden, -1e4), 3);
                layer.mix(x.clone(), weights, x)
            }))
        }),
        plain("norm over the sequence", Diagnosis::SequenceStatistics, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let mask = look_ahead(device);
            report(check(device, seed, |x| {
                let (variance, mean) = x.clone().var_mean_bias(1);
                layer.forward((x - mean) / (variance + 1e-5).sqrt(), &mask)
            }))
        }),
        plain("mean over the sequence", Diagnosis::SequenceStatistics, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let mask = look_ahead(device);
            report(check(device, seed, |x| layer.forward(x.clone() + x.mean_dim(1), &mask)))
        }),
        plain("window one too wide", Diagnosis::WindowTooWide { by: 1 }, |seed, device| {
            let promise = Mask::look_ahead() & Mask::window_keys(3).unwrap();
            with_mask_against(promise, seed, device, |query, key| key > query || query - key > 3)
        }),
        plain("window too narrow", Diagnosis::WindowTooNarrow { keys: 4 }, |seed, device| {
            with_mask_against(Mask::look_ahead(), seed, device, |query, key| {
                key > query || query - key > 3
            })
        }),
        plain("documents seen", Diagnosis::DocumentsMixed, |seed, device| {
            let promise = Mask::look_ahead() & Mask::document_lengths([[4, 7]; BATCH]);
            with_mask_against(promise, seed, device, |query, key| key > query)
        }),
        plain("padding seen", Diagnosis::PaddingSeen, |seed, device| {
            with_mask_against(left_padded(), seed, device, |query, key| key > query)
        }),
        plain("padding by id", Diagnosis::TokenHidden { id: 0 }, padding_by_id),
        plain(
            "bottom-right before memory",
            Diagnosis::WrongAlignment { by: Some(3) },
            |seed, device| {
                // Three memory slots behind the sequence, and a mask that counts from the end.
                let layer = Tiny::new(seed, 2, device);
                let memory = random_matrix([3, WIDTH], &mut StdRng::seed_from_u64(seed), device);
                let mask = hidden([LENGTH, LENGTH + 3], device, |query, key| key > query + 3);
                report(check(device, seed, |x| {
                    let memory = memory.clone().unsqueeze::<3>().expand([BATCH, 3, WIDTH]);
                    let keys = Tensor::cat(vec![x.clone(), memory], 1);
                    layer.cross(x, keys, &mask)
                }))
            },
        ),
        plain(
            "upper-left behind memory",
            Diagnosis::WrongAlignment { by: Some(-3) },
            |seed, device| {
                // Three memory slots before the sequence, and a mask that counts from the start.
                let layer = Tiny::new(seed, 2, device);
                let memory = random_matrix([3, WIDTH], &mut StdRng::seed_from_u64(seed), device);
                let mask = hidden([LENGTH, LENGTH + 3], device, |query, key| key > query);
                let check = check(device, seed, |x| {
                    let memory = memory.clone().unsqueeze::<3>().expand([BATCH, 3, WIDTH]);
                    let keys = Tensor::cat(vec![memory, x.clone()], 1);
                    layer.cross(x, keys, &mask)
                });
                report(check.with_promise(Mask::look_ahead()))
            },
        ),
        plain("inside tiles", Diagnosis::WithinBlocks { keys: 4 }, |seed, device| {
            with_mask(seed, device, |query, key| key > query && key / 4 > query / 4)
        }),
        plain("a shift that wraps around", Diagnosis::WrapsAround, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let mask = look_ahead(device);
            report(check(device, seed, |x| {
                let last = x.clone().narrow(1, LENGTH - 1, 1);
                let shifted = Tensor::cat(vec![last, x.clone().narrow(1, 0, LENGTH - 1)], 1);
                layer.forward(x, &mask) + shifted
            }))
        }),
        plain("a convolution to both sides", Diagnosis::WrongAlignment { by: Some(2) }, {
            |seed, device| {
                let layer = Tiny::new(seed, 2, device);
                // One attention to the two next keys and the two before, as a kernel of 5 would.
                let band = hidden([LENGTH, LENGTH], device, |query, key| query.abs_diff(key) > 2);
                report(check(device, seed, |x| layer.forward(x, &band)))
            }
        }),
        plain("rows mixed by a reshape", Diagnosis::RowsMixed, |seed, device| {
            let layer = Tiny::new(seed, 2, device);
            let mask = look_ahead(device);
            report(check(device, seed, |x| {
                // [batch, length] laid out as [length, batch], and read back.
                let keys: Tensor<3> = x.clone().reshape([LENGTH, BATCH, WIDTH]);
                layer.cross(x, keys.swap_dims(0, 1), &mask)
            }))
        }),
        mutant(
            "upper-left in decoding",
            Path::Cached,
            Diagnosis::WrongAlignment { by: None },
            |seed, device| {
                with_cached(seed, device, |layer, x| {
                    one_by_one(x, |_, new, all| {
                        let keys = all.dims()[1];
                        layer.cross(new, all, &hidden([1, keys], device, |query, key| key > query))
                    })
                })
            },
        ),
        mutant(
            "window lost in one-token decoding",
            Path::Cached,
            Diagnosis::WindowTooWide { by: LENGTH - 3 },
            |seed, device| {
                let layer = Tiny::new(seed, 2, device);
                let mask = hidden([LENGTH, LENGTH], device, |q, k| k > q || q - k > 2);
                let promise = Mask::look_ahead() & Mask::window_keys(3).unwrap();
                let check = check(device, seed, |x| layer.forward(x, &mask)).with_layers(1);
                report(check.with_promise(promise).with_cached(|x| {
                    one_by_one(x, |i, new, all| {
                        layer.cross(new, all, &nothing_hidden(1, i + 1, device))
                    })
                }))
            },
        ),
        mutant(
            "padding lost in one-token decoding",
            Path::Cached,
            Diagnosis::PaddingSeen,
            |seed, device| {
                let layer = Tiny::new(seed, 2, device);
                let mask = padded(PADS, device);
                let check = check(device, seed, |x| {
                    // A dead row puts out its residual alone.
                    let dead = mask.clone().all_dim(3).swap_dims(1, 2).reshape([BATCH, LENGTH, 1]);
                    let dead = dead.expand([BATCH, LENGTH, WIDTH]);
                    layer.forward(x.clone(), &mask).mask_where(dead, x)
                });
                report(check.with_promise(left_padded()).with_cached(|x| {
                    one_by_one(x, |i, new, all| {
                        layer.cross(new, all, &nothing_hidden(1, i + 1, device))
                    })
                }))
            },
        ),
        mutant("cache loses a token", Path::Cached, Diagnosis::KeyLost { key: 3 }, {
            |seed, device| {
                with_cached(seed, device, |layer, x| {
                    one_by_one(x, |i, new, all| {
                        // Two tokens came at once at 3, and the cache took the second one only.
                        let lost = hidden([1, i + 1], device, |_, key| key == 3 && i > 3);
                        layer.cross(new, all, &lost)
                    })
                })
            }
        }),
        mutant("cache repeats a token", Path::Cached, Diagnosis::KeyRepeated { key: 3 }, {
            |seed, device| {
                with_cached(seed, device, |layer, x| {
                    one_by_one(x, |i, new, all| {
                        if i <= 3 {
                            return layer.cross(new, all, &nothing_hidden(1, i + 1, device));
                        }
                        let again = all.clone().narrow(1, 3, 1);
                        let all = Tensor::cat(vec![all, again], 1);
                        layer.cross(new, all, &nothing_hidden(1, i + 2, device))
                    })
                })
            }
        }),
        mutant(
            "positions restarted",
            Path::Cached,
            Diagnosis::PositionsRestarted,
            |seed, device| {
                let layer = Tiny::new(seed, 2, device);
                let mask = look_ahead(device);
                let mut rng = StdRng::seed_from_u64(seed + 7);
                let positions = random_matrix([LENGTH, WIDTH], &mut rng, device).unsqueeze::<3>();
                let check = check(device, seed, |x| layer.forward(x + positions.clone(), &mask));
                report(check.with_cached(|x| {
                    // Each new token is the first one of its call, so it gets position 0.
                    let x = x + positions.clone().narrow(1, 0, 1);
                    one_by_one(x, |i, new, all| {
                        layer.cross(new, all, &nothing_hidden(1, i + 1, device))
                    })
                }))
            },
        ),
    ]
}

/// Tokens, of which id 0 is also the pad id; a promise by lengths shows all of them.
fn padding_by_id(seed: u64, device: &Device) -> Report {
    const VOCABULARY: usize = 5;
    let layer = Tiny::new(seed, 2, device);
    let mask = look_ahead(device);
    let mut rng = StdRng::seed_from_u64(seed);
    let table = random_matrix([VOCABULARY, WIDTH], &mut rng, device);
    let forward = |tokens: Tensor<2, Int>| {
        let [batch, length] = tokens.dims();
        let x = table.clone().select(0, tokens.clone().reshape([batch * length]));
        let x = x.reshape([batch, length, WIDTH]);
        let pad = tokens.equal_elem(0).reshape([batch, 1, 1, length]);
        let hidden = mask.clone().expand([batch, 1, length, length]);
        let hidden = hidden.bool_or(pad.expand([batch, 1, length, length]));
        let dead = hidden.clone().all_dim(3).expand([batch, 2, length, length]);
        let weights = layer.weights(&x, &x, &hidden).mask_fill(dead, 0.0);
        (layer.mix(x.clone(), weights.clone(), x), weights)
    };
    let check = CausalityCheck::tokens(VOCABULARY, LENGTH, device, |tokens| forward(tokens).0);
    report(check.with_batch(BATCH).with_seed(seed).with_weights(forward))
}

/// The finding that the mutant is known by: on its path, with its name.
fn is_named(report: &Report, mutant: &Mutant) -> bool {
    let Some(path) = report.paths.iter().find(|path| path.path == mutant.path) else {
        return false;
    };
    let others_clean = report.paths.iter().all(|other| {
        other.path == mutant.path || mutant.path == Path::Plain || other.leaks.is_empty()
    });
    let named = |found: &Diagnosis| *found == mutant.diagnosis;
    let leak = path.leaks.first().map(|leak| named(&leak.diagnosis));
    let missing =
        || report.paths.iter().flat_map(|path| &path.missing).map(|m| named(&m.diagnosis)).next();
    let differs = || path.disagreement.as_ref().map(|differs| named(&differs.diagnosis));
    others_clean && leak.or_else(missing).or_else(differs) == Some(true)
}

fn catch_all(device: &Device, names: Option<&[&str]>, seeds: u64) {
    let mut escaped = Vec::new();
    for mutant in mutants().iter().filter(|m| names.is_none_or(|names| names.contains(&m.name))) {
        for seed in 0..seeds {
            let report = (mutant.run)(seed, device);
            if report.keeps_promise() || !is_named(&report, mutant) {
                escaped.push(format!(
                    "{}, seed {seed}: expected {:?} on the {} path, got\n{report}",
                    mutant.name, mutant.diagnosis, mutant.path
                ));
            }
        }
    }
    let some = &escaped[..escaped.len().min(3)];
    assert!(escaped.is_empty(), "{} escaped or misnamed:\n{}", escaped.len(), some.join("\n"));
}

#[test]
fn there_are_at_least_twenty() {
    assert!(mutants().len() >= 20);
}

#[cfg(feature = "ndarray")]
#[test]
fn all_are_caught_and_named_on_ndarray() {
    catch_all(&Device::ndarray(), None, 20);
}

#[cfg(feature = "flex")]
#[test]
fn all_are_caught_and_named_on_flex() {
    catch_all(&Device::flex(), None, 20);
}

/// A few, once: each shader of software Vulkan takes seconds to compile.
#[cfg(feature = "gpu")]
#[test]
fn some_are_caught_and_named_on_a_gpu() {
    let names = ["off by one", "missing", "a single head", "padding seen", "cache loses a token"];
    crate::backends::on_gpu(|device| catch_all(&device, Some(&names), 2));
}
