//! Reasons, word for word.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{Cause, Grid, Mask};

use super::host;

/// Why query 3 of row 1 doesn't see this key.
fn why(mask: Mask, key: usize) -> String {
    let reason = mask.why_hidden(&Grid::square(2, 6), 1, 0, 3, key).unwrap();
    reason.map_or_else(String::new, |reason| reason.to_string())
}

#[test]
fn every_leaf_has_its_words() {
    let tokens = Tensor::<2, Int>::from_ints([[1; 6], [1, 9, 1, 1, 1, 9]], &host());
    let flags = Tensor::<2, Bool>::from_data([[false, true, false, false, false, false]], &host());
    let cases = [
        (Mask::all_visible(), 5, ""),
        (Mask::look_ahead(), 3, ""),
        (Mask::look_ahead(), 5, "future: look_ahead: key position 5 comes after query position 3"),
        (
            Mask::lengths([6, 4]),
            5,
            "padding: lengths([6, 4]): key position 5 is not before length 4",
        ),
        (
            Mask::pad_counts([0, 2]),
            1,
            "padding: pad_counts([0, 2]): key position 1 is before the pad count 2",
        ),
        (
            Mask::window_keys(2).unwrap(),
            0,
            "outside the window: window_keys(2): key position 0 is outside 2..=3, the window of \
             query position 3",
        ),
        (
            Mask::look_back(1),
            4,
            "future: look_back(1): key position 4 comes after query position 3",
        ),
        (
            Mask::look_around(1, 1),
            5,
            "outside the window: look_around(1, 1): key position 5 is outside 2..=4, the window of \
             query position 3",
        ),
        (
            Mask::sinks(2),
            2,
            "outside the prefix: sinks(2): key position 2 is not one of the first 2",
        ),
        (
            Mask::chunks(3).unwrap(),
            2,
            "another chunk: chunks(3): key position 2 is outside 3..=5, the chunk of query \
             position 3",
        ),
        (
            Mask::document_lengths([vec![6], vec![2, 4]]),
            1,
            "another document: document_lengths([[6], [2, 4]]): key position 1 belongs to \
             document 0, query position 3 to 1",
        ),
        (Mask::padding(&tokens, 9), 1, "padding: padding(pad_id 9): key 1 is the pad token 9"),
        (Mask::from_hidden_keys(&flags), 1, "flag: hidden_keys([1, 6]): key 1 is flagged"),
        (
            Mask::from_hidden(&flags).unwrap(),
            1,
            "flag: hidden_cells([1, 1, 1, 6]): query 3, key 1 is flagged",
        ),
        (
            !Mask::look_ahead(),
            2,
            "opposite: !look_ahead: look_ahead shows key position 2 to query position 3",
        ),
    ];
    for (mask, key, text) in cases {
        assert_eq!(why(mask, key), text);
    }
}

#[test]
fn combinations_name_the_parts_that_count() {
    let causes = |mask: Mask, key| -> Vec<Cause> {
        let reason = mask.why_hidden(&Grid::square(2, 6), 1, 0, 3, key).unwrap().unwrap();
        reason.parts.iter().map(|part| part.cause).collect()
    };
    let padded = || Mask::look_ahead() & Mask::lengths([6, 2]);
    assert_eq!(causes(padded(), 5), [Cause::Future, Cause::Padding]);
    assert_eq!(causes(padded(), 3), [Cause::Padding]);
    assert_eq!(
        causes(Mask::window_keys(2).unwrap() | Mask::sinks(1), 1),
        [Cause::Window, Cause::Prefix]
    );
    // !(a | b) hides what either shows; !(a & b) what both show.
    assert_eq!(causes(!(Mask::look_ahead() | Mask::sinks(1)), 2), [Cause::Opposite]);
    assert_eq!(
        causes(!(Mask::look_ahead() & Mask::prefix(4)), 2),
        [Cause::Opposite, Cause::Opposite]
    );
    assert_eq!(causes(!!Mask::look_ahead(), 4), [Cause::Future]);
}
