//! Small masks, written out.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

use super::{host, table, table_of_row};

#[test]
fn look_ahead_shows_the_past_and_oneself() {
    assert_eq!(table(&Mask::look_ahead(), &Grid::square(1, 3)), ["x..", "xx.", "xxx"]);
}

/// A13: both alignments of unequal lengths.
#[test]
fn alignments() {
    let mask = Mask::look_ahead();
    let top_left = |q, k| table(&mask, &Grid::top_left(1, q, k));
    let bottom_right = |q, k| table(&mask, &Grid::bottom_right(1, q, k));

    assert_eq!(top_left(2, 5), ["x....", "xx..."]);
    assert_eq!(bottom_right(2, 5), ["xxxx.", "xxxxx"]);
    assert_eq!(top_left(5, 2), ["x.", "xx", "xx", "xx", "xx"]);
    assert_eq!(bottom_right(5, 2), ["..", "..", "..", "x.", "xx"]);
    assert_eq!(top_left(1, 7), ["x......"]);
    assert_eq!(bottom_right(1, 7), ["xxxxxxx"]);
    assert_eq!(top_left(7, 1), ["x", "x", "x", "x", "x", "x", "x"]);
    assert_eq!(bottom_right(7, 1), [".", ".", ".", ".", ".", ".", "x"]);
    assert_eq!(top_left(3, 3), bottom_right(3, 3));

    let dead = mask.dead_rows(&Grid::bottom_right(1, 5, 2)).unwrap();
    assert_eq!(dead.iter().map(|row| row.query).collect::<Vec<_>>(), [0, 1, 2]);
}

/// A14: a row sees `min(i + 1, w)` keys of `window_keys(w)`, one more of `look_back(w)`.
#[test]
fn window_widths() {
    let grid = Grid::square(1, 7);
    let visible = |mask: Mask| {
        let rows = table(&mask, &grid);
        rows.iter().map(|row| row.matches('x').count()).collect::<Vec<_>>()
    };
    for width in [1, 2, 3, 7, 8, usize::MAX] {
        let expected: Vec<_> = (1..=7).map(|row| width.min(row)).collect();
        assert_eq!(visible(Mask::window_keys(width).unwrap()), expected, "window_keys({width})");
    }
    for back in [0, 1, 2, 6, 7, usize::MAX] {
        let expected: Vec<_> = (1..=7).map(|row| back.saturating_add(1).min(row)).collect();
        assert_eq!(visible(Mask::look_back(back)), expected, "look_back({back})");
    }
    assert_eq!(table(&Mask::look_back(1), &Grid::square(1, 3)), ["x..", "xx.", ".xx"]);
    assert_eq!(
        table(&Mask::look_around(1, 2), &Grid::square(1, 5)),
        ["xxx..", "xxxx.", ".xxxx", "..xxx", "...xx"]
    );
}

/// What goes by position goes by the row's own, behind its padding.
#[test]
fn rows_behind_their_padding() {
    let grid = Grid::square(2, 6);
    let lines =
        |mask: Mask, row| table_of_row(&mask.left_padded([2, 0]).lower(&grid).unwrap(), row);
    let sinks = || (Mask::window_keys(2).unwrap() | Mask::sinks(1)) & Mask::look_ahead();
    assert_eq!(lines(sinks(), 0), ["......", "......", "..x...", "..xx..", "..xxx.", "..x.xx"],);
    assert_eq!(lines(sinks(), 1), ["x.....", "xx....", "xxx...", "x.xx..", "x..xx.", "x...xx"],);
    let chunks = || Mask::chunks(3).unwrap();
    assert_eq!(lines(chunks(), 0)[2..], ["..xxx.", "..xxx.", "..xxx.", ".....x"]);
    assert_eq!(lines(chunks(), 1)[2..], ["xxx...", "...xxx", "...xxx", "...xxx"]);

    let mask = Mask::sinks(1).left_padded([2, 0]);
    assert_eq!(mask.to_string(), "sinks(1).left_padded([2, 0]) & pad_counts([2, 0])");
    let why = mask.why_hidden(&grid, 0, 0, 5, 4).unwrap().unwrap().to_string();
    assert_eq!(
        why,
        "outside the prefix: sinks(1).left_padded([2, 0]): key position 2 is not one of the first \
         1, as counted behind 2 padded places"
    );
    let error = Mask::sinks(1).left_padded([2]).lower(&grid).unwrap_err();
    assert!(error.to_string().contains("one for each of the 2 rows"), "{error}");
}

