//! Names hold where rows are no samples of one thing: where each has its own promise, and where they
//! move each other.

use burn::tensor::{Device, Tensor};
use burn_decoder::causality::{CausalityCheck, Diagnosis, Way};
use burn_decoder::mask::Mask;

use super::tiny::*;
use crate::backends::cpus;

const SEEDS: std::ops::Range<u64> = 0..20;

/// A mask by tiles leaks in the one row that is no padding; that the others hide the same keys as
/// padding is no sign that the leak comes and goes.
#[test]
fn a_leak_of_one_row_is_not_held_against_the_others() {
    const PADS: [usize; BATCH] = [0, LENGTH - 2, LENGTH - 2, LENGTH - 2];
    let tiles = |device: &Device| {
        let row = |pad| {
            let is_hidden = move |query: usize, key: usize| {
                (key > query && key / 4 > query / 4) || (key < pad && key != query)
            };
            hidden([LENGTH, LENGTH], device, is_hidden)
        };
        Tensor::cat(PADS.map(row).to_vec(), 0)
    };
    for device in cpus() {
        for seed in SEEDS {
            let (layer, mask) = (Tiny::new(seed, 2, &device), tiles(&device));
            let report =
                CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| layer.forward(x, &mask))
                    .with_batch(BATCH)
                    .with_seed(seed)
                    .with_promise(Mask::look_ahead() & Mask::pad_counts(PADS))
                    .with_layers(1)
                    .run()
                    .unwrap();
            let leak = report.first_leak().unwrap();
            assert_eq!(leak.diagnosis, Diagnosis::WithinBlocks { keys: 4 }, "{seed}: {report}");
        }
    }
}

/// A leak within the row that only large inputs open, and one between rows that is always there.
#[test]
fn what_rows_hand_each_other_does_not_name_what_leaks_within_one() {
    let forward = |x: Tensor<3>| {
        let gate = x.clone().narrow(2, 0, 1).greater_elem(1.2).float(); // [batch, length, 1]
        let future = x.clone().flip([1]).cumsum(1).flip([1]) - x.clone();
        let other_row = x.clone().mean_dim(1).flip([0]); // [batch, 1, width]
        x.clone().cumsum(1) + future * gate.expand(x.dims()) + other_row.expand(x.dims())
    };
    for device in cpus() {
        let mut named = 0;
        for seed in SEEDS {
            let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, forward)
                .with_batch(BATCH)
                .with_seed(seed)
                .run()
                .unwrap();
            assert_eq!(report.first_leak().unwrap().way, Way::OtherRows);
            for leak in report.leaks().filter(|leak| leak.way != Way::OtherRows) {
                assert_eq!(leak.diagnosis, Diagnosis::FiniteFill, "{seed}: {report}");
                named += 1;
            }
        }
        assert!(named >= 20, "{named}");
    }
}
