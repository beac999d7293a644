//! The one function behind which all kernels stand.

use burn::tensor::{Tensor, assert_shape};

use super::dropout::Dropout;
use super::{Kernel, Request, Score, backend_op, fused, reference};
use crate::kernels::Kept;
use crate::mask::LoweredMask;

/// What attention gives back.
#[derive(Clone, Debug)]
pub struct AttentionOutput<const D: usize> {
    /// `[batch, heads, queries, value_dim]`, or `[batch, queries, value_dim]` for rank 3.
    pub output: Tensor<D>,
    /// The weights before dropout, where asked for: `[batch, heads, queries, keys]`, or
    /// `[batch, queries, keys]` for rank 3. Each row sums to 1 over its visible keys (to less with
    /// sinks, which keep their share), or to 0 if it is dead.
    pub weights: Option<Tensor<D>>,
}

/// `softmax(Q Kᵀ · scale) V` over the keys that each query may see.
///
/// # Shapes
///
/// Rank 4:
/// - query: `[batch, heads, queries, head_dim]`
/// - key: `[batch, kv_heads, keys, head_dim]`, where `kv_heads` divides `heads`
/// - value: `[batch, kv_heads, keys, value_dim]`
/// - output: `[batch, heads, queries, value_dim]`
///
/// Rank 3, one head without its axis:
/// - query `[batch, queries, head_dim]`, key `[batch, keys, head_dim]`, value
///   `[batch, keys, value_dim]`, output `[batch, queries, value_dim]`
///
/// Any axis but `head_dim` may be empty. Without keys every row is dead, and no gradient reaches the
/// inputs.
///
/// # Panics
///
/// If the shapes do not fit each other, the mask's grid or the score (its bias, the number of ALiBi
/// slopes or of sinks); if a part of the score is out of its range; or if a kernel was named that
/// cannot do what is asked, see [`Kernel`].
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_decoder::attention::{Request, Score, scaled_dot_product_attention};
/// use burn_decoder::mask::{Grid, Mask};
///
/// # #[cfg(feature = "ndarray")] {
/// # #[allow(deprecated)]
/// let device = Device::ndarray();
/// let random = || Tensor::<4>::random([2, 3, 5, 4], Distribution::Default, &device);
/// let mask = Mask::look_ahead().lower(&Grid::square(2, 5))?;
/// let request = Request::new().with_weights(true);
///
/// let attended =
///     scaled_dot_product_attention(random(), random(), random(), &mask, &Score::new(), &request);
/// assert_eq!(attended.output.dims(), [2, 3, 5, 4]);
/// assert_eq!(attended.weights.unwrap().dims(), [2, 3, 5, 5]);
/// # }
/// # Ok::<(), burn_decoder::Error>(())
/// ```
pub fn scaled_dot_product_attention<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    value: Tensor<D>,
    mask: &LoweredMask,
    score: &Score,
    request: &Request,
) -> AttentionOutput<D> {
    const { assert!(D == 3 || D == 4, "attention takes tensors of rank 3 or 4") };
    let [query, key, value] = [query, key, value].map(with_heads);
    let attended = attend(query, key.into(), value.into(), mask, score, request);
    AttentionOutput {
        output: without_heads(attended.output),
        weights: attended.weights.map(without_heads),
    }
}

