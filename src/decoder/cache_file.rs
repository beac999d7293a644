//! A cache in a file, for the model that goes on with it.

use std::path::Path;

use super::LanguageModel;
use crate::Result;
use crate::cache::KvCache;

impl KvCache {
    /// Writes the cache to a file in the safetensors format, with a fingerprint of all parameters and
    /// settings of `model` that it depends on. The file is there whole or as it was, also if the
    /// process is killed meanwhile. A symbolic link stays one: the file that it leads to is written.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if it belongs to another model than `model`, or if the
    /// file can't be written.
    pub fn save(&self, path: impl AsRef<Path>, model: &LanguageModel) -> Result<()> {
        self.write(path.as_ref(), model)
    }

    /// Reads a cache that [`save`](Self::save) wrote, to go on with `model` on its device.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if the file can't be read, holds no cache or was damaged,
    /// or if any parameter or setting that keys, values or masks depend on is another in `model`.
    pub fn load(path: impl AsRef<Path>, model: &LanguageModel) -> Result<Self> {
        Self::read(path.as_ref(), model)
    }
}

#[cfg(all(test, any(feature = "ndarray", feature = "flex")))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::tensor::{Device, Int, Tensor};
    use proptest::prelude::*;
    use safetensors::{Dtype, SafeTensors};

    use super::*;
    use crate::attention::MultiHeadAttentionConfig;
    use crate::cache::{CacheConfig, resealed, resealed_as};
    use crate::decoder::{
        DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
    };
    use crate::mask::Mask;
    use crate::sequence::Batch;

    fn device() -> Device {
        crate::kernels::cpus().remove(0)
    }

    fn ids<const ROWS: usize, const NEW: usize>(ids: [[i64; NEW]; ROWS]) -> Tensor<2, Int> {
        Tensor::from_data(ids, &device())
    }

    /// A model with a rolling layer, a whole one and a memory, and the bytes of its cache.
    fn saved() -> (LanguageModel, Vec<u8>) {
        let attention = || MultiHeadAttentionConfig::new(12, 3);
        let layer = DecoderLayerConfig::new(attention(), FeedForwardConfig::new(12, 5))
            .with_cross_attention(Some(attention()));
        let decoder = DecoderConfig::new(layer, 2).with_windows(vec![Some(2), None]);
        let model = LanguageModelConfig::new(9, decoder).init(&device()).unwrap();
        let mut cache = CacheConfig::new().with_check_every(Some(3)).init().unwrap();
        let batch = Batch::new()
            .with_pad_counts([1, 0])
            .with_memory(Tensor::ones([2, 5, 12], &device()), Mask::lengths([3, 2]));
        let first = ids([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]);
        model.forward_cached(first, batch, &mut cache).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        cache.save(&path, &model).unwrap();
        (model, std::fs::read(path).unwrap())
    }

    /// The same without windows, padding and memory: nothing but the tensors' shapes tells the rows.
    fn saved_plainly() -> (LanguageModel, Vec<u8>) {
        let attention = MultiHeadAttentionConfig::new(4, 2);
        let layer = DecoderLayerConfig::new(attention, FeedForwardConfig::new(4, 5));
        let model = LanguageModelConfig::new(9, DecoderConfig::new(layer, 2)).init(&device());
        let (model, mut cache) = (model.unwrap(), CacheConfig::new().init().unwrap());
        let first = ids([[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]);
        model.forward_cached(first, Batch::new(), &mut cache).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        cache.save(&path, &model).unwrap();
        (model, std::fs::read(path).unwrap())
    }

    /// Loads, goes on, goes back, chooses rows: an error or a result.
    fn use_it(path: &Path, model: &LanguageModel) -> bool {
        let Ok(mut cache) = KvCache::load(path, model) else { return false };
        let rows = cache.batch().unwrap_or(2);
        for _ in 0..3 {
            let next = Tensor::<2, Int>::ones([rows, 1], &device());
            let _ = model.forward_cached(next, Batch::new(), &mut cache);
        }
        let _ = cache.select_rows(&[rows - 1]);
        let _ = cache.trim(3);
        let next = Tensor::<2, Int>::ones([1, 2], &device());
        let _ = model.forward_cached(next, Batch::new(), &mut cache);
        true
    }

    /// A file that contradicts itself, whatever its checksum says.
    #[test]
    fn contradictions_are_refused() {
        let (model, bytes) = saved();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        let edits = [
            ("\"batch\":2", "\"batch\":1"),
            ("\"batch\":2", "\"batch\":3"),
            ("\"tokens\":6", "\"tokens\":5"),
            ("\"tokens\":6", "\"tokens\":7"),
            ("\"tokens\":6", "\"tokens\":18446744073709551615"),
            ("\"passes\":1", "\"passes\":0"),
            ("\"used\":6", "\"used\":5"),
            ("\"first\":0", "\"first\":9"),
            ("\"LeftPadded\":[1,0]", "\"LeftPadded\":[1]"),
            ("\"LeftPadded\":[1,0]", "\"LeftPadded\":[1,0,0]"),
            ("\"capacity\":256", "\"capacity\":0"),
        ];
        let plain_edits = [
            ("\"batch\":2", "\"batch\":1"),
            ("\"batch\":2", "\"batch\":3"),
            ("\"used\":6", "\"used\":5"),
        ];
        let (plain_model, plain_bytes) = saved_plainly();
        let all = [(&model, &bytes, &edits[..]), (&plain_model, &plain_bytes, &plain_edits[..])];
        for (model, bytes, edits) in all {
            for (from, to) in edits {
                let edited = resealed(bytes, |json| {
                    assert!(json.contains(from), "{from} in {json}");
                    json.replacen(from, to, 1)
                });
                std::fs::write(&path, edited).unwrap();
                let error = KvCache::load(&path, model).unwrap_err().to_string();
                assert!(error.starts_with("cache, file"), "{from} to {to}: {error}");
            }
            std::fs::write(&path, resealed(bytes, str::to_string)).unwrap();
            assert!(use_it(&path, model));
        }
    }

    /// A tensor of another shape or type than the rest of the file says, of as many bytes.
    #[test]
    fn other_shapes_and_types_are_refused() {
        let (model, bytes) = saved();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, view) in tensors.iter() {
            let (dtype, shape) = (view.dtype(), view.shape());
            let mut others = Vec::new();
            for (one, other) in [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)] {
                let mut swapped = shape.to_vec();
                if other < shape.len() && shape[one] != shape[other] {
                    swapped.swap(one, other);
                    others.push((dtype, swapped));
                }
            }
            assert!(!others.is_empty(), "{name} {shape:?}");
            // Twice as many numbers of half as many bytes.
            let half = if dtype == Dtype::F32 { Dtype::F16 } else { Dtype::F32 };
            let mut wider = shape.to_vec();
            *wider.last_mut().unwrap() *= 2;
            others.push((half, wider));
            for (dtype, shape) in others {
                std::fs::write(&path, resealed_as(&bytes, name, dtype, &shape)).unwrap();
                let Err(error) = KvCache::load(&path, &model) else {
                    panic!("{name} as {dtype:?} {shape:?}")
                };
                assert!(error.to_string().starts_with("cache, file"), "{name}: {error}");
            }
            std::fs::write(&path, resealed_as(&bytes, name, dtype, shape)).unwrap();
            assert!(use_it(&path, &model));
        }
    }

    /// A file from before there was a choice of precision.
    #[test]
    fn a_file_without_a_precision_is_as_computed() {
        let (model, bytes) = saved();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        let field = ",\"precision\":\"AsComputed\"";
        let old = resealed(&bytes, |json| {
            assert!(json.contains(field), "{json}");
            json.replacen(field, "", 1)
        });
        std::fs::write(&path, old).unwrap();
        assert!(use_it(&path, &model));
        // Nor are its floats taken for what another precision keeps.
        for other in ["F16", "Bf16", "Q8_0", "Q7"] {
            let other = resealed(&bytes, |json| json.replacen("AsComputed", other, 1));
            std::fs::write(&path, other).unwrap();
            assert!(KvCache::load(&path, &model).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Any digit of the file's numbers is another, and the checksum agrees with it.
        #[test]
        fn a_changed_digit_never_panics(at in any::<prop::sample::Index>(), digit in 0..=9u8) {
            thread_local! {
                static SAVED: (LanguageModel, Vec<u8>) = saved();
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cache.safetensors");
            SAVED.with(|(model, bytes)| {
                let edited = resealed(bytes, |json| {
                    let digits: Vec<_> =
                        json.bytes().enumerate().filter(|(_, b)| b.is_ascii_digit()).collect();
                    let (at, _) = digits[at.index(digits.len())];
                    let mut json = json.as_bytes().to_vec();
                    json[at] = b'0' + digit;
                    String::from_utf8(json).unwrap()
                });
                std::fs::write(&path, edited).unwrap();
                let used = catch_unwind(AssertUnwindSafe(|| use_it(&path, model)));
                assert!(used.is_ok());
            });
        }
    }
}
