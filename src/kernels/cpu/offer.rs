//! Parts of some work, taken by threads that look out for them.
//!
//! One thread offers, any number help; who offers does not wait for anybody to come, only for those
//! that are still at a part when none is left. It takes the first parts and they take the last, so that
//! a helper knows what it will read, see `ahead`.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{hint, thread};

type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Looks at who is still inside before the thread gives its core to others.
const LOOKS: u32 = 1000;
/// What is counted up by one of the first parts, and by one of the last.
const FIRST: u64 = 1;
const LAST: u64 = 1 << 32;
/// Half of what is counted: helpers that come too late count on.
const MOST_PARTS: usize = 1 << 31;

/// Work that is offered, if there is any.
#[derive(Default)]
pub(super) struct Offer {
    /// Counts up when something is offered, which makes it odd, and when that ends.
    turn: AtomicUsize,
    /// Helpers that may be reading `work`.
    inside: AtomicUsize,
    /// How many parts were taken: the first ones, by the thread that offers, in the lower half, and the
    /// last ones, by helpers, in the upper half.
    taken: AtomicU64,
    parts: AtomicUsize,
    work: UnsafeCell<Option<*const Work<'static>>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the one thread that offers, while nobody is inside and `turn` is even;
// it is read by that thread, and by others while they are inside and have seen `turn` odd after they
// came in. What it points to may be shared, and outlives the turn. All else is atomic or a mutex.
unsafe impl Sync for Offer {}
// SAFETY: the same; no part belongs to a thread.
unsafe impl Send for Offer {}

impl Offer {
    /// Runs `work` for every number below `parts`, with whoever helps. False, and nothing is done, if
    /// the thread is within such a run already, or for more parts than can be counted. Always called by
    /// the same thread.
    pub(super) fn run(&self, parts: usize, work: &Work) -> bool {
        if self.turn.load(Ordering::Relaxed) % 2 == 1 || parts > MOST_PARTS {
            return false;
        }
        // SAFETY: only its lifetime is changed; nobody reads it after `_end` is dropped, below.
        let lasting = unsafe { std::mem::transmute::<*const Work, *const Work<'static>>(work) };
        self.parts.store(parts, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
        // SAFETY: the turn is even, and the last one ended when nobody was inside; who has come in
        // since has seen, or will see, that nothing is offered, or all that is written here.
        unsafe { *self.work.get() = Some(lasting) };
        self.turn.fetch_add(1, Ordering::SeqCst);
        let end = End(self);
        self.take_parts(FIRST, work);
        drop(end);
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        true
    }

    /// Takes parts of what is offered, until none is left. False if there is nothing.
    pub(super) fn help(&self) -> bool {
        let turn = self.turn.load(Ordering::Relaxed);
        if turn.is_multiple_of(2) {
            return false;
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(self);
        // Either this sees that the turn is over, or whoever ends it sees that somebody is inside.
        if self.turn.load(Ordering::SeqCst) != turn {
            return false;
        }
        // SAFETY: the turn is odd and this thread is inside: it was written before, and stays.
        let work = unsafe { &*(*self.work.get()).expect("the work of the turn") };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_parts(LAST, work))) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        true
    }

    /// Takes the first parts or the last ones, until none is left.
    fn take_parts(&self, side: u64, work: &Work) {
        let parts = self.parts.load(Ordering::Relaxed);
        let sides = |taken: u64| [taken % LAST, taken / LAST].map(|taken| taken as usize);
        loop {
            // Not counted up for nothing: a helper may look a thousand million times.
            let [first, last] = sides(self.taken.load(Ordering::Relaxed));
            if first + last >= parts {
                break;
            }
            let [first, last] = sides(self.taken.fetch_add(side, Ordering::Relaxed));
            if first + last >= parts {
                break;
            }
            work(if side == FIRST { first } else { parts - 1 - last });
        }
    }
}

/// Ends a turn, also where the work panics.
struct End<'a>(&'a Offer);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // No further part is begun: of use where the work has panicked.
        self.0.taken.store(MOST_PARTS as u64, Ordering::Relaxed);
        self.0.turn.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0;
        while self.0.inside.load(Ordering::SeqCst) > 0 {
            if looks < LOOKS {
                looks += 1;
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        if thread::panicking() {
            // That of a helper goes with the one that is on its way, and not into the next turn.
            *self.0.panic.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// A helper that goes.
struct Leave<'a>(&'a Offer);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Runs `work` while some threads help.
    fn helped(helpers: usize, work: impl FnOnce(&Offer)) {
        let (offer, over) = (Offer::default(), AtomicBool::new(false));
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if !offer.help() {
                            thread::yield_now();
                        }
                    }
                });
            }
            let _over = Over(&over);
            work(&offer);
        });
    }

    #[test]
    fn every_part_is_done_once_and_before_the_end() {
        helped(3, |offer| {
            for turn in 0..2000 {
                // On this stack, and gone after the turn.
                let done: Vec<AtomicUsize> = (0..turn % 7).map(|_| AtomicUsize::new(0)).collect();
                let did = offer.run(done.len(), &|part| {
                    done[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(did);
                assert!(done.into_iter().all(|done| done.into_inner() == 1), "turn {turn}");
            }
        });
    }

    #[test]
    fn helpers_take_the_last_parts() {
        helped(1, |offer| {
            let me = thread::current().id();
            for _ in 0..200 {
                let mine: Vec<AtomicBool> = (0..50).map(|_| AtomicBool::new(false)).collect();
                offer.run(50, &|part| {
                    mine[part].store(thread::current().id() == me, Ordering::Relaxed);
                });
                let mine: Vec<bool> = mine.into_iter().map(AtomicBool::into_inner).collect();
                assert!(mine.is_sorted_by(|a, b| a >= b), "{mine:?}");
            }
        });
    }

    #[test]
    fn work_within_a_part_is_refused_and_goes_on_afterwards() {
        helped(1, |offer| {
            let refused = AtomicUsize::new(0);
            let me = thread::current().id();
            offer.run(1000, &|_| {
                if thread::current().id() == me && !offer.run(3, &|_| unreachable!()) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(refused.into_inner() > 0);
            assert!(offer.run(1, &|_| {}));
        });
    }

    #[test]
    fn a_panic_reaches_who_offers_whoever_had_the_part() {
        helped(2, |offer| {
            for _ in 0..50 {
                for first_broken in [0, 50] {
                    let broken = AssertUnwindSafe(|| {
                        offer.run(100, &|part| assert!(part < first_broken, "a broken part"));
                    });
                    assert!(catch_unwind(broken).is_err());
                }
                let count = AtomicUsize::new(0);
                offer.run(9, &|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(count.into_inner(), 9);
            }
        });
    }
}
