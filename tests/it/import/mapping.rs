//! State dicts by a table of names, tried with the decoder of an encoder-decoder whose linear layers
//! are called `fc_q`, `fc_k`, `fc_v` and `fc_o`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::Device;
use burn_decoder::Error;
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormPlacement, PositionEmbeddingConfig,
};
use burn_decoder::import::mapping::{Layout, Mapping, Packing, parameters};
use burn_decoder::import::{LoadOptions, pytorch};
use safetensors::tensor::Dtype;

use super::round_trip::{tensors, write};
use super::{fixture, torch_file};
use crate::backends::any_device;

const D_MODEL: usize = 24;
const D_FF: usize = 37;
const VOCAB: usize = 61;
const LAYERS: usize = 2;

/// Names, shapes and values of a file.
type File = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The model: post-norm, learned positions, embeddings times √d_model, ReLU.
fn model(device: &Device) -> LanguageModel {
    let attention = MultiHeadAttentionConfig::new(D_MODEL, 4);
    let feed_forward = FeedForwardConfig::new(D_MODEL, D_FF).with_activation(Activation::Relu);
    let layer = DecoderLayerConfig::new(attention.clone(), feed_forward)
        .with_cross_attention(Some(attention))
        .with_norm_placement(NormPlacement::Post);
    LanguageModelConfig::new(VOCAB, DecoderConfig::new(layer, LAYERS))
        .with_positions(Some(PositionEmbeddingConfig::learned(100)))
        .with_head_bias(true)
        .init(device)
        .unwrap()
}

/// Its tensors as PyTorch has them, each value another one.
fn file() -> File {
    let mut file = File::new();
    let mut add = |name: String, shape: &[usize]| {
        let first = 1000.0 * file.len() as f32;
        let values = (0..shape.iter().product()).map(|index: usize| first + index as f32).collect();
        file.insert(name, (shape.to_vec(), values));
    };
    add("decoder.tok_embedding.weight".into(), &[VOCAB, D_MODEL]);
    add("decoder.pos_embedding.weight".into(), &[100, D_MODEL]);
    let linear = |add: &mut dyn FnMut(String, &[usize]), name: String, shape: [usize; 2]| {
        add(format!("{name}.weight"), &shape);
        add(format!("{name}.bias"), &shape[..1]);
    };
    linear(&mut add, "decoder.fc_out".into(), [VOCAB, D_MODEL]);
    for layer in 0..LAYERS {
        let layer = format!("decoder.layers.{layer}");
        for attention in ["self_attention", "encoder_attention"] {
            for name in ["fc_q", "fc_k", "fc_v", "fc_o"] {
                linear(&mut add, format!("{layer}.{attention}.{name}"), [D_MODEL, D_MODEL]);
            }
        }
        let feed_forward = format!("{layer}.positionwise_feedforward");
        linear(&mut add, format!("{feed_forward}.fc_1"), [D_FF, D_MODEL]);
        linear(&mut add, format!("{feed_forward}.fc_2"), [D_MODEL, D_FF]);
        for norm in ["self_attn_layer_norm", "enc_attn_layer_norm", "ff_layer_norm"] {
            add(format!("{layer}.{norm}.weight"), &[D_MODEL]);
            add(format!("{layer}.{norm}.bias"), &[D_MODEL]);
        }
    }
    add("encoder.tok_embedding.weight".into(), &[5, D_MODEL]);
    file
}

fn attention() -> Mapping {
    Mapping::new()
        .linear("query", "fc_q")
        .linear("key", "fc_k")
        .linear("value", "fc_v")
        .linear("output", "fc_o")
}

fn table(self_attention: Mapping) -> Mapping {
    let layer = Mapping::new()
        .and(self_attention.inside("self_attention.", "self_attention."))
        .and(attention().inside("cross_attention.", "encoder_attention."))
        .norm("self_attention_norm", "self_attn_layer_norm")
        .norm("cross_attention_norm", "enc_attn_layer_norm")
        .norm("feed_forward_norm", "ff_layer_norm")
        .linear("feed_forward.up", "positionwise_feedforward.fc_1")
        .linear("feed_forward.down", "positionwise_feedforward.fc_2");
    Mapping::new()
        .embedding("embedding", "tok_embedding")
        .parameter("positions.table.weight", "pos_embedding.weight", Layout::Same)
        .linear("head", "fc_out")
        .and(layer.inside("decoder.layers.*.", "layers.*."))
}

