//! SyncGroup: a member asks for its assignment; the leader brings everybody's.

use bytes::Bytes;

use ottla_broker::groups::{GenerationId, SyncRequest};
use ottla_wire::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(cx: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let assignments = request.assignments.iter().map(|assignment| {
        // A copy: the group keeps it long after the request's buffer should be gone.
        let bytes = Bytes::copy_from_slice(&assignment.assignment);
        (assignment.member_id.to_string(), bytes)
    });
    let sync = SyncRequest {
        group_id: request.group_id.to_string(),
        generation: (request.generation_id >= 0).then_some(GenerationId(request.generation_id)),
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.map(|text| text.to_string()),
        protocol: request.protocol_name.map(|text| text.to_string()),
        assignments: assignments.collect(),
    };
    let response = SyncGroupResponse::default();
    match cx.broker().groups().sync(sync).await {
        Ok(synced) => {
            let response = response.with_assignment(synced.assignment);
            if cx.version() >= 5 {
                response
                    .with_protocol_type(synced.protocol_type.map(Into::into))
                    .with_protocol_name(synced.protocol.map(Into::into))
            } else {
                response
            }
        }
        Err(error) => response.with_error_code(error_code::group(&error).code()),
    }
}

impl CountErrors for SyncGroupResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
