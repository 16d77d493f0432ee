//! Whom to send an administrative request to, and when to send it again.

use tokio::time::{Instant, sleep_until};

use ottla_types::BrokerId;
use ottla_wire::{ErrorCode, Request};

use super::{Admin, AdminError, Refusal};
use crate::{backoff::Backoff, cluster::Lane, error::RequestError};

/// Whether a request may be sent again after an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or the same again.
    Freely,
    /// Only if it was not sent.
    IfNotSent,
}

impl Admin {
    /// Sends to one broker after another until one answers; `error_of` finds the error that
    /// concerns the whole request.
    pub(super) async fn to_any<R: Request>(
        &self,
        repeat: Repeat,
        build: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> ErrorCode,
    ) -> Result<R::Response, AdminError> {
        let deadline = self.deadline();
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        let mut last = None;
        loop {
            for broker in self.brokers(deadline).await? {
                let result = self
                    .cluster
                    .call(broker, Lane::Control, deadline, &build)
                    .await;
                match result {
                    Ok(response) => match error_of(&response) {
                        ErrorCode::None => return Ok(response),
                        code if is_passing(code) => last = Some(code.to_string()),
                        code => {
                            return Err(AdminError::Refused(Refusal {
                                code,
                                message: None,
                            }));
                        }
                    },
                    Err(error) => {
                        let is_repeated = repeat == Repeat::Freely || !error.may_have_happened();
                        if !is_repeated || !error.is_retriable() {
                            return Err(error.into());
                        }
                        last = Some(error.to_string());
                    }
                }
            }
            let pause = Instant::now() + backoff.next();
            if pause >= deadline {
                return Err(AdminError::NotInTime(last));
            }
            sleep_until(pause).await;
            // A failure here is met again in the next round, until the deadline.
            if let Err(error) = self.cluster.refresh(deadline).await {
                last = Some(error.to_string());
            }
        }
    }

    /// Sends to this broker and no other, until `deadline`.
    pub(super) async fn to_one<R: Request>(
        &self,
        broker: BrokerId,
        build: impl Fn(i16) -> R,
    ) -> Result<R::Response, AdminError> {
        let deadline = self.deadline();
        let config = self.cluster.config();
        let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
        self.brokers(deadline).await?;
        loop {
            match self
                .cluster
                .call(broker, Lane::Control, deadline, &build)
                .await
            {
                Ok(response) => return Ok(response),
                Err(error) if !error.is_retriable() => return Err(error.into()),
                Err(error) => {
                    let pause = Instant::now() + backoff.next();
                    if pause >= deadline {
                        return Err(AdminError::NotInTime(Some(error.to_string())));
                    }
                    sleep_until(pause).await;
                    // The broker may have moved to another address.
                    if let Err(error) = self.cluster.refresh(deadline).await {
                        tracing::debug!(%error, "metadata refresh failed");
                    }
                }
            }
        }
    }

    /// All known brokers, the controller (or who stands for it) first.
    pub(super) async fn brokers(&self, deadline: Instant) -> Result<Vec<BrokerId>, AdminError> {
        loop {
            let metadata = self.cluster.metadata();
            let mut brokers: Vec<BrokerId> = metadata.brokers.keys().copied().collect();
            if !brokers.is_empty() {
                brokers.sort_by_key(|broker| metadata.controller != Some(*broker));
                return Ok(brokers);
            }
            match self.cluster.refresh(deadline).await {
                Ok(()) => {}
                Err(error) if !error.is_retriable() => return Err(error.into()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(AdminError::NotInTime(Some(error.to_string())));
                }
                Err(error) => tracing::debug!(%error, "no broker answers"),
            }
        }
    }
}

/// Errors that another broker, or the same one later, may not have; nothing was done.
const fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotController
            | ErrorCode::BrokerNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NetworkException
    )
}

/// The first passing error among those of the items: then none of them was carried out.
pub(super) fn passing_of(numbers: impl IntoIterator<Item = i16>) -> ErrorCode {
    let mut codes = numbers.into_iter().map(crate::error::code);
    codes
        .find(|code| is_passing(*code))
        .unwrap_or(ErrorCode::None)
}

impl From<crate::group::GroupError> for AdminError {
    fn from(error: crate::group::GroupError) -> AdminError {
        match error {
            crate::group::GroupError::Refused(code) => AdminError::Refused(Refusal {
                code,
                message: None,
            }),
            crate::group::GroupError::NotInTime(last) => AdminError::NotInTime(last),
            crate::group::GroupError::Request(error) => AdminError::Request(error),
        }
    }
}

impl From<crate::leaders::PartitionError> for AdminError {
    fn from(error: crate::leaders::PartitionError) -> AdminError {
        match error {
            crate::leaders::PartitionError::Refused(code) => AdminError::Refused(Refusal {
                code,
                message: None,
            }),
            crate::leaders::PartitionError::NotInTime(last) => AdminError::NotInTime(last),
            crate::leaders::PartitionError::Request(error) => AdminError::Request(error),
        }
    }
}

/// What went wrong as a whole, where an answer has an error of its own.
pub(super) fn whole(number: i16, message: Option<&ottla_wire::StrBytes>) -> Result<(), AdminError> {
    Ok(super::item(number, message)?)
}

/// A request that must be answered by name was not.
pub(super) fn unanswered(what: &str) -> AdminError {
    AdminError::Request(RequestError::Codec(ottla_wire::ClientCodecError::Decode(
        format!("the answer does not mention {what}"),
    )))
}
