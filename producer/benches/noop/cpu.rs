//! Local: CPU time of the processes of a run.
use std::fs;

pub(crate) struct Cpu(Vec<(String, f64)>);

fn ticks(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<&str> = rest.split(' ').collect();
    if fields.len() < 13 {
        return 0.0;
    }
    (fields[11].parse::<f64>().unwrap_or(0.0) + fields[12].parse::<f64>().unwrap_or(0.0)) * 10_000.0
}

pub(crate) fn now(worker: Option<u32>) -> Cpu {
    let mut all = vec![("client".to_owned(), ticks("self"))];
    for name in ["RABBIT_PID", "REDIS_PID"] {
        if let Ok(pid) = std::env::var(name) {
            all.push((name.to_owned(), ticks(&pid)));
        }
    }
    if let Some(pid) = worker {
        all.push(("worker".to_owned(), ticks(&pid.to_string())));
    }
    Cpu(all)
}

pub(crate) fn report(what: &str, before: &Cpu, after: &Cpu, jobs: usize, took_s: f64) {
    let mut line = format!("cpu {what:<6} {:>6.1} us wall", took_s * 1e6 / jobs as f64);
    let mut sum = 0.0;
    for ((name, a), (_, b)) in before.0.iter().zip(&after.0) {
        let us = (b - a) / jobs as f64;
        sum += us;
        line.push_str(&format!("  {name} {us:.1}"));
    }
    eprintln!("{line}  sum {sum:.1}");
}
