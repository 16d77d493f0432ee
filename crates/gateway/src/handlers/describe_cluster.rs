//! DescribeCluster: brokers and the cluster's id (KIP-700).

use ottla_wire::{
    ErrorCode,
    messages::{
        BrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
};

use super::{CountErrors, count};
use crate::{
    access,
    context::RequestContext,
    endpoints::{any_controller_id, endpoint},
};

const ENDPOINTS_OF_BROKERS: i8 = 1;
const ENDPOINTS_OF_CONTROLLERS: i8 = 2;

pub(super) async fn handle(
    cx: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refuse = |code: ErrorCode, message: &'static str| {
        DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(message.into()))
    };
    match request.endpoint_type {
        ENDPOINTS_OF_BROKERS => {}
        ENDPOINTS_OF_CONTROLLERS => {
            let message = "this is a broker's listener; controllers do not speak Kafka's protocol";
            return refuse(ErrorCode::MismatchedEndpointType, message);
        }
        _ => return refuse(ErrorCode::UnsupportedEndpointType, "unknown endpoint type"),
    }
    let (image, listener) = (cx.image(), cx.peer.listener.as_str());
    let listed = image
        .brokers
        .values()
        .filter(|broker| !broker.fenced || (cx.version() >= 2 && request.include_fenced_brokers));
    let brokers = listed.filter_map(|broker| {
        let endpoint = endpoint(broker, listener)?;
        let row = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.broker_id.get()))
            .with_host(endpoint.host.clone().into())
            .with_port(endpoint.port.into())
            .with_rack(broker.rack.clone().map(Into::into));
        Some(row.with_is_fenced(broker.fenced))
    });
    let operations = access::cluster_operations(request.include_cluster_authorized_operations);
    DescribeClusterResponse::default()
        .with_cluster_id(image.cluster_id.clone().unwrap_or_default().into())
        .with_controller_id(BrokerId(any_controller_id(&image, listener)))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}

impl CountErrors for DescribeClusterResponse {
    fn count_errors(&self) -> usize {
        count([self.error_code])
    }
}
