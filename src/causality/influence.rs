//! The influence matrix: who moves whom, drawn beside what was promised.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::receptive_field::BitMatrix;
use crate::picture::{Heatmap, LegendEntry, Paint, Picture, Raster};

/// Most cells along an axis of an SVG, and most for which each says something under the pointer.
const MOST_IN_SVG: usize = 256;
const MOST_WITH_TIPS: usize = 64;

/// Which key moves which query, and which was promised to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Influence {
    /// Row of the batch; `None` if the promise is the same for all rows.
    pub row: Option<usize>,
    /// Number of queries and of keys.
    pub length: usize,
    /// `[query, key]`, row-major: the key may move the query.
    pub promised: Vec<bool>,
    /// `[query, key]`, row-major: it did.
    pub moved: Vec<bool>,
}

/// What is to be said of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CellState {
    Quiet,
    Seen,
    Missing,
    Leak,
}

impl CellState {
    const ALL: [Self; 4] = [Self::Quiet, Self::Seen, Self::Missing, Self::Leak];

    fn of(promised: bool, moved: bool) -> Self {
        match (promised, moved) {
            (false, false) => Self::Quiet,
            (true, true) => Self::Seen,
            (true, false) => Self::Missing,
            (false, true) => Self::Leak,
        }
    }

    fn symbol(self) -> char {
        match self {
            Self::Quiet => '·',
            Self::Seen => '█',
            Self::Missing => '○',
            Self::Leak => '!',
        }
    }

    fn paint(self) -> Paint {
        match self {
            Self::Quiet => Paint::EMPTY,
            Self::Seen => Paint::VISIBLE,
            Self::Missing => Paint { colour: "#e8b84a", opacity: 1.0 },
            Self::Leak => Paint { colour: "#d0312d", opacity: 1.0 },
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Quiet => "hidden, and does not move",
            Self::Seen => "promised, and moves",
            Self::Missing => "promised, but was not seen to move",
            Self::Leak => "hidden, but moves: a leak",
        }
    }
}

impl Influence {
    pub(super) fn new(row: Option<usize>, promised: &BitMatrix, moved: &BitMatrix) -> Self {
        let length = promised.length();
        let list = |flags: &BitMatrix| {
            (0..length * length).map(|cell| flags.get(cell / length, cell % length)).collect()
        };
        Self { row, length, promised: list(promised), moved: list(moved) }
    }

    fn state(&self, query: usize, key: usize) -> CellState {
        let cell = query * self.length + key;
        CellState::of(self.promised[cell], self.moved[cell])
    }

    /// What the promise alone says of a cell.
    fn promise(&self, query: usize, key: usize) -> CellState {
        let promised = self.promised[query * self.length + key];
        CellState::of(promised, promised)
    }

    /// The worst state of a square block of cells.
    fn worst(&self, query: usize, key: usize, side: usize) -> CellState {
        let upto = |start: usize| start..(start + side).min(self.length);
        let cells = upto(query).flat_map(|query| upto(key).map(move |key| (query, key)));
        cells.map(|(query, key)| self.state(query, key)).max().unwrap_or(CellState::Quiet)
    }

    /// The promised mask and the influence seen, side by side, as an SVG file. Short sequences say
    /// of each cell under the pointer what was seen there; long ones are drawn in blocks of cells,
    /// each as its worst cell.
    pub fn to_svg(&self) -> String {
        let labels = |step| (0..self.length).step_by(step).map(|i| i.to_string()).collect();
        let panel = |caption: &str, raster: Raster, tips| Heatmap {
            caption: caption.into(),
            query_labels: labels(raster.query_step),
            key_labels: labels(raster.key_step),
            raster,
            ground: None,
            tips,
        };
        let promised = Raster::of_blocks(self.length, MOST_IN_SVG, |query, key, _| {
            self.promise(query, key).paint()
        });
        let seen = Raster::of_blocks(self.length, MOST_IN_SVG, |query, key, side| {
            self.worst(query, key, side).paint()
        });
        let cells = 0..self.length * self.length;
        let tip = |cell: usize| {
            let (query, key) = (cell / self.length, cell % self.length);
            format!("query {query}, key {key}: {}", self.state(query, key).words())
        };
        let tips =
            if self.length <= MOST_WITH_TIPS { cells.map(tip).collect() } else { Vec::new() };
        let legend = CellState::ALL.into_iter().map(|state| LegendEntry {
            paint: state.paint(),
            sign: "",
            words: state.words(),
        });
        Picture {
            title: self
                .row
                .map_or_else(|| "influence".into(), |row| format!("influence, batch row {row}")),
            legend: legend.collect(),
            panels: vec![panel("promised", promised, Vec::new()), panel("seen", seen, tips)],
            across: 2,
            note: String::new(),
        }
        .to_svg()
    }
}

/// The promised mask and the influence seen, side by side; a long sequence is shown in blocks, each
/// as its worst cell.
impl fmt::Display for Influence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDEST: usize = 48;
        let block = self.length.div_ceil(WIDEST).max(1);
        let starts = || (0..self.length).step_by(block);
        let width = starts().count().max("promised".len());
        if let Some(row) = self.row {
            writeln!(f, "  row {row} of the batch")?;
        }
        if block > 1 {
            writeln!(f, "  one sign for {block} x {block} cells")?;
        }
        writeln!(f, "  {:<width$}   seen (rows: queries, columns: keys)", "promised")?;
        for query in starts() {
            let promised: String = starts().map(|key| self.promise(query, key).symbol()).collect();
            let seen: String = starts().map(|key| self.worst(query, key, block).symbol()).collect();
            writeln!(f, "  {promised:<width$}   {seen}")?;
        }
        let present = |state: &CellState| {
            let cells = 0..self.length * self.length;
            let mut states = cells.map(|cell| CellState::of(self.promised[cell], self.moved[cell]));
            states.any(|other| other == *state)
        };
        for state in CellState::ALL.into_iter().filter(present) {
            writeln!(f, "  {} {}", state.symbol(), state.words())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Look-ahead, and one leak.
    fn influence(length: usize, leak: (usize, usize)) -> Influence {
        let cells = (0..length * length).map(|cell| (cell / length, cell % length));
        let promised: Vec<bool> = cells.clone().map(|(query, key)| key <= query).collect();
        let moved = cells.map(|cell| cell.1 <= cell.0 || cell == leak).collect();
        Influence { row: Some(2), length, promised, moved }
    }

    #[test]
    fn short_sequences_say_what_every_cell_is() {
        let svg = influence(5, (1, 3)).to_svg();
        assert!(svg.contains("influence, batch row 2"));
        assert_eq!(svg.matches("</title></rect>").count(), 25);
        assert_eq!(svg.matches("query 1, key 3: hidden, but moves: a leak").count(), 1);
        assert_eq!(svg.matches(": promised, and moves").count(), 15);
        // The cell, and the legend.
        assert_eq!(svg.matches("fill=\"#d0312d\"").count(), 2);
    }

    /// One leaking cell is seen in the block that stands for it.
    #[test]
    fn long_sequences_are_drawn_in_blocks() {
        let svg = influence(700, (100, 501)).to_svg();
        assert!(svg.contains("each drawn cell is 3 queries x 3 keys"));
        assert!(!svg.contains("query 100"));
        assert_eq!(svg.matches("fill=\"#d0312d\"").count(), 2);
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
    }

    #[test]
    fn nothing_to_draw() {
        let svg = influence(0, (0, 0)).to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
