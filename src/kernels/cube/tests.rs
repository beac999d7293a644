//! The map and the schedule that the kernels read from it, on the host. What the kernels compute is
//! tested through the crate's door, in tests/it/attention.

use super::device::{COLUMNS, header};
use super::map::pack;
use crate::kernels::{Plan, Scoring, Slopes};
use crate::mask::{Grid, LoweredMask, Mask};

fn plan(mask: &LoweredMask, heads: usize) -> Plan {
    let grid = mask.grid();
    Plan {
        batch: grid.batch(),
        heads,
        kv_heads: heads,
        queries: grid.queries(),
        keys: grid.keys(),
        head_dim: 64,
        value_dim: 64,
        visibility: mask.visibility.clone(),
        scoring: Scoring { scale: 1.0, softcap: None, slopes: None },
        dropout: None,
    }
}

fn square(mask: &Mask, batch: usize, length: usize) -> Plan {
    plan(&mask.lower(&Grid::square(batch, length)).unwrap(), 2)
}

/// A number of the map.
fn at(map: &[i32], index: usize) -> usize {
    map[index] as usize
}

/// The tiles that a panel of `rows` queries visits, as `device::rows::bounds` has it.
fn visited(map: &[i32], plan: &Plan, batch: usize, panel: usize, rows: usize) -> Vec<usize> {
    let blocks = plan.queries.div_ceil(COLUMNS);
    let own = panel * rows / COLUMNS..((panel + 1) * rows / COLUMNS).min(blocks);
    let mut ranges = [(usize::MAX, 0); 2];
    for block in own {
        let base = at(map, header::BOUNDS) + batch * at(map, header::BOUNDS_BATCH) + 8 * block;
        for (range, hull) in ranges.iter_mut().enumerate() {
            let (start, end) = (at(map, base + 2 * range), at(map, base + 2 * range + 1));
            if start < end {
                *hull = (hull.0.min(start), hull.1.max(end));
            }
        }
    }
    let [first, second] = ranges.map(|(start, end)| match start < end {
        true => start / COLUMNS..end.div_ceil(COLUMNS),
        false => 0..0,
    });
    first.clone().chain(second.start.max(first.end)..second.end).collect()
}

/// Whether 32 queries may see some of 32 keys, as `device::rows::block_sees` has it.
fn sees(map: &[i32], plan: &Plan, batch: usize, block: usize, tile: usize) -> bool {
    let base = at(map, header::BOUNDS) + batch * at(map, header::BOUNDS_BATCH) + 8 * block;
    let within = |range: usize| {
        let (start, end) = (at(map, base + range), at(map, base + range + 1));
        start < (tile + 1) * COLUMNS && tile * COLUMNS < end
    };
    block * COLUMNS < plan.queries && (within(0) || within(2))
}

/// What panels of 64 rows do of an attention: how often they read 32 rows of the other side, and how
/// often 32 of their rows are multiplied with 32 of those.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    reads: usize,
    products: usize,
}

/// Of `forward` and `query_gradient`, whose panels are queries.
fn by_queries(plan: &Plan) -> Work {
    let map = pack(plan);
    let mut work = Work { reads: 0, products: 0 };
    for batch in 0..plan.batch {
        for panel in 0..plan.queries.div_ceil(64) {
            for tile in visited(&map, plan, batch, panel, 64) {
                work.reads += 1;
                let blocks = [2 * panel, 2 * panel + 1];
                let seen = blocks.iter().filter(|&&block| sees(&map, plan, batch, block, tile));
                work.products += seen.count();
            }
        }
    }
    work
}

/// Of `key_value_gradients`, whose panels are keys.
fn by_keys(plan: &Plan) -> Work {
    let map = pack(plan);
    let mut work = Work { reads: 0, products: 0 };
    for batch in 0..plan.batch {
        for panel in 0..plan.keys.div_ceil(64) {
            for block in 0..plan.queries.div_ceil(COLUMNS) {
                let tiles = [2 * panel, 2 * panel + 1];
                let seen = tiles.iter().filter(|&&tile| sees(&map, plan, batch, block, tile));
                let seen = seen.count();
                work.reads += usize::from(seen > 0);
                work.products += seen;
            }
        }
    }
    work
}

