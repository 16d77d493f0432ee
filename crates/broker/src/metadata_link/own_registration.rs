//! This broker's registration: what it says, and the epoch under which it was taken.
//!
//! # Invariant
//! Both change together, under one lock: an epoch never stands for a registration that has been
//! replaced meanwhile, or a life that is unclean would serve under one that is not.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;
use uuid::Uuid;

use ottla_metadata::Registration;
use ottla_types::{BrokerEpoch, PartitionId};

/// What stands for no epoch.
const UNREGISTERED: i64 = -1;

/// This broker's registration.
pub(super) struct OwnRegistration {
    registration: Mutex<Option<Registration>>,
    /// Read without the lock by whoever only wants to know the present epoch.
    broker_epoch: Arc<AtomicI64>,
}

impl OwnRegistration {
    pub(super) fn new(broker_epoch: Arc<AtomicI64>) -> OwnRegistration {
        OwnRegistration {
            registration: Mutex::new(None),
            broker_epoch,
        }
    }

    /// The epoch, while there is one.
    pub(super) fn epoch(&self) -> Option<BrokerEpoch> {
        BrokerEpoch::new(self.broker_epoch.load(Ordering::SeqCst))
    }

    /// What is to be registered, or has been.
    pub(super) fn wanted(&self) -> Option<Registration> {
        self.registration.lock().clone()
    }

    /// The epoch with the incarnation it was given to.
    pub(super) fn current(&self) -> Option<(BrokerEpoch, Uuid)> {
        let registration = self.registration.lock();
        Some((self.epoch()?, registration.as_ref()?.incarnation))
    }

    /// Another registration is wanted: the present one, if any, ends here.
    pub(super) fn replace(&self, registration: Registration) {
        let mut wanted = self.registration.lock();
        *wanted = Some(registration);
        self.broker_epoch.store(UNREGISTERED, Ordering::SeqCst);
    }

    /// Replicas were found damaged below what was durable: registers anew, with them.
    pub(super) fn report_damage(&self, damaged: &[PartitionId]) {
        if let Some(registration) = self.registration.lock().as_mut() {
            registration.damaged.extend(damaged);
            registration.incarnation = Uuid::new_v4();
            self.broker_epoch.store(UNREGISTERED, Ordering::SeqCst);
        }
    }

    /// The controller has taken the registration of this incarnation; false if another is wanted
    /// by now.
    pub(super) fn taken(&self, incarnation: Uuid, broker_epoch: BrokerEpoch) -> bool {
        let mut wanted = self.registration.lock();
        let taken = wanted
            .as_mut()
            .filter(|wanted| wanted.incarnation == incarnation);
        let Some(registration) = taken else {
            return false;
        };
        // Told once: the process lives on, and loses nothing with its registration.
        registration.unclean = false;
        registration.damaged.clear();
        registration.power_cut = None;
        self.broker_epoch
            .store(broker_epoch.get(), Ordering::SeqCst);
        true
    }

    /// The controller knows a newer registration than the one of this epoch: another life of this
    /// broker begins. False if that epoch has ended already, and with it the controller's word.
    pub(super) fn end(&self, broker_epoch: BrokerEpoch) -> bool {
        let mut wanted = self.registration.lock();
        if self.epoch() != Some(broker_epoch) {
            return false;
        }
        if let Some(registration) = wanted.as_mut() {
            registration.incarnation = Uuid::new_v4();
        }
        self.broker_epoch.store(UNREGISTERED, Ordering::SeqCst);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ottla_types::{BrokerId, FlushMode};

    use super::*;

    fn registration(incarnation: u128, unclean: bool) -> Registration {
        Registration {
            broker_id: BrokerId(1),
            cluster_id: None,
            incarnation: Uuid::from_u128(incarnation),
            directory_ids: Vec::new(),
            endpoints: Vec::new(),
            replication_address: String::new(),
            rack: None,
            unclean,
            damaged: BTreeSet::new(),
            power_cut: None,
            default_flush_mode: FlushMode::Ack,
            offline_directories: Vec::new(),
            live: BTreeSet::new(),
        }
    }

    fn epoch(number: i64) -> BrokerEpoch {
        BrokerEpoch::saturating(number)
    }

    #[test]
    fn an_answer_to_a_registration_that_was_replaced_gives_no_epoch() {
        let own = OwnRegistration::new(Arc::new(AtomicI64::new(UNREGISTERED)));
        own.replace(registration(1, false));
        // Recovery found damage while the first registration was on its way.
        own.replace(registration(2, true));
        assert!(!own.taken(Uuid::from_u128(1), epoch(5)));
        assert_eq!(own.epoch(), None);
        assert!(own.taken(Uuid::from_u128(2), epoch(6)));
        assert_eq!(own.current(), Some((epoch(6), Uuid::from_u128(2))));
    }

    #[test]
    fn the_end_of_a_former_epoch_leaves_a_registration_that_is_on_its_way_unclean() {
        let own = OwnRegistration::new(Arc::new(AtomicI64::new(UNREGISTERED)));
        own.replace(registration(1, false));
        own.taken(Uuid::from_u128(1), epoch(5));
        own.replace(registration(2, true));
        assert!(!own.end(epoch(5)), "that life is over");
        assert_eq!(own.wanted(), Some(registration(2, true)));
        own.taken(Uuid::from_u128(2), epoch(6));
        assert!(!own.end(epoch(5)));
        assert_eq!(own.epoch(), Some(epoch(6)));
        assert!(own.end(epoch(6)));
        let next = own.wanted().unwrap();
        assert!(!next.unclean && next.incarnation != Uuid::from_u128(2));
    }
}
