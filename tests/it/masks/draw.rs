//! Drawings, in the terminal and as SVG.

use burn::tensor::{Bool, Tensor};
use burn_decoder::mask::{Grid, Mask};

use super::host;

fn lines(text: &[&str]) -> String {
    text.join("\n")
}

#[test]
fn in_the_terminal() {
    let mask = Mask::look_ahead() & Mask::lengths([3, 2]);
    let drawing = mask.draw(&Grid::square(2, 3)).unwrap();
    let expected = lines(&[
        "look_ahead & lengths([3, 2])",
        "rows: queries, columns: keys; ██ visible, · hidden",
        "",
        "batch row 0",
        "    0 1 2",
        "  0 ██· ·",
        "  1 ████· ",
        "  2 ██████",
        "",
        "batch row 1",
        "    0 1 2",
        "  0 ██· ·",
        "  1 ████·",
        "  2 ████·",
    ]);
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(drawing.to_string(), trimmed(&expected));

    let one_row = drawing.with_panel(1, 0).to_string();
    assert!(one_row.contains("batch row 1") && !one_row.contains("batch row 0"));
}

#[test]
fn labels_positions_and_dead_rows() {
    let lowered = Mask::look_ahead().lower(&Grid::with_offset(1, 3, 2, -1)).unwrap();
    let drawing = lowered.draw().with_key_labels(["a\tb", "twelve letters"]);
    let expected = lines(&[
        "rows: queries, columns: keys; ██ visible, · hidden",
        "",
        "       t",
        "       w",
        "       e",
        "       l",
        "       v",
        "       e",
        "        ",
        "     a l",
        "     \u{fffd} e",
        "     b …",
        "  -1 · ·   sees nothing",
        "   0 ██·",
        "   1 ████",
    ]);
    let expected: Vec<&str> = expected.lines().map(str::trim_end).collect();
    assert_eq!(drawing.to_string(), expected.join("\n"));
    // Without a builder: positions.
    assert!(lowered.to_string().contains("     0 1\n"));
}

/// Every leaf by position, six queries on six keys, one line each.
#[test]
#[rustfmt::skip]
fn every_leaf_has_its_picture() {
    for (mask, picture) in [
        (Mask::all_visible(), "██████ ██████ ██████ ██████ ██████ ██████"),
        (Mask::look_ahead(), "█····· ██···· ███··· ████·· █████· ██████"),
        (Mask::window_keys(3).unwrap(), "█····· ██···· ███··· ·███·· ··███· ···███"),
        (Mask::look_back(1), "█····· ██···· ·██··· ··██·· ···██· ····██"),
        (Mask::look_around(1, 2), "███··· ████·· ·████· ··████ ···███ ····██"),
        (Mask::dilated_window(5, 2).unwrap(), "█····· ·█···· █·█··· ·█·█·· █·█·█· ·█·█·█"),
        (Mask::prefix(2), "██···· ██···· ██···· ██···· ██···· ██····"),
        (Mask::sinks(1), "█····· █····· █····· █····· █····· █·····"),
        (Mask::chunks(4).unwrap(), "████·· ████·· ████·· ████·· ····██ ····██"),
    ] {
        let drawing = mask.draw(&Grid::square(1, 6)).unwrap();
        let text = drawing.to_string();
        let rows = text.lines().skip(4).map(|line| line[4..].replace("██", "█").replace(' ', ""));
        assert_eq!(rows.collect::<Vec<_>>().join(" "), picture, "{text}");
        well_formed(&drawing.to_svg());
    }
}

#[test]
fn long_axes_are_drawn_in_blocks() {
    let mask = Mask::look_ahead() & Mask::lengths(vec![100; 9]);
    let drawing = mask.draw(&Grid::square(9, 100)).unwrap().to_string();
    assert!(drawing.contains("each drawn cell is 4 queries x 4 keys"), "{drawing}");
    assert!(drawing.contains("partly visible"), "{drawing}");
    assert!(drawing.lines().all(|line| line.chars().count() < 80), "{drawing}");
    // Lengths as long as the keys hide nothing, but nobody compared the rows of the batch.
    assert!(drawing.contains("5 more panels left out"), "{drawing}");

    let lines: Vec<&str> = drawing.lines().filter(|line| line.starts_with("  ")).collect();
    let first = lines.iter().find(|line| line.contains(" 0 ▒")).unwrap();
    assert!(first.contains("0 ▒▒· "), "10 of the 16 cells on the diagonal: {first}");
    assert!(lines.iter().any(|line| line.ends_with("██▒▒")), "{drawing}");
}

