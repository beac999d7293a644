//! Whatever byte of a saved cache is another, it is refused or it works.

use std::fs;

use burn_decoder::Error;
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{Batch, LanguageModel};

use super::{input_for, kinds, tokens, two_rows};
use crate::backends::any_device;
use crate::import::allocations::peak;

const CASES: usize = 10_000;

/// Numbers without a pattern.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// A model with windows, sinks or a memory, and what its cache holds when saved.
fn saved(kind: &str, check_every: Option<usize>) -> (LanguageModel, Vec<u8>) {
    let device = any_device();
    let config = kinds().into_iter().find(|(name, _)| *name == kind).unwrap().1;
    let model = config.init(&device).unwrap();
    let mut cache =
        CacheConfig::new().with_capacity(2).with_check_every(check_every).init().unwrap();
    let input = input_for(&model, 2).with_pad_counts([2, 0]);
    model.forward_cached(two_rows(&device).narrow(1, 0, 9), input, &mut cache).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    cache.save(&path, &model).unwrap();
    (model, fs::read(path).unwrap())
}

fn logits(model: &LanguageModel, cache: &mut KvCache) -> Result<Vec<f32>, Error> {
    let next = tokens(&[vec![3], vec![8]], &model.embedding.weight.device());
    let output = model.forward_cached(next, Batch::new(), cache)?;
    Ok(output.logits.into_data().iter::<f32>().collect())
}

#[test]
fn a_changed_byte_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    let kinds = [("windows in turn, sinks", None), ("cross-attention", Some(4))];
    for (kind, check_every) in kinds {
        let (model, bytes) = saved(kind, check_every);
        fs::write(&path, &bytes).unwrap();
        let expected = logits(&model, &mut KvCache::load(&path, &model).unwrap()).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut state = 7;
        let mut harmless = 0;
        for case in 0..CASES / kinds.len() {
            let mut changed = bytes.clone();
            // Most of the file is numbers, and most of what can go wrong is in front of them.
            let range = if case % 4 == 0 { bytes.len() } else { header };
            let at = next(&mut state) % range;
            changed[at] ^= (1 + next(&mut state) % 255) as u8;
            fs::write(&path, &changed).unwrap();
            let (held, loaded) = peak(|| KvCache::load(&path, &model));
            assert!(held <= 4 * bytes.len() + (64 << 10), "byte {at} of {kind}: {held} bytes");
            if let Ok(mut cache) = loaded {
                harmless += 1;
                assert_eq!(logits(&model, &mut cache).unwrap(), expected, "byte {at} of {kind}");
            }
        }
        assert!(harmless < CASES / 100, "{harmless} changes went through");
    }
}
