//! The dense tensors: shapes and polarity of the article, on every backend.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

use super::host;

/// The flags of a tensor, and its shape.
fn flags(tensor: Tensor<4, Bool>) -> ([usize; 4], Vec<bool>) {
    (tensor.dims(), tensor.into_data().iter::<bool>().collect())
}

/// What the tensor must hold, cell by cell.
fn expected(mask: &LoweredMask, [batch, heads, queries, keys]: [usize; 4]) -> Vec<bool> {
    let mut hidden = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            for q in 0..queries {
                hidden.extend((0..keys).map(|k| !mask.is_visible(b, h, q, k)));
            }
        }
    }
    hidden
}

on_each_backend! {
    /// True = hidden; the upper triangle, without the diagonal.
    fn look_ahead_is_the_upper_triangle(device: Device) {
        let hidden = Mask::look_ahead().hidden_tensor(&Grid::square(2, 3), &device).unwrap();
        let (shape, hidden) = flags(hidden);
        assert_eq!(shape, [1, 1, 3, 3]);
        assert_eq!(
            hidden,
            [
                false, true, true, //
                false, false, true, //
                false, false, false,
            ]
        );
    }

    fn visible_is_the_opposite(device: Device) {
        let visible = Mask::look_ahead().visible_tensor(&Grid::square(2, 3), &device).unwrap();
        let (shape, visible) = flags(visible);
        assert_eq!(shape, [1, 1, 3, 3]);
        assert_eq!(
            visible,
            [
                true, false, false, //
                true, true, false, //
                true, true, true,
            ]
        );
    }

    /// From tokens, lengths and pad counts alike.
    fn padding_keeps_the_axes_it_does_not_depend_on(device: Device) {
        let tokens = Tensor::<2, Int>::from_ints([[7, 8, 9], [7, 0, 0]], &device);
        for mask in [Mask::padding(&tokens, 0), Mask::lengths([3, 1])] {
            let (shape, hidden) = flags(mask.hidden_tensor(&Grid::square(2, 3), &device).unwrap());
            assert_eq!(shape, [2, 1, 1, 3], "{mask}");
            assert_eq!(hidden, [false, false, false, false, true, true], "{mask}");
        }
        let left = Mask::pad_counts([0, 2]).hidden_tensor(&Grid::square(2, 3), &device).unwrap();
        assert_eq!(flags(left), ([2, 1, 1, 3], vec![false, false, false, true, true, false]));
    }

    fn every_part_reaches_the_tensor(device: Device) {
        let tokens = Tensor::<2, Int>::from_ints([[7, 8, 9, 0, 5], [7, 0, 0, 3, 5]], &device);
        let cells = Tensor::<4, Bool>::from_data(
            [[[[true, false, false, false, false]; 5]], [[[false, false, false, false, true]; 5]]],
            &device,
        )
        .swap_dims(0, 1);
        let mask = Mask::window_keys(3).unwrap()
            & Mask::padding(&tokens, 0)
            & (Mask::from_hidden(&cells).unwrap() | Mask::chunks(2).unwrap());
        let grid = Grid::square(2, 5);
        let lowered = mask.lower(&grid).unwrap();
        assert!(lowered.spans().is_some());
        assert!(lowered.hidden_keys().is_some());
        assert!(lowered.hidden_cells().is_some());
        let (shape, hidden) = flags(lowered.hidden(&device).unwrap());
        assert_eq!(shape, [2, 2, 5, 5]);
        assert_eq!(hidden, expected(&lowered, shape));
    }

    fn nothing_hidden_still_has_a_tensor(device: Device) {
        let lowered = Mask::all_visible().lower(&Grid::square(2, 3)).unwrap();
        assert!(lowered.hidden(&device).is_none());
        assert_eq!(flags(lowered.hidden_tensor(&device)), ([1, 1, 1, 3], vec![false; 3]));
    }

    /// One lowered mask serves a device with autodiff and without, in either order.
    fn one_mask_serves_autodiff_and_not(device: Device) {
        for [first, second] in [[false, true], [true, false]] {
            let lowered = Mask::look_ahead().lower(&Grid::square(1, 3)).unwrap();
            for autodiff in [first, second] {
                let device = if autodiff { device.clone().autodiff() } else { device.clone() };
                let scores = Tensor::<4>::full([1, 1, 3, 3], 2.0, &device);
                let scores = if autodiff { scores.require_grad() } else { scores };
                let left = scores.clone().mask_fill(lowered.hidden(&device).unwrap(), 0.0);
                assert_eq!(left.clone().sum().into_scalar::<f32>(), 12.0);
                if autodiff {
                    let gradient = scores.grad(&left.sum().backward()).unwrap();
                    let expected = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0];
                    gradient.into_data().iter::<f32>().zip(expected).for_each(|(got, expected)| {
                        assert_eq!(got, expected);
                    });
                }
            }
        }
    }

    /// The dense mask is built once for a device, and anew for another.
    fn a_mask_moves_between_devices(device: Device) {
        let lowered = (Mask::look_ahead() & Mask::lengths([2])).lower(&Grid::square(1, 3)).unwrap();
        let elsewhere = lowered.hidden(&host()).unwrap();
        let here = lowered.hidden(&device).unwrap();
        assert_eq!(here.device(), device);
        assert_eq!(flags(here), flags(elsewhere));
    }
}
