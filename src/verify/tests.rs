//! A kernel that is wrong on purpose is found, by what is wrong about it; a right one passes.

use std::sync::OnceLock;

use super::subject::Attend;
use super::*;
use crate::attention::{Request, Score};
use crate::mask::LoweredMask;
use burn::tensor::Tensor;

fn device() -> Device {
    crate::kernels::cpus().remove(0)
}

fn kernel(kernel: Kernel) -> impl Fn([Tensor<4>; 3], &LoweredMask, &Score) -> Tensor<4> {
    let request = Request::new().with_kernel(kernel);
    move |[query, key, value], mask, score| {
        scaled_dot_product_attention(query, key, value, mask, score, &request).output
    }
}

/// All cases in f32, solved once.
fn solved() -> &'static [Solved] {
    static SOLVED: OnceLock<Vec<Solved>> = OnceLock::new();
    SOLVED.get_or_init(|| Solved::all(&Case::all(&device()), DType::F32))
}

/// All of them by a kernel that claims to serve them all.
fn verified(attend: &Attend) -> Vec<Verified> {
    let subject = Subject { name: Kernel::Fused, attend };
    solved().iter().map(|solved| subject.verify(solved, &device())).collect()
}

fn names() -> Vec<&'static str> {
    solved().iter().map(|solved| solved.case.name).collect()
}

/// The cases that go wrong, each by `quantity` if that is said.
#[track_caller]
fn assert_wrong(attend: &Attend, expected: &[&str], quantity: Option<&str>) {
    let verified = verified(attend);
    let wrong: Vec<_> = verified.iter().filter(|verified| !verified.is_right()).collect();
    assert_eq!(wrong.iter().map(|wrong| wrong.case).collect::<Vec<_>>(), expected);
    for wrong in wrong {
        assert!(wrong.failure.is_some() || wrong.error > wrong.tolerance, "{wrong}");
        assert!(quantity.is_none_or(|quantity| wrong.quantity == quantity), "{wrong}");
    }
}

#[test]
fn a_right_kernel_passes() {
    assert_wrong(&kernel(Kernel::Auto), &[], None);
    let found = verify(&device().autodiff());
    assert!(found.is_right(), "{found}");
    for kernel in [Kernel::Fused, Kernel::Reference, Kernel::Backend] {
        assert!(found.verified.iter().any(|verified| verified.kernel == kernel), "{kernel:?}");
    }
    let table = found.to_string();
    assert!(table.ends_with(&format!("all {} right", found.verified.len())), "{table}");
    assert!(table.lines().skip(1).all(|line| line.chars().count() <= 100), "{table}");
}

#[test]
fn a_setting_that_is_ignored_is_found_where_it_matters() {
    let right = kernel(Kernel::Auto);
    assert_wrong(
        &|x, mask, score| right(x, mask, &score.clone().with_softcap(None)),
        &["softcap"],
        None,
    );
    assert_wrong(
        &|x, mask, score| right(x, mask, &score.clone().with_alibi(None)),
        &["ALiBi"],
        None,
    );
    assert_wrong(
        &|x, mask, score| right(x, mask, &score.clone().with_sinks(None)),
        &["sinks"],
        None,
    );
    assert_wrong(&|x, mask, score| right(x, mask, &score.clone().with_bias(None)), &["bias"], None);
    let other_seed =
        |x, mask: &_, score: &Score| right(x, mask, &score.clone().with_dropout_seed(12));
    assert_wrong(&other_seed, &["dropout"], None);
    let everything = |x, mask: &LoweredMask, score: &Score| {
        right(x, &LoweredMask::all_visible(mask.grid().clone()), score)
    };
    let hidden = names().into_iter().filter(|name| !["all visible", "one query"].contains(name));
    assert_wrong(&everything, &hidden.collect::<Vec<_>>(), None);
}

#[test]
fn wrong_arithmetic_is_found() {
    let right = kernel(Kernel::Auto);
    let a_little = |x, mask: &_, score: &_| right(x, mask, score) * 1.001;
    assert_wrong(&a_little, &names(), None);
    let other_groups = |[query, key, value]: [Tensor<4>; 3], mask: &_, score: &_| {
        let grouped = query.dims()[1] != key.dims()[1];
        let [key, value] = [key, value].map(|x| if grouped { x.flip([1]) } else { x });
        right([query, key, value], mask, score)
    };
    let grouped = ["grouped heads", "one query", "several panels"];
    assert_wrong(&other_groups, &grouped, None);
    // The output is right, and half of a gradient is lost.
    let half = |[query, key, value]: [Tensor<4>; 3], mask: &_, score: &_| {
        let query = query.clone().mul_scalar(0.5) + query.detach().mul_scalar(0.5);
        right([query, key, value], mask, score)
    };
    assert_wrong(&half, &names(), Some("gradient of the query"));
    let nearly_dead = |x, mask: &_, score: &_| right(x, mask, score) + 1e-30;
    assert_wrong(&nearly_dead, &["left padding, dead rows"], Some("dead rows"));
    // Zero times NaN.
    let with_nan = ["NaN in padding", "several panels"];
    assert_wrong(&kernel(Kernel::Reference), &with_nan, None);
    let not_a_number = |x, mask: &_, score: &_| right(x, mask, score).mul_scalar(f32::NAN);
    assert_wrong(&not_a_number, &names(), None);
}

#[test]
fn a_panic_is_a_row_of_the_table() {
    let panicking: &Attend = &|_, _, _| panic!("no such shader\nat all");
    let verified = verified(panicking);
    assert!(verified.iter().all(|verified| !verified.is_right()));
    let found = Verification { device: "a device".into(), adapter: None, verified };
    let table = found.to_string();
    assert!(table.contains("FAILED: no such shader\n"), "{table}");
    assert!(table.ends_with(&format!("{0} of {0} wrong", names().len())), "{table}");
}
