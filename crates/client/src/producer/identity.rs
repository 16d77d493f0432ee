//! The producer id: asked for before the first batch, from any broker.

use tokio::time::Instant;

use ottla_types::{ProducerEpoch, ProducerId};
use ottla_wire::{ErrorCode, messages::InitProducerIdRequest};

use super::{batch::Identity, record::DeliveryError};
use crate::{
    backoff::Backoff,
    cluster::Cluster,
    error::{RequestError, code},
};

/// Why there is no producer id.
pub(super) enum IdentityError {
    Refused(ErrorCode),
    Request(RequestError),
}

impl IdentityError {
    /// Nothing was sent without an id.
    pub(super) fn into_delivery_error(self) -> DeliveryError {
        match self {
            IdentityError::Refused(code) => DeliveryError::Refused {
                code,
                message: Some("no producer id".to_owned()),
                may_have_happened: false,
            },
            IdentityError::Request(RequestError::Closed) => DeliveryError::Closed {
                may_have_happened: false,
            },
            IdentityError::Request(error) => DeliveryError::Unsupported(error.to_string()),
        }
    }
}

/// Asks until a broker grants one; records meanwhile run into their own deadlines.
pub(super) async fn ask(cluster: &Cluster) -> Result<Identity, IdentityError> {
    let config = cluster.config();
    let mut backoff = Backoff::new(config.retry_backoff, config.retry_backoff_max);
    loop {
        let deadline = Instant::now() + cluster.config().request_timeout;
        let build = |version: i16| {
            // The default is an empty name, which is not the same as none.
            let mut request = InitProducerIdRequest::default().with_transactional_id(None);
            request.transaction_timeout_ms = i32::MAX;
            if version >= 3 {
                request.producer_id = (-1).into();
                request.producer_epoch = -1;
            }
            request
        };
        match cluster.call_any(deadline, build).await {
            Ok(response) => match code(response.error_code) {
                ErrorCode::None => {
                    return Ok(Identity {
                        id: ProducerId(response.producer_id.0),
                        epoch: ProducerEpoch::saturating(response.producer_epoch),
                    });
                }
                error if error.is_retriable() => {
                    tracing::debug!(%error, "no producer id yet");
                }
                error => return Err(IdentityError::Refused(error)),
            },
            Err(error) if error.is_retriable() || matches!(error, RequestError::NotSentInTime) => {
                tracing::debug!(%error, "no broker to ask for a producer id");
            }
            Err(error) => return Err(IdentityError::Request(error)),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}
