//! DescribeGroups: state and members of groups, as tools show them.

use ottla_broker::groups::{GroupDescription, GroupError};
use ottla_wire::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
};

use super::{CountErrors, count};
use crate::{access, context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let version = cx.version();
    let operations = access::group_operations(request.include_authorized_operations);
    let mut groups = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let described = cx.broker().groups().describe(&group_id).await;
        let row = row(version, group_id, described);
        groups.push(if version >= 3 {
            row.with_authorized_operations(operations)
        } else {
            row
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn row(
    version: i16,
    group_id: GroupId,
    described: Result<GroupDescription, GroupError>,
) -> DescribedGroup {
    let row = DescribedGroup::default().with_group_id(group_id);
    match described {
        // Up to version 5 a group that does not exist is one that is dead.
        Err(GroupError::GroupIdNotFound) if version < 6 => row.with_group_state("Dead".into()),
        Err(error) => {
            let row = row
                .with_group_state(dead_where_missing(&error).into())
                .with_error_code(error_code::group(&error).code());
            if version >= 6 {
                row.with_error_message(Some(error.to_string().into()))
            } else {
                row
            }
        }
        Ok(group) => row
            .with_group_state(group.state.as_str().to_owned().into())
            .with_protocol_type(group.protocol_type.into())
            .with_protocol_data(group.protocol.into())
            .with_members(
                group
                    .members
                    .into_iter()
                    .map(|member| {
                        let instance = member.group_instance_id.filter(|_| version >= 4);
                        DescribedGroupMember::default()
                            .with_member_id(member.member_id.into())
                            .with_group_instance_id(instance.map(Into::into))
                            .with_client_id(member.client_id.into())
                            .with_client_host(member.client_host.into())
                            .with_member_metadata(member.metadata)
                            .with_member_assignment(member.assignment)
                    })
                    .collect(),
            ),
    }
}

fn dead_where_missing(error: &GroupError) -> &'static str {
    if *error == GroupError::GroupIdNotFound {
        "Dead"
    } else {
        ""
    }
}

impl CountErrors for DescribeGroupsResponse {
    fn count_errors(&self) -> usize {
        count(self.groups.iter().map(|group| group.error_code))
    }
}
