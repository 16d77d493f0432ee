//! The thread that owns the controller's store, and the handle to it.
//!
//! Jobs run one after another in the order in which they were sent, so that votes, log writes and
//! truncations are never reordered (C-5), and they wait for nobody else's disk work: partitions
//! flush on threads of their own.

use std::{path::Path, thread};

use tokio::sync::{mpsc, oneshot};

use ottla_types::BrokerId;

use super::layout::Identity;
use super::store::{Store, StoreError};

/// Jobs that may wait. openraft has at most one write under way and each replication stream one
/// read, so this is never reached.
const JOBS_MAX: usize = 256;

enum Job {
    Run(Box<dyn FnOnce(&mut Store) + Send>),
    Close(oneshot::Sender<()>),
}

/// A handle to the store's thread.
#[derive(Clone)]
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
    identity: Identity,
}

impl Disk {
    /// Opens the store on a new thread.
    pub(crate) async fn open(path: &Path, node_id: BrokerId) -> Result<Disk, StoreError> {
        let (jobs, receiver) = mpsc::channel(JOBS_MAX);
        let (opened, wait) = oneshot::channel();
        let path = path.to_owned();
        let directory = |reason: String| StoreError::Directory {
            path: path.display().to_string(),
            reason,
        };
        let store_path = path.clone();
        let run = move || {
            let store = Store::open(&store_path, node_id);
            let identity = store.as_ref().map(Store::identity).map_err(Clone::clone);
            if opened.send(identity).is_ok()
                && let Ok(store) = store
            {
                serve(store, receiver);
            }
        };
        let spawned = thread::Builder::new()
            .name("ottla-raft-disk".to_owned())
            .spawn(run);
        spawned.map_err(|error| directory(error.to_string()))?;
        let identity = wait.await.map_err(|_| StoreError::Closed)??;
        Ok(Disk { jobs, identity })
    }

    /// Whose store this is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Runs `job` on the store's thread. If the caller leaves, the job still runs.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let job = Job::Run(Box::new(move |store| {
            // Nobody waits any more: that is their choice.
            let _ = answer.send(job(store));
        }));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        wait.await.map_err(|_| StoreError::Closed)?
    }

    /// Closes the store and waits until its files are released.
    pub(crate) async fn close(&self) {
        let (closed, wait) = oneshot::channel();
        if self.jobs.send(Job::Close(closed)).await.is_ok() {
            // An error means that the thread is gone, which is what is waited for.
            let _ = wait.await;
        }
    }
}

fn serve(mut store: Store, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        match job {
            Job::Run(run) => run(&mut store),
            Job::Close(closed) => {
                drop(store);
                drop(jobs);
                let _ = closed.send(());
                return;
            }
        }
    }
}
