//! Plots as SVG, small and without a script: a run over time, and frontiers.

mod axis;
mod svg;

use std::fmt::Write;

use axis::{Axis, Frame};
use svg::{INK, text};

use super::{frontier::Point, outcome::Sample, sweep::Sweep};

const WIDTH: f64 = 960.0;
/// Colours that also differ in lightness, so that they can be distinguished without colour (Okabe and Ito).
const FOREBAY: &str = "#0072b2";
const KEDA: &str = "#d55e00";
const SAGEMAKER: &str = "#cc79a7";
const FIXED: &str = "#999";
const CLAIRVOYANT: &str = "#009e73";
const STARTING: &str = "#e69f00";

fn open(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{INK}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

/// Queue depth and workers over time.
pub fn run(title: &str, samples: &[Sample]) -> String {
    let length_s = samples.last().map_or(1.0, |sample| sample.at_us as f64 / 1e6).max(1.0);
    let most = |of: fn(&Sample) -> usize| samples.iter().map(of).max().unwrap_or(0).max(1) as f64;
    let (time, unit) = Axis::time(length_s);
    let queue = Frame { x: 70.0, y: 50.0, width: WIDTH - 100.0, height: 190.0 };
    let workers = Frame { y: 300.0, height: 150.0, ..queue };
    let queue_axis = Axis::linear(most(|sample| sample.waiting));
    let workers_axis = Axis::linear(most(|sample| sample.serving + sample.starting));
    let mut svg = open(500.0);
    text(
        &mut svg,
        70.0,
        24.0,
        "start",
        &format!("<tspan font-size=\"15\">{}</tspan>", escaped(title)),
    );
    queue.draw(&mut svg, &time, &queue_axis, "", "jobs waiting");
    workers.draw(&mut svg, &time, &workers_axis, unit, "workers");
    let at = |sample: &Sample| sample.at_us as f64 / 1e6 / time.scale;
    let waiting = samples.iter().map(|sample| (at(sample), sample.waiting as f64));
    area(&mut svg, &queue, &time, &queue_axis, waiting, KEDA);
    let all = samples.iter().map(|sample| (at(sample), (sample.serving + sample.starting) as f64));
    area(&mut svg, &workers, &time, &workers_axis, all, STARTING);
    let serving = samples.iter().map(|sample| (at(sample), sample.serving as f64));
    area(&mut svg, &workers, &time, &workers_axis, serving, FOREBAY);
    legend(&mut svg, (160.0, 290.0), &[("ready or draining", FOREBAY), ("starting", STARTING)]);
    svg.push_str("</svg>\n");
    svg
}

/// A step line with its area filled; samples in which nothing changes are left out.
fn area(
    svg: &mut String,
    frame: &Frame,
    x: &Axis,
    y: &Axis,
    values: impl Iterator<Item = (f64, f64)>,
    colour: &str,
) {
    let base = frame.y_of(y, 0.0);
    let mut path = format!("M{:.1} {base:.1}", frame.x_of(x, 0.0));
    let mut last = 0.0;
    let mut end = 0.0;
    for (at, value) in values {
        if (value - last).abs() > 1e-9 {
            let _ = write!(path, "H{:.1}V{:.1}", frame.x_of(x, at), frame.y_of(y, value));
            last = value;
        }
        end = at;
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}H{:.1}V{base:.1}Z\" fill=\"{colour}\" fill-opacity=\"0.55\" stroke=\"{colour}\"/>",
        frame.x_of(x, end)
    );
}

/// The frontiers of one trace, a panel for each cold start.
pub fn frontiers(sweeps: &[Sweep]) -> String {
    let panel_width = WIDTH / sweeps.len().max(1) as f64;
    let mut svg = open(420.0);
    let trace = sweeps.first().map_or("", |sweep| sweep.trace.as_str());
    let title = format!(
        "<tspan font-size=\"15\">{}: what each policy reaches over its knob</tspan>",
        escaped(trace)
    );
    text(&mut svg, 60.0, 24.0, "start", &title);
    let policies = [
        ("Forebay", FOREBAY),
        ("KEDA", KEDA),
        ("SageMaker", SAGEMAKER),
        ("fixed size", FIXED),
        ("knows the future", CLAIRVOYANT),
    ];
    legend(&mut svg, (60.0, 404.0), &policies);
    for (n, sweep) in sweeps.iter().enumerate() {
        let x = panel_width * n as f64 + 60.0;
        let frame = Frame { x, y: 60.0, width: panel_width - 80.0, height: 280.0 };
        panel(&mut svg, &frame, sweep);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, frame: &Frame, sweep: &Sweep) {
    let lines: [(&[Point], &str); 5] = [
        (&sweep.fixed.0, FIXED),
        (&sweep.clairvoyant.0, CLAIRVOYANT),
        (&sweep.keda.0, KEDA),
        (&sweep.sagemaker.0, SAGEMAKER),
        (&sweep.forebay, FOREBAY),
    ];
    // Waits of a second to about a thousand, and costs of one to eight times the work: what lies outside is of no use.
    let y = Axis::logarithmic(1.0, 1_000.0);
    let x = Axis::logarithmic(1.0, 8.0);
    frame.draw(svg, &x, &y, "worker-seconds by seconds of work", "p95 wait, s");
    let title = format!("cold start {} s", sweep.cold_start_s);
    text(svg, frame.x + frame.width / 2.0, frame.y - 10.0, "middle", &title);
    for (points, colour) in lines {
        let inside =
            points.iter().map(|point| (point.worker_s / sweep.busy_s, point.wait_s_p95.max(1.0)));
        let inside: Vec<(f64, f64)> =
            inside.filter(|(cost, wait_s)| *cost <= 8.0 && *wait_s <= 1_000.0).collect();
        let position = |(cost, wait_s): &(f64, f64)| {
            format!("{:.1},{:.1}", frame.x_of(&x, *cost), frame.y_of(&y, *wait_s))
        };
        let positions: Vec<String> = inside.iter().map(position).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            positions.join(" ")
        );
        for at in positions {
            let (cx, cy) = at.split_once(',').unwrap_or(("0", "0"));
            let _ = writeln!(svg, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"2.2\" fill=\"{colour}\"/>");
        }
    }
}

fn legend(svg: &mut String, (mut x, y): (f64, f64), entries: &[(&str, &str)]) {
    for (name, colour) in entries {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            y - 10.0
        );
        text(svg, x + 18.0, y, "start", name);
        x += 50.0 + 7.0 * name.len() as f64;
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_drawn_with_its_axes() {
        let sample = |at_s: u64, waiting, serving| Sample {
            at_us: at_s * 1_000_000,
            waiting,
            starting: 1,
            serving,
        };
        let svg = run("a <b>", &[sample(0, 0, 0), sample(600, 40, 2), sample(1_200, 0, 3)]);
        for part in ["<svg", "a &lt;b&gt;", "jobs waiting", "workers", "minutes", "</svg>"] {
            assert!(svg.contains(part), "{part}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn nothing_is_drawn_as_nothing() {
        assert!(!run("empty", &[]).contains("NaN"));
        assert!(!frontiers(&[]).contains("NaN"));
    }
}
