//! ListGroups: the groups that this broker coordinates.

use ottla_wire::{
    StrBytes,
    messages::{GroupId, ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

/// The only type of groups that is served yet.
const CLASSIC: &str = "classic";

pub(super) async fn handle(cx: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let response = ListGroupsResponse::default();
    let groups = match cx.broker().groups().list().await {
        Ok(groups) => groups,
        Err(error) => return response.with_error_code(error_code::group(&error).code()),
    };
    let version = cx.version();
    let listed = groups.into_iter().filter(|group| {
        passes(&request.states_filter, group.state.as_str())
            && passes(&request.types_filter, CLASSIC)
    });
    let rows = listed.map(|group| {
        let state = if version >= 4 {
            group.state.as_str()
        } else {
            ""
        };
        let kind = if version >= 5 { CLASSIC } else { "" };
        ListedGroup::default()
            .with_group_id(GroupId(group.group_id.into()))
            .with_protocol_type(group.protocol_type.into())
            .with_group_state(state.to_owned().into())
            .with_group_type(kind.into())
    });
    response.with_groups(rows.collect())
}

/// An empty filter lets everything pass.
fn passes(filter: &[StrBytes], value: &str) -> bool {
    filter.is_empty()
        || filter
            .iter()
            .any(|wanted| wanted.eq_ignore_ascii_case(value))
}

impl CountErrors for ListGroupsResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
