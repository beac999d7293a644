//! The language model: what goes in, what comes out, what it refuses.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::Error;
use burn_decoder::attention::{MultiHeadAttentionConfig, TokenCheck};
use burn_decoder::cache::CacheConfig;
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig, PositionEmbeddingConfig, Positions, Request,
};
use burn_decoder::loss::CrossEntropyConfig;
use burn_decoder::mask::Mask;

use crate::backends::{any_device, is_cpu};
use crate::fixtures::{LOGITS, OUTPUT, assert_close};

const VOCAB_SIZE: usize = 17;
const D_MODEL: usize = 12;

fn config() -> LanguageModelConfig {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(D_MODEL, 3),
        FeedForwardConfig::new(D_MODEL, 19),
    );
    LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2))
}

fn cross_config() -> LanguageModelConfig {
    let mut config = config();
    config.decoder.layer.cross_attention = Some(MultiHeadAttentionConfig::new(D_MODEL, 2));
    config
}

fn tokens<const B: usize, const L: usize>(ids: [[i64; L]; B], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::from(ids), device)
}

fn logits(model: &LanguageModel, ids: Tensor<2, Int>, input: Batch) -> Tensor<3> {
    model.forward(ids, input).unwrap().logits
}

on_each_backend! {
    /// A token outside the vocabulary is an error where the host looks, and NaN where the device does:
    /// in its own logits and in those of every token that sees it, not in another row.
    fn tokens_outside_the_vocabulary_are_shown(device: Device) {
        let model = config().with_positions(None).init(&device).unwrap();
        let asked = |check| Request::new().with_token_check(check);
        let known = tokens([[3, 1, 4], [2, 7, 16]], &device);
        for outside in [VOCAB_SIZE as i64, -1, i64::from(i32::MAX)] {
            let ids = || tokens([[3, outside, 4], [2, 7, 16]], &device);
            let error = model.forward(ids(), asked(TokenCheck::Host)).unwrap_err();
            assert!(
                matches!(error, Error::Token { token, row: 0, index: 1, .. } if token == outside),
                "{error}"
            );
            let [got, expected] = [ids(), known.clone()].map(|ids| {
                let output = model.forward(ids, asked(TokenCheck::Device)).unwrap();
                output.logits.into_data().iter::<f32>().collect::<Vec<_>>()
            });
            let logits = |all: &[f32], at: usize| all[at * VOCAB_SIZE..][..VOCAB_SIZE].to_vec();
            for at in [1, 2] {
                assert!(logits(&got, at).iter().all(|x| x.is_nan()), "{outside}, token {at}");
            }
            for at in 3..6 {
                assert_eq!(logits(&got, at), logits(&expected, at), "{outside}, token {at}");
            }
            assert!(expected.iter().all(|x| x.is_finite()));
            let by_default = model.forward(ids(), Batch::new());
            assert_eq!(by_default.is_err(), is_cpu(&device));
        }
    }

    /// Without tokens, without rows, with and without a memory: no scores, and no panic. Only the last
    /// ones asked for or not.
    fn empty_sequences(device: Device) {
        for (cross, config) in [config(), cross_config()].into_iter().enumerate() {
            let model = config.init(&device).unwrap();
            for (rows, queries) in [(2, 0), (0, 3), (0, 0)] {
                for request in [Request::new(), Request::new().with_last_logits_only()] {
                    let ids = Tensor::<2, Int>::zeros([rows, queries], &device);
                    let mut batch = Batch::new();
                    if cross == 1 {
                        let states = Tensor::zeros([rows, 3, D_MODEL], &device);
                        batch = batch.with_memory(states, Mask::all_visible());
                    }
                    let logits = model.forward(ids, batch.asking(request)).unwrap().logits;
                    let scored = if request.last_logits_only { queries.min(1) } else { queries };
                    assert_eq!(logits.dims(), [rows, scored, model.vocab_size()]);
                }
            }
        }
    }

    fn shapes_and_weights(device: Device) {
        let model = cross_config().init(&device).unwrap();
        let ids = tokens([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], &device);
        let source = tokens([[2, 7, 1, 8, 2, 8, 1], [8, 2, 8, 4, 5, 9, 0]], &device);
        let memory = model.embed(source, &Positions::Index).unwrap();
        let input = Batch::new().with_memory(memory, Mask::lengths([7, 4]));

        let quiet = model.forward(ids.clone(), input.clone()).unwrap();
        assert_eq!(quiet.logits.dims(), [2, 5, VOCAB_SIZE]);
        assert!(quiet.self_weights.is_empty() && quiet.cross_weights.is_empty());

        let asked = model.forward(ids, input.asking(Request::new().with_weights(true))).unwrap();
        let dims = |weights: &[Tensor<4>]| weights.iter().map(|w| w.dims()).collect::<Vec<_>>();
        assert_eq!(dims(&asked.self_weights), [[2, 3, 5, 5]; 2]);
        assert_eq!(dims(&asked.cross_weights), [[2, 2, 5, 7]; 2]);
        assert_close("logits", quiet.logits.to_data(), asked.logits.to_data(), OUTPUT.on(&device));
    }

    fn embedding_then_the_rest_is_the_whole(device: Device) {
        let model = config().init(&device).unwrap();
        let ids = tokens([[3, 1, 4, 1, 5]], &device);
        let embedded = model.embed(ids.clone(), &Positions::Index).unwrap();
        let rest = model.forward_embedded(embedded, Batch::new()).unwrap();
        let whole = logits(&model, ids, Batch::new());
        assert_eq!(rest.logits.to_data(), whole.to_data());
    }

    /// Config and parameters, saved and loaded, give the same logits to the last bit.
    fn a_saved_model_is_the_same_model(device: Device) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config()
            .with_positions(Some(PositionEmbeddingConfig::learned(11)))
            .with_tied_head(true)
            .with_mask(Mask::look_ahead() & Mask::window_keys(3).unwrap());
        config.decoder.layer.norm = NormConfig::rms_norm();
        config.decoder.layer.feed_forward.activation = Activation::SwiGlu;

        let (json, record) = (folder.path().join("config.json"), folder.path().join("model.bpk"));
        let model = config.init(&device).unwrap();
        config.save(&json).unwrap();
        model.clone().save_file(&record).unwrap();
        let loaded = LanguageModelConfig::load(&json).unwrap().init(&device).unwrap();
        let ids = tokens([[3, 1, 4, 1, 5]], &device);
        let expected = logits(&model, ids.clone(), Batch::new()).to_data();
        let before = logits(&loaded, ids.clone(), Batch::new()).to_data();
        assert_ne!(before, expected, "another start is another model");
        let loaded = loaded.load_file(&record);
        assert_eq!(logits(&loaded, ids, Batch::new()).to_data(), expected);
    }

    /// A softcap bounds the logits, and changes nothing but them.
    fn logits_are_capped(device: Device) {
        let plain = config().with_head_bias(true).init(&device).unwrap();
        let capped = config().with_head_bias(true).with_logit_softcap(Some(0.3));
        let capped = capped.init(&device).unwrap().load_record(plain.clone().into_record());
        let ids = tokens([[3, 1, 4, 1, 5]], &device);
        let expected = logits(&plain, ids.clone(), Batch::new());
        let expected = (expected / 0.3).tanh() * 0.3;
        let got = logits(&capped, ids, Batch::new());
        assert_close("logits", got.into_data(), expected.into_data(), OUTPUT.on(&device));
    }

    /// Each document of a packed row scores as it does alone.
    fn packed_documents_do_not_meet(device: Device) {
        for positions in [PositionEmbeddingConfig::sinusoidal(), PositionEmbeddingConfig::learned(7)] {
            let model = config().with_positions(Some(positions)).init(&device).unwrap();
            let ids = tokens([[3, 1, 4, 1, 5, 9, 2]], &device);
            let documents = tokens([[0, 0, 0, 1, 1, 1, 1]], &device);
            let input = Batch::new()
                .with_mask(Mask::document_ids(&documents))
                .with_positions(Positions::Documents(vec![vec![0, 0, 0, 1, 1, 1, 1]]));
            let packed = logits(&model, ids.clone(), input);
            for range in [0..3, 3..7] {
                let document = ids.clone().slice([0..1, range.clone()]);
                let alone = logits(&model, document, Batch::new());
                let packed = packed.clone().slice([0..1, range]);
                assert_close("logits", packed.into_data(), alone.into_data(), LOGITS.on(&device));
            }
        }
    }

    /// Sines and cosines of the paper, and other positions for other rows.
    fn sinusoids(device: Device) {
        let embedding = PositionEmbeddingConfig::sinusoidal().init(6, &device).unwrap();
        let listed = Positions::Listed(vec![vec![2, 0, 5000], vec![1, 1, 3]]);
        let got = embedding.forward(&listed.ids(2, 0, 3).unwrap(), &device).unwrap();
        let expected: Vec<f32> = [2u32, 0, 5000, 1, 1, 3]
            .into_iter()
            .flat_map(|position| {
                [1.0, 10_000f64.powf(1.0 / 3.0), 10_000f64.powf(2.0 / 3.0)]
                    .map(|wavelength| f64::from(position) / wavelength)
            })
            .flat_map(|angle| [angle.sin() as f32, angle.cos() as f32])
            .collect();
        assert_close("sinusoids", got.into_data(), TensorData::new(expected, [2, 3, 6]), OUTPUT);
    }
}

