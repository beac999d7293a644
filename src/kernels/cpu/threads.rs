//! Threads that stay awake through a run of short operations.
//!
//! A token's pass through a model is some hundred operations of a few microseconds. Between two of
//! them rayon's threads fall asleep, and waking one up takes longer than the operation.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rayon::Yield;

/// The most helpers: short operations have no parts for more.
const MOST_HELPERS: usize = 7;
/// How long the work waits for its helpers to wake up.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks for work, some tens of nanoseconds each, before a helper offers its core to others.
const LOOKS: u32 = 2000;

/// Runs `work` on a thread of rayon's pool, while the others look out for its parts.
///
/// They take no rest until it is done, so it should have parts for them most of the time. There is
/// one such work at a time; beside it `work` runs as it would without this.
pub(crate) fn awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let helpers = MOST_HELPERS.min(rayon::current_num_threads() - 1);
    if helpers == 0 || ACTIVE.swap(true, Ordering::Acquire) {
        return work();
    }
    let _end = Release;
    rayon::scope(|_| {
        let watch = Arc::new(Watch::default());
        let _end = End::of(watch.clone());
        for _ in 0..helpers {
            let watch = watch.clone();
            rayon::spawn(move || watch.help());
        }
        watch.wait_for(helpers);
        work()
    })
}

/// Whether helpers look out for the parts of what this thread does, so that small ones pay.
pub(crate) fn is_awake() -> bool {
    AWAKE.get()
}

/// Whether some work has its helpers.
static ACTIVE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread does that work.
    static AWAKE: Cell<bool> = const { Cell::new(false) };
}

struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        ACTIVE.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Watch {
    /// Number of helpers that came in time.
    helpers: AtomicUsize,
    /// Whether the work has begun.
    begun: AtomicBool,
    over: AtomicBool,
}

impl Watch {
    fn wait_for(&self, helpers: usize) {
        let start = Instant::now();
        while self.helpers.load(Ordering::Relaxed) < helpers && start.elapsed() < PATIENCE {
            spin_loop();
        }
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Runs parts of the work, and whatever else waits for a thread, until the work is over.
    fn help(&self) {
        // Who comes later may come from within a part of the work, which waits for parts of its
        // own; it would wait for the end of the work, and the work for it.
        if self.begun.load(Ordering::Relaxed) {
            return;
        }
        self.helpers.fetch_add(1, Ordering::Relaxed);
        let mut looks = 0;
        while !self.over.load(Ordering::Relaxed) {
            if rayon::yield_now() == Some(Yield::Executed) {
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// Ends a watch, also where the work panics.
struct End(Arc<Watch>);

impl End {
    fn of(watch: Arc<Watch>) -> Self {
        AWAKE.set(true);
        Self(watch)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        AWAKE.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rayon::prelude::*;

    use super::*;

    /// One at a time, since there is one work at a time.
    #[test]
    fn work_has_helpers_and_leaves_none_behind() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let nested = || {
            let sum = |n: u32| (0..n).into_par_iter().with_max_len(1).sum::<u32>();
            (0..50).into_par_iter().with_max_len(1).map(|i| sum(i) + sum(50 - i)).sum::<u32>()
        };
        let expected = nested();
        for _ in 0..200 {
            let (awake_within, inner) = pool.install(|| {
                awake(|| {
                    // Beside active work a second one runs without helpers.
                    let inner = awake(nested);
                    (is_awake(), inner)
                })
            });
            assert!(awake_within, "the work knows of its helpers");
            assert_eq!(inner, expected);
            assert!(!is_awake() && !ACTIVE.load(Ordering::Relaxed));
        }

        let panics = || pool.install(|| awake(|| panic!("within the work")));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(!ACTIVE.load(Ordering::Relaxed), "a panic ends the watch");
        // Helpers of the broken work have left: all threads are there for the next one.
        assert_eq!(pool.install(|| awake(nested)), expected);
    }

    #[test]
    fn who_comes_late_does_not_stay() {
        let watch = Watch::default();
        watch.wait_for(0);
        watch.over.store(true, Ordering::Relaxed); // or a late helper would never return
        watch.help();
        assert_eq!(watch.helpers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pool_of_one_thread_does_the_work_itself() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(!pool.install(|| awake(is_awake)));
    }
}
