//! Misuse is an error, and leaves the cache as it was.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{Batch, LanguageModel, Positions};
use burn_decoder::mask::Mask;
use burn_decoder::{CacheMisuse, Error};

use super::{VOCAB_SIZE, plain, tokens, two_rows};
use crate::backends::any_device;

/// What a wrong call gives, after which the right one gives what it would have given before.
#[track_caller]
pub fn refused(
    cache: &mut KvCache,
    model: &LanguageModel,
    wrong: impl FnOnce(&mut KvCache) -> Result<(), Error>,
) -> Error {
    let device = model.embedding.weight.device();
    let next = |cache: &mut KvCache| {
        let batch = cache.batch().unwrap();
        let next = tokens(&vec![vec![3]; batch], &device);
        model.forward_cached(next, Batch::new(), cache).unwrap().logits.into_data()
    };
    let expected = next(&mut cache.clone());
    let error = wrong(cache).unwrap_err();
    assert_eq!(next(&mut cache.clone()), expected, "the cache has changed: {error}");
    error
}

#[test]
fn misuse_is_refused_and_leaves_the_cache() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let all = two_rows(&device);
    let mut cache = CacheConfig::fixed(9).init().unwrap();
    model.forward_cached(all.clone().narrow(1, 0, 7), Batch::new(), &mut cache).unwrap();

    let run = |model: &LanguageModel, new: Tensor<2, Int>, input: Batch| {
        let model = model.clone();
        move |cache: &mut KvCache| model.forward_cached(new, input, cache).map(|_| ())
    };
    let plain_input = Batch::new;
    let two = |n| all.clone().narrow(1, 7, n);
    let is = |error: &Error, expected: CacheMisuse| {
        assert!(
            matches!(error, Error::Cache { misuse, .. } if *misuse == expected),
            "expected {expected:?}, got {error:?}"
        );
    };

    let error = refused(&mut cache, &model, run(&model, two(3), plain_input()));
    is(&error, CacheMisuse::Length);
    assert_eq!(
        error.to_string(),
        "cache, length: expected at most 9 tokens, the limit in CacheConfig, got 3 new ones behind 7"
    );
    let three = tokens(&[vec![1], vec![2], vec![3]], &device);
    is(&refused(&mut cache, &model, run(&model, three, plain_input())), CacheMisuse::Batch);

    let other = plain().init(&device).unwrap();
    is(&refused(&mut cache, &model, run(&other, two(1), plain_input())), CacheMisuse::Model);
    let mut deeper = plain();
    deeper.decoder.layers = 3;
    let deeper = deeper.init(&device).unwrap();
    is(&refused(&mut cache, &model, run(&deeper, two(1), plain_input())), CacheMisuse::Model);
    let training = model.clone().train();
    let on_autodiff = Tensor::from_data(two(1).into_data(), &device.clone().autodiff());
    is(
        &refused(&mut cache, &model, run(&training, on_autodiff, plain_input())),
        CacheMisuse::Training,
    );

    // A mask of the wrong length, and right padding.
    let short = Mask::from_hidden_keys(&Tensor::from_data([[false; 3]; 2], &device));
    let error = refused(&mut cache, &model, run(&model, two(1), plain_input().with_mask(short)));
    assert!(matches!(error, Error::Mask { .. }), "{error:?}");
    let right_padded = plain_input().with_lengths([5, 7]);
    is(&refused(&mut cache, &model, run(&model, two(1), right_padded)), CacheMisuse::Mask);
    let pads = plain_input().with_mask(Mask::pad_counts([1, 0, 2]));
    let error = refused(&mut cache, &model, run(&model, two(1), pads));
    assert!(matches!(error, Error::Mask { .. }), "{error:?}");
    let listed = plain_input().with_positions(Positions::Listed(vec![vec![0; 7]; 2]));
    let error = refused(&mut cache, &model, run(&model, two(1), listed));
    assert!(matches!(error, Error::Positions { .. }), "{error:?}");
    let token = tokens(&[vec![3], vec![VOCAB_SIZE as i64]], &device);
    let error = refused(&mut cache, &model, run(&model, token, plain_input()));
    assert!(matches!(error, Error::Token { .. }), "{error:?}");

    is(&refused(&mut cache, &model, |cache| cache.trim(8)), CacheMisuse::Trim);
    is(&refused(&mut cache, &model, |cache| cache.select_rows(&[0, 2])), CacheMisuse::Rows);
    is(&refused(&mut cache, &model, |cache| cache.select_rows(&[])), CacheMisuse::Rows);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    is(&refused(&mut cache, &model, |cache| cache.save(&path, &other)), CacheMisuse::Model);
    is(&refused(&mut cache, &model, |cache| cache.save(folder.path(), &model)), CacheMisuse::File);
    is(&KvCache::load(&path, &model).unwrap_err(), CacheMisuse::File);
    cache.save(&path, &model).unwrap();
    is(&KvCache::load(&path, &other).unwrap_err(), CacheMisuse::Model);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    is(&KvCache::load(&path, &model).unwrap_err(), CacheMisuse::File);

    // A cleared cache serves another model and batch.
    cache.clear();
    let one = tokens(&[vec![1, 2]], &device);
    other.forward_cached(one, Batch::new(), &mut cache).unwrap();
}

#[cfg(all(feature = "ndarray", feature = "flex"))]
#[test]
fn another_device_is_refused() {
    use super::small_cache;
    use burn::tensor::Device;

    let model = plain().init(&Device::ndarray()).unwrap();
    let mut cache = small_cache();
    let first = tokens(&[vec![1, 2]], &Device::ndarray());
    model.forward_cached(first, Batch::new(), &mut cache).unwrap();
    let moved = model.clone().to_device(&Device::flex());
    let error = refused(&mut cache, &model, |cache| {
        let next = tokens(&[vec![3]], &Device::flex());
        moved.forward_cached(next, Batch::new(), cache).map(|_| ())
    });
    assert!(matches!(error, Error::Cache { misuse: CacheMisuse::Device, .. }), "{error:?}");
}
