//! The dense tensors: shapes and polarity of the article, on every backend.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

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

    /// One lowered mask serves an autodiff device and its inner device in turn.
    fn one_mask_serves_two_devices(device: Device) {
        let lowered = Mask::look_ahead().lower(&Grid::square(1, 3)).unwrap();
        for device in [device.clone(), device.clone().autodiff(), device] {
            let scores = Tensor::<4>::ones([1, 1, 3, 3], &device);
            let left = scores.mask_fill(lowered.hidden(&device).unwrap(), 0.0);
            assert_eq!(left.sum().into_scalar::<f32>(), 6.0);
        }
    }
}
