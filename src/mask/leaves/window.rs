//! Sliding windows, told by their width, by their reach, or to both sides.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::look_ahead::future;
use super::{Cell, Leaf, Predicate, not_zero, position};
use crate::Result;
use crate::mask::{Cause, Mask, Past};

/// See [`Mask::window_keys`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct WindowKeys(NonZeroUsize);

/// See [`Mask::look_back`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct LookBack(usize);

/// See [`Mask::look_around`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct LookAround {
    back: usize,
    ahead: usize,
}

impl Mask {
    /// A sliding window told by its width: a query sees the last `keys` keys, its own included, and
    /// not the future. The same as `look_back(keys - 1)`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a width of 0, under which no query would see
    /// anything.
    pub fn window_keys(keys: usize) -> Result<Self> {
        Ok(Leaf::WindowKeys(WindowKeys(not_zero("Mask::window_keys", keys)?)).into())
    }

    /// A sliding window told by its reach: a query sees its own key and `keys` earlier ones, and not
    /// the future. The same as `window_keys(keys + 1)`.
    pub fn look_back(keys: usize) -> Self {
        Leaf::LookBack(LookBack(keys)).into()
    }

    /// A window to both sides: a query sees its own key, `back` earlier and `ahead` later ones.
    pub fn look_around(back: usize, ahead: usize) -> Self {
        Leaf::LookAround(LookAround { back, ahead }).into()
    }
}

/// A window, however it was told.
trait Window: fmt::Display {
    /// The number of keys that a query sees before its own.
    fn back(&self) -> usize;

    /// The number of keys that a query sees behind its own; `None` if it says that it hides the
    /// future.
    fn ahead(&self) -> Option<usize>;
}

impl Window for WindowKeys {
    fn back(&self) -> usize {
        self.0.get() - 1
    }

    fn ahead(&self) -> Option<usize> {
        None
    }
}

impl Window for LookBack {
    fn back(&self) -> usize {
        self.0
    }

    fn ahead(&self) -> Option<usize> {
        None
    }
}

impl Window for LookAround {
    fn back(&self) -> usize {
        self.back
    }

    fn ahead(&self) -> Option<usize> {
        Some(self.ahead)
    }
}

impl<W: Window> Predicate for W {
    fn is_visible(&self, cell: &Cell) -> bool {
        let distance = i128::from(cell.query_position) - i128::from(cell.key_position);
        distance <= self.back() as i128 && -distance <= self.ahead().unwrap_or(0) as i128
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let Cell { query_position: query, key_position: key, .. } = *cell;
        if self.ahead().is_none() && key > query {
            return future(cell);
        }
        let Range { start, end } = window(query, self);
        let last = end - 1;
        let fact = format!(
            "key position {key} is outside {start}..={last}, the window of query position {query}"
        );
        (Cause::Window, fact)
    }

    fn range(&self, _batch: usize, query: i64) -> Option<Range<i64>> {
        Some(window(query, self))
    }

    fn past(&self) -> Past {
        Past::window(self.back().saturating_add(1))
    }
}

fn window(query: i64, window: &impl Window) -> Range<i64> {
    let (back, ahead) = (position(window.back()), position(window.ahead().unwrap_or(0)));
    query.saturating_sub(back)..query.saturating_add(ahead).saturating_add(1)
}

impl fmt::Display for WindowKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window_keys({})", self.0)
    }
}

impl fmt::Display for LookBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "look_back({})", self.0)
    }
}

impl fmt::Display for LookAround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "look_around({}, {})", self.back, self.ahead)
    }
}
