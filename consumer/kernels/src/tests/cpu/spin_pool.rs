//! A pool that spins: every task once, results as of one thread, panics of tasks, steps from several threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{DTYPES, cu_seqlens, noisy_in, values};
use crate::cpu::parallel::{for_each, threads};
use crate::{Activation, Linear, SpinPool, VarlenAttention, alone};

#[test]
fn every_task_runs_once_and_is_done_when_the_operation_is() {
    for count in [1, 2, 3, 5] {
        let pool = SpinPool::new(count).unwrap();
        assert_eq!(pool.threads(), count);
        pool.step(|| {
            assert_eq!(threads(), count);
            for tasks in (0..200).chain([5_000]) {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                for_each(tasks, |task| {
                    runs[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
            }
        });
        assert_eq!(threads(), rayon::current_num_threads());
    }
}

#[test]
fn operations_give_the_same_bits_as_on_one_thread() {
    let pool = SpinPool::new(3).unwrap();
    for (dtype, _) in DTYPES {
        let (weight, _) = noisy_in(dtype, 1, &[200, 96]);
        let layer = Linear::new(&weight, None, Activation::Gelu, dtype).unwrap();
        let (x, _) = noisy_in(dtype, 2, &[70, 96]);
        let cu_seqlens = cu_seqlens(&[3, 40, 0, 77]);
        let (qkv, _) = noisy_in(dtype, 3, &[120, 3 * 4 * 16]);
        let attention = VarlenAttention::new(&cu_seqlens, 4);
        let work = || {
            let y = layer.forward(&x).unwrap();
            [values(&y), values(&attention.forward(&qkv).unwrap())]
        };
        let expected = alone(work);
        for _ in 0..20 {
            assert_eq!(pool.step(work), expected);
        }
        assert_eq!(pool.step(|| alone(work)), expected);
    }
}

#[test]
fn a_task_that_panics_panics_in_its_caller_after_all_others_and_leaves_the_pool_whole() {
    let pool = SpinPool::new(2).unwrap();
    for _ in 0..20 {
        let done = AtomicUsize::new(0);
        let step = || {
            for_each(16, |task| {
                if task == 7 {
                    std::panic::resume_unwind(Box::new("seven"));
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        };
        let panic = catch_unwind(AssertUnwindSafe(|| pool.step(step))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"seven"));
        assert_eq!(done.load(Ordering::Relaxed), 15);
        assert_eq!(threads(), rayon::current_num_threads(), "the step has ended");
    }
    pool.step(|| assert_eq!(threads(), 2));
}

#[test]
fn steps_of_several_threads_take_turns_and_operations_in_a_task_stay_on_its_thread() {
    let pool = SpinPool::new(2).unwrap();
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..50 {
                    pool.step(|| {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                        for_each(4, |_| {
                            assert_eq!(threads(), 1);
                            for_each(3, |_| {});
                        });
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
        }
    });
}