#[test]
fn a_tied_head_has_no_parameters() {
    let device = any_device();
    let [own, tied] =
        [false, true].map(|tied| config().with_tied_head(tied).init(&device).unwrap());
    assert_eq!(own.num_params() - tied.num_params(), VOCAB_SIZE * D_MODEL);
    let ids = tokens([[3, 1, 4]], &device);
    let [_, queries, scores] = logits(&tied, ids, Batch::new()).dims();
    assert_eq!([queries, scores], [3, VOCAB_SIZE]);
}

/// The error that `input` with the tokens `[[3, 1, 4]]` gives.
fn refusal(config: LanguageModelConfig, ids: [i64; 3], input: Batch) -> Error {
    let device = any_device();
    let model = config.init(&device).unwrap();
    model.forward(tokens([ids], &device), input).unwrap_err()
}

#[test]
fn bad_input_is_refused() {
    let input = Batch::new;
    for token in [17, -1] {
        let error = refusal(config(), [3, 1, token], input());
        assert!(
            matches!(error, Error::Token { token: got, row: 0, index: 2, vocab_size: 17 } if got == token),
            "{error}"
        );
        assert!(error.to_string().contains("0 to 16"), "{error}");
    }
    let memory = || Tensor::zeros([1, 4, D_MODEL], &any_device());
    let learned = config().with_positions(Some(PositionEmbeddingConfig::learned(2)));
    let listed = |rows| input().with_positions(Positions::Listed(rows));
    for (error, words) in [
        (refusal(learned.clone(), [3, 1, 4], input()), ["below 2", "got 2"]),
        (refusal(learned, [3, 1, 4], listed(vec![vec![0, 5, 1]])), ["below 2", "got 5"]),
        (refusal(config(), [3, 1, 4], listed(vec![vec![0, 1]])), ["at least 3", "2 in row 0"]),
        (refusal(config(), [3, 1, 4], listed(vec![vec![0; 3]; 2])), ["of the 1", "2 rows"]),
        (refusal(cross_config(), [3, 1, 4], input()), ["memory: expected states", "got none"]),
        (
            refusal(config(), [3, 1, 4], input().with_memory(memory(), Mask::all_visible())),
            ["memory: expected none", "got states"],
        ),
        (refusal(config(), [3, 1, 4], input().with_lengths([4])), ["lengths", "4"]),
        (refusal(config(), [3, 1, 4], input().with_lengths([3, 3])), ["lengths", "2"]),
    ] {
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is missing in \"{error}\"");
        }
    }
}

