//! FindCoordinator: which broker keeps a group's state.

use ottla_types::BrokerId;
use ottla_wire::{
    ErrorCode, StrBytes,
    messages::{
        self, FindCoordinatorRequest, FindCoordinatorResponse,
        find_coordinator_response::Coordinator,
    },
};

use super::{CountErrors, count};
use crate::{context::RequestContext, endpoints::live_endpoint, error_code};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(super) async fn handle(
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if cx.version() >= 4 {
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            let found = find(cx, request.key_type, &key).await;
            coordinators.push(coordinator(key, found));
        }
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let one = coordinator(
        StrBytes::new(),
        find(cx, request.key_type, &request.key).await,
    );
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_error_message(one.error_message)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

struct Found {
    node_id: BrokerId,
    host: String,
    port: u16,
}

type Refusal = (ErrorCode, &'static str);

async fn find(cx: &RequestContext, key_type: i8, key: &str) -> Result<Found, Refusal> {
    match key_type {
        GROUP => {}
        TRANSACTION => {
            let message = "transactions are not served by this broker yet";
            return Err((ErrorCode::UnsupportedVersion, message));
        }
        SHARE => {
            let message = "share groups are not served by this broker yet";
            return Err((ErrorCode::UnsupportedVersion, message));
        }
        _ => return Err((ErrorCode::InvalidRequest, "unknown coordinator type")),
    }
    let found = cx
        .broker()
        .groups()
        .find_coordinator(key, cx.default_deadline())
        .await;
    let node_id = found.map_err(|error| (error_code::group(&error), "no coordinator yet"))?;
    let image = cx.image();
    let (_, endpoint) = live_endpoint(&image, node_id, &cx.peer.listener).ok_or((
        ErrorCode::CoordinatorNotAvailable,
        "the coordinator is not on this listener",
    ))?;
    Ok(Found {
        node_id,
        host: endpoint.host.clone(),
        port: endpoint.port,
    })
}

fn coordinator(key: StrBytes, found: Result<Found, Refusal>) -> Coordinator {
    let row = Coordinator::default().with_key(key);
    match found {
        Ok(Found {
            node_id,
            host,
            port,
        }) => row
            .with_node_id(messages::BrokerId(node_id.get()))
            .with_host(host.into())
            .with_port(port.into())
            // Kafka says so in words, and some clients print it.
            .with_error_message(Some("NONE".into())),
        Err((code, message)) => row
            .with_node_id(messages::BrokerId(-1))
            .with_port(-1)
            .with_error_code(code.code())
            .with_error_message(Some(message.into())),
    }
}

impl CountErrors for FindCoordinatorResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code]) + count(self.coordinators.iter().map(|row| row.error_code))
    }
}