/// The function above, rank 4 only, of keys and values that a cache may keep in fewer bits: checks the
/// request and picks the kernel.
///
/// # Panics
///
/// As that function.
pub(crate) fn attend(
    query: Tensor<4>,
    key: Kept,
    value: Kept,
    mask: &LoweredMask,
    score: &Score,
    request: &Request,
) -> AttentionOutput<4> {
    let [batch, heads, queries, _] = query.dims();
    let [_, _, keys, value_dim] = value.dims();
    check(&query, &key, &value, mask, score);

    let output = [batch, heads, queries, value_dim];
    let weights = [batch, heads, queries, keys];
    if output.contains(&0) || keys == 0 {
        // Backends differ in what they make of empty sums; this is their value.
        let zeros = |shape| Tensor::zeros(shape, (&query.device(), query.dtype()));
        return AttentionOutput {
            output: zeros(output),
            weights: request.weights.then(|| zeros(weights)),
        };
    }

    let dropout = Dropout::of(score, &query);
    let fused = !request.weights && fused::supports(&query.device(), query.dtype());
    if request.kernel == Kernel::Fused {
        assert!(
            fused,
            "Kernel::Fused: expected a device and elements that it runs on and no weights asked for, \
             got {:?}, {:?}, weights {}",
            query.device(),
            query.dtype(),
            request.weights
        );
    }
    let takes_fused = match request.kernel {
        Kernel::Auto => fused && fused::is_preferred(&query.device()),
        kernel => kernel == Kernel::Fused,
    };
    if takes_fused {
        return fused::attention(query, key, value, mask, score, dropout);
    }
    let [key, value] = [key, value].map(|kept| kept.into_float(query.dtype()));
    match request.kernel {
        Kernel::Backend => {
            if let Some(got) = backend_op::obstacle(&query, score, request) {
                panic!(
                    "Kernel::Backend: expected a request that Burn's operation serves, got {got}"
                );
            }
            let [key, value] = [key, value].map(|tensor| tensor.cast(query.dtype()));
            let output = backend_op::attention(query, key, value, mask, score.scale);
            AttentionOutput { output, weights: None }
        }
        _ => reference::attention(query, key, value, mask, score, request.weights, dropout),
    }
}

/// Panics, with expected and got, unless everything fits.
fn check(query: &Tensor<4>, key: &Kept, value: &Kept, mask: &LoweredMask, score: &Score) {
    let [batch, heads, queries, head_dim] = query.dims();
    let [_, kv_heads, keys, _] = key.dims();
    match (key, value) {
        (Kept::Float(key), Kept::Float(value)) => {
            assert_shape!(key, [batch, kv_heads, keys, head_dim]);
            assert_shape!(value, [batch, kv_heads, keys, _]);
        }
        _ => {
            let kept = [batch, kv_heads, keys, head_dim];
            assert_eq!((key.dims(), value.dims()), (kept, kept), "keys and values in a cache");
        }
    }
    assert!(head_dim > 0, "query: expected a head_dim of at least 1, got 0");
    assert!(
        if kv_heads == 0 { heads == 0 } else { heads.is_multiple_of(kv_heads) },
        "key: expected a number of kv_heads that divides the {heads} heads, got {kv_heads}"
    );

    let grid = mask.grid();
    assert!(
        [grid.batch(), grid.queries(), grid.keys()] == [batch, queries, keys],
        "mask: expected a grid of batch {batch}, {queries} queries, {keys} keys, \
         got batch {}, {} queries, {} keys",
        grid.batch(),
        grid.queries(),
        grid.keys()
    );
    if let Some(cells) = mask.hidden_cells() {
        assert!(
            [1, heads].contains(&cells.shape[1]),
            "mask: expected 1 head or {heads}, got {}",
            cells.shape[1]
        );
    }
    score.check([batch, heads, queries, keys]);
}

/// `[batch, heads, rows, width]` of either rank.
fn with_heads<const D: usize>(tensor: Tensor<D>) -> Tensor<4> {
    if D == 4 {
        // The same tensor under a rank the compiler knows; a reshape would be recorded.
        Tensor::from_bridge(tensor.into_bridge())
    } else {
        tensor.unsqueeze_dim(1) // [batch, 1, rows, width]
    }
}

/// The inverse of [`with_heads`].
fn without_heads<const D: usize>(tensor: Tensor<4>) -> Tensor<D> {
    if D == 4 {
        Tensor::from_bridge(tensor.into_bridge())
    } else {
        tensor.squeeze_dim(1) // [batch, rows, width]
    }
}
