//! A [`Picture`] in the terminal: block characters, two columns a cell.

use std::fmt::{self, Formatter, Write};

use super::heatmap::{Heatmap, Picture, short};

const LONGEST_LABEL: usize = 10;

impl Picture {
    /// Draws the panels one below the other.
    pub(crate) fn to_terminal(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(f, "{}", self.title)?;
        }
        let entries: Vec<String> = self
            .legend
            .iter()
            .filter(|entry| !entry.sign.is_empty())
            .map(|entry| format!("{} {}", entry.sign, entry.words))
            .collect();
        write!(f, "rows: queries, columns: keys; {}", entries.join(", "))?;
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

impl Heatmap {
    fn to_terminal(&self, f: &mut Formatter<'_>) -> fmt::Result {
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
            let paints = self.raster.row(row);
            let mut text = format!("  {label:>margin$} ");
            text.extend(paints.iter().map(|paint| match paint.opacity {
                0.0 => "· ",
                1.0.. => "██",
                ..0.34 => "░░",
                ..0.67 => "▒▒",
                _ => "▓▓",
            }));
            if paints.iter().all(|paint| paint.opacity == 0.0) {
                text.push_str("  sees nothing");
            }
            lines.push(text);
        }
        if self.raster.paints.is_empty() {
            lines.push("  (no cells)".into());
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
        f.write_str(&lines.join("\n"))
    }
}
