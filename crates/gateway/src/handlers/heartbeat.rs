//! Heartbeat: a member of a group is alive.

use ottla_broker::groups::{GenerationId, HeartbeatRequest as Alive};
use ottla_wire::{
    ErrorCode,
    messages::{HeartbeatRequest, HeartbeatResponse},
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(cx: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let alive = Alive {
        group_id: request.group_id.to_string(),
        generation: (request.generation_id >= 0).then_some(GenerationId(request.generation_id)),
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
    };
    let result = cx.broker().groups().heartbeat(alive).await;
    let code = result.map_or_else(|error| error_code::group(&error), |()| ErrorCode::None);
    HeartbeatResponse::default().with_error_code(code.code())
}

impl CountErrors for HeartbeatResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
