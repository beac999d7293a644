//! The parity self-test: it agrees with what is right, and says where what is wrong strays.

use burn::tensor::TensorData;
use burn_decoder::Error;
use burn_decoder::decoder::Batch;
use burn_decoder::import::parity::{self, ParityCase};
use burn_decoder::import::{LoadOptions, hugging_face};

use super::round_trip::{tensors, write};
use super::{fixture, with_config};
use crate::backends::any_device;

/// A quiet mistake, by its size in FAMILIES.md of the fixtures: 9e-4.
#[test]
fn a_quiet_mistake_is_found() {
    let device = any_device();
    let wrong = with_config("phi_tiny", |config| {
        config.insert("hidden_act".into(), "gelu".into());
    });
    let model = hugging_face::load(wrong.path(), &device, LoadOptions::new()).unwrap().model;
    let cases = parity::read(fixture("phi_tiny").join("reference.safetensors"), &device).unwrap();
    let parity = cases[1].check(&model, 5e-5).unwrap();
    assert!(!parity.agrees());
    assert!((5e-4..2e-3).contains(&parity.difference), "{parity}");
    assert_eq!(parity.compared, 2 * 11 * 61);
    assert!(((parity.got - parity.expected).abs() - parity.difference).abs() < 1e-9);
    assert!(parity.to_string().starts_with("logits does not agree: of 1342 logits, "), "{parity}");
    assert!(cases[1].check(&model, 2e-3).unwrap().agrees());
}

/// The place of one changed logit, a NaN, and places that are not compared.
#[test]
fn the_place_is_told() {
    let device = any_device();
    let model =
        hugging_face::load(fixture("llama_tiny"), &device, LoadOptions::new()).unwrap().model;
    let tokens = [vec![1, 2, 3], vec![4, 5, 6]];
    let ints = tokens.clone().map(|row: Vec<u32>| [row[0] as i32, row[1] as i32, row[2] as i32]);
    let ints = burn::tensor::Tensor::<2, burn::tensor::Int>::from_ints(ints, &device);
    let logits = model.forward(ints, Batch::new()).unwrap().logits.into_data();
    let logits: Vec<f32> = logits.iter().collect();
    let case = |change: &dyn Fn(&mut Vec<f32>)| {
        let mut changed = logits.clone();
        change(&mut changed);
        ParityCase::new("mine", &tokens, TensorData::new(changed, [2, 3, 61])).unwrap()
    };
    let check = |case: ParityCase| case.check(&model, 1e-6).unwrap();
    assert_eq!(check(case(&|_| ())).difference, 0.0);
    let place = (3 + 2) * 61 + 17;
    let parity = check(case(&|logits| logits[place] += 0.5));
    assert_eq!(parity.at, [1, 2, 17]);
    assert!((parity.difference - 0.5).abs() < 1e-6 && !parity.agrees());
    let parity = check(case(&|logits| logits[place] = f32::NAN));
    assert!(!parity.agrees() && parity.difference.is_infinite());
    assert_eq!(parity.at, [1, 2, 17]);
    // Not compared, it does not count; nothing compared is no agreement.
    let compared = |flags: Vec<bool>| {
        let case = case(&|logits| logits[place] += 0.5);
        check(case.with_compared(flags).unwrap())
    };
    let parity = compared(vec![true, true, true, true, true, false]);
    assert!(parity.agrees() && parity.compared == 5 * 61);
    assert!(!compared(vec![false; 6]).agrees());
}

#[test]
fn a_case_that_does_not_fit() {
    let logits = |shape: [usize; 3]| TensorData::zeros::<f32, _>(shape);
    let refused = |tokens: &[Vec<u32>], logits| {
        matches!(ParityCase::new("x", tokens, logits), Err(Error::Input { .. }))
    };
    assert!(refused(&[vec![1, 2], vec![3]], logits([2, 2, 5])));
    assert!(refused(&[vec![1, 2], vec![3, 4]], logits([2, 3, 5])));
    assert!(refused(&[vec![1, 2]], TensorData::zeros::<i32, _>([1, 2, 5])));
    let case = ParityCase::new("x", &[vec![1, 2]], logits([1, 2, 5])).unwrap();
    assert!(case.clone().with_compared(vec![true]).is_err());
    let loaded = hugging_face::load(fixture("llama_tiny"), &any_device(), LoadOptions::new());
    assert!(matches!(case.check(&loaded.unwrap().model, 1.0), Err(Error::Input { .. })));
}

#[test]
fn a_dump_that_lacks_something() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("dump.safetensors");
    let whole = tensors(&fixture("llama_tiny").join("reference.safetensors"));
    let error = |change: &dyn Fn(&mut std::collections::BTreeMap<_, _>)| {
        let mut dump = whole.clone();
        change(&mut dump);
        write(&path, &dump);
        parity::read(&path, &any_device()).unwrap_err().to_string()
    };
    let lacking = error(&|dump| drop(dump.remove("input_ids")));
    assert!(lacking.ends_with("expected input_ids for gapped.logits, got none"), "{lacking}");
    let lacking = error(&|dump| dump.retain(|name: &String, _| !name.ends_with("logits")));
    assert!(lacking.ends_with("expected a tensor called logits, or CASE.logits, got none"));
    let odd = error(&|dump| {
        let logits = dump["logits"].clone();
        dump.insert("input_ids".into(), logits);
    });
    assert!(odd.contains("input_ids [batch, tokens]"), "{odd}");
}
