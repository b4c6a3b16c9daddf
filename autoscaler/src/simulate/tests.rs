//! The command as a whole, and what the policies come to on traces.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: SimulateArgs,
}

fn args(line: &str) -> SimulateArgs {
    Command::try_parse_from(["simulate"].into_iter().chain(line.split(' '))).unwrap().args
}

fn figures(line: &str) -> Figures {
    let args = args(line);
    let loaded = load(&args.traces[0], &args).unwrap();
    let policy = args.policy(loaded.jobs_per_s, args.cold_starts_s[0]);
    let workload = workload(&args, &loaded, args.cold_starts_s[0], &policy);
    args.policies[0].run(&workload, 0, None).figures(args.reported_wait_s, args.cost_per_hour)
}

#[test]
fn every_policy_serves_every_job() {
    let jobs = Shape::Square.draw(1).len() as u64;
    for policy in ["forebay", "keda", "sagemaker", "fixed:9", "clairvoyant:5"] {
        let figures = figures(&format!("--trace square --policy {policy}"));
        assert_eq!(figures.jobs, jobs, "{policy}");
        // The work is equal for all policies, and a cold start comes on top.
        let busy_s: f64 = Shape::Square.draw(1).iter().map(|job| job.work).sum();
        assert!(figures.worker_s > busy_s, "{policy}: {}", figures.worker_s);
    }
}

#[test]
fn a_run_can_be_repeated() {
    let again = || serde_json::to_string(&figures("--trace flash --policy forebay:10")).unwrap();
    assert_eq!(again(), again());
}

#[test]
fn generators_serve_every_job_and_a_run_can_be_repeated() {
    let trace = "--trace ../examples/data/traces/azure-llm-2023-code.csv --sequences 32";
    for policy in ["forebay:15", "messages:15", "keda:20", "fixed:5"] {
        let run = || figures(&format!("{trace} --policy {policy}"));
        let once = run();
        assert_eq!(once.jobs, 8_819, "{policy}");
        let [once, again] = [once, run()].map(|run| serde_json::to_string(&run).unwrap());
        assert_eq!(once, again, "{policy}");
    }
}

#[test]
fn forebay_costs_less_and_waits_less_than_its_peers_on_a_square_wave() {
    let forebay = figures("--trace square --policy forebay:15");
    for peer in ["keda:20", "sagemaker:40"] {
        let peer = figures(&format!("--trace square --policy {peer}"));
        assert!(forebay.wait_s_p95 < peer.wait_s_p95, "{forebay:?} {peer:?}");
        assert!(forebay.worker_s < peer.worker_s, "{forebay:?} {peer:?}");
    }
}

#[test]
fn a_wrong_prior_is_forgotten() {
    let right = figures("--trace square --policy forebay:15");
    for prior in ["0.1", "10"] {
        let wrong = figures(&format!("--trace square --policy forebay:15 --prior {prior}"));
        assert!(wrong.wait_s_p95 < 1.5 * right.wait_s_p95, "{prior}: {wrong:?} {right:?}");
        assert!(wrong.worker_s < 1.2 * right.worker_s, "{prior}: {wrong:?} {right:?}");
    }
}

#[test]
fn a_minimum_is_kept_and_a_fixed_size_is_fixed() {
    let fixed = figures("--trace sparse --policy forebay --workers-min 3 --workers-max 3");
    assert!(fixed.worker_s > 3.0 * 86_000.0 && fixed.cold_starts == 3, "{fixed:?}");
}

#[test]
fn options_that_make_no_sense_are_named() {
    for (line, expected) in [
        ("--trace square --cold-start=-1", "--cold-start"),
        ("--trace square --drain 0", "--drain is 0; give"),
        ("--trace square --workers-min 40", "--workers-min"),
        ("--trace square --cold-start NaN", "--cold-start"),
        ("--trace square,flash --plot x.svg", "--plot draws one run"),
        ("--trace no-such-file", "no-such-file"),
        ("--trace square --sequences 0", "--sequences is 0; give"),
        ("--trace square --sequences 8 --policy clairvoyant", "one job at a time"),
        ("--trace square --sequences 8 --sweep --plot x", "--plot draws no sweep"),
    ] {
        let parsed = Command::try_parse_from(["simulate"].into_iter().chain(line.split(' ')));
        let error = match parsed {
            Ok(command) => run(&command.args).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{line}: {error}");
    }
}