/// 33 queries in blocks of 2: the last block has one.
#[test]
fn the_last_block_may_be_smaller() {
    let drawing = Mask::all_visible().draw(&Grid::top_left(1, 33, 33)).unwrap().to_string();
    let rows: Vec<&str> = drawing.lines().filter(|line| line.contains('█')).skip(1).collect();
    assert_eq!(rows.len(), 17);
    assert!(rows.iter().all(|row| row.matches('█').count() == 2 * 17), "{drawing}");
}

#[test]
fn nothing_to_draw() {
    let drawing = Mask::look_ahead().draw(&Grid::top_left(2, 0, 3)).unwrap();
    assert!(drawing.to_string().contains("(no cells)"));
    well_formed(&drawing.to_svg());
    let dead = Mask::look_ahead().draw(&Grid::top_left(2, 2, 0)).unwrap();
    assert!(dead.to_string().contains("sees nothing"));
    well_formed(&dead.to_svg());
}

#[test]
fn as_svg() {
    let hidden = Tensor::<4, Bool>::from_data(
        [[[[true, false], [false, false]], [[false, false], [true, true]]]],
        &host(),
    );
    let mask = Mask::from_hidden(&hidden).unwrap();
    let drawing = mask.draw(&Grid::square(1, 2)).unwrap().with_labels(["<&>", "\"\u{1}'"]);
    let svg = drawing.to_svg();
    well_formed(&svg);
    for text in
        ["head 0", "head 1", ">visible<", ">hidden<", "&lt;&amp;&gt;", "&quot;\u{fffd}&apos;"]
    {
        assert!(svg.contains(text), "{text} is not in {svg}");
    }
    // Three runs of visible cells and the swatch of the legend.
    assert_eq!(svg.matches("#1f5f99").count(), 3 + 1);

    let large = Mask::look_ahead().draw(&Grid::square(1, 2000)).unwrap().to_svg();
    well_formed(&large);
    assert!(large.contains("each drawn cell is 8 queries x 8 keys"));
    assert!(large.len() < 200_000, "{} bytes", large.len());
}

/// Weights over their mask: shaded, and white where the mask leaves them free.
#[test]
fn weights_over_a_mask() {
    let weights =
        Tensor::<4>::from_data([[[[1.0, 0.0], [0.5, 0.5]], [[0.25, 0.75], [0.0, 1.0]]]], &host());
    let mask = Mask::look_ahead().lower(&Grid::square(1, 2)).unwrap();
    let drawing = mask.draw().with_labels(["a", "b"]).with_attention_weights(&weights);
    let text = drawing.to_string();
    for line in ["head 0", "    a b", "  a ██·", "  b ▒▒▒▒", "head 1", "  a ░░▓▓", "  b · ██"]
    {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
    let svg = drawing.to_svg();
    well_formed(&svg);
    assert_eq!(svg.matches("fill=\"#1f5f99\" fill-opacity=\"0.25\"").count(), 1, "{svg}");
    // The page, the legend, and in each panel a run of one cell and a run of two.
    assert_eq!(svg.matches("fill=\"#ffffff\"").count(), 2 + 2 * 2, "{svg}");
    let one = drawing.with_panel(0, 1).to_string();
    assert!(!one.contains("a ██") && one.contains("a ░░▓▓"), "{one}");
}

#[test]
#[should_panic(
    expected = "weights: expected [batch 1, heads, queries 2, keys 2], got [1, 1, 2, 3]"
)]
fn weights_of_another_shape_are_refused() {
    let mask = Mask::look_ahead().lower(&Grid::square(1, 2)).unwrap();
    let _ = mask.draw().with_attention_weights(&Tensor::zeros([1, 1, 2, 3], &host()));
}

/// Labels keep their distance, however small the cells: no two share a line.
#[test]
fn labels_do_not_run_into_each_other() {
    for length in [5, 40, 100, 300] {
        let labels = (0..length).map(|index| format!("{}", 1000 + index));
        let drawing =
            Mask::look_ahead().draw(&Grid::square(1, length)).unwrap().with_labels(labels);
        let svg = drawing.to_svg();
        let of_queries: Vec<f32> = svg
            .lines()
            .filter(|line| line.contains("text-anchor=\"end\""))
            .map(|line| line.split("y=\"").nth(1).unwrap().split('"').next().unwrap())
            .map(|y| y.parse().unwrap())
            .collect();
        let of_keys: Vec<f32> = svg
            .split("translate(")
            .skip(1)
            .map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
            .collect();
        for places in [of_queries, of_keys] {
            assert!(places.len() > 4);
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 11.0), "{places:?}");
        }
    }
}

/// Every tag is closed, in order, and no text holds a character that XML forbids.
fn well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "stray > in {:?}", &rest[..start]);
        let end = start + rest[start..].find('>').expect("every < has its >");
        let tag = &rest[start + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
}
