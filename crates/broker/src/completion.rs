//! One answer for a produce request of many partitions.
//!
//! Shards fill slots; the last one wakes whoever waits. The waiting ends at the deadline: what is
//! not answered then is unknown (P-7), and whatever was admitted goes on.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::api::{ProduceError, Produced};

type Answer = Result<Produced, ProduceError>;

#[derive(Debug)]
struct Slots {
    answers: Vec<Option<Answer>>,
    missing: usize,
    waker: Option<Waker>,
}

/// The shared half that shards answer into.
#[derive(Debug)]
pub(crate) struct Completion {
    slots: Mutex<Slots>,
    abandoned: AtomicBool,
}

impl Completion {
    pub(crate) fn new(count: usize) -> Arc<Completion> {
        let slots = Slots {
            answers: vec![None; count],
            missing: count,
            waker: None,
        };
        Arc::new(Completion {
            slots: Mutex::new(slots),
            abandoned: AtomicBool::new(false),
        })
    }

    /// Answers one slot; the first answer stands.
    pub(crate) fn answer(&self, slot: usize, answer: Answer) {
        let mut slots = self.slots.lock();
        let Some(empty) = slots
            .answers
            .get_mut(slot)
            .filter(|answer| answer.is_none())
        else {
            return;
        };
        *empty = Some(answer);
        slots.missing -= 1;
        if slots.missing == 0
            && let Some(waker) = slots.waker.take()
        {
            drop(slots);
            waker.wake();
        }
    }

    /// Nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }
}

/// The outcome of a produce: one result per entry, in order. Dropping it stops only the waiting.
#[must_use = "the answer is only in the future's output"]
pub struct ProduceAnswer {
    completion: Arc<Completion>,
    deadline: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ProduceAnswer {
    pub(crate) fn new(completion: Arc<Completion>, deadline: Instant) -> ProduceAnswer {
        ProduceAnswer {
            completion,
            deadline,
            sleep: None,
        }
    }

    fn take(&self, unanswered: &ProduceError) -> Vec<Answer> {
        let answers = std::mem::take(&mut self.completion.slots.lock().answers);
        answers
            .into_iter()
            .map(|a| a.unwrap_or_else(|| Err(unanswered.clone())))
            .collect()
    }
}

impl Future for ProduceAnswer {
    type Output = Vec<Answer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Answer>> {
        let this = &mut *self;
        let mut slots = this.completion.slots.lock();
        if slots.missing == 0 {
            drop(slots);
            return Poll::Ready(this.take(&ProduceError::TimedOut));
        }
        slots.waker = Some(context.waker().clone());
        drop(slots);
        let deadline = this.deadline;
        let sleep = this
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match sleep.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(this.take(&ProduceError::TimedOut)),
        }
    }
}

impl Drop for ProduceAnswer {
    fn drop(&mut self) {
        self.completion.abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_unanswered_at_the_deadline_timed_out() {
        let completion = Completion::new(2);
        let deadline = Instant::now() + Duration::from_millis(20);
        let answer = ProduceAnswer::new(Arc::clone(&completion), deadline);
        completion.answer(1, Err(ProduceError::NoSpace));
        completion.answer(1, Err(ProduceError::Storage));
        assert_eq!(
            answer.await,
            vec![Err(ProduceError::TimedOut), Err(ProduceError::NoSpace)]
        );
        assert!(completion.is_abandoned());
        completion.answer(0, Err(ProduceError::Storage));
    }
}