#[test]
fn padding_on_either_side() {
    let grid = Grid::square(2, 3);
    let right = Mask::lengths([3, 1]).lower(&grid).unwrap();
    assert_eq!(table_of_row(&right, 0), ["xxx", "xxx", "xxx"]);
    assert_eq!(table_of_row(&right, 1), ["x..", "x..", "x.."]);
    let left = Mask::pad_counts([0, 2]).lower(&grid).unwrap();
    assert_eq!(table_of_row(&left, 0), ["xxx", "xxx", "xxx"]);
    assert_eq!(table_of_row(&left, 1), ["..x", "..x", "..x"]);
}

#[test]
fn prefix_sinks_and_chunks() {
    let grid = Grid::square(1, 5);
    assert_eq!(
        table(&(Mask::prefix(2) | Mask::look_ahead()), &grid),
        ["xx...", "xx...", "xxx..", "xxxx.", "xxxxx"]
    );
    let window = Mask::window_keys(2).unwrap();
    assert_eq!(
        table(&((window | Mask::sinks(1)) & Mask::look_ahead()), &grid),
        ["x....", "xx...", "xxx..", "x.xx.", "x..xx"]
    );
    assert_eq!(
        table(&Mask::chunks(2).unwrap(), &grid),
        ["xx...", "xx...", "..xx.", "..xx.", "....x"]
    );
    // Chunks are laid out from position 0, to both sides.
    assert_eq!(
        table(&Mask::chunks(2).unwrap(), &Grid::with_offset(1, 3, 2, -2)),
        ["..", "..", "xx"]
    );
}

#[test]
fn documents_do_not_see_each_other() {
    let grid = Grid::square(2, 4);
    let by_length = Mask::document_lengths([[1, 3], [2, 2]]).lower(&grid).unwrap();
    assert_eq!(table_of_row(&by_length, 0), ["x...", ".xxx", ".xxx", ".xxx"]);
    assert_eq!(table_of_row(&by_length, 1), ["xx..", "xx..", "..xx", "..xx"]);
    assert!(by_length.hidden_cells().is_none(), "documents in one piece are spans");

    let device = host();
    let ids = Tensor::<2, Int>::from_ints([[7, 1, 1, 1], [4, 9, 4, 4]], &device);
    let by_id = Mask::document_ids(&ids).lower(&grid).unwrap();
    assert_eq!(table_of_row(&by_id, 0), table_of_row(&by_length, 0));
    assert_eq!(table_of_row(&by_id, 1), ["x.xx", ".x..", "x.xx", "x.xx"]);
}

#[test]
fn the_pad_id_is_hidden_wherever_it_stands() {
    let device = host();
    let tokens = Tensor::<2, Int>::from_ints([[5, 0, 6, 0, 0]], &device);
    let mask = Mask::padding(&tokens, 0);
    assert_eq!(table(&mask, &Grid::top_left(1, 1, 5)), ["x.x.."]);
    assert_eq!(table(&Mask::lengths([3]), &Grid::top_left(1, 1, 5)), ["xxx.."]);
}

/// A12 is in the grid's hands; A16: ranks, and axes of 1.
#[test]
fn dense_masks_of_every_rank() {
    let device = host();
    let hidden = Tensor::<2, Bool>::from_data([[true, false, false], [false, true, true]], &device);
    let grid = Grid::top_left(2, 2, 3);
    let expected = [".xx", "x.."];

    let rank_2 = Mask::from_hidden(&hidden).unwrap();
    let rank_3 = Mask::from_hidden(&hidden.clone().unsqueeze::<3>()).unwrap();
    let rank_4 = Mask::from_hidden(&hidden.clone().unsqueeze::<4>()).unwrap();
    let batch_full = Mask::from_hidden(&hidden.clone().unsqueeze::<3>().repeat_dim(0, 2)).unwrap();
    let not_contiguous =
        Mask::from_hidden(&hidden.clone().transpose().repeat_dim(0, 1).transpose()).unwrap();
    let visible = Mask::from_visible(&hidden.bool_not()).unwrap();
    for mask in [rank_2, rank_3, rank_4, batch_full, not_contiguous, visible] {
        let lowered = mask.lower(&grid).unwrap();
        assert_eq!(table_of_row(&lowered, 0), expected);
        assert_eq!(table_of_row(&lowered, 1), expected);
    }

    let by_query = Tensor::<2, Bool>::from_data([[true], [false]], &device);
    assert_eq!(table(&Mask::from_hidden(&by_query).unwrap(), &grid), ["...", "xxx"]);
    let by_key = Tensor::<2, Bool>::from_data([[true, false, true]], &device);
    assert_eq!(table(&Mask::from_hidden_keys(&by_key), &grid), [".x.", ".x."]);
    assert_eq!(table(&Mask::from_visible_keys(&by_key), &grid), ["x.x", "x.x"]);
}

