//! Steps of generation: few queries against what a cache holds.

use burn_decoder::cache::{CacheConfig, CachePrecision};
use burn_decoder::decoder::Batch;

use super::*;
use crate::cache::{kinds, tokens};

/// Logits after two layers.
const LOGITS: Tolerance = Tolerance { absolute: 1e-5, relative: 1e-5 };

on_each_backend! {
    /// Token by token and in chunks, out of buffers with room for more: as in one pass.
    fn steps_with_a_cache_agree_with_one_pass(device: Device) {
        let rows: Vec<Vec<i64>> =
            (0..2).map(|b| (0..41).map(|i| (i * i * 7 + i * (5 + b) + 3) % 17).collect()).collect();
        let all = tokens(&rows, &device);
        let asked = ["grouped heads", "windows in turn, sinks", "interleaved heads, ALiBi, quiet softmax"];
        let kinds = kinds().into_iter().filter(|(kind, _)| asked.contains(kind));
        for (kind, config) in kinds {
            let model = config.init(&device).unwrap();
            let fused = || by(Kernel::Fused);
            let full = model.forward(all.clone(), Batch::new().asking(fused())).unwrap().logits;
            for chunk in [1, 20] {
                let mut cache = CacheConfig::new().with_capacity(64).init().unwrap();
                let passes = (0..41).step_by(chunk).map(|start| {
                    let new = all.clone().narrow(1, start, chunk.min(41 - start));
                    let input = Batch::new().asking(fused());
                    model.forward_cached(new, input, &mut cache).unwrap().logits
                });
                let logits = Tensor::cat(passes.collect(), 1).into_data();
                let what = format!("{kind}, chunks of {chunk}");
                assert_close(&what, logits, full.to_data(), LOGITS.on(&device));
            }
        }
    }

    /// What a cache keeps in half precision is read as it is: the numbers are those of the reference,
    /// which converts it before.
    fn a_cache_in_half_precision(device: Device) {
        let rows: Vec<Vec<i64>> =
            (0..2).map(|b| (0..19).map(|i| (i * i * 7 + i * (5 + b) + 3) % 17).collect()).collect();
        let all = tokens(&rows, &device);
        let (_, config) = kinds().into_iter().find(|(kind, _)| *kind == "grouped heads").unwrap();
        let model = config.init(&device).unwrap();
        for precision in [CachePrecision::F16, CachePrecision::Bf16] {
            let logits = |kernel| {
                let mut cache = CacheConfig::new().with_precision(precision).init().unwrap();
                // Many queries, then few.
                let passes = [(0, 17), (17, 2)].map(|(start, new)| {
                    let new = all.clone().narrow(1, start, new);
                    let input = Batch::new().asking(by(kernel));
                    model.forward_cached(new, input, &mut cache).map(|output| output.logits)
                });
                let passes: Result<Vec<_>, _> = passes.into_iter().collect();
                passes.map(|passes| Tensor::cat(passes, 1).into_data())
            };
            let Ok(expected) = logits(Kernel::Reference) else {
                println!("skipped: {device:?} keeps no {precision:?}");
                continue;
            };
            let what = format!("{precision:?}");
            assert_close(&what, logits(Kernel::Fused).unwrap(), expected, LOGITS.on(&device));
        }
    }
}
