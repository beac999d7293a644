//! What attention holds of a GPU's memory, by the report of the allocator there.
//!
//! Measured in a process of its own, whose allocator has served nothing else.

use burn::tensor::{Device, Distribution, Tensor};
use burn_decoder::attention::{Kernel, Request, Score, scaled_dot_product_attention};
use burn_decoder::mask::{Grid, Mask};

use crate::backends::on_gpu;
use crate::gpu_device::gpu_device;
use crate::peak;

/// Bytes that the device's allocator has given away.
fn held(device: &Device) -> f64 {
    device.sync().unwrap();
    device.memory_pool_usage().expect("a report of the allocator").bytes_in_use as f64
}

/// The most bytes that its pages ever had: what was given away, and what pages keep for later.
fn reserved(device: &Device) -> f64 {
    let pools = device.memory_pool_report().expect("a report of the allocator");
    pools.iter().map(|pool| (pool.page_size * pool.pages_peak) as f64).sum()
}

/// One case in this process, `KERNEL HEADS LENGTH SEEN`: forward and backward, each query seeing so many
/// keys. Tells, in units of an input's bytes, what is held of the inputs; beside the output; beside the
/// output, its gradient and the three of the inputs; what was reserved in all; and bytes of the map.
fn measured(case: &str) {
    let device = gpu_device().expect("as the process that asked");
    let words: Vec<&str> = case.split(' ').collect();
    let [heads, length, seen] = [1, 2, 3].map(|i| words[i].parse::<usize>().unwrap());
    let kernel = if words[0] == "fused" { Kernel::Fused } else { Kernel::Reference };
    let request = Request::new().with_kernel(kernel);
    let mask = Mask::look_ahead() & Mask::window_keys(seen).unwrap();
    let mask = mask.lower(&Grid::square(1, length)).unwrap();
    peak::begin();
    let inputs = [0, 1, 2]
        .map(|_| Tensor::<4>::random([1, heads, length, WIDTH], Distribution::Default, &device));
    let with_inputs = held(&device);
    let attend = |[q, k, v]: [Tensor<4>; 3]| {
        scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &request).output
    };
    drop(attend(inputs.clone()));
    let map = held(&device) - with_inputs;
    let leaves = inputs.map(|tensor| tensor.autodiff().require_grad());
    let output = attend(leaves.clone());
    let with_output = held(&device) - map - with_inputs;
    let gradients = output.backward();
    let wanted = leaves.each_ref().map(|leaf| leaf.grad(&gradients).unwrap());
    let with_gradients = held(&device) - map - with_inputs;
    drop(wanted);
    let unit = bytes(heads, length);
    let most = reserved(&device);
    peak::end(|| {
        let in_units = [with_inputs, with_output, with_gradients, most].map(|bytes| bytes / unit);
        [&in_units[..], &[map]].concat()
    });
}

const WIDTH: usize = 64;

/// Bytes of an input.
fn bytes(heads: usize, length: usize) -> f64 {
    (heads * length * WIDTH * size_of::<f32>()) as f64
}

/// Runs a case of `test`, and prints what it found.
fn measure(test: &str, case: &str) -> [f64; 5] {
    let found = peak::measure(test, case);
    println!("{case}: {:.2?}, process {} MiB", found.numbers, found.bytes >> 20);
    found.numbers.try_into().unwrap()
}

#[test]
fn attention_holds_two_numbers_a_query() {
    if let Some(case) = peak::case() {
        return measured(&case);
    }
    on_gpu(|_| {
        let test = "gpu_memory::attention_holds_two_numbers_a_query";
        let [_, held, with_gradients, _, map] = measure(test, "fused 2 1024 1024");
        // An output of 64 numbers a query, and two: 1.03, and what the allocator rounds up.
        assert!((1.0..1.1).contains(&held), "forward: {held} times an input's bytes");
        // The output and the gradients of queries, keys and values.
        assert!(with_gradients < 4.1, "backward: {with_gradients} times an input's bytes");
        assert!(map <= 32.0 * 1024.0, "the mask: {map} bytes");
        let [_, held, ..] = measure(test, "reference 2 1024 1024");
        // One matrix of scores is 16 times an input: the measure sees it.
        assert!(held > 16.0, "reference: {held} times");
    });
}

/// The scores alone would be 8.6 GB. A window holds as much as look-ahead alone, which takes an hour on
/// software.
#[test]
#[ignore = "minutes on software"]
fn sixteen_thousand_queries_hold_no_scores() {
    if let Some(case) = peak::case() {
        return measured(&case);
    }
    on_gpu(|_| {
        let test = "gpu_memory::sixteen_thousand_queries_hold_no_scores";
        let [_, _, _, reserved, map] = measure(test, "fused 8 16384 32");
        // Three inputs, an output, and the gradients of all four.
        let beside = (reserved - 8.0) * bytes(8, 16384) / (1024.0 * 1024.0);
        assert!(beside <= 64.0, "{beside} MiB beside inputs, outputs and gradients");
        assert!(map <= 256.0 * 1024.0, "the mask: {map} bytes");
    });
}