fn save(path: &Path, file: &File) {
    if path.extension().unwrap() == "pt" {
        return std::fs::write(path, torch_file::write(file)).unwrap();
    }
    let tensors = file.iter().map(|(name, (shape, values))| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.clone(), (Dtype::F32, shape.clone(), bytes))
    });
    write(path, &tensors.collect());
}

/// All parameters of a module, by path.
fn values(module: &impl Module) -> File {
    let tensors = module.collect(None, None, true).into_iter();
    let values = tensors.map(|tensor| {
        let data = bridge::to_data(&tensor).unwrap();
        (tensor.name.clone(), (data.shape().to_vec(), data.iter::<f32>().collect()))
    });
    values.collect()
}

/// `[out, in]` as `[in, out]`.
fn transposed((shape, values): &(Vec<usize>, Vec<f32>)) -> (Vec<usize>, Vec<f32>) {
    let [outputs, inputs] = shape[..] else { panic!("a weight") };
    let turned = (0..inputs * outputs).map(|at| values[at % outputs * inputs + at / outputs]);
    (vec![inputs, outputs], turned.collect())
}

/// What the model must hold, found by another way than the table's.
fn expected(file: &File) -> File {
    let mut expected = File::new();
    for (name, tensor) in file {
        let Some(name) = name.strip_prefix("decoder.") else { continue };
        let ours = name
            .replace("tok_embedding", "embedding")
            .replace("pos_embedding", "positions.table")
            .replace("layers.", "decoder.layers.")
            .replace("encoder_attention", "cross_attention")
            .replace("fc_q", "query")
            .replace("fc_k", "key")
            .replace("fc_v", "value")
            .replace("fc_out", "head")
            .replace("fc_o", "output")
            .replace("positionwise_feedforward.fc_1", "feed_forward.up")
            .replace("positionwise_feedforward.fc_2", "feed_forward.down")
            .replace("self_attn_layer_norm", "self_attention_norm")
            .replace("enc_attn_layer_norm", "cross_attention_norm")
            .replace("ff_layer_norm", "feed_forward_norm");
        let is_norm = ours.contains("_norm.");
        let ours = if is_norm {
            ours.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta")
        } else {
            ours
        };
        let is_linear = !is_norm && !ours.contains("embedding") && !ours.contains("positions");
        let tensor =
            if is_linear && tensor.0.len() == 2 { transposed(tensor) } else { tensor.clone() };
        expected.insert(ours, tensor);
    }
    expected
}

#[test]
fn a_decoder_with_names_of_its_own() {
    let device = any_device();
    let out = tempfile::tempdir().unwrap();
    let file = file();
    let table = table(attention());
    for name in ["translator.safetensors", "translator.pt"] {
        let path = out.path().join(name);
        save(&path, &file);
        let options = LoadOptions::new().with_prefix("decoder.");
        let model = table.load(model(&device), &path, options).unwrap();
        let found = values(&model);
        let expected = expected(&file);
        assert!(found.keys().eq(expected.keys()), "{:?}\n{:?}", found.keys(), expected.keys());
        for (path, tensor) in &found {
            assert!(*tensor == expected[path], "{name}: {path}");
        }
        // And back: the same names and values.
        let saved = out.path().join("saved.safetensors");
        table.save(&model, &saved).unwrap();
        let inside = Mapping::new().and(table.clone()).inside("", "decoder.");
        let whole = out.path().join("whole.safetensors");
        inside.save(&model, &whole).unwrap();
        let reference = out.path().join("reference.safetensors");
        let mut decoder = file.clone();
        decoder.retain(|name, _| name.starts_with("decoder."));
        save(&reference, &decoder);
        assert!(tensors(&whole) == tensors(&reference));
        assert_eq!(tensors(&saved).len(), decoder.len());
    }
}

