//! A cache goes on with the model that filled it, and with no other: neither another one, nor the
//! same one with other parameters or another configuration.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Tensor, s};
use burn_decoder::attention::{
    AttentionSinks, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig,
};
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{
    Activation, Batch, LanguageModel, LanguageModelConfig, NormConfig, NormPlacement,
    PositionEmbeddingConfig, ResidualLayout,
};
use burn_decoder::mask::Mask;
use burn_decoder::{CacheMisuse, Error};

use super::{D_MODEL, TOKENS, input_for, plain, small_cache, tokens, two_rows};
use crate::backends::any_device;

/// A model with every kind of parameter.
fn rich() -> LanguageModelConfig {
    let mut config = plain().with_positions(Some(PositionEmbeddingConfig::learned(TOKENS + 5)));
    let layer = &mut config.decoder.layer;
    layer.norm_placement = NormPlacement::Sandwich;
    layer.feed_forward.activation = Activation::SwiGlu;
    layer.self_attention = MultiHeadAttentionConfig::new(D_MODEL, 3)
        .with_qk_norm(Some(QkNormConfig::new(NormConfig::rms_norm())))
        .with_rotary(Some(RotaryConfig::new()))
        .with_sinks(AttentionSinks::Learned);
    layer.cross_attention = Some(MultiHeadAttentionConfig::new(D_MODEL, 2));
    config.with_embedding_norm(Some(NormConfig::layer_norm())).with_head_bias(true)
}

/// Adds to the last value of parameter `wanted`, and notes its name.
struct Change {
    wanted: usize,
    seen: usize,
    path: Vec<String>,
    name: String,
}

impl ModuleMapper for Change {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.seen;
        self.seen += 1;
        if index != self.wanted {
            return param;
        }
        self.name = self.path.join(".");
        param.map(|tensor| {
            let last = tensor.dims().map(|axis| axis - 1..axis);
            let value = tensor.clone().slice(last.clone()) + 1e-3;
            tensor.slice_assign(last, value)
        })
    }
}

/// The model with one value of its parameter number `index` changed, and the parameter's name; `None`
/// where there is no such parameter.
fn changed(model: &LanguageModel, index: usize) -> Option<(LanguageModel, String)> {
    let (path, name) = (Vec::new(), String::new());
    let mut change = Change { wanted: index, seen: 0, path, name };
    let model = model.clone().map(&mut change);
    (change.seen > index).then_some((model, change.name))
}

fn filled(model: &LanguageModel) -> KvCache {
    let mut cache = small_cache();
    let all = two_rows(&model.embedding.weight.device());
    let input = input_for(model, 2).with_pad_counts([2, 0]);
    model.forward_cached(all.narrow(1, 0, 9), input, &mut cache).unwrap();
    cache
}

fn step(model: &LanguageModel, cache: &mut KvCache) -> Result<Vec<f32>, Error> {
    let next = tokens(&[vec![3], vec![8]], &model.embedding.weight.device());
    let output = model.forward_cached(next, Batch::new(), cache)?;
    Ok(output.logits.into_data().iter::<f32>().collect())
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) {
    let refused = matches!(result, Err(Error::Cache { misuse: CacheMisuse::Model, .. }));
    assert!(refused, "{what}: {result:?}");
}

/// Every single value of every parameter counts, but of those that no key or value depends on.
#[test]
fn a_saved_cache_is_for_these_parameters() {
    let (device, folder) = (any_device(), tempfile::tempdir().unwrap());
    let model = rich().init(&device).unwrap();
    let path = folder.path().join("cache.safetensors");
    filled(&model).save(&path, &model).unwrap();
    let (mut refused, mut taken) = (0, Vec::new());
    for index in 0.. {
        let Some((other, name)) = changed(&model, index) else { break };
        match KvCache::load(&path, &other) {
            Ok(mut cache) => {
                step(&other, &mut cache).unwrap();
                taken.push(name);
            }
            result => {
                assert_refused(&name, result);
                refused += 1;
            }
        }
    }
    taken.sort();
    let mut without_effect =
        ["decoder.final_norm.LayerNorm.beta", "decoder.final_norm.LayerNorm.gamma"]
            .map(String::from)
            .to_vec();
    without_effect.extend(["head.bias", "head.weight"].map(String::from));
    assert_eq!(taken, without_effect);
    assert!(refused > 40, "{refused} parameters");
}

/// `config` with the parameters of `model`, by a file: their identities are the same, too.
fn with_parameters_of(
    model: &LanguageModel,
    config: &LanguageModelConfig,
    folder: &Path,
) -> LanguageModel {
    let path = folder.join("model.bpk");
    model.clone().save_file(&path).unwrap();
    config.init(&any_device()).unwrap().load_file(&path)
}

