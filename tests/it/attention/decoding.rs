//! Steps of generation: few queries against what a cache holds.

use burn_decoder::cache::CacheConfig;
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
}