/// What is hidden is not multiplied: squares of 32 queries and 32 keys that nobody sees. Nor is it
/// read, but where the other half of a panel needs it.
#[test]
fn hidden_tiles_are_not_visited() {
    let length = 8192;
    let causal = square(&Mask::look_ahead(), 1, length);
    let window = square(&Mask::window_keys(256).unwrap(), 1, length);
    // Eight documents of one length.
    let documents = Mask::look_ahead() & Mask::document_lengths([vec![length / 8; 8]]);
    let documents = square(&documents, 1, length);
    let sinks = Mask::window_keys(256).unwrap() | Mask::look_ahead() & Mask::sinks(4);
    let sinks = square(&sinks, 1, length);
    for (kernel, work) in [("by queries", by_queries as fn(&Plan) -> Work), ("by keys", by_keys)] {
        let full = work(&square(&Mask::all_visible(), 1, length));
        assert_eq!(full, Work { reads: 128 * 256, products: 256 * 256 }, "{kernel}");
        // Half of it, and the diagonal.
        let causal = work(&causal);
        let expected = Work { reads: (1..=128).map(|n| 2 * n).sum(), products: (1..=256).sum() };
        assert_eq!(causal, expected, "{kernel}");
        // 32 queries see themselves and 255 keys before: nine squares. 64 of them read ten.
        let window = work(&window);
        let expected = Work { reads: 2 + 4 + 6 + 8 + 124 * 10, products: 36 + 248 * 9 };
        assert_eq!(window, expected, "{kernel}");
        assert!(window.products * 14 <= causal.products, "{kernel}: {window:?} of {causal:?}");
        let documents = work(&documents);
        assert_eq!(documents.products, 8 * (1..=32).sum::<usize>(), "{kernel}");
        assert!(documents.products * 7 <= causal.products, "{kernel}: {documents:?}");
        assert!(documents.reads * 7 <= causal.reads, "{kernel}: {documents:?}");
        // Beside the window one square more for each.
        let sinks = work(&sinks).products;
        assert_eq!(sinks, window.products + 256 - 9, "{kernel}");
    }
    // Right padding, row by row: a row of half the length is a quarter of the work.
    let padded = square(&(Mask::look_ahead() & Mask::lengths([length, length / 2])), 2, length);
    let half = (1..=128).sum::<usize>();
    assert_eq!(by_queries(&padded).products, (1..=256).sum::<usize>() + half + 128 * 128);
}

/// No tile that holds a visible cell is left out, and bits say what is hidden.
#[test]
fn every_visible_cell_is_in_a_visited_tile() {
    let masks = [
        Mask::look_ahead() & Mask::window_keys(7).unwrap() | Mask::look_ahead() & Mask::sinks(3),
        Mask::look_ahead() & Mask::pad_counts([0, 90]),
        !Mask::look_ahead() & Mask::lengths([130, 40]),
        Mask::prefix(3) | Mask::chunks(50).unwrap(),
    ];
    for mask in masks {
        let mask = mask.lower(&Grid::square(2, 131)).unwrap();
        let plan = plan(&mask, 1);
        let map = pack(&plan);
        for rows in [32, 64] {
            for (batch, query) in (0..2).flat_map(|b| (0..131).map(move |q| (b, q))) {
                let visited = visited(&map, &plan, batch, query / rows, rows);
                for key in (0..131).filter(|&key| mask.is_visible(batch, 0, query, key)) {
                    let tile = key / COLUMNS;
                    assert!(visited.contains(&tile), "{batch}, {query}, {key}");
                    let seen = sees(&map, &plan, batch, query / COLUMNS, tile);
                    assert!(seen, "{batch}, {query}, {key}");
                }
            }
        }
    }
}

/// 32 keys a number, the first one in the lowest bit.
#[test]
fn hidden_keys_and_cells_are_bits() {
    let lengths = square(&Mask::lengths([70, 33]), 2, 70);
    let (by_key, by_cell) = {
        let mut keys = lengths.clone();
        keys.visibility.spans = None;
        let hidden = |key: usize| key == 3 || key == 69;
        keys.visibility.hidden_keys = Some((0..70).map(hidden).collect());
        let mut cells = keys.clone();
        cells.visibility.hidden_keys = None;
        cells.visibility.hidden_cells = Some(crate::kernels::HiddenCells {
            shape: [1, 2, 1, 70],
            hidden: (0..140).map(|cell| cell == 3 || cell == 69 || cell == 139).collect(),
        });
        (keys, cells)
    };
    let map = pack(&by_key);
    let keys = at(&map, header::KEYS);
    assert_eq!(map[keys..keys + 3], [1 << 3, 0, 1 << 5]);
    assert_eq!(map[header::KEYS_BATCH], 0);
    let map = pack(&by_cell);
    let cells = at(&map, header::CELLS);
    assert_eq!(map[cells..cells + 6], [1 << 3, 0, 1 << 5, 0, 0, 1 << 5]);
    let strides = [header::CELLS_BATCH, header::CELLS_HEAD, header::CELLS_QUERY];
    assert_eq!(strides.map(|stride| map[stride]), [0, 3, 0]);
}

/// Positions far apart do not overflow; slopes are the bits of f32.
#[test]
fn slopes_and_positions_are_packed() {
    let mut plan = square(&Mask::look_ahead(), 1, 3);
    let slopes = |first_query, key_positions| {
        Some(Slopes { slopes: [0.5, 0.25].into(), first_query, key_positions })
    };
    plan.scoring.slopes = slopes(i64::MAX, None);
    let map = pack(&plan);
    let first = at(&map, header::SLOPES);
    let bits = [0.5f32, 0.25].map(|slope| slope.to_bits() as i32);
    assert_eq!(map[first..first + 2], bits);
    assert_eq!(map[header::FIRST_KEY], -(1 << 29));
    assert_eq!(map[header::POSITIONS], 0);
    plan.scoring.slopes = slopes(7, Some([2, 7, i64::MAX].into()));
    let map = pack(&plan);
    let positions = at(&map, header::POSITIONS);
    assert_eq!(map[positions..positions + 3], [-5, 0, 1 << 29]);
}

/// A mask of spans stays small: 128 KiB for the spans of 16,384 queries.
#[test]
fn a_map_of_spans_is_small() {
    let bytes = |length| 4 * pack(&square(&Mask::look_ahead(), 1, length)).len();
    assert!(bytes(8192) <= 80 << 10, "{}", bytes(8192));
    assert!(bytes(16384) <= 160 << 10, "{}", bytes(16384));
}