/// What the kernels skip by: these stay spans.
#[test]
fn bands_stay_spans() {
    let window = || Mask::window_keys(3).unwrap();
    let square = Grid::square(2, 9);
    // Sinks 0 and 1, then what a window of 3 has left.
    let rolling = Grid::with_key_positions(2, 2, 20, [0, 1, 18, 19, 20, 21]).unwrap();
    for (mask, grid) in [
        (Mask::look_ahead(), &square),
        (window() & Mask::lengths([5, 9]) & Mask::pad_counts([1, 2]), &square),
        (Mask::chunks(4).unwrap() & Mask::look_ahead(), &square),
        (Mask::document_lengths([[4, 5], [9, 0]]) & Mask::look_ahead(), &square),
        (Mask::prefix(4) | Mask::look_ahead(), &square),
        (Mask::lengths([2, 4]) | Mask::look_ahead(), &square),
        (!Mask::look_ahead(), &square),
        (!(!Mask::look_ahead() | !Mask::lengths([5, 9])), &square),
        ((Mask::look_back(3) | Mask::sinks(2)) & Mask::look_ahead(), &rolling),
        // Two of them, with a gap.
        ((window() | Mask::sinks(2)) & Mask::look_ahead(), &square),
        (Mask::look_ahead() & (window() | Mask::prefix(2)) & Mask::lengths([5, 9]), &square),
        ((window() | Mask::sinks(2)).left_padded([1, 0]), &square),
        (!window(), &square),
        (!(Mask::sinks(2) | !Mask::pad_counts([4, 9])), &square),
    ] {
        let lowered = mask.lower(grid).unwrap();
        assert!(lowered.spans().is_some(), "{mask}");
        assert!(lowered.hidden_keys().is_none(), "{mask}");
        assert!(lowered.hidden_cells().is_none(), "{mask}");
    }
    assert_eq!(Mask::look_ahead().lower(&square).unwrap().spans().unwrap().len(), 9);
    assert_eq!(Mask::lengths([5, 9]).lower(&square).unwrap().spans().unwrap().len(), 18);
}

/// A tensor that leaves one stretch of keys visible in each row is as good as a rule.
#[test]
fn stretches_in_a_tensor_become_spans() {
    let tril = Tensor::<2, Bool>::from_data(
        [[true, false, false], [true, true, false], [true, true, true]],
        &host(),
    );
    let grid = Grid::square(2, 3);
    let mask = Mask::from_visible(&tril).unwrap();
    let lowered = mask.lower(&grid).unwrap();
    assert_eq!(lowered.spans(), Mask::look_ahead().lower(&grid).unwrap().spans());
    assert!(lowered.hidden_cells().is_none());
    assert!(mask.equals(&Mask::look_ahead(), &grid).unwrap());

    let gaps = |row: [bool; 5]| {
        let visible = Tensor::<2, Bool>::from_data([row, [true; 5]], &host());
        Mask::from_visible(&visible).unwrap().lower(&Grid::top_left(1, 2, 5)).unwrap()
    };
    let one = gaps([true, false, true, true, false]);
    let spans = one.spans().unwrap()[0];
    assert_eq!([spans.first().end, spans.second().start, spans.second().end], [1, 2, 4]);
    assert!(one.hidden_cells().is_none());
    let two = gaps([true, false, true, false, true]);
    assert!(two.spans().is_none() && two.hidden_cells().is_some());
}

