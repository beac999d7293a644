//! The three modules.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{
    Grid, LookAheadMaskConfig, Mask, PaddingMaskConfig, SequenceInput, SequenceMask,
    SequenceMaskConfig,
};

use super::host;

fn flags(tensor: Tensor<4, Bool>) -> ([usize; 4], Vec<bool>) {
    (tensor.dims(), tensor.into_data().iter::<bool>().collect())
}

on_each_backend! {
    /// Shapes and polarity of the article.
    fn padding_and_look_ahead(device: Device) {
        let tokens = Tensor::<2, Int>::from_ints([[7, 8, 9], [7, 0, 0]], &device);
        let padding = PaddingMaskConfig::new(0).init();
        let hidden = padding.hidden_tensor(&tokens).unwrap();
        assert_eq!(flags(hidden), ([2, 1, 1, 3], vec![false, false, false, false, true, true]));
        let visible = padding.visible_tensor(&tokens).unwrap();
        assert_eq!(flags(visible), ([2, 1, 1, 3], vec![true, true, true, true, false, false]));
        // No token of it: the shape stays.
        let none = PaddingMaskConfig::new(-1).init().hidden_tensor(&tokens).unwrap();
        assert_eq!(flags(none), ([2, 1, 1, 3], vec![false; 6]));

        let look_ahead = LookAheadMaskConfig::new().init();
        let hidden = look_ahead.hidden_tensor(&Grid::square(5, 2), &device).unwrap();
        assert_eq!(flags(hidden), ([1, 1, 2, 2], vec![false, true, false, false]));
        let visible = look_ahead.visible_tensor(&Grid::square(5, 2), &device).unwrap();
        assert_eq!(flags(visible), ([1, 1, 2, 2], vec![true, false, true, true]));
        let decoding = Grid::bottom_right(5, 1, 2);
        let hidden = look_ahead.hidden_tensor(&decoding, &device).unwrap();
        assert_eq!(flags(hidden), ([1, 1, 1, 2], vec![false; 2]));
    }

    fn a_sequence_mask_combines(device: Device) {
        let tokens = Tensor::<2, Int>::from_ints([[7, 8, 9], [7, 0, 0]], &device);
        let mask = SequenceMaskConfig::new().with_pad_id(Some(0)).init().unwrap();
        let input = SequenceInput::new().with_tokens(tokens);
        let hidden = mask.hidden_tensor(&input, &Grid::square(2, 3), &device).unwrap();
        let expected = [
            [false, true, true],
            [false, false, true],
            [false, false, false],
            [false, true, true],
            [false, true, true],
            [false, true, true],
        ];
        assert_eq!(flags(hidden), ([2, 1, 3, 3], expected.concat()));
        let visible = mask.visible_tensor(&input, &Grid::square(2, 3), &device).unwrap();
        assert_eq!(flags(visible).1, expected.concat().iter().map(|flag| !flag).collect::<Vec<_>>());
    }
}

/// The rule that a config stands for, as text.
fn rule(config: SequenceMaskConfig) -> String {
    config.init().unwrap().rule().to_string()
}

#[test]
fn configs_stand_for_rules() {
    let config = SequenceMaskConfig::new;
    assert_eq!(rule(config()), "look_ahead");
    assert_eq!(rule(config().with_look_ahead(false)), "all_visible");
    assert_eq!(rule(config().with_window_keys(Some(4))), "window_keys(4)");
    assert_eq!(
        rule(config().with_window_keys(Some(4)).with_look_ahead(false)),
        "look_around(3, 3)"
    );
    assert_eq!(
        rule(config().with_window_keys(Some(4)).with_sinks(1).with_chunks(Some(8)).with_prefix(2)),
        "((window_keys(4) | sinks(1)) & chunks(8) & look_ahead) | prefix(2)"
    );

    let input = SequenceInput::new()
        .with_padding(Mask::lengths([3, 5]))
        .with_padding(Mask::pad_counts([0, 1]))
        .with_documents(Mask::document_lengths([[2, 3], [1, 4]]));
    assert_eq!(
        config().init().unwrap().forward(&input).unwrap().to_string(),
        "look_ahead & lengths([3, 5]) & pad_counts([0, 1]) & document_lengths([[2, 3], [1, 4]])"
    );
}

/// A real token may equal the pad id: stated lengths are believed.
#[test]
fn stated_lengths_replace_the_pad_id() {
    let tokens = Tensor::<2, Int>::from_ints([[0, 5, 0]], &host());
    let mask = SequenceMaskConfig::new().with_pad_id(Some(0)).init().unwrap();
    let by_id = SequenceInput::new().with_tokens(tokens);
    assert_eq!(mask.forward(&by_id).unwrap().to_string(), "look_ahead & padding(pad_id 0)");
    let stated = by_id.with_padding(Mask::lengths([2]));
    assert_eq!(mask.forward(&stated).unwrap().to_string(), "look_ahead & lengths([2])");
    let message = mask.forward(&SequenceInput::new()).unwrap_err().to_string();
    assert!(message.contains("pad id 0") && message.contains("lengths"), "{message}");
}

#[test]
fn wrong_configs_are_refused() {
    let config = SequenceMaskConfig::new;
    for (config, words) in [
        (config().with_window_keys(Some(0)), "window_keys"),
        (config().with_chunks(Some(0)), "chunks"),
        (config().with_sinks(2), "sinks"),
    ] {
        let message = config.init().unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("got"), "{message}");
    }
}

#[test]
fn configs_are_saved_and_loaded() {
    let config = SequenceMaskConfig::new().with_window_keys(Some(4)).with_pad_id(Some(-1));
    let file = tempfile::NamedTempFile::new().unwrap();
    config.save(file.path()).unwrap();
    assert_eq!(SequenceMaskConfig::load(file.path()).unwrap(), config);
    assert!(SequenceMaskConfig::load_binary(b"{\"look_ahead\": 3}").is_err());

    // As 0.1.0 saved it, and with a rule of its own.
    let saved =
        r#"{"look_ahead":true,"pad_id":-1,"window_keys":4,"sinks":0,"chunks":null,"prefix":0}"#;
    assert_eq!(SequenceMaskConfig::load_binary(saved.as_bytes()).unwrap(), config);
    let config = config.with_rule(Some(Mask::dilated_window(8, 2).unwrap()));
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(SequenceMaskConfig::load_binary(json.as_bytes()).unwrap(), config);
    assert_eq!(rule(config), "window_keys(4) & dilated_window(8, 2)");
}

/// Modules without parameters: a model may hold them.
#[test]
fn modules_hold_no_parameters() {
    #[derive(Module, Debug)]
    struct Model {
        mask: SequenceMask,
    }
    let model = Model { mask: SequenceMaskConfig::new().with_chunks(Some(3)).init().unwrap() };
    assert_eq!(model.num_params(), 0);
    let model = model.to_device(&host()).train();
    assert_eq!(model.mask.rule().to_string(), "chunks(3) & look_ahead");
}
