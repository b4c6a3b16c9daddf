//! Statistics over several rounds: one printed row each, and its values as JSON.
#![allow(clippy::print_stdout)] // for commands that print tables

use serde_json::{Value, json};

/// Prints the head of the columns of [`row`].
pub(crate) fn head() {
    println!("{:<52} {:>10} {:>10} {:>10}   of its peer", "", "min", "median", "max");
}

/// Prints one row. Its share of the peer is the median, over the rounds, of the ratio between the two.
pub(crate) fn row(name: &str, figures: &[f64], peer: Option<&[f64]>) -> Value {
    let (min, median, max) = spread(figures);
    let share = peer.map(|peer| share(figures, peer));
    let shown = share.map_or_else(String::new, |share| format!("{:.1} %", share * 100.0));
    println!("{name:<52} {min:>10.0} {median:>10.0} {max:>10.0}   {shown}");
    json!({ "name": name, "min": min, "median": median, "max": max, "of_peer": share })
}

fn share(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    spread(&ratios).1
}

fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}
