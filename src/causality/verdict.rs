//! The verdict: causal, a leak, or not proven and why.
//!
//! A check proves what it can compare. Outputs that are not finite, that have no width, that a
//! random or remembering model changes by itself, or that a wide tolerance swallows, show nothing:
//! such a path is never called causal.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::report::Path;
use super::weights;

/// What a check says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// On every path, nothing moved an output that the promise hides it from.
    Causal,
    /// Something did.
    Leak,
    /// No leak was seen, but one might not have been.
    NotProven(Unproven),
}

/// Why the absence of a leak is not proven on a path.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unproven {
    /// NaN or infinity can't be compared.
    NotFinite {
        /// What is not finite.
        of: Quantity,
        /// The first row of the batch where that is so.
        row: usize,
        /// The first position of it.
        query: usize,
    },
    /// The outputs have a width of 0, or the weights no heads.
    NoWidth {
        /// Which of them.
        of: Quantity,
    },
    /// Equal runs differ by so much that a leak could hide in it.
    Random {
        /// Largest difference between equal runs.
        noise: f32,
        /// Largest move that therefore does not count.
        tolerance: f32,
        /// What a move is small or large against. See [`Unproven::WideTolerance`].
        scale: f32,
    },
    /// The tolerance that was given is not far below what the outputs do.
    WideTolerance {
        /// Largest move that does not count.
        tolerance: f32,
        /// The largest output, or the largest move by a visible key if that is less.
        scale: f32,
    },
    /// Equal runs differ the more, the more lies between them: the model keeps a state from call to
    /// call.
    State {
        /// Largest difference between equal runs that follow each other.
        early: f32,
        /// Largest difference between equal runs with others between them.
        late: f32,
    },
    /// Of one position, look-ahead hides nothing.
    NothingHidden,
    /// No position moves the output of another one: no attention, or one that is dead at these
    /// weights (a gate or a projection of zero), behind which a leak would not show.
    NothingFlows,
    /// Weights that move nothing, even when they are disturbed: what lies behind them was not seen.
    DeadWeights {
        /// Number of such tensors; [`PathReport::dead`](super::PathReport::dead) names them.
        tensors: usize,
    },
    /// The losses are not those of probabilities: their `exp(-loss)` over all ids sum to less than
    /// 1, as label smoothing and weights make it, so that a token which its own loss has seen can't be
    /// told.
    NoProbabilities {
        /// The first position where that is so.
        query: usize,
        /// By how much.
        missing: f32,
    },
    /// There are too many ids to try each of them in a place. More rows, or a model of fewer ids,
    /// tell.
    TargetsNotTried {
        /// Number of ids.
        vocabulary: usize,
    },
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The outputs.
    Outputs,
    /// Their derivatives by the inputs.
    Gradients,
    /// The returned attention weights.
    Weights,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outputs => "outputs",
            Self::Gradients => "gradients",
            Self::Weights => "attention weights",
        })
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { of, row, query } => write!(
                f,
                "the {of} are not finite (first in row {row} at query {query}), and can't be compared; look \
                 for a division by zero, a softmax over nothing, or an overflow (among embeddings there are \
                 some 1e4 times as large as the others)"
            ),
            Self::NoWidth { of } => {
                write!(f, "the {of} have no width: there is nothing to compare")
            }
            Self::Random { noise, tolerance, scale } => write!(
                f,
                "equal runs differ by up to {noise:e}, so that moves up to {tolerance:e} do not \
                 count, while visible keys move outputs by {scale:e}; was the model left in training \
                 mode, with dropout?"
            ),
            Self::WideTolerance { tolerance, scale } => write!(
                f,
                "the given tolerance of {tolerance:e} is not far below {scale:e}, by which visible \
                 keys move outputs"
            ),
            Self::State { early, late } => write!(
                f,
                "equal runs differ by up to {early:e} one after the other, and by {late:e} with \
                 others between them: the model keeps a state from call to call"
            ),
            Self::NothingFlows => f.write_str(
                "no position moves the output of another one: there is no attention, or it is dead at \
                 these weights (a gate or projection of zero), and a leak behind it would not show; \
                 check trained weights, or give the module to `with_module`, which disturbs them",
            ),
            Self::DeadWeights { tensors } => write!(
                f,
                "{tensors} weight(s) move nothing, even when they are disturbed: what lies behind them \
                 was not seen"
            ),
            Self::NoProbabilities { query, missing } => write!(
                f,
                "exp(-loss) over all ids at position {query} sum to {missing:e} less than 1: with label \
                 smoothing or weights it can't be told whether a loss has seen its own token; check the \
                 plain cross-entropy"
            ),
            Self::TargetsNotTried { vocabulary } => write!(
                f,
                "of {vocabulary} ids not each can be tried in a place; more rows (`with_batch`), or a \
                 model of fewer ids, tell whether a loss has seen its own token"
            ),
            Self::NothingHidden => {
                f.write_str("look-ahead hides nothing of one position; give a greater length")
            }
        }
    }
}