/// Parameters one by one, in each layout that there is, and a projection as GPT-2 has it.
#[test]
fn single_parameters_in_each_layout() {
    let device = any_device();
    let out = tempfile::tempdir().unwrap();
    let (path, saved) = (out.path().join("odd.safetensors"), out.path().join("saved.safetensors"));
    let tensor = |shape: &[usize], first: usize| {
        let values = (first..first + shape.iter().product::<usize>()).map(|value| value as f32);
        (shape.to_vec(), values.collect::<Vec<_>>())
    };
    let file = File::from([
        ("w1".into(), tensor(&[D_FF, D_MODEL], 1000)),
        ("b1".into(), tensor(&[1, D_FF], 3000)),
        ("fc2.weight".into(), tensor(&[D_FF, D_MODEL], 5000)),
        ("fc2.bias".into(), tensor(&[D_MODEL], 7000)),
    ]);
    save(&path, &file);
    let table = Mapping::new()
        .parameter("up.weight", "w1", Layout::Transposed)
        .parameter("up.bias", "b1", Layout::Row)
        .linear_outputs_last("down", "fc2");
    let module = FeedForwardConfig::new(D_MODEL, D_FF).init(&device).unwrap();
    let module = table.load(module, &path, LoadOptions::new()).unwrap();
    let expected = File::from([
        ("up.weight".into(), transposed(&file["w1"])),
        ("up.bias".into(), (vec![D_FF], file["b1"].1.clone())),
        ("down.weight".into(), file["fc2.weight"].clone()),
        ("down.bias".into(), file["fc2.bias"].clone()),
    ]);
    assert!(values(&module) == expected);
    table.save(&module, &saved).unwrap();
    assert!(tensors(&saved) == tensors(&path));
}

/// Query, key and value of self-attention in one tensor, in every way that they can lie.
#[test]
fn packed_projections() {
    let device = any_device();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("packed.safetensors");
    // Four query heads on two key/value heads, 6 channels each.
    let (heads, kv_heads, head_dim) = (4, 2, 6);
    let config = MultiHeadAttentionConfig::new(D_MODEL, heads);
    let equal = [heads * head_dim; 3];
    let grouped = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim];
    for (config, packing, widths, groups, last) in [
        (config.clone(), Packing::in_pieces(), equal, 1, false),
        (config.clone(), Packing::in_pieces().with_outputs_last(), equal, 1, true),
        (config.clone(), Packing::by_head(heads), equal, heads, false),
        (config.clone(), Packing::by_head(heads).with_outputs_last(), equal, heads, true),
        (
            config.clone().with_kv_heads(Some(kv_heads)),
            Packing::in_pieces().with_widths(grouped),
            grouped,
            1,
            false,
        ),
        (
            config.clone().with_kv_heads(Some(kv_heads)),
            Packing::by_head(kv_heads).with_widths(grouped),
            grouped,
            kv_heads,
            false,
        ),
    ] {
        let total: usize = widths.iter().sum();
        // Each output has a number; its weights are that and the input.
        let mut order = Vec::new();
        for group in 0..groups {
            for (part, width) in widths.iter().enumerate() {
                let share = width / groups;
                order.extend((0..share).map(|output| (part, group * share + output)));
            }
        }
        let value = |(part, output): (usize, usize), input: usize| {
            (part * 10_000 + output * 100 + input) as f32
        };
        let (mut shape, mut weight) = (vec![total, D_MODEL], Vec::new());
        for at in &order {
            weight.extend((0..D_MODEL).map(|input| value(*at, input)));
        }
        if last {
            (shape, weight) = transposed(&(shape, weight));
        }
        let bias: Vec<f32> = order.iter().map(|at| value(*at, 99)).collect();
        let mut file = File::from([
            ("qkv.weight".into(), (shape, weight)),
            ("qkv.bias".into(), (vec![total], bias)),
        ]);
        file.insert("fc_o.weight".into(), (vec![D_MODEL, D_MODEL], vec![0.5; D_MODEL * D_MODEL]));
        file.insert("fc_o.bias".into(), (vec![D_MODEL], vec![0.25; D_MODEL]));
        save(&path, &file);
        let table = Mapping::new()
            .packed(["query", "key", "value"], "qkv", &packing)
            .linear("output", "fc_o");
        let attention = config.init(&device).unwrap();
        let attention = table.load(attention, &path, LoadOptions::new()).unwrap();
        let found = values(&attention);
        for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
            let (shape, weight) = &found[&format!("{name}.weight")];
            assert_eq!(shape[..], [D_MODEL, widths[part]]);
            for (at, &got) in weight.iter().enumerate() {
                let (input, output) = (at / widths[part], at % widths[part]);
                assert_eq!(got, value((part, output), input), "{packing:?}: {name}");
            }
            for (output, &got) in found[&format!("{name}.bias")].1.iter().enumerate() {
                assert_eq!(got, value((part, output), 99), "{packing:?}: {name}");
            }
        }
        let saved = out.path().join("saved.safetensors");
        table.save(&attention, &saved).unwrap();
        assert!(tensors(&saved) == tensors(&path), "{packing:?}");
    }
}

