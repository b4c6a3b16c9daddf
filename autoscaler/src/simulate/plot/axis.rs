//! Axes, and the frame that they stand at.

use std::fmt::Write;

use super::svg::{INK, text};

/// From values to a share of the axis.
pub(super) struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
    /// The divisor of the values, for units of time.
    pub scale: f64,
}

impl Axis {
    /// From zero to at least `most`, with round ticks.
    pub(super) fn linear(most: f64) -> Self {
        let rough = most / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough).max(1.0);
        let count = (most / step).ceil();
        let ticks = (0..=count as u32).map(|n| f64::from(n) * step).collect();
        Self { from: 0.0, to: count * step, logarithmic: false, ticks, scale: 1.0 }
    }

    /// Exactly `length_s` long, in seconds, minutes or hours.
    pub(super) fn time(length_s: f64) -> (Self, &'static str) {
        let (scale, unit) = match length_s {
            ..=300.0 => (1.0, "seconds"),
            ..=14_400.0 => (60.0, "minutes"),
            _ => (3_600.0, "hours"),
        };
        let mut axis = Self::linear(length_s / scale);
        axis.to = length_s / scale;
        axis.ticks.retain(|tick| *tick <= length_s / scale);
        axis.scale = scale;
        (axis, unit)
    }

    /// Between two positive numbers, with ticks at 1, 2 and 5.
    pub(super) fn logarithmic(from: f64, to: f64) -> Self {
        let decades = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
        let ticks =
            decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
        let ticks = ticks.filter(|tick| (from..=to).contains(tick)).collect();
        Self { from, to, logarithmic: true, ticks, scale: 1.0 }
    }

    fn share(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }
}

/// The position and size of a plot in the picture.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Frame {
    pub(super) fn x_of(&self, axis: &Axis, value: f64) -> f64 {
        self.x + self.width * axis.share(value)
    }

    pub(super) fn y_of(&self, axis: &Axis, value: f64) -> f64 {
        self.y + self.height * (1.0 - axis.share(value))
    }

    /// Grid, ticks and names.
    pub(super) fn draw(&self, svg: &mut String, x: &Axis, y: &Axis, x_name: &str, y_name: &str) {
        let right = self.x + self.width;
        let bottom = self.y + self.height;
        for tick in &y.ticks {
            let at = self.y_of(y, *tick);
            line(svg, (self.x, at), (right, at), "#ddd");
            text(svg, self.x - 6.0, at + 4.0, "end", &tick.to_string());
        }
        for tick in &x.ticks {
            let at = self.x_of(x, *tick);
            line(svg, (at, bottom), (at, bottom + 4.0), INK);
            text(svg, at, bottom + 18.0, "middle", &tick.to_string());
        }
        line(svg, (self.x, bottom), (right, bottom), INK);
        line(svg, (self.x, self.y), (self.x, bottom), INK);
        text(svg, self.x + self.width / 2.0, bottom + 36.0, "middle", x_name);
        text(svg, self.x - 10.0, self.y - 10.0, "start", y_name);
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}
