//! Generated traces: the shapes that a scaling policy meets. Each is drawn from a seed, so it can be repeated anywhere.
//!
//! Jobs take 1.5 s of a worker on average, exponentially distributed: about what they take on the Azure trace, when
//! its service rate is set for four workers. Work is in worker-seconds.

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::trace::Arrival;

/// Mean of a job's work, in worker-seconds.
const WORK_S_MEAN: f64 = 1.5;
const HOUR_S: f64 = 3_600.0;

/// The shapes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Four hours: ten minutes that keep eight workers busy, ten minutes of nothing.
    Square,
    /// A day: bursts of 20 to 200 jobs within 20 s, two minutes to two hours apart.
    Sparse,
    /// A day: a sine from nearly nothing to eight workers, with minutes of noise on top.
    Diurnal,
    /// Six hours of two workers' load; four times a crowd comes, twelve times that at once, and goes with a half-life
    /// of two minutes.
    Flash,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Square, Self::Sparse, Self::Diurnal, Self::Flash];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Sparse => "sparse",
            Self::Diurnal => "diurnal",
            Self::Flash => "flash",
        }
    }

    /// The shape of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Its length, silence at the end included.
    pub fn length_s(self) -> f64 {
        match self {
            Self::Square => 4.0 * HOUR_S,
            Self::Sparse | Self::Diurnal => 24.0 * HOUR_S,
            Self::Flash => 6.0 * HOUR_S,
        }
    }

    /// Draws its jobs.
    pub fn draw(self, seed: u64) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(seed);
        match self {
            Self::Square => {
                let load = |at_s: f64| if at_s % 1_200.0 < 600.0 { 8.0 } else { 0.0 };
                thinned(self.length_s(), 8.0, load, &mut random)
            }
            Self::Sparse => sparse(self.length_s(), &mut random),
            Self::Diurnal => diurnal(self.length_s(), &mut random),
            Self::Flash => flash(self.length_s(), &mut random),
        }
    }
}

/// A Poisson process whose load (in workers kept busy) follows `load`, at most `load_max`.
fn thinned(
    length_s: f64,
    load_max: f64,
    load: impl Fn(f64) -> f64,
    random: &mut StdRng,
) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut at_s = 0.0;
    loop {
        at_s += exponential(WORK_S_MEAN / load_max, random);
        if at_s >= length_s {
            return arrivals;
        }
        if random.random::<f64>() * load_max < load(at_s) {
            arrivals.push(Arrival { at_s, work: exponential(WORK_S_MEAN, random) });
        }
    }
}

fn sparse(length_s: f64, random: &mut StdRng) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let mut begins_s = 60.0;
    while begins_s < length_s - 600.0 {
        let jobs = log_uniform(20.0, 200.0, random) as usize;
        let mut burst: Vec<Arrival> = (0..jobs)
            .map(|_| Arrival {
                at_s: begins_s + random.random::<f64>() * 20.0,
                work: exponential(WORK_S_MEAN, random),
            })
            .collect();
        burst.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        arrivals.append(&mut burst);
        begins_s += log_uniform(120.0, 2.0 * HOUR_S, random);
    }
    arrivals
}

fn diurnal(length_s: f64, random: &mut StdRng) -> Vec<Arrival> {
    // Every minute is up to 30 % above or below the sine.
    let minutes = (length_s / 60.0) as usize + 1;
    let noise: Vec<f64> = (0..minutes).map(|_| 0.7 + 0.6 * random.random::<f64>()).collect();
    let load = |at_s: f64| {
        let sine = 4.0 - 3.9 * (std::f64::consts::TAU * at_s / length_s).cos();
        sine * noise[(at_s / 60.0) as usize]
    };
    thinned(length_s, 7.9 * 1.3, load, random)
}

fn flash(length_s: f64, random: &mut StdRng) -> Vec<Arrival> {
    let quarter_s = length_s / 4.0;
    let crowds: Vec<f64> =
        (0..4).map(|n| quarter_s * (f64::from(n) + 0.1 + 0.6 * random.random::<f64>())).collect();
    let load = |at_s: f64| {
        let come = crowds.iter().filter(|begins_s| at_s >= **begins_s);
        2.0 + come.map(|begins_s| 24.0 * (-(at_s - begins_s) / 120.0).exp2()).sum::<f64>()
    };
    thinned(length_s, 30.0, load, random)
}

fn exponential(mean: f64, random: &mut StdRng) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

fn log_uniform(least: f64, most: f64, random: &mut StdRng) -> f64 {
    least * (most / least).powf(random.random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_its_trace_again() {
        for shape in Shape::ALL {
            assert_eq!(shape.draw(7), shape.draw(7), "{}", shape.name());
            assert_ne!(shape.draw(7), shape.draw(8), "{}", shape.name());
        }
    }

    #[test]
    fn shapes_are_sorted_and_need_the_workers_they_promise() {
        for (shape, workers) in Shape::ALL.into_iter().zip([4.0, 0.1, 4.0, 2.8]) {
            let jobs = shape.draw(1);
            assert!(jobs.is_sorted_by(|a, b| a.at_s <= b.at_s), "{}", shape.name());
            let mean = jobs.iter().map(|job| job.work).sum::<f64>() / shape.length_s();
            assert!((workers * 0.6..workers * 1.5).contains(&mean), "{}: {mean}", shape.name());
        }
    }

    #[test]
    fn names_lead_to_their_shapes() {
        assert!(Shape::ALL.iter().all(|shape| Shape::named(shape.name()) == Some(*shape)));
        assert_eq!(Shape::named("triangle"), None);
    }
}