/// Two spans a row, where a rule leaves a gap; a third one takes cells.
#[test]
fn a_window_with_sinks_is_two_spans() {
    let grid = Grid::square(1, 6);
    let window = Mask::window_keys(2).unwrap() | Mask::sinks(1);
    let causal = (&window & Mask::look_ahead()).lower(&grid).unwrap();
    let spans = |mask: &LoweredMask| -> Vec<[u32; 4]> {
        let spans = mask.spans().unwrap().iter();
        spans
            .map(|spans| (spans.first(), spans.second()))
            .map(|(a, b)| [a.start, a.end, b.start, b.end])
            .collect()
    };
    assert_eq!(
        spans(&causal),
        [[0, 1, 0, 0], [0, 2, 0, 0], [0, 3, 0, 0], [0, 1, 2, 4], [0, 1, 3, 5], [0, 1, 4, 6]]
    );
    // 0, 2 and 4 and 5: three of them.
    let three =
        &window & !(Mask::prefix(4) & !Mask::prefix(3)) | (Mask::prefix(3) & !Mask::prefix(2));
    let three = three.lower(&grid).unwrap();
    assert!(three.hidden_cells().is_some());
    assert_eq!(table_of_row(&three, 0)[5], "x.x.xx");

    // An AND of two spans and two spans that would be three keeps the first ones.
    let holes = !(Mask::prefix(5) & !Mask::prefix(4)) & !(Mask::prefix(1) & !Mask::prefix(0));
    let both =
        ((Mask::prefix(2) | (Mask::prefix(6) & !Mask::prefix(3))) & holes).lower(&grid).unwrap();
    assert_eq!(table_of_row(&both, 0)[0], ".x.x.x");
    assert_eq!(spans(&both)[0], [0, 2, 3, 6]);
    assert!(both.hidden_cells().is_some());
    // And on a mask that was lowered before.
    let later = causal.and(&Mask::look_back(1)).unwrap();
    assert_eq!(spans(&later)[5], [4, 6, 0, 0]);
    assert!(later.hidden_cells().is_none());
}

/// Flags of keys alone stay `[batch, keys]`.
#[test]
fn key_flags_stay_key_flags() {
    let device = host();
    let tokens = Tensor::<2, Int>::from_ints([[0, 5, 0, 6], [1, 2, 3, 0]], &device);
    let padding = || Mask::padding(&tokens, 0);
    let grid = Grid::square(2, 4);
    for mask in
        [padding(), !padding(), padding() | Mask::prefix(2), !padding() | Mask::lengths([1, 2])]
    {
        let lowered = mask.lower(&grid).unwrap();
        assert!(lowered.spans().is_none() && lowered.hidden_cells().is_none(), "{mask}");
        assert_eq!(lowered.hidden_keys().unwrap().len(), 8, "{mask}");
    }
    let with_look_ahead = (padding() & Mask::look_ahead()).lower(&grid).unwrap();
    assert!(with_look_ahead.spans().is_some() && with_look_ahead.hidden_keys().is_some());
    assert!(with_look_ahead.hidden_cells().is_none());
    // What hides everything adds nothing to a union, and takes nothing from its parts.
    for mask in [
        (padding() & Mask::look_ahead()) | Mask::prefix(0),
        !Mask::all_visible() | (padding() & Mask::look_ahead()),
    ] {
        assert!(mask.lower(&grid).unwrap().hidden_cells().is_none(), "{mask}");
    }
}

/// Nothing is kept that hides nothing.
#[test]
fn nothing_hidden_is_nothing() {
    let grid = Grid::square(2, 3);
    let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3], [4, 5, 6]], &host());
    for mask in [
        Mask::all_visible(),
        Mask::lengths([3, 3]),
        Mask::padding(&tokens, 0),
        Mask::look_ahead() | !Mask::look_ahead(),
        Mask::from_hidden(&Tensor::<2, Bool>::full([3, 3], false, &host())).unwrap(),
    ] {
        assert!(mask.lower(&grid).unwrap().is_all_visible(), "{mask}");
    }
    // The last query with everything before it: one token behind a cache.
    let decoding = Mask::look_ahead().lower(&Grid::bottom_right(2, 1, 7)).unwrap();
    assert!(decoding.is_all_visible());
}

/// A24: axes of size 0.
#[test]
fn empty_axes() {
    let mask = (Mask::window_keys(2).unwrap() | Mask::sinks(1)) & !Mask::look_ahead();
    for (grid, dead) in [
        (Grid::top_left(0, 2, 3), 0),
        (Grid::top_left(2, 0, 3), 0),
        (Grid::top_left(2, 3, 0), 6),
        (Grid::top_left(0, 0, 0), 0),
    ] {
        let lowered = mask.lower(&grid).unwrap();
        assert!(lowered.is_all_visible(), "{grid:?}");
        assert!(lowered.hidden(&host()).is_none());
        assert!(lowered.is_causal());
        assert_eq!(lowered.density(), 0.0);
        assert_eq!(lowered.dead_rows().len(), dead, "{grid:?}");
    }
}

