//! JoinGroup: a member asks to be in the next generation.

use bytes::Bytes;

use ottla_broker::groups::{GroupError, JoinRequest, Joined, Protocol};
use ottla_wire::{
    StrBytes,
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
};

use super::{CountErrors, count, non_empty};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(cx: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = cx.version();
    let member_id = request.member_id.clone();
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        // A copy: the group keeps it long after the request's buffer should be gone.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    let join = JoinRequest {
        group_id: request.group_id.to_string(),
        member_id: non_empty(&request.member_id),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: cx.client_id().to_owned(),
        client_host: cx.client_host(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: (version >= 1).then_some(request.rebalance_timeout_ms),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        member_id_required: version >= 4,
        skip_assignment_supported: version >= 9,
    };
    match cx.broker().groups().join(join).await {
        Ok(joined) => accepted(version, joined),
        Err(error) => refused(version, member_id, &error),
    }
}

fn accepted(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        let instance = member.group_instance_id.filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(member.member_id.into())
            .with_group_instance_id(instance.map(Into::into))
            .with_metadata(member.metadata)
    });
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation.0)
        .with_protocol_name(Some(joined.protocol.into()))
        .with_leader(joined.leader.into())
        .with_member_id(joined.member_id.into())
        .with_members(members.collect());
    let response = if version >= 7 {
        response.with_protocol_type(Some(joined.protocol_type.into()))
    } else {
        response
    };
    if version >= 9 {
        response.with_skip_assignment(joined.skip_assignment)
    } else {
        response
    }
}

fn refused(version: i16, member_id: StrBytes, error: &GroupError) -> JoinGroupResponse {
    let member_id = match error {
        GroupError::MemberIdRequired { member_id } => member_id.clone().into(),
        _ => member_id,
    };
    JoinGroupResponse::default()
        .with_error_code(error_code::group(error).code())
        .with_generation_id(-1)
        // Nullable from version 7.
        .with_protocol_name((version < 7).then(StrBytes::new))
        .with_member_id(member_id)
}

impl CountErrors for JoinGroupResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
