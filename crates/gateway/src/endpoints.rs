//! Addresses of brokers, on the listener through which the question came.

use ottla_metadata::{BrokerRecord, Endpoint, Image};
use ottla_types::BrokerId;

/// A broker's advertised endpoint on a listener.
pub(crate) fn endpoint<'a>(broker: &'a BrokerRecord, listener: &str) -> Option<&'a Endpoint> {
    broker
        .endpoints
        .iter()
        .find(|endpoint| endpoint.listener == listener)
}

/// The live broker of this id with its endpoint on a listener.
pub(crate) fn live_endpoint<'a>(
    image: &'a Image,
    broker_id: BrokerId,
    listener: &str,
) -> Option<(&'a BrokerRecord, &'a Endpoint)> {
    let broker = image
        .brokers
        .get(&broker_id)
        .filter(|broker| !broker.fenced)?;
    Some((broker, endpoint(broker, listener)?))
}

/// A live broker for a client to send administrative requests to: any will do, since every broker
/// forwards. -1 if there is none.
pub(crate) fn any_controller_id(image: &Image, listener: &str) -> i32 {
    let live: Vec<i32> = image
        .live_brokers()
        .filter(|broker| endpoint(broker, listener).is_some())
        .map(|broker| broker.broker_id.get())
        .collect();
    let at = rand::random_range(0..live.len().max(1));
    live.get(at).copied().unwrap_or(-1)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use ottla_metadata::SecurityProtocol;
    use ottla_types::BrokerEpoch;
    use uuid::Uuid;

    use super::*;

    /// An image of brokers 1.. with one listener `CLIENTS` each; those in `fenced` are fenced.
    pub(crate) fn image_of_brokers(count: i32, fenced: &[i32]) -> Image {
        let mut image = Image::default();
        for id in 1..=count {
            let broker = BrokerRecord {
                broker_id: BrokerId(id),
                epoch: BrokerEpoch::ZERO,
                incarnation: Uuid::nil(),
                directory_ids: Vec::new(),
                endpoints: vec![Endpoint {
                    listener: "CLIENTS".into(),
                    host: format!("broker-{id}"),
                    port: 9092,
                    security: SecurityProtocol::Plaintext,
                }],
                replication_address: String::new(),
                rack: None,
                fenced: fenced.contains(&id),
                in_controlled_shutdown: false,
                offline_directories: Vec::new(),
                no_space: false,
                default_flush_mode: ottla_types::FlushMode::Ack,
            };
            image.brokers.insert(BrokerId(id), Arc::new(broker));
        }
        image
    }

    #[test]
    fn only_live_brokers_of_the_listener_are_named() {
        let image = image_of_brokers(3, &[2]);
        assert!(live_endpoint(&image, BrokerId(1), "CLIENTS").is_some());
        assert!(live_endpoint(&image, BrokerId(1), "OTHER").is_none());
        assert!(live_endpoint(&image, BrokerId(2), "CLIENTS").is_none());
        for _ in 0..20 {
            assert!([1, 3].contains(&any_controller_id(&image, "CLIENTS")));
        }
        assert_eq!(any_controller_id(&image, "OTHER"), -1);
    }
}