#[test]
fn expressions_as_text() {
    let device = host();
    let tokens = Tensor::<2, Int>::from_ints([[0, 5]], &device);
    let cases = [
        (Mask::look_ahead() & Mask::lengths([3, 5]), "look_ahead & lengths([3, 5])"),
        (
            (Mask::window_keys(4).unwrap() | Mask::sinks(1)) & Mask::look_ahead(),
            "(window_keys(4) | sinks(1)) & look_ahead",
        ),
        (!(Mask::chunks(2).unwrap() & !Mask::prefix(1)), "!(chunks(2) & !prefix(1))"),
        (
            Mask::padding(&tokens, 0) | Mask::look_around(1, 2),
            "padding(pad_id 0) | look_around(1, 2)",
        ),
        (Mask::document_lengths([vec![2, 3], vec![5]]), "document_lengths([[2, 3], [5]])"),
        (
            Mask::document_ids(&Tensor::<2, Int>::from_ints([[4, 4, 9, 4]], &device)),
            "document_pieces([[2 of 4, 1 of 9, 1 of 4]])",
        ),
        (Mask::pad_counts(0..9), "pad_counts([0, 1, 2, 3, 4, 5, 6, 7, .. 9 in all])"),
    ];
    for (mask, text) in cases {
        assert_eq!(mask.to_string(), text);
    }
}

#[test]
fn masks_are_saved_and_loaded() {
    let device = host();
    let flags = Tensor::<2, Bool>::from_data([[true, false], [false, true]], &device);
    let mask = (Mask::look_ahead() & !Mask::document_lengths([[1, 1]]))
        | Mask::from_hidden(&flags).unwrap()
        | Mask::window_keys(2).unwrap();
    let json = serde_json::to_string(&mask).unwrap();
    assert_eq!(serde_json::from_str::<Mask>(&json).unwrap(), mask);

    let wrong = json.replace("[1,1,2,2]", "[1,1,2,3]");
    assert!(serde_json::from_str::<Mask>(&wrong).unwrap_err().to_string().contains("4 flags"));
    let wrong = json.replace("{\"window_keys\":2}", "{\"window_keys\":0}");
    assert!(serde_json::from_str::<Mask>(&wrong).is_err());
}

/// What was saved by 0.1.0, every leaf of it, is loaded, and saved alike.
#[test]
fn saved_masks_stay_readable() {
    let saved = [
        (r#"{"leaf":{"band":"all_visible"}}"#, "all_visible"),
        (r#"{"leaf":{"band":"look_ahead"}}"#, "look_ahead"),
        (r#"{"leaf":{"band":{"lengths":[3,2]}}}"#, "lengths([3, 2])"),
        (r#"{"leaf":{"band":{"pad_counts":[0,1]}}}"#, "pad_counts([0, 1])"),
        (r#"{"leaf":{"band":{"window_keys":4}}}"#, "window_keys(4)"),
        (r#"{"leaf":{"band":{"look_back":4}}}"#, "look_back(4)"),
        (r#"{"leaf":{"band":{"look_around":{"back":1,"ahead":2}}}}"#, "look_around(1, 2)"),
        (r#"{"leaf":{"band":{"prefix":2}}}"#, "prefix(2)"),
        (r#"{"leaf":{"band":{"sinks":2}}}"#, "sinks(2)"),
        (r#"{"leaf":{"band":{"chunks":8}}}"#, "chunks(8)"),
        (
            r#"{"leaf":{"band":{"behind_pads":{"band":{"sinks":2},"counts":[1,0],"keys":true}}}}"#,
            "sinks(2).left_padded([1, 0])",
        ),
        (
            r#"{"leaf":{"documents":[[0,0,1],[0,1,0]]}}"#,
            "document_pieces([[2 of 0, 1 of 1], [1 of 0, 1 of 1, 1 of 0]])",
        ),
        (
            r#"{"leaf":{"flags":{"source":{"padding":{"pad_id":7}},"cells":{"shape":[1,1,1,2],"hidden":[false,true]}}}}"#,
            "padding(pad_id 7)",
        ),
        (
            r#"{"leaf":{"flags":{"source":"cells","cells":{"shape":[1,1,1,2],"hidden":[false,true]}}}}"#,
            "hidden_cells([1, 1, 1, 2])",
        ),
        (
            r#"{"and":[{"not":{"leaf":{"band":"look_ahead"}}},{"or":[{"leaf":{"band":{"sinks":1}}},{"leaf":{"band":{"look_back":0}}}]}]}"#,
            "!look_ahead & (sinks(1) | look_back(0))",
        ),
    ];
    for (json, text) in saved {
        let mask: Mask = serde_json::from_str(json).unwrap();
        assert_eq!(mask.to_string(), text);
        assert_eq!(serde_json::to_string(&mask).unwrap(), json);
    }
}
