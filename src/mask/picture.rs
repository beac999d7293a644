//! Panels of shaded cells, queries down and keys across: what masks are drawn as. In the terminal
//! here, as SVG in [`super::svg`].

use std::fmt::{self, Formatter, Write};

/// Panels under one title and legend.
pub(crate) struct Picture {
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
    /// A line below; may be empty.
    pub(crate) note: String,
}

/// One matrix.
pub(crate) struct Panel {
    /// A line above; may be empty.
    pub(crate) caption: String,
    /// One for each row of the raster.
    pub(crate) query_labels: Vec<String>,
    /// One for each column of the raster.
    pub(crate) key_labels: Vec<String>,
    pub(crate) raster: Raster,
}

/// Shades from 0 (hidden) to 1 (visible), `[rows, columns]`, each the mean of a block of cells.
pub(crate) struct Raster {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) shades: Vec<f32>,
    /// Queries in a block.
    pub(crate) query_step: usize,
    /// Keys in a block.
    pub(crate) key_step: usize,
}

impl Raster {
    /// At most `most` blocks along an axis. `row` appends the shades of the keys of one query.
    pub(crate) fn from_rows(
        queries: usize,
        keys: usize,
        most: usize,
        mut row: impl FnMut(usize, &mut Vec<f32>),
    ) -> Self {
        let query_step = queries.div_ceil(most).max(1);
        let key_step = keys.div_ceil(most).max(1);
        let (rows, columns) = (queries.div_ceil(query_step), keys.div_ceil(key_step));
        let mut shades = vec![0.0; rows * columns];
        let mut cells = Vec::with_capacity(keys);
        for query in 0..queries {
            cells.clear();
            row(query, &mut cells);
            let queries_in_block = query_step.min(queries - query / query_step * query_step);
            for (column, block) in cells.chunks(key_step).enumerate() {
                shades[query / query_step * columns + column] +=
                    block.iter().sum::<f32>() / (block.len() * queries_in_block) as f32;
            }
        }
        Self { rows, columns, shades, query_step, key_step }
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.shades[row * self.columns..][..self.columns]
    }

    pub(crate) fn in_blocks(&self) -> bool {
        self.query_step > 1 || self.key_step > 1
    }
}

impl Panel {
    /// What a drawn cell stands for, where that is more than one cell.
    pub(crate) fn scale(&self) -> Option<String> {
        let Raster { query_step, key_step, .. } = self.raster;
        self.raster
            .in_blocks()
            .then(|| format!("each drawn cell is {query_step} queries x {key_step} keys"))
    }
}

/// A label fit for one short line: no control characters, and not long.
pub(crate) fn short(label: &str, most: usize) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = label.chars().take(most).map(printable).collect();
    if label.chars().nth(most).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

impl Picture {
    /// Draws with block characters, two columns a cell.
    pub(crate) fn to_terminal(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(f, "{}", self.title)?;
        }
        f.write_str("rows: queries, columns: keys; ██ visible, · hidden")?;
        if self.panels.iter().any(|panel| panel.raster.in_blocks()) {
            f.write_str(", ░░ ▒▒ ▓▓ partly visible")?;
        }
        for panel in &self.panels {
            f.write_str("\n\n")?;
            panel.to_terminal(f)?;
        }
        if !self.note.is_empty() {
            write!(f, "\n\n{}", self.note)?;
        }
        Ok(())
    }
}

impl Panel {
    fn to_terminal(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const LONGEST_LABEL: usize = 10;
        let labels = |labels: &[String]| -> Vec<String> {
            labels.iter().map(|label| short(label, LONGEST_LABEL)).collect()
        };
        let (queries, keys) = (labels(&self.query_labels), labels(&self.key_labels));
        let longest =
            |labels: &[String]| labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
        let margin = longest(&queries);

        let mut lines = Vec::new();
        lines.extend((!self.caption.is_empty()).then(|| self.caption.clone()));
        lines.extend(self.scale());
        // The keys' labels, from top to bottom, each ending at its column.
        let height = longest(&keys);
        for line in 0..height {
            let mut text = " ".repeat(margin + 3);
            for label in &keys {
                let above = height - label.chars().count();
                let letter = line.checked_sub(above).and_then(|nth| label.chars().nth(nth));
                write!(text, "{} ", letter.unwrap_or(' '))?;
            }
            lines.push(text);
        }
        for (row, label) in queries.iter().enumerate() {
            let shades = self.raster.row(row);
            let mut text = format!("  {label:>margin$} ");
            text.extend(shades.iter().map(|&shade| match shade {
                0.0 => "· ",
                1.0.. => "██",
                ..0.34 => "░░",
                ..0.67 => "▒▒",
                _ => "▓▓",
            }));
            if shades.iter().all(|&shade| shade == 0.0) {
                text.push_str("  sees nothing");
            }
            lines.push(text);
        }
        if self.raster.shades.is_empty() {
            lines.push("  (no cells)".into());
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        f.write_str(&lines.join("\n"))
    }
}
