//! The one table of what is served: API keys, version ranges and where flexible encoding begins.
//!
//! A range is a promise for every version inside it, so whatever is not served
//! is not in here, and a test decodes and encodes every row. Everything that asks "may this request
//! be served, and how are its headers laid out?" asks here.

use crate::shape::Field;
use crate::shapes;

macro_rules! apis {
    ($($key:literal $api:ident $min:literal..=$max:literal flexible $flexible:literal $shape:expr;)*) => {
        /// An API that is served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Api {
            $(
                #[doc = concat!(stringify!($api), ", key ", stringify!($key))]
                $api,
            )*
        }

        impl Api {
            /// Every API that is served, by key.
            pub const ALL: &[Api] = &[$(Api::$api),*];

            /// The API of this key, if it is served.
            #[must_use]
            pub const fn from_key(key: i16) -> Option<Api> {
                match key {
                    $($key => Some(Api::$api),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            #[must_use]
            pub const fn key(self) -> i16 {
                match self {
                    $(Api::$api => $key,)*
                }
            }

            /// Kafka's name for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Api::$api => stringify!($api),)*
                }
            }

            /// The versions that are served.
            #[must_use]
            pub const fn versions(self) -> Versions {
                match self {
                    $(Api::$api => Versions { min: $min, max: $max },)*
                }
            }

            /// The first version with compact lengths and tagged fields.
            #[must_use]
            pub const fn first_flexible(self) -> i16 {
                match self {
                    $(Api::$api => $flexible,)*
                }
            }

            pub(crate) const fn shape(self) -> &'static [Field] {
                match self {
                    $(Api::$api => $shape,)*
                }
            }
        }
    };
}

apis! {
    0 Produce 3..=13 flexible 9 shapes::PRODUCE;
    1 Fetch 4..=18 flexible 12 shapes::FETCH;
    2 ListOffsets 1..=10 flexible 6 shapes::LIST_OFFSETS;
    3 Metadata 0..=13 flexible 9 shapes::METADATA;
    8 OffsetCommit 2..=9 flexible 8 shapes::OFFSET_COMMIT;
    9 OffsetFetch 1..=9 flexible 6 shapes::OFFSET_FETCH;
    10 FindCoordinator 0..=6 flexible 3 shapes::FIND_COORDINATOR;
    11 JoinGroup 0..=9 flexible 6 shapes::JOIN_GROUP;
    12 Heartbeat 0..=4 flexible 4 shapes::HEARTBEAT;
    13 LeaveGroup 0..=5 flexible 4 shapes::LEAVE_GROUP;
    14 SyncGroup 0..=5 flexible 4 shapes::SYNC_GROUP;
    15 DescribeGroups 0..=6 flexible 5 shapes::DESCRIBE_GROUPS;
    16 ListGroups 0..=5 flexible 3 shapes::LIST_GROUPS;
    18 ApiVersions 0..=4 flexible 3 shapes::API_VERSIONS;
    19 CreateTopics 2..=7 flexible 5 shapes::CREATE_TOPICS;
    20 DeleteTopics 1..=6 flexible 4 shapes::DELETE_TOPICS;
    22 InitProducerId 0..=5 flexible 2 shapes::INIT_PRODUCER_ID;
    23 OffsetForLeaderEpoch 2..=4 flexible 4 shapes::OFFSET_FOR_LEADER_EPOCH;
    32 DescribeConfigs 1..=4 flexible 4 shapes::DESCRIBE_CONFIGS;
    35 DescribeLogDirs 1..=4 flexible 2 shapes::DESCRIBE_LOG_DIRS;
    37 CreatePartitions 0..=3 flexible 2 shapes::CREATE_PARTITIONS;
    42 DeleteGroups 0..=2 flexible 2 shapes::DELETE_GROUPS;
    44 IncrementalAlterConfigs 0..=1 flexible 1 shapes::INCREMENTAL_ALTER_CONFIGS;
    46 ListPartitionReassignments 0..=0 flexible 0 shapes::LIST_PARTITION_REASSIGNMENTS;
    47 OffsetDelete 0..=0 flexible 1 shapes::OFFSET_DELETE;
    55 DescribeQuorum 0..=2 flexible 0 shapes::DESCRIBE_QUORUM;
    60 DescribeCluster 0..=2 flexible 0 shapes::DESCRIBE_CLUSTER;
    75 DescribeTopicPartitions 0..=0 flexible 0 shapes::DESCRIBE_TOPIC_PARTITIONS;
}

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: i16,
    /// The highest.
    pub max: i16,
}

impl Versions {
    /// Whether the version is in the range.
    #[must_use]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

impl Api {
    /// The versions that ApiVersions tells clients.
    ///
    /// Produce claims to begin at 0 although it is served from 3: librdkafka sends everything
    /// uncompressed where 0 is not in the range.
    #[must_use]
    pub const fn advertised_versions(self) -> Versions {
        let served = self.versions();
        match self {
            Api::Produce => Versions {
                min: 0,
                max: served.max,
            },
            _ => served,
        }
    }

    /// Whether this version has compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible()
    }

    /// Version of the request header: 2 adds tagged fields to 1.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Version of the response header: 1 adds tagged fields to 0.
    ///
    /// ApiVersions always answers with 0: the client cannot know yet what the broker speaks.
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Api::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_round_trip() {
        let keys: Vec<i16> = Api::ALL.iter().map(|api| api.key()).collect();
        assert!(keys.is_sorted());
        for api in Api::ALL {
            assert_eq!(Api::from_key(api.key()), Some(*api));
            assert!(api.versions().min <= api.versions().max);
        }
        assert_eq!(Api::from_key(4), None);
    }

    #[test]
    fn header_versions_agree_with_the_generated_ones() {
        for api in Api::ALL {
            let theirs = kafka_protocol::messages::ApiKey::try_from(api.key()).unwrap();
            for version in api.versions().min..=api.versions().max {
                let what = format!("{} {version}", api.name());
                assert_eq!(
                    api.request_header_version(version),
                    theirs.request_header_version(version),
                    "{what}"
                );
                assert_eq!(
                    api.response_header_version(version),
                    theirs.response_header_version(version),
                    "{what}"
                );
            }
        }
    }
}
