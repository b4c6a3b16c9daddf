//! Generated traces: the shapes that a scaling policy meets. Each is drawn from a seed, so it can be repeated anywhere.
//!
//! Jobs take 1.5 s of a worker on average, exponentially distributed: about what they take on the Azure trace, when
//! its service rate is set for four workers. Work is in worker-seconds. Jobs that generate text take as much on
//! average, and as their tokens say: [`with_tokens`].

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::trace::{Arrival, JobTokens};

/// Mean of a job's work, in worker-seconds.
const WORK_S_MEAN: f64 = 1.5;
const HOUR_S: f64 = 3_600.0;

/// The medians of prompts and outputs of a conversation (Patel et al., "Splitwise", ISCA 2024, section III), and how
/// wide they spread, as the deviation of their logarithms: the longest twentieth of the outputs has seven times the
/// median.
const CONVERSATION: Lengths = Lengths { prompt: (1_020.0, 0.8), output: (129.0, 1.2) };
/// Answers of a word or two.
const LABELS: Lengths = Lengths { prompt: (300.0, 0.5), output: (6.0, 0.7) };
/// Answers of some pages.
const REPORTS: Lengths = Lengths { prompt: (300.0, 0.5), output: (800.0, 0.7) };
/// The most tokens of an output.
const OUTPUT_MAX: f64 = 4_096.0;
/// The work of labels and reports that a worker does in a second: 200 tokens of output.
const SHIFTS_WORK_PER_S: f64 = 2_000.0;
/// How long each kind comes.
const SHIFT_S: f64 = 1_800.0;

/// Prompts and outputs by their medians and the deviations of their logarithms.
struct Lengths {
    prompt: (f64, f64),
    output: (f64, f64),
}

impl Lengths {
    fn draw(&self, random: &mut StdRng) -> JobTokens {
        let mut tokens = |(median, deviation): (f64, f64)| {
            (median * (deviation * normal(random)).exp()).clamp(1.0, OUTPUT_MAX) as u32
        };
        JobTokens { prompt: tokens(self.prompt), output: tokens(self.output), output_max: None }
    }
}

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
    /// Four hours of two workers' load: half an hour of many jobs with short outputs, half an hour of few with long
    /// ones, and so on.
    Shifts,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Square, Self::Sparse, Self::Diurnal, Self::Flash, Self::Shifts];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Sparse => "sparse",
            Self::Diurnal => "diurnal",
            Self::Flash => "flash",
            Self::Shifts => "shifts",
        }
    }

    /// The shape of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Its length, silence at the end included.
    pub fn length_s(self) -> f64 {
        match self {
            Self::Square | Self::Shifts => 4.0 * HOUR_S,
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
            Self::Shifts => shifts(self.length_s(), &mut random),
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
            let work = exponential(WORK_S_MEAN, random);
            arrivals.push(Arrival { at_s, work, tokens: None });
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
                tokens: None,
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

/// Jobs of either kind come as often as it takes to keep two workers busy.
fn shifts(length_s: f64, random: &mut StdRng) -> Vec<Arrival> {
    let mean = |(median, deviation): (f64, f64)| median * (deviation * deviation / 2.0_f64).exp();
    let mut arrivals = Vec::new();
    let mut at_s = 0.0;
    loop {
        let kind = if at_s % (2.0 * SHIFT_S) < SHIFT_S { &LABELS } else { &REPORTS };
        let work = JobTokens::work(mean(kind.prompt) as u64, mean(kind.output) as u64);
        at_s += exponential(work / SHIFTS_WORK_PER_S / 2.0, random);
        if at_s >= length_s {
            return arrivals;
        }
        let tokens = kind.draw(random);
        let work = JobTokens::work(tokens.prompt.into(), tokens.output.into());
        arrivals.push(Arrival { at_s, work: work / SHIFTS_WORK_PER_S, tokens: Some(tokens) });
    }
}

/// The jobs with the prompts and outputs of a conversation, where they have none. Their work together stays as it is.
pub fn with_tokens(mut arrivals: Vec<Arrival>, seed: u64) -> Vec<Arrival> {
    // Other draws than those of the arrivals.
    let mut random = StdRng::seed_from_u64(seed ^ 0x746f_6b65_6e73);
    let before: f64 = arrivals.iter().map(|arrival| arrival.work).sum();
    for arrival in arrivals.iter_mut().filter(|arrival| arrival.tokens.is_none()) {
        let tokens = CONVERSATION.draw(&mut random);
        arrival.tokens = Some(tokens);
        arrival.work = JobTokens::work(tokens.prompt.into(), tokens.output.into());
    }
    let after: f64 = arrivals.iter().map(|arrival| arrival.work).sum();
    if after > 0.0 {
        for arrival in &mut arrivals {
            arrival.work *= before / after;
        }
    }
    arrivals
}

/// Normally distributed around 0 with a deviation of 1 (Box and Muller).
fn normal(random: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
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
        for (shape, workers) in Shape::ALL.into_iter().zip([4.0, 0.1, 4.0, 2.8, 2.0]) {
            let jobs = shape.draw(1);
            assert!(jobs.is_sorted_by(|a, b| a.at_s <= b.at_s), "{}", shape.name());
            let mean = jobs.iter().map(|job| job.work).sum::<f64>() / shape.length_s();
            assert!((workers * 0.6..workers * 1.5).contains(&mean), "{}: {mean}", shape.name());
        }
    }

    #[test]
    fn tokens_are_drawn_with_a_long_tail_and_the_work_stays() {
        let before = Shape::Square.draw(1);
        let after = with_tokens(before.clone(), 1);
        assert_eq!(after, with_tokens(before.clone(), 1));
        let work = |jobs: &[Arrival]| jobs.iter().map(|job| job.work).sum::<f64>();
        assert!((work(&after) / work(&before) - 1.0).abs() < 1e-9);
        let mut outputs: Vec<u32> =
            after.iter().filter_map(|job| Some(job.tokens?.output)).collect();
        outputs.sort_unstable();
        assert_eq!(outputs.len(), before.len());
        let at = |share: f64| f64::from(outputs[(outputs.len() as f64 * share) as usize]);
        assert!((115.0..145.0).contains(&at(0.5)), "{}", at(0.5));
        assert!(at(0.95) > 5.0 * at(0.5), "{}", at(0.95));
        let shifts = Shape::Shifts.draw(1);
        assert_eq!(with_tokens(shifts.clone(), 1), shifts, "they have tokens already");
    }

    #[test]
    fn names_lead_to_their_shapes() {
        assert!(Shape::ALL.iter().all(|shape| Shape::named(shape.name()) == Some(*shape)));
        assert_eq!(Shape::named("triangle"), None);
    }
}
