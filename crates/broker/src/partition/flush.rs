//! Flushing: one in flight per log, the next begins when it completes (group commit).

use std::sync::Arc;

use ottla_storage::{FlushDone, Log};
use ottla_types::FlushMode;

use crate::shard::{env::Env, input::Input};

use super::{Now, Partition};

impl Partition {
    pub(crate) fn on_flushed(&mut self, env: &Env, now: Now, done: FlushDone, micros: u64) {
        self.flushing = false;
        env.metrics.log_flushes.one();
        env.metrics.log_flush_micros.add(micros);
        let Some(log) = self.log.as_mut() else { return };
        if let Err(error) = log.on_flushed(done) {
            self.on_log_error(env, &error);
            return;
        }
        if log.flushed_offset() >= log.log_end_offset() {
            self.unflushed_since = None;
        }
        self.ack_due = true;
        self.on_log_changed(env, now);
    }

    pub(super) fn start_flush_in_mode_ack(&mut self, env: &Env) {
        if self.flush_mode == FlushMode::Ack {
            self.start_flush(env);
        }
    }

    pub(crate) fn start_flush(&mut self, env: &Env) {
        if self.flushing {
            return;
        }
        let Some(job) = self.log.as_mut().and_then(Log::begin_flush) else {
            return;
        };
        self.flushing = true;
        let (id, mailbox, clock) = (self.id, Arc::clone(&env.mailbox), env.clock);
        let flushes = Arc::clone(&env.flushes);
        env.flush_pool.submit(move || {
            let begun = clock.micros();
            let done = flushes.during(clock.now(), || job.run());
            let micros = clock.micros().saturating_sub(begun);
            mailbox.post(Input::Flushed { id, done, micros });
        });
    }

    /// In mode `page`: notes that unflushed bytes are there, and flushes every so many messages.
    pub(super) fn note_unflushed(&mut self, env: &Env, now: Now) {
        if self.flush_mode == FlushMode::Ack {
            return;
        }
        self.unflushed_since.get_or_insert(now.at);
        let Some(log) = self.log.as_ref() else { return };
        let unflushed = log.log_end_offset().since(log.flushed_offset());
        let limit = i64::try_from(self.settings.log.flush_messages).unwrap_or(i64::MAX);
        // A rolled segment is flushed in the background, or the recovery point would never move.
        if unflushed >= limit || log.has_unflushed_segment() {
            self.start_flush(env);
        }
    }
}
