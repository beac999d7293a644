//! The page: what was found, for a browser, in one file that needs no other.

use std::fmt::Write;

use burn_decoder::causality::{Report, Verdict};

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
.verdict { padding: .6em 1em; border-left: .4em solid; font-size: 1.2em; }
.causal { border-color: #2e7d32; background: #eef7ee; }
.leak { border-color: #d0312d; background: #fdeeee; }
.not-proven { border-color: #e8b84a; background: #fdf6e3; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 12px; line-height: 1.2; }
svg { max-width: 100%; height: auto; }
";

/// The page of the checks of the model called `name`, from its tokens and from its embeddings.
pub fn page(name: &str, tokens: &Report, embeddings: &Report) -> String {
    let name = escaped(name);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{name}: who sees whom</title>\n\
         <style>{STYLE}</style>\n<h1>{name}</h1>\n<p>Does the model see the future? A model that does \
         looks good in training, where it finds the answer in its input, and fails when it generates.\
         </p>\n"
    );
    for (title, report) in [
        ("From tokens to logits", tokens),
        ("From embeddings to logits, by gradients too", embeddings),
    ] {
        // Writing to a string can't fail.
        let _ = write!(html, "<h2>{title}</h2>\n{}", section(report));
    }
    html.push_str("</html>\n");
    html
}

fn section(report: &Report) -> String {
    let (class, verdict) = match report.verdict() {
        Verdict::Causal => {
            ("causal", "Causal: nothing moved an output that must not see it.".into())
        }
        Verdict::NotProven(why) => ("not-proven", format!("Not proven: {why}.")),
        Verdict::Leak => ("leak", "A leak: information flows where the mask hides it.".into()),
    };
    let mut html = format!("<p class=\"verdict {class}\">{}</p>\n", escaped(&verdict));
    if let Some(leak) = report.first_leak() {
        let _ = write!(
            html,
            "<p>First: {}.</p>\n<p><b>Where to look:</b> {}</p>\n",
            escaped(&leak.to_string()),
            escaped(leak.diagnosis.advice())
        );
    }
    let _ = write!(
        html,
        "<p>{} rows of {} positions, {} forward passes. Promise: {}.</p>\n\
         <table><tr><th>path<th>leaks<th>equal runs differ by<th>moves that do not count</tr>\n",
        report.batch,
        report.length,
        report.passes,
        escaped(&report.promise.to_string())
    );
    let size = |size: f32, zero: &str, before: &str| match size {
        0.0 => zero.to_string(),
        size => format!("{before}{size:.1e}"),
    };
    for path in &report.paths {
        let _ = writeln!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{}</tr>",
            escaped(&path.path.to_string()),
            path.leaks.len(),
            size(path.noise, "nothing", ""),
            size(path.tolerance, "none", "up to ")
        );
    }
    html.push_str("</table>\n");
    for influence in report.paths.iter().take(1).flat_map(|path| &path.influence) {
        html.push_str(&influence.to_svg());
    }
    let _ = writeln!(
        html,
        "<details><summary>All that was measured</summary><pre>{}</pre></details>",
        escaped(&report.to_string())
    );
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
