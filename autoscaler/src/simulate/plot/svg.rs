//! The parts that every plot is made of.

use std::fmt::Write;

/// The colour of text and axes.
pub(super) const INK: &str = "#333";

/// Writes text at a position; `anchor` is SVG's `text-anchor`.
pub(super) fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    // Writing to a string does not fail.
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}
