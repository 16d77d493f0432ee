//! LeaveGroup: members leave, or an administrator removes them.

use ottla_broker::groups::{LeaveRequest, LeavingMember};
use ottla_wire::{
    ErrorCode,
    messages::{
        LeaveGroupRequest, LeaveGroupResponse, leave_group_request::MemberIdentity,
        leave_group_response::MemberResponse,
    },
};

use super::{CountErrors, count, non_empty};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(cx: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let members = if cx.version() >= 3 {
        request.members
    } else {
        vec![MemberIdentity::default().with_member_id(request.member_id)]
    };
    let leave = LeaveRequest {
        group_id: request.group_id.to_string(),
        members: members.iter().map(leaving).collect(),
    };
    let response = LeaveGroupResponse::default();
    let results = match cx.broker().groups().leave(leave).await {
        Ok(results) => results,
        Err(error) => return response.with_error_code(error_code::group(&error).code()),
    };
    let mut codes = results
        .into_iter()
        .map(|result| result.map_or_else(|error| error_code::group(&error), |()| ErrorCode::None));
    if cx.version() < 3 {
        let code = codes.next().unwrap_or(ErrorCode::UnknownMemberId);
        return response.with_error_code(code.code());
    }
    let rows = members.into_iter().zip(codes).map(|(member, code)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code.code())
    });
    response.with_members(rows.collect())
}

fn leaving(member: &MemberIdentity) -> LeavingMember {
    LeavingMember {
        member_id: non_empty(&member.member_id),
        group_instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
    }
}

impl CountErrors for LeaveGroupResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code]) + count(self.members.iter().map(|member| member.error_code))
    }
}
