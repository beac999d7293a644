//! A dilated sliding window: each `d`-th key of a window.
//!
//! Beltagy et al. 2020, "Longformer: The Long-Document Transformer", section 3.1.

use std::fmt;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::look_ahead::future;
use super::{Cell, Leaf, Predicate, not_zero};
use crate::Result;
use crate::mask::{Cause, Mask, Past};

/// See [`Mask::dilated_window`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct DilatedWindow {
    keys: NonZeroUsize,
    dilation: NonZeroUsize,
}

impl Mask {
    /// A dilated sliding window: of the last `keys` keys, its own included, a query sees its own and
    /// each `dilation`-th one before it, and not the future. A dilation of 1 is
    /// [`window_keys`](Mask::window_keys)`(keys)`.
    ///
    /// Beltagy et al. 2020, "Longformer: The Long-Document Transformer", section 3.1. There a window
    /// is told by the number of keys that are seen, which is `keys / dilation`, rounded up; here by
    /// how far it reaches. Its rows have many gaps, so a kernel gets it as `queries * keys` flags.
    ///
    /// ```
    /// use burn_decoder::mask::{Grid, Mask};
    ///
    /// let mask = Mask::dilated_window(5, 2)?.lower(&Grid::square(1, 8))?;
    /// let seen: Vec<usize> = (0..8).filter(|&key| mask.is_visible(0, 0, 7, key)).collect();
    /// assert_eq!(seen, [3, 5, 7]);
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a width or a dilation of 0.
    pub fn dilated_window(keys: usize, dilation: usize) -> Result<Self> {
        let keys = not_zero("Mask::dilated_window, keys", keys)?;
        let dilation = not_zero("Mask::dilated_window, dilation", dilation)?;
        Ok(Leaf::DilatedWindow(DilatedWindow { keys, dilation }).into())
    }
}

impl DilatedWindow {
    /// How far the key lies before its query, if that is within the window.
    fn distance(&self, cell: &Cell) -> Option<usize> {
        let distance = cell.query_position.checked_sub(cell.key_position)?;
        usize::try_from(distance).ok().filter(|&distance| distance < self.keys.get())
    }
}

impl Predicate for DilatedWindow {
    fn is_visible(&self, cell: &Cell) -> bool {
        self.distance(cell).is_some_and(|distance| distance % self.dilation == 0)
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let Cell { query_position: query, key_position: key, .. } = *cell;
        let fact = match self.distance(cell) {
            _ if key > query => return future(cell),
            None => format!("is none of the last {} of query position {query}", self.keys),
            Some(distance) => {
                format!(
                    "is {distance} before query position {query}, no multiple of {}",
                    self.dilation
                )
            }
        };
        (Cause::Window, format!("key position {key} {fact}"))
    }

    fn past(&self) -> Past {
        Past::window(self.keys.get())
    }
}

impl fmt::Display for DilatedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dilated_window({}, {})", self.keys, self.dilation)
    }
}

#[cfg(test)]
mod tests {
    use crate::mask::{Grid, Mask};

    #[test]
    fn zeros_are_refused_and_reasons_given() {
        for (keys, dilation, word) in [(0, 1, "keys"), (1, 0, "dilation")] {
            let message = Mask::dilated_window(keys, dilation).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("got 0"), "{message}");
        }
        let mask = Mask::dilated_window(4, 2).unwrap();
        let why = |key| {
            let reason = mask.why_hidden(&Grid::square(1, 8), 0, 0, 6, key).unwrap();
            reason.map(|reason| reason.parts[0].fact.clone())
        };
        assert_eq!(why(6), None);
        assert_eq!(why(7).unwrap(), "key position 7 comes after query position 6");
        assert_eq!(
            why(5).unwrap(),
            "key position 5 is 1 before query position 6, no multiple of 2"
        );
        assert_eq!(why(2).unwrap(), "key position 2 is none of the last 4 of query position 6");
        let plain = Mask::dilated_window(4, 1).unwrap();
        assert!(plain.equals(&Mask::window_keys(4).unwrap(), &Grid::square(1, 8)).unwrap());
    }
}
