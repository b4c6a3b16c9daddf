//! The figures as JSON and as a roofline: how much work each byte gets, against how fast it is done.

use std::fmt::Write;

use crate::limits::Limits;

/// One operation.
pub struct Point {
    pub name: String,
    pub gflops: f64,
    pub gb_s: f64,
    /// Share of what the machine could do with so much work a byte.
    pub share: f64,
    /// Additions and multiplications a byte that has to move.
    intensity: f64,
}

impl Point {
    pub fn new(
        name: String,
        flops: usize,
        bytes: usize,
        seconds: f64,
        peak_gflops: f64,
        memory_gb_s: f64,
    ) -> Self {
        let gflops = flops as f64 / seconds / 1e9;
        let gb_s = bytes as f64 / seconds / 1e9;
        let intensity = flops as f64 / bytes as f64;
        let share = gflops / peak_gflops.min(intensity * memory_gb_s);
        Self { name, gflops, gb_s, share, intensity }
    }
}

pub fn json(limits: &Limits, points: &[Point]) -> String {
    let rows: Vec<String> = points
        .iter()
        .map(|point| {
            format!(
                "{{\"operation\":{:?},\"gflops\":{:.1},\"gb_s\":{:.2},\"of_limit\":{:.3}}}",
                point.name, point.gflops, point.gb_s, point.share
            )
        })
        .collect();
    format!(
        "{{\"f32_gflops\":{:.1},\"bf16_gflops\":{:.1},\"memory_gb_s\":{:.2},\"operations\":[{}]}}",
        limits.f32_gflops,
        limits.bf16_gflops,
        limits.memory_gb_s,
        rows.join(",")
    )
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const MARGIN: f64 = 60.0;
/// The axes: powers of ten of work a byte, and of GFLOP/s.
const X: (f64, f64) = (-1.0, 3.0);
const Y: (f64, f64) = (0.0, 3.0);

fn position(intensity: f64, gflops: f64) -> (f64, f64) {
    let along =
        |value: f64, (low, high): (f64, f64)| (value.log10().clamp(low, high) - low) / (high - low);
    let x = MARGIN + along(intensity, X) * (WIDTH - 2.0 * MARGIN);
    let y = HEIGHT - MARGIN - along(gflops, Y) * (HEIGHT - 2.0 * MARGIN);
    (x, y)
}

pub fn svg(limits: &Limits, points: &[Point]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    grid(&mut svg);
    for (name, peak, colour) in
        [("f32", limits.f32_gflops, "#1f77b4"), ("bf16", limits.bf16_gflops, "#d62728")]
    {
        if peak > 0.0 {
            roof(&mut svg, name, peak, limits.memory_gb_s, colour);
        }
    }
    for point in points {
        let (x, y) = position(point.intensity, point.gflops);
        let colour = if point.name.ends_with("BF16") { "#d62728" } else { "#1f77b4" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{}: {:.0} GFLOP/s, {:.0} % of its \
             limit</title></circle>",
            point.name,
            point.gflops,
            100.0 * point.share
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String) {
    for power in X.0 as i32..=X.1 as i32 {
        let (x, bottom) = position(10_f64.powi(power), 1.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{MARGIN}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            10_f64.powi(power)
        );
    }
    for power in Y.0 as i32..=Y.1 as i32 {
        let (left, y) = position(0.1, 10_f64.powi(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - MARGIN,
            left - 8.0,
            y + 4.0,
            10_f64.powi(power)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">FLOP a byte that has to move</text>\
         <text x=\"{MARGIN}\" y=\"{:.1}\">GFLOP/s on one thread</text>",
        WIDTH / 2.0,
        HEIGHT - 16.0,
        MARGIN - 16.0
    );
}

/// Memory's slope up to the peak, then the peak.
fn roof(svg: &mut String, name: &str, peak: f64, memory_gb_s: f64, colour: &str) {
    let low = 10_f64.powf(X.0).max(10_f64.powf(Y.0) / memory_gb_s);
    let corner = peak / memory_gb_s;
    let points = [(low, low * memory_gb_s), (corner, peak), (10_f64.powf(X.1), peak)];
    let line: Vec<String> = points
        .iter()
        .map(|&(intensity, gflops)| {
            let (x, y) = position(intensity, gflops);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let (x, y) = position(10_f64.powf(X.1), peak);
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{name}: {peak:.0} GFLOP/s</text>",
        line.join(" "),
        x - 6.0,
        y - 6.0
    );
}
