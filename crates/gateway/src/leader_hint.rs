//! Who leads now, told beside errors about leadership so that clients need not ask (KIP-951).

use std::collections::BTreeSet;

use ottla_broker::LeaderHint;
use ottla_metadata::Image;
use ottla_types::{BrokerId, PartitionId};
use ottla_wire::{CurrentLeader, NodeEndpoint};

use crate::endpoints::live_endpoint;

/// The leader to name: what the broker said, or what its image says where that is newer.
pub(crate) fn current_leader(
    image: &Image,
    id: PartitionId,
    hint: LeaderHint,
) -> Option<CurrentLeader> {
    let known = image.partition(id).map(|state| CurrentLeader {
        leader_id: state.leader.map_or(-1, BrokerId::get),
        leader_epoch: state.leader_epoch.get(),
    });
    let said = hint.map(|(leader, epoch)| CurrentLeader {
        leader_id: leader.get(),
        leader_epoch: epoch.get(),
    });
    match (known, said) {
        (Some(known), Some(said)) if known.leader_epoch > said.leader_epoch => Some(known),
        (_, Some(said)) => Some(said),
        (known, None) => known,
    }
}

/// Addresses of the leaders named in one response, each once.
pub(crate) fn node_endpoints(
    image: &Image,
    listener: &str,
    leaders: impl IntoIterator<Item = i32>,
) -> Vec<NodeEndpoint> {
    let leaders: BTreeSet<i32> = leaders.into_iter().collect();
    leaders
        .into_iter()
        .filter_map(|leader| {
            let (broker, endpoint) = live_endpoint(image, BrokerId::new(leader)?, listener)?;
            Some(NodeEndpoint {
                node_id: leader,
                host: endpoint.host.clone().into(),
                port: endpoint.port.into(),
                rack: broker.rack.clone().map(Into::into),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::tests::image_of_brokers;

    #[test]
    fn leaders_are_listed_once_with_their_address() {
        let image = image_of_brokers(3, &[3]);
        let endpoints = node_endpoints(&image, "CLIENTS", [2, -1, 2, 3, 9, 1]);
        let ids: Vec<i32> = endpoints.iter().map(|endpoint| endpoint.node_id).collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(endpoints[0].host.as_str(), "broker-1");
    }
}
