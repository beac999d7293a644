//! Bad input: what was expected, what came, what to do.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{Grid, Mask};

use super::host;

/// The error of lowering, which must contain every word.
fn refused(mask: Mask, grid: &Grid, words: &[&str]) {
    let message = mask.lower(grid).unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    // The questions of single cells refuse it as well.
    assert_eq!(mask.is_visible(grid, 0, 0, 0, 0).unwrap_err().to_string(), message);
}

#[test]
fn wrong_sizes_are_named() {
    let device = host();
    let grid = Grid::square(2, 3);
    let ids = |ids: [[i32; 4]; 2]| Tensor::<2, Int>::from_ints(ids, &device);
    let flags = |shape: [usize; 4]| Tensor::<4, Bool>::full(shape, true, &device);

    refused(Mask::lengths([3, 4]), &grid, &["lengths", "at most 3", "4 in batch row 1"]);
    refused(Mask::lengths([3]), &grid, &["lengths", "2 rows", "1 of them"]);
    refused(Mask::pad_counts([4, 0]), &grid, &["pad_counts", "at most 3", "4 in batch row 0"]);
    refused(Mask::pad_counts([0; 3]), &grid, &["pad_counts", "2 rows", "3 of them"]);
    refused(Mask::document_lengths([[3, 0], [1, 1]]), &grid, &["documents", "0 to 3", "0 to 2"]);
    refused(Mask::document_lengths([[3, 0]]), &grid, &["documents", "2 rows", "1 rows"]);
    refused(Mask::padding(&ids([[1; 4]; 2]), 0), &grid, &["padding", "keys 3", "[2, 1, 1, 4]"]);
    refused(
        Mask::from_hidden(&flags([2, 1, 2, 3])).unwrap(),
        &grid,
        &["queries 3", "[2, 1, 2, 3]"],
    );
    refused(Mask::from_hidden(&flags([3, 1, 1, 3])).unwrap(), &grid, &["batch 2", "[3, 1, 1, 3]"]);
    // Deep in an expression too.
    refused(!(Mask::look_ahead() | !Mask::lengths([9, 9])), &grid, &["lengths", "at most 3"]);
}

#[test]
fn heads_that_differ_are_named() {
    let flags = |heads| Tensor::<4, Bool>::full([1, heads, 3, 3], true, &host());
    let mask = Mask::from_hidden(&flags(2)).unwrap() & Mask::from_hidden(&flags(3)).unwrap();
    let message = mask.lower(&Grid::square(1, 3)).unwrap_err().to_string();
    assert!(message.contains("[1, 2, 3, 3] and [1, 3, 3, 3]"), "{message}");
}

#[test]
fn windows_of_no_keys_are_refused() {
    for (error, name) in [(Mask::window_keys(0), "window_keys"), (Mask::chunks(0), "chunks")] {
        let message = error.unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("got 0"), "{message}");
    }
    assert!(Mask::from_hidden(&Tensor::<1, Bool>::full([3], true, &host())).is_err());
}

/// A12: positions are never guessed.
#[test]
fn unequal_lengths_must_be_aligned() {
    let message = Grid::of_sizes(1, 2, 5).unwrap_err().to_string();
    assert!(message.contains("bottom_right") && message.contains("top_left"), "{message}");
    assert_eq!(Grid::of_sizes(1, 5, 5).unwrap(), Grid::square(1, 5));
    assert!(Grid::with_key_positions(1, 1, 0, [3, 3]).is_err());
}

#[test]
fn cells_outside_the_grid_are_refused() {
    let grid = Grid::square(1, 3);
    for [batch, query, key] in [[1, 0, 0], [0, 3, 0], [0, 0, 3]] {
        assert!(Mask::look_ahead().why_hidden(&grid, batch, 0, query, key).is_err());
    }
}
