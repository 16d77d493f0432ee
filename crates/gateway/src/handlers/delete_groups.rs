//! DeleteGroups: empty groups and their offsets.

use ottla_wire::{
    ErrorCode,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, error_code};

pub(super) async fn handle(
    cx: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let names = request
        .groups_names
        .iter()
        .map(|id| id.to_string())
        .collect();
    let deleted = cx.broker().groups().delete_groups(names).await;
    let rows = request
        .groups_names
        .into_iter()
        .zip(deleted)
        .map(|(group_id, (_, result))| {
            let code = result.map_or_else(|error| error_code::group(&error), |()| ErrorCode::None);
            DeletableGroupResult::default()
                .with_group_id(group_id)
                .with_error_code(code.code())
        });
    DeleteGroupsResponse::default().with_results(rows.collect())
}

impl CountErrors for DeleteGroupsResponse {
    fn count_errors(&self) -> usize {
        count(self.results.iter().map(|result| result.error_code))
    }
}
