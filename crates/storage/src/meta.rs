//! The small files of a log directory that say whose it is and how it was left:
//! `meta.properties`, the clean-shutdown marker, the boot it was last opened in, and each
//! partition's `partition.metadata`.

use std::collections::BTreeMap;

use ottla_types::{BrokerEpoch, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) const META: &str = "meta.properties";
pub(crate) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(crate) const LOCK: &str = ".lock";
/// Our own file: the boot of the machine in which the directory was last opened.
pub(crate) const BOOT: &str = "ottla-boot";
/// First word of [`BOOT`].
const BOOT_MAGIC: &str = "ottla-boot-1";

/// Whose a log directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetaProperties {
    pub(crate) cluster_id: Option<String>,
    pub(crate) node_id: i32,
    pub(crate) directory_id: Uuid,
}

impl MetaProperties {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = String::from("#\n");
        if let Some(cluster_id) = &self.cluster_id {
            text.push_str(&format!("cluster.id={cluster_id}\n"));
        }
        // Kafka prints ids of directories as it prints those of topics.
        if let Some(id) = TopicId::new(self.directory_id) {
            text.push_str(&format!("directory.id={id}\n"));
        }
        text.push_str(&format!("node.id={}\nversion=1\n", self.node_id));
        text.into_bytes()
    }

    /// Reads the file; a directory that Kafka made before it had ids gets `new_id`.
    pub(crate) fn decode(bytes: &[u8], new_id: Uuid) -> Result<MetaProperties, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
        let values: BTreeMap<&str, &str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let version = values.get("version").copied().unwrap_or_default();
        if version != "1" {
            return Err(format!("version {version:?} instead of 1"));
        }
        let node_id = values.get("node.id").ok_or("node.id is missing")?;
        let node_id = node_id
            .parse()
            .map_err(|_| format!("node.id {node_id:?} is no number"))?;
        let directory_id = match values.get("directory.id") {
            None => new_id,
            Some(text) => text
                .parse::<TopicId>()
                .map_err(|error| format!("directory.id: {error}"))?
                .uuid(),
        };
        let cluster_id = values.get("cluster.id").map(|id| (*id).to_owned());
        Ok(MetaProperties {
            cluster_id,
            node_id,
            directory_id,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CleanShutdown {
    version: i32,
    #[serde(default = "no_epoch")]
    broker_epoch: i64,
}

fn no_epoch() -> i64 {
    -1
}

/// The clean-shutdown marker, which carries the incarnation (S-5).
pub(crate) fn encode_clean_shutdown(broker_epoch: Option<BrokerEpoch>) -> Vec<u8> {
    let broker_epoch = broker_epoch.map_or(-1, BrokerEpoch::get);
    // Two numbers always encode.
    serde_json::to_vec(&CleanShutdown {
        version: 0,
        broker_epoch,
    })
    .unwrap_or_default()
}

/// Reads the clean-shutdown marker. One that cannot be read was not written by a clean end.
pub(crate) fn decode_clean_shutdown(bytes: &[u8]) -> Option<Option<BrokerEpoch>> {
    let marker: CleanShutdown = serde_json::from_slice(bytes).ok()?;
    Some(BrokerEpoch::new(marker.broker_epoch))
}

/// The record of a boot.
pub(crate) fn encode_boot(boot_id: &str) -> Vec<u8> {
    format!(
        "{BOOT_MAGIC} {boot_id} {:08x}\n",
        crc32c::crc32c(boot_id.as_bytes())
    )
    .into_bytes()
}

/// Reads the record of a boot.
pub(crate) fn decode_boot(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_whitespace();
    let boot_id = words
        .next()
        .filter(|magic| *magic == BOOT_MAGIC)
        .and_then(|_| words.next())?;
    (encode_boot(boot_id) == bytes).then(|| boot_id.to_owned())
}

/// Which topic a partition directory belongs to.
pub(crate) fn encode_partition_metadata(topic_id: TopicId) -> Vec<u8> {
    format!("version: 0\ntopic_id: {topic_id}\n").into_bytes()
}

/// Reads which topic a partition directory belongs to.
pub(crate) fn decode_partition_metadata(bytes: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value = |key| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    };
    if value("version")? != "0" {
        return None;
    }
    value("topic_id")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_files_round_trip() {
        let meta = MetaProperties {
            cluster_id: Some("abc".to_owned()),
            node_id: 3,
            directory_id: Uuid::from_u128(77),
        };
        assert_eq!(
            MetaProperties::decode(&meta.encode(), Uuid::nil()),
            Ok(meta)
        );
        let epoch = BrokerEpoch::new(12);
        assert_eq!(
            encode_clean_shutdown(epoch),
            br#"{"version":0,"brokerEpoch":12}"#
        );
        assert_eq!(
            decode_clean_shutdown(&encode_clean_shutdown(epoch)),
            Some(epoch)
        );
        assert_eq!(decode_clean_shutdown(b"{\"version\":0}"), Some(None));
        assert_eq!(decode_clean_shutdown(b""), None);
        assert_eq!(decode_boot(&encode_boot("x-y")), Some("x-y".to_owned()));
        assert_eq!(decode_boot(b"ottla-boot-1 x-y 00000000\n"), None);
        let id = TopicId::new(Uuid::from_u128(5)).unwrap();
        assert_eq!(
            decode_partition_metadata(&encode_partition_metadata(id)),
            Some(id)
        );
        assert_eq!(
            decode_partition_metadata(b"version: 1\ntopic_id: x\n"),
            None
        );
    }

    #[test]
    fn what_kafka_writes_is_read() {
        let text = b"#\n#Fri Jan 02 10:11:12 UTC 2026\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\n\
            directory.id=AAECAwQFBgcICQoLDA0ODw\nnode.id=1\nversion=1\n";
        let meta = MetaProperties::decode(text, Uuid::nil()).unwrap();
        assert_eq!(meta.node_id, 1);
        assert_eq!(meta.cluster_id.as_deref(), Some("MkU3OEVBNTcwNTJENDM2Qg"));
        assert_eq!(
            meta.directory_id,
            Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f)
        );
    }
}