/// A tolerance up to this part of what the outputs do proves something.
const FAR_BELOW: f32 = 0.01;

impl<I: ModelInput> PathAnalysis<'_, I> {
    /// Why an absence of leaks would show nothing on this path.
    pub(super) fn unproven(&self) -> Option<Unproven> {
        let measured = self.measured;
        if measured.bases.iter().any(|(_, outputs)| outputs.width == 0) {
            return Some(Unproven::NoWidth { of: Quantity::Outputs });
        }
        let not_finite =
            |of, place: Option<_>| place.map(|(row, query)| Unproven::NotFinite { of, row, query });
        if let Some(found) = not_finite(Quantity::Outputs, measured.not_finite) {
            return Some(found);
        }
        if self.length() == 1 && !self.settings.promise_given {
            return Some(Unproven::NothingHidden);
        }
        if let Some(found) = weights::read::<I>(self.promise(), measured) {
            if found.heads == 0 {
                return Some(Unproven::NoWidth { of: Quantity::Weights });
            }
            if let Some(found) = not_finite(Quantity::Weights, found.not_finite) {
                return Some(found);
            }
        }
        let gradients = measured.gradients.as_ref();
        if let Some(found) =
            gradients.and_then(|all| not_finite(Quantity::Gradients, all.not_finite))
        {
            return Some(found);
        }
        // Dropout is random on purpose: there the gradients are what proves it.
        if *self.path == Path::Dropout && gradients.is_some() {
            return None;
        }
        if let Some((early, late)) = measured.state {
            return Some(Unproven::State { early, late });
        }
        let (noise, tolerance, scale) = (measured.noise, self.tolerance(), self.scale());
        let nothing_flows = *self.path == Path::Plain && self.shows_nothing();
        match self.settings.tolerance {
            _ if tolerance <= FAR_BELOW * scale => nothing_flows.then_some(Unproven::NothingFlows),
            Some(_) => Some(Unproven::WideTolerance { tolerance, scale }),
            None => Some(Unproven::Random { noise, tolerance, scale }),
        }
    }

    /// No key but its own moves any output, though the promise shows some and hides others.
    fn shows_nothing(&self) -> bool {
        let other_cells = |is: &dyn Fn(usize, usize, usize) -> bool| {
            self.tables().any(|table| {
                let cells = 0..self.length() * self.length();
                let mut cells = cells.map(|cell| (cell / self.length(), cell % self.length()));
                cells.any(|(query, key)| query != key && is(table, query, key))
            })
        };
        let may_move =
            |table: usize, query, key| self.promise().row(table).may_move.get(query, key);
        let moved: Vec<_> = self.tables().map(|table| self.moved(table)).collect();
        !self.settings.disturbed
            && other_cells(&may_move)
            && other_cells(&|table, query, key| !may_move(table, query, key))
            && !other_cells(&|table, query, key| moved[table].get(query, key))
    }

    /// The largest output, or the largest move by a key that is seen if that is less: what a leak is
    /// likely to be as large as.
    fn scale(&self) -> f32 {
        let [random, _] = &self.measured.moves;
        let (length, mut largest) = (self.length(), 0f32);
        for table in self.tables() {
            let may_move = &self.promise().row(table).may_move;
            for (cell, &size) in random[table].iter().enumerate() {
                if may_move.get(cell / length, cell % length) {
                    largest = largest.max(size);
                }
            }
        }
        largest.min(self.measured.scale())
    }
}
