//! A policy that knows the future: the limit beside which the others stand.
//!
//! It knows every arrival and every size. Workers are ready at the moment they are needed, each having paid its cold
//! start before; one that will be needed again within a cold start stays, since that is cheaper than another. A job
//! goes to a worker that is there if that costs it no more than the wait aimed at, and to a new one otherwise. It is a
//! good plan, not a proven optimum: one that gave up on the right twentieth of the jobs could have a lower 95th
//! percentile.

use super::{outcome::Outcome, worker::Job};

/// A worker's life: from ready to stop.
struct Life {
    ready_us: u64,
    free_us: u64,
}

/// Plans `jobs` with waits of at most `wait_us` while there are workers left to add.
pub fn plan(jobs: &[Job], cold_start_us: u64, workers_max: u32, wait_us: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut lives: Vec<Life> = Vec::new();
    for job in jobs {
        // What is not needed again within a cold start was stopped when it became free.
        lives.retain(|life| {
            let stays = life.free_us + cold_start_us >= job.at_us;
            if !stays {
                end(life, cold_start_us, &mut outcome);
            }
            stays
        });
        let start = |life: &Life| life.free_us.max(job.at_us);
        // The one that is free the soonest; of several that are free, the one that has idled least.
        let full = lives.len() >= workers_max as usize;
        match lives.iter_mut().min_by_key(|life| (start(life), std::cmp::Reverse(life.free_us))) {
            Some(life) if full || start(life) - job.at_us <= wait_us => {
                let begun_us = start(life);
                outcome.waits_us.push(begun_us - job.at_us);
                life.free_us = begun_us + job.service_us;
            }
            _ => {
                outcome.waits_us.push(0);
                lives.push(Life { ready_us: job.at_us, free_us: job.at_us + job.service_us });
            }
        }
    }
    for life in &lives {
        end(life, cold_start_us, &mut outcome);
    }
    outcome.waits_us.sort_unstable();
    outcome
}

/// A life costs its cold start too, and two actions.
fn end(life: &Life, cold_start_us: u64, outcome: &mut Outcome) {
    outcome.worker_us += life.free_us - life.ready_us + cold_start_us;
    outcome.cold_starts += 1;
    outcome.actions += 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(jobs: &[(u64, u64)], wait_us: u64) -> (Vec<u64>, u64, u64) {
        let jobs: Vec<Job> = jobs
            .iter()
            .map(|&(at_us, service_us)| Job { at_us, service_us, tokens: None })
            .collect();
        let outcome = plan(&jobs, 10, 8, wait_us);
        (outcome.waits_us, outcome.worker_us, outcome.cold_starts)
    }

    #[test]
    fn a_gap_shorter_than_a_cold_start_is_sat_out() {
        assert_eq!(plan_of(&[(100, 5), (112, 5)], 0), (vec![0, 0], 10 + 17, 1));
    }

    #[test]
    fn a_longer_gap_is_not() {
        assert_eq!(plan_of(&[(100, 5), (120, 5)], 0), (vec![0, 0], 2 * (10 + 5), 2));
    }

    #[test]
    fn waiting_saves_a_worker() {
        assert_eq!(plan_of(&[(100, 5), (100, 5)], 0), (vec![0, 0], 30, 2));
        assert_eq!(plan_of(&[(100, 5), (100, 5)], 5), (vec![0, 5], 20, 1));
    }
}
