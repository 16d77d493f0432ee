//! Tells the controller how long logs are, of partitions that nobody can lead before it knows
//! their last known members all lost what they had not flushed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, info};

use ottla_metadata::{Command, LogReport, Outcome};
use ottla_types::PartitionId;

use crate::metadata_link::LinkHandle;

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before reports are sent again of which nobody knows whether they arrived.
const RETRY: Duration = Duration::from_millis(200);

/// Where shards leave what their logs hold.
#[derive(Default)]
pub(crate) struct LogReporter {
    reports: Mutex<BTreeMap<PartitionId, LogReport>>,
    notify: Notify,
}

impl LogReporter {
    /// Puts a report in, in place of an earlier one of the same partition.
    pub(crate) fn report(&self, report: LogReport) {
        self.reports.lock().insert(report.id, report);
        self.notify.notify_one();
    }

    /// The task. A report that comes late is passed over: the controller asks by its state.
    pub(crate) async fn run(&self, link: &LinkHandle) {
        loop {
            let reports = std::mem::take(&mut *self.reports.lock());
            if reports.is_empty() {
                self.notify.notified().await;
                continue;
            }
            let Some(broker_epoch) = link.broker_epoch() else {
                // The first image under the next registration brings them up again.
                continue;
            };
            let command = Command::ReportLogs {
                broker_id: link.broker_id(),
                broker_epoch,
                logs: reports.values().cloned().collect(),
                live: BTreeSet::new(),
            };
            match link.execute_once(command, ATTEMPT_TIMEOUT).await {
                Some((_, Outcome::Done)) => info!(logs = reports.len(), "reported logs"),
                Some((_, outcome)) => debug!(?outcome, "logs are not asked for"),
                None => {
                    tokio::time::sleep(RETRY).await;
                    let mut waiting = self.reports.lock();
                    for (id, report) in reports {
                        waiting.entry(id).or_insert(report);
                    }
                }
            }
        }
    }
}
