//! How far back a rule looks: what a cache must keep for it.

use serde::{Deserialize, Serialize};

use super::Mask;
use super::leaf::{Band, Leaf};
use super::rule::Rule;

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
        match self.rule() {
            Rule::Leaf(Leaf::Band(band)) => band.past(),
            // What is hidden by a tensor or by a document is hidden here and there, not all that is
            // older; and the opposite of a short past is a long one.
            Rule::Leaf(_) | Rule::Not(_) => Past::Whole,
            Rule::And(a, b) => a.past().and(b.past()),
            Rule::Or(a, b) => a.past().or(b.past()),
        }
    }
}

impl Band {
    fn past(&self) -> Past {
        let window = |window| Past::Window { window, sinks: 0 };
        let sinks = |sinks| Past::Window { window: 0, sinks };
        match self {
            Self::AllVisible | Self::LookAhead | Self::PadCounts(_) => Past::Whole,
            Self::WindowKeys(keys) => window(keys.get()),
            Self::LookBack(back) | Self::LookAround { back, .. } => window(back.saturating_add(1)),
            Self::Chunks(size) => window(size.get()),
            Self::Prefix(keys) | Self::Sinks(keys) => sinks(*keys),
            Self::Lengths(lengths) => sinks(lengths.iter().copied().max().unwrap_or(0)),
            Self::BehindPads { band, counts, .. } => match band.past() {
                Past::Window { window, sinks } if sinks > 0 => {
                    let pads = counts.iter().copied().max().unwrap_or(0);
                    Past::Window { window, sinks: sinks.saturating_add(pads) }
                }
                past => past,
            },
        }
    }
}

impl Past {
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
        assert_eq!(Mask::chunks(6).unwrap().past(), window(6, 0));
        assert_eq!((Mask::look_back(4) | Mask::sinks(2)).behind_pads(&[0, 3]).past(), window(5, 5));
    }
}
