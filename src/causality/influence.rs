//! The influence matrix: who moves whom, drawn beside what was promised.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use super::receptive_field::BitMatrix;

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

    fn colour(self) -> &'static str {
        match self {
            Self::Quiet => "#eeeeee",
            Self::Seen => "#3b6ea5",
            Self::Missing => "#e8b84a",
            Self::Leak => "#d0312d",
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

    /// The worst state of a square block of cells.
    fn worst(&self, query: usize, key: usize, side: usize) -> CellState {
        let upto = |start: usize| start..(start + side).min(self.length);
        let cells = upto(query).flat_map(|query| upto(key).map(move |key| (query, key)));
        cells.map(|(query, key)| self.state(query, key)).max().unwrap_or(CellState::Quiet)
    }

    /// The promised mask and the influence seen, side by side, as an SVG picture.
    pub fn to_svg(&self) -> String {
        let cell = (480 / self.length.max(1)).clamp(2, 24);
        let side = cell * self.length;
        let (width, height) = (2 * side + 60, side + 130);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        let titles = [(20, "promised"), (40 + side, "seen")];
        for (left, title) in titles {
            svg += &format!("<text x=\"{left}\" y=\"22\">{title} (rows: queries)</text>\n");
        }
        for query in 0..self.length {
            for key in 0..self.length {
                let promised = match self.promised[query * self.length + key] {
                    true => CellState::Seen,
                    false => CellState::Quiet,
                };
                for ((left, _), state) in titles.iter().zip([promised, self.state(query, key)]) {
                    let (x, y) = (left + key * cell, 30 + query * cell);
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{x}\" y=\"{y}\" width=\"{cell}\" height=\"{cell}\" fill=\"{}\" \
                         stroke=\"white\" stroke-width=\"0.5\"><title>query {query}, key {key}: \
                         {}</title></rect>",
                        state.colour(),
                        state.words(),
                    );
                }
            }
        }
        for (line, state) in CellState::ALL.into_iter().enumerate() {
            let y = 46 + side + 20 * line;
            let _ = writeln!(
                svg,
                "<rect x=\"20\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\"/>\
                 <text x=\"38\" y=\"{}\">{}</text>",
                state.colour(),
                y + 11,
                state.words(),
            );
        }
        svg + "</svg>\n"
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
            let promised: String = starts()
                .map(|key| match self.promised[query * self.length + key] {
                    true => CellState::Seen.symbol(),
                    false => CellState::Quiet.symbol(),
                })
                .collect();
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
