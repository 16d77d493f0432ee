//! Notices a disk that has stopped answering: then others should lead, and the ISR should not wait
//! for this broker (P-24, F-8).
//!
//! # Invariants
//! * A look takes no lock and no disk: it works while everything else here waits for the disk.
//! * A stalled disk counts as well again only after a calm while, so that one that stalls now and
//!   then does not move leaderships to and fro.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ottla_types::MonotonicMs;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    clock::Clock,
    metadata_link::LinkHandle,
    shard::{
        env::{Router, Space},
        input::Input,
    },
};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A flush that takes longer means that the disk has stalled.
const STALLED_AFTER_MS: u64 = 5_000;
/// A disk is calm while no flush takes longer.
const CALM_BELOW_MS: u64 = 1_000;
/// How long a disk must be calm before it counts as well again.
const CALM_FOR_MS: u64 = 5_000;

const IDLE: u64 = 0;

/// The flushes under way, by when they began.
pub(crate) struct Flushes {
    begun_ms: Box<[AtomicU64]>,
}

impl Flushes {
    /// For at most so many at once; what is beyond is not seen.
    pub(crate) fn new(at_once: usize) -> Flushes {
        Flushes {
            begun_ms: (0..at_once).map(|_| AtomicU64::new(IDLE)).collect(),
        }
    }

    /// Runs a flush that is seen while it lasts.
    pub(crate) fn during<T>(&self, now: MonotonicMs, flush: impl FnOnce() -> T) -> T {
        let begun = now.0.max(1);
        let free = self.begun_ms.iter().find(|slot| {
            slot.compare_exchange(IDLE, begun, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        });
        // Freed also where the flush panics: a stall that never ends would be seen.
        let _freed = free.map(Freed);
        flush()
    }

    /// How long the oldest has been under way; zero if there is none.
    fn longest_ms(&self, now: MonotonicMs) -> u64 {
        let begun = self
            .begun_ms
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed));
        let oldest = begun.filter(|begun| *begun != IDLE).min();
        oldest.map_or(0, |begun| now.ms_since(MonotonicMs(begun)))
    }
}

/// Frees the place when it is dropped.
struct Freed<'a>(&'a AtomicU64);

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.0.store(IDLE, Ordering::Relaxed);
    }
}

/// The judgement over time.
#[derive(Debug, Default)]
struct Judge {
    stalled: bool,
    calm_since: Option<MonotonicMs>,
}

impl Judge {
    /// Whether the disk counts as stalled.
    fn look(&mut self, now: MonotonicMs, longest_ms: u64) -> bool {
        if longest_ms >= CALM_BELOW_MS {
            self.calm_since = None;
            self.stalled |= longest_ms >= STALLED_AFTER_MS;
        } else {
            let calm_since = *self.calm_since.get_or_insert(now);
            self.stalled &= now.ms_since(calm_since) < CALM_FOR_MS;
        }
        self.stalled
    }
}

/// Looks at the flushes for as long as the broker lives.
pub(crate) struct StallWatch {
    pub(crate) flushes: Arc<Flushes>,
    pub(crate) space: Arc<Space>,
    pub(crate) link: LinkHandle,
    pub(crate) router: Arc<Router>,
    pub(crate) clock: Clock,
    pub(crate) shutdown: CancellationToken,
}

impl StallWatch {
    pub(crate) async fn run(self) {
        let mut judge = Judge::default();
        loop {
            let now = self.clock.now();
            let flush_ms = self.flushes.longest_ms(now);
            let before = judge.stalled;
            let stalled = judge.look(now, flush_ms);
            if stalled != before {
                if stalled {
                    warn!(flush_ms, "the disk has stalled: others should lead");
                } else {
                    info!("the disk is well again");
                }
                self.space.set_stalled(stalled);
                self.link.set_stalled(stalled);
                self.router.post_all(|| Input::SpaceChanged);
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> MonotonicMs {
        MonotonicMs(ms)
    }

    #[test]
    fn the_oldest_flush_under_way_is_seen_and_no_finished_one() {
        let flushes = Flushes::new(2);
        assert_eq!(flushes.longest_ms(at(9_000)), 0);
        flushes.during(at(1_000), || {
            assert_eq!(flushes.longest_ms(at(1_500)), 500);
            flushes.during(at(1_400), || {
                assert_eq!(flushes.longest_ms(at(1_500)), 500);
                // More than there are places for: it runs, unseen.
                assert_eq!(flushes.during(at(1_450), || 7), 7);
            });
        });
        assert_eq!(flushes.longest_ms(at(9_000)), 0);
    }

    #[test]
    fn p24_a_stalled_disk_must_be_calm_for_a_while_before_it_counts_as_well() {
        let mut judge = Judge::default();
        assert!(!judge.look(at(10_000), 4_999));
        assert!(judge.look(at(10_250), 5_249));
        assert!(judge.look(at(10_500), 0));
        // Slow again before it was calm for long.
        assert!(judge.look(at(14_000), 1_000));
        assert!(judge.look(at(14_250), 0));
        assert!(judge.look(at(19_249), 999));
        assert!(!judge.look(at(19_250), 0));
    }

    #[test]
    fn slow_is_not_stalled() {
        let mut judge = Judge::default();
        for step in 0..100 {
            assert!(!judge.look(at(step * 250), 3_000));
        }
    }
}
