//! Random schedules against three replicas, a controller and a network that loses, delays, repeats
//! and reorders: the promises of replication hold after every step, and once faults end the
//! replicas converge.
//!
//! Checked: R-2 (log matching), R-3 and R-4 (what is committed is stored by the whole committed
//! ISR), R-5 (leader completeness), R-6, R-7, R-12 (the maximal ISR covers the committed one), R-17
//! and R-19.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod model {
    mod checks;
    pub(crate) mod cluster;
    pub(crate) mod controller;
    pub(crate) mod node;
    mod receive;
}

use model::cluster::{Cluster, Dice};
use ottla_types::FlushMode;
use proptest::prelude::*;

fn run(seed: u64, steps: usize, mode: FlushMode) {
    let mut cluster = Cluster::new(mode, Dice::new(seed));
    for _ in 0..steps {
        cluster.step();
        cluster.check();
    }
    cluster.heal();
    cluster.check_converged();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_under_random_schedules_in_mode_ack(seed: u64, steps in 50usize..2500) {
        run(seed, steps, FlushMode::Ack);
    }

    #[test]
    fn promises_hold_under_random_schedules_in_mode_page(seed: u64, steps in 50usize..2500) {
        run(seed, steps, FlushMode::Page);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut cluster = Cluster::new(FlushMode::Ack, Dice::new(seed));
        for _ in 0..300 {
            cluster.step();
        }
        cluster.fingerprint()
    };
    assert_eq!(history(7), history(7));
}

#[test]
fn something_is_committed_and_leaders_change() {
    let mut committed = 0;
    let mut elections = 0;
    for seed in 0..50 {
        let mut cluster = Cluster::new(FlushMode::Ack, Dice::new(seed));
        for _ in 0..3_000 {
            cluster.step();
            cluster.check();
        }
        committed += cluster.committed.len();
        elections += cluster.controller.elections;
    }
    assert!(
        committed > 500,
        "only {committed} records committed: the schedules test nothing"
    );
    assert!(elections > 100, "only {elections} elections");
}