/// PyTorch's own names, as a table: the same module as the importer for them gives.
#[test]
fn the_tables_of_the_crate_can_be_said() {
    let device = any_device();
    let options = || LoadOptions::new().with_prefix("layers.1.multihead_attn.");
    let new = || MultiHeadAttentionConfig::new(24, 4).init(&device).unwrap();
    let table = Mapping::new()
        .packed(["query", "key", "value"], "in_proj_", &Packing::in_pieces())
        .linear("output", "out_proj");
    for file in ["decoder_stack.pt", "decoder_stack.safetensors"] {
        let mine = table.load(new(), fixture(file), options()).unwrap();
        let theirs = pytorch::load(new(), fixture(file), options()).unwrap();
        assert!(values(&mine) == values(&theirs), "{file}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = any_device();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("translator.safetensors");
    save(&path, &file());
    let options = || LoadOptions::new().with_prefix("decoder.");
    let mismatch = |table: &Mapping, options| match table.load(model(&device), &path, options) {
        Err(Error::Weights(found)) => *found,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it fits"),
    };
    // A parameter without a name here, and with it a tensor that none uses.
    let found =
        mismatch(&table(attention().skip("fc_k.*")).and(Mapping::new()), LoadOptions::new());
    assert!(found.hints[0].contains("LoadOptions::with_prefix(\"decoder.\")"), "{found}");
    let lacking =
        Mapping::new().linear("query", "fc_q").linear("key", "fc_k").linear("output", "fc_o");
    let found = mismatch(&table(lacking.clone()), options());
    assert!(found.nameless.contains(&"decoder.layers.1.self_attention.value.weight".into()));
    assert!(found.unused.contains(&"decoder.layers.0.self_attention.fc_v.bias".into()), "{found}");
    // A name that the file does not have.
    let found = mismatch(&table(lacking.linear("value", "fc_w")), options());
    assert_eq!(found.missing.len(), 4);
    // Packings that can't be.
    let packed = |packing: Packing| {
        let attention = MultiHeadAttentionConfig::new(24, 4).init(&device).unwrap();
        let table = Mapping::new().packed(["query", "key", "value"], "qkv", &packing);
        table.load(attention, &path, LoadOptions::new()).unwrap_err().to_string()
    };
    let error = packed(Packing::by_head(5));
    assert_eq!(
        error,
        "Packing: expected a number of heads that divides 24 for query.weight in qkv.weight, got 5"
    );
    assert!(packed(Packing::by_head(0)).ends_with("got 0"));
    let error = packed(Packing::in_pieces().with_widths([24, 12, 12]));
    assert!(
        error.contains("a width of 24 outputs for key.weight in qkv.weight, got 12"),
        "{error}"
    );
    let error = packed(Packing::in_pieces().with_widths([24, 24]));
    assert!(error.contains("a width of 24 outputs for value.weight"), "{error}");
    // The paths that a table can name.
    let paths = parameters(&model(&device));
    assert!(paths.contains(&("decoder.layers.0.feed_forward.up.weight".into(), vec![24, 37])));
}

/// A tensor of several projections of which the module has not all.
#[test]
fn a_part_of_a_packed_tensor_is_not_dropped() {
    let device = any_device();
    let attention =
        MultiHeadAttentionConfig::new(24, 4).with_key_bias(false).init(&device).unwrap();
    let options = LoadOptions::new().with_prefix("layers.1.multihead_attn.");
    let error = pytorch::load(attention, fixture("decoder_stack.pt"), options).unwrap_err();
    let Error::Weights(found) = error else { panic!("{error}") };
    assert_eq!(found.unused, ["layers.1.multihead_attn.in_proj_bias, of which a part"]);
}
