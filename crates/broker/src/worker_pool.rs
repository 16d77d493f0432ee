//! Threads for work that waits for the disk: fsync in one pool, file reads in another.
//!
//! Each pool is a queue and its threads. Submitters are bounded by what they are: a log has one
//! flush in flight, a replica session one read, a fetch one job; so the queue needs no limit of
//! its own and nobody ever waits for room in it.

use std::{collections::VecDeque, sync::Arc, thread::JoinHandle};

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Inner {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// A queue of jobs and the threads that run them.
pub(crate) struct WorkerPool {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl WorkerPool {
    pub(crate) fn start(name: &str, threads: usize) -> std::io::Result<WorkerPool> {
        let inner = Arc::new(Inner::default());
        let mut started = Vec::new();
        for number in 0..threads.max(1) {
            let inner = Arc::clone(&inner);
            let builder = std::thread::Builder::new().name(format!("{name}-{number}"));
            started.push(builder.spawn(move || inner.run())?);
        }
        Ok(WorkerPool {
            inner,
            threads: Mutex::new(started),
        })
    }

    /// Runs the job on some thread; after `close` it is dropped.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.inner.queue.lock();
        if !queue.closed {
            queue.jobs.push_back(Box::new(job));
            drop(queue);
            self.inner.wake.notify_one();
        }
    }

    /// Runs the job and gives its result; `None` if the pool is closed.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.submit(move || {
            let _ = send.send(job());
        });
        receive.await.ok()
    }

    /// Finishes what is queued and ends the threads.
    pub(crate) fn close(&self) {
        self.inner.queue.lock().closed = true;
        self.inner.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.inner.queue.lock().closed = true;
        self.inner.wake.notify_all();
    }
}

impl Inner {
    fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let job = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                self.wake.wait(&mut queue);
            };
            drop(queue);
            job();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_come_back_and_closing_drops_later_jobs() {
        let pool = WorkerPool::start("test", 2).unwrap();
        assert_eq!(pool.run(|| 40 + 2).await, Some(42));
        pool.close();
        assert_eq!(pool.run(|| 1).await, None);
    }
}
