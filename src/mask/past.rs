//! How far back a rule looks: what a cache must keep for it.

use serde::{Deserialize, Serialize};

use super::Mask;
use super::leaves::Leaf;
use super::tree::Join;

/// The part of the past that a mask leaves visible, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Past {
    /// All of it.
    Whole,
    /// The first `sinks` keys, and the last `window`, the query's own included.
    Window { window: usize, sinks: usize },
}

impl Mask {
    /// The part of the past that a query may see under this rule, or more.
    pub(crate) fn past(&self) -> Past {
        let of_leaf = |leaf: &Leaf, opposite| match opposite {
            false => leaf.predicate().past(),
            // The opposite of a short past is a long one.
            true => Past::Whole,
        };
        self.fold(&of_leaf, &|join, a, b| match join {
            Join::And => a.and(b),
            Join::Or => a.or(b),
        })
    }
}

impl Past {
    /// The last `window` keys, the query's own included.
    pub(super) fn window(window: usize) -> Self {
        Self::Window { window, sinks: 0 }
    }

    /// The first `sinks` keys.
    pub(super) fn sinks(sinks: usize) -> Self {
        Self::Window { window: 0, sinks }
    }

    /// Both restrictions apply: either bound holds, so the smaller one.
    pub(crate) fn and(self, other: Self) -> Self {
        let size = |past| match past {
            Self::Whole => usize::MAX,
            Self::Window { window, sinks } => window.saturating_add(sinks),
        };
        if size(other) < size(self) { other } else { self }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Window { window: w, sinks: s }, Self::Window { window, sinks }) => {
                Self::Window { window: w.max(window), sinks: s.max(sinks) }
            }
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Grid;

    #[test]
    fn the_past_of_a_combination() {
        let window = |window, sinks| Past::Window { window, sinks };
        let rolling = (Mask::window_keys(5).unwrap() | Mask::sinks(2)) & Mask::look_ahead();
        assert_eq!(rolling.past(), window(5, 2));
        assert_eq!((rolling.clone() & Mask::look_back(2)).past(), window(3, 0));
        assert_eq!((rolling & Mask::pad_counts([1])).past(), window(5, 2));
        assert_eq!((Mask::look_back(4) | Mask::lengths([3, 7])).past(), window(5, 7));
        assert_eq!((Mask::look_back(4) | Mask::look_ahead()).past(), Past::Whole);
        assert_eq!((!Mask::look_back(4)).past(), Past::Whole);
        assert_eq!((!!Mask::look_back(4)).past(), window(5, 0));
        assert_eq!(Mask::chunks(6).unwrap().past(), window(6, 0));
        assert_eq!((Mask::look_back(4) | Mask::sinks(2)).behind_pads(&[0, 3]).past(), window(5, 5));
    }

    /// What a cache drops, no query sees.
    #[test]
    fn nothing_older_is_visible() {
        let window = || Mask::window_keys(3).unwrap();
        for mask in [
            Mask::look_around(2, 1),
            Mask::look_back(4) | Mask::sinks(2),
            (window() | Mask::prefix(1)) & Mask::look_ahead(),
            Mask::chunks(4).unwrap() & !Mask::sinks(1),
            Mask::dilated_window(6, 2).unwrap() | Mask::lengths([2, 1]),
            (Mask::dilated_window(5, 3).unwrap() | Mask::sinks(1)).behind_pads(&[2, 0]),
            (Mask::chunks(3).unwrap() | window()).behind_pads(&[2, 0]),
        ] {
            let Past::Window { window, sinks } = mask.past() else { panic!("{mask}: whole") };
            let grid = Grid::square(2, 16);
            let lowered = mask.lower(&grid).unwrap();
            let cells =
                (0..2).flat_map(|b| (0..16).flat_map(move |q| (0..=q).map(move |k| [b, q, k])));
            let seen: Vec<_> = cells.filter(|&[b, q, k]| lowered.is_visible(b, 0, q, k)).collect();
            assert!(seen.iter().all(|&[_, q, k]| k < sinks || q - k < window), "{mask}");
            assert!(
                seen.iter().any(|&[_, q, k]| q - k + 2 >= window),
                "{mask}: {window} is too far"
            );
        }
    }
}
