//! InitProducerId: an id for an idempotent producer (KIP-98). Transactions are not served yet.

use ottla_wire::{
    ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};

use super::{CountErrors, count};
use crate::context::RequestContext;

pub(super) async fn handle(
    cx: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    let refuse = |response: InitProducerIdResponse, code: ErrorCode| {
        response
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    match request.transactional_id.as_ref().map(|id| id.as_str()) {
        Some("") => return refuse(response, ErrorCode::InvalidRequest),
        Some(_) => return refuse(response, ErrorCode::UnsupportedVersion),
        None => {}
    }
    if (request.producer_id.0 < 0) != (request.producer_epoch < 0) {
        return refuse(response, ErrorCode::InvalidRequest);
    }
    match cx.broker().next_producer_id().await {
        Ok(id) => response
            .with_producer_id(ProducerId(id.get()))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "allocate producer id");
            // As Kafka while a block of ids is being fetched: the client comes again.
            refuse(response, ErrorCode::CoordinatorLoadInProgress)
        }
    }
}

impl CountErrors for InitProducerIdResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