/// The model is here and the tokens are there: named both, on every way in.
#[cfg(all(feature = "ndarray", feature = "flex"))]
#[test]
fn tokens_on_another_device_are_refused() {
    let model = config().init(&Device::ndarray()).unwrap();
    let ids = || tokens([[3, 1, 4]], &Device::flex());
    let mut cache = CacheConfig::new().init().unwrap();
    let cross_entropy = CrossEntropyConfig::new().init().unwrap();
    for error in [
        model.forward(ids(), Batch::new()).map(|_| ()),
        model.forward_cached(ids(), Batch::new(), &mut cache).map(|_| ()),
        model.loss(ids(), Batch::new(), ids(), &cross_entropy).map(|_| ()),
    ] {
        let error = error.unwrap_err().to_string();
        let (there, here) = (format!("{:?}", Device::flex()), format!("{:?}", Device::ndarray()));
        let expected =
            format!("tokens: expected a tensor on {here}, where the model is, got one on {there}");
        assert_eq!(error, expected);
    }
    assert_eq!(cache.batch(), None);
    // Tracked by autodiff or not, a device is the same.
    let ids = tokens([[3, 1, 4]], &Device::ndarray().autodiff());
    model.train().forward(ids, Batch::new()).unwrap();
}

#[test]
fn bad_configurations_are_refused() {
    let positions = |positions| config().with_positions(Some(positions));
    let mut odd = config();
    odd.decoder.layer.self_attention = MultiHeadAttentionConfig::new(15, 3);
    odd.decoder.layer.feed_forward.d_model = 15;
    for (config, words) in [
        (LanguageModelConfig::new(0, config().decoder), ["vocab_size", "at least 1"]),
        (config().with_dropout(1.5), ["LanguageModelConfig::dropout", "1.5"]),
        (positions(PositionEmbeddingConfig::learned(0)), ["capacity", "at least 1"]),
        (positions(PositionEmbeddingConfig::Sinusoidal { base: 0.0 }), ["base", "above 1"]),
        (odd, ["sinusoidal", "15"]),
        (config().with_logit_softcap(Some(0.0)), ["logit_softcap", "above 0"]),
    ] {
        let error = config.init(&any_device()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }));
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is missing in \"{error}\"");
        }
    }
}

#[test]
fn a_config_file_with_a_missing_or_wrong_field_is_refused() {
    let json = config().to_string();
    for (from, to) in [("\"vocab_size\"", "\"vocabulary\""), ("\"Gelu\"", "\"Gello\"")] {
        assert!(json.contains(from));
        let broken = json.replace(from, to);
        assert!(LanguageModelConfig::load_binary(broken.as_bytes()).is_err(), "{to}");
    }
    assert!(LanguageModelConfig::load_binary(json.as_bytes()).is_ok());
}