/// The same parameters under another configuration: from a file and in memory.
#[test]
fn a_cache_is_for_this_configuration() {
    let (device, folder) = (any_device(), tempfile::tempdir().unwrap());
    let config = rich();
    let model = config.init(&device).unwrap();
    let path = folder.path().join("cache.safetensors");
    filled(&model).save(&path, &model).unwrap();

    let with = |change: fn(&mut LanguageModelConfig)| {
        let mut config = config.clone();
        change(&mut config);
        with_parameters_of(&model, &config, folder.path())
    };
    let others = [
        ("mask", with(|c| *c = c.clone().with_mask(Mask::window_keys(3).unwrap()))),
        ("windows", with(|c| c.decoder.windows = vec![None, Some(4)])),
        (
            "rotary base",
            with(|c| c.decoder.rotaries = vec![Some(RotaryConfig::new().with_base(77.0))]),
        ),
        ("scale", with(|c| c.decoder.layer.self_attention.scale = Some(0.7))),
        ("softcap", with(|c| c.decoder.layer.self_attention.softcap = Some(3.0))),
        (
            "memory's scale",
            with(|c| c.decoder.layer.cross_attention.as_mut().unwrap().scale = Some(0.7)),
        ),
        ("activation", with(|c| c.decoder.layer.feed_forward.activation = Activation::GeGlu)),
        ("embedding's scale", with(|c| c.scale_embedding = false)),
        ("epsilon", with(|c| c.decoder.layer.norm = NormConfig::layer_norm().with_epsilon(1e-2))),
    ];
    for (what, other) in &others {
        assert_refused(what, KvCache::load(&path, other));
        assert_refused(what, step(other, &mut filled(&model)));
        assert_refused(what, filled(&model).save(&path, other));
    }
    // What concerns training and the scores alone may differ.
    let like = [
        with(|c| c.dropout = 0.3),
        with(|c| c.decoder.layer.self_attention.dropout = 0.3),
        with(|c| c.logit_softcap = Some(30.0)),
    ];
    for other in &like {
        step(other, &mut KvCache::load(&path, other).unwrap()).unwrap();
        step(other, &mut filled(&model)).unwrap();
    }
}

/// Parallel layers without cross-attention, for the arrangement.
#[test]
fn a_cache_is_for_this_arrangement() {
    let (device, folder) = (any_device(), tempfile::tempdir().unwrap());
    let mut config = plain();
    let model = config.init(&device).unwrap();
    config.decoder.layer.residual_layout = ResidualLayout::Parallel;
    let other = with_parameters_of(&model, &config, folder.path());
    assert_refused("arrangement", step(&other, &mut filled(&model)));
}

/// The next pass notices a training step, whatever its number; and so does saving.
#[test]
fn a_training_step_is_noticed() {
    let (device, folder) = (any_device(), tempfile::tempdir().unwrap());
    let model = rich().init(&device).unwrap();
    let training = model.clone().train();
    let all = two_rows(&device.clone().autodiff());
    let input = input_for(&training, 2);
    let loss = training.forward(all, input).unwrap().logits.powi_scalar(2).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &training);
    let trained = SgdConfig::new().init().step(0.1, training, gradients).valid();

    let ids = |model: &LanguageModel| {
        model
            .decoder
            .layers
            .iter()
            .map(|layer| layer.self_attention.key.weight.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&trained), ids(&model), "a step keeps the identities");
    for passes in [0, 1, 2, 5] {
        let mut cache = filled(&model);
        for _ in 0..passes {
            step(&model, &mut cache).unwrap();
        }
        let tokens = cache.tokens();
        assert_refused(&format!("{passes} passes"), step(&trained, &mut cache));
        let path = folder.path().join("cache.safetensors");
        assert_refused("save", cache.save(path, &trained));
        // It is as it was before.
        assert_eq!(cache.tokens(), tokens);
        step(&model, &mut cache).unwrap();
    }
}

/// A step that changes one parameter is noticed by a pass of many tokens, and by passes of one token
/// once its turn comes.
#[test]
fn a_change_of_one_parameter_is_noticed_in_its_turn() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let mut other = model.clone();
    let value = &mut other.decoder.layers[1].self_attention.value;
    value.weight = value.weight.clone().map(|weight| weight * 1.01);

    let mut cache = CacheConfig::new().init().unwrap();
    model.forward_cached(two_rows(&device), Batch::new(), &mut cache).unwrap();
    let parameters = 40;
    let noticed = (0..parameters).find_map(|_| step(&other, &mut cache).err());
    assert_refused("turn", noticed.map_or(Ok(()), Err));

    let mut cache = CacheConfig::new().init().unwrap();
    model.forward_cached(two_rows(&device), Batch::new(), &mut cache).unwrap();
    let many = tokens(&vec![(0..40).map(|i| i % 17).collect(); 2], &device);
    assert_refused("many", other.forward_cached(many, Batch::new(), &mut cache).map(|_| ()));
}

/// A change that no sample sees is for the self-check to find.
#[test]
fn samples_are_a_few_values() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let mut other = model.clone();
    let value = &mut other.decoder.layers[0].self_attention.value;
    value.weight = value.weight.clone().map(|weight| {
        let seen = weight.clone().slice(s![D_MODEL / 2..D_MODEL / 2 + 1, ..]);
        (weight * 1.5).slice_assign(s![D_MODEL / 2..D_MODEL / 2 + 1, ..], seen)
    });
    let mut cache = filled(&model);
    for _ in 0..40 {
        step(&other, &mut cache).unwrap();
    }
}
