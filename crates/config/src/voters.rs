//! `controller.quorum.voters`: who votes, and where they are reached.

use std::collections::BTreeSet;

use ottla_types::BrokerId;

use crate::{error::ConfigError, key::split_list, listeners::parse_address};

/// One controller that votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its `node.id`.
    pub id: BrokerId,
    /// Host name or address.
    pub host: String,
    /// Port of its controller listener.
    pub port: u16,
}

/// Reads `1@host:9093,2@host:9093`.
pub fn parse_voters(text: &str) -> Result<Vec<Voter>, ConfigError> {
    const KEY: &str = "controller.quorum.voters";
    const ACCEPTED: &str = "id@host:port, comma separated";
    let mut voters: Vec<Voter> = Vec::new();
    let mut ids = BTreeSet::new();
    for item in split_list(text) {
        let error = |reason: String| ConfigError::new(KEY, item, reason).accepted(ACCEPTED);
        let (id, address) = item
            .split_once('@')
            .ok_or_else(|| error("no @ after the node id".to_owned()))?;
        let id = id.trim().parse().ok().and_then(BrokerId::new);
        let id = id.ok_or_else(|| error("the node id is not a number of 0 or more".to_owned()))?;
        let (host, port) = parse_address(address).map_err(|reason| error(reason.to_owned()))?;
        if host.is_empty() || host == "0.0.0.0" || host == "::" {
            return Err(error("others cannot connect to this host".to_owned()));
        }
        if port == 0 {
            return Err(error("others cannot connect to port 0".to_owned()));
        }
        if !ids.insert(id) {
            return Err(error(format!("node id {id} occurs twice")));
        }
        voters.push(Voter { id, host, port });
    }
    if voters.is_empty() {
        let reason = "must name the controllers that vote";
        return Err(ConfigError::without_value(KEY, reason).accepted(ACCEPTED));
    }
    Ok(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_read_in_order() {
        let voters = parse_voters("1@a:9093, 2@[::1]:9094").unwrap();
        assert_eq!(
            voters[0],
            Voter {
                id: BrokerId(1),
                host: "a".to_owned(),
                port: 9093
            }
        );
        assert_eq!(
            voters[1],
            Voter {
                id: BrokerId(2),
                host: "::1".to_owned(),
                port: 9094
            }
        );
    }

    #[test]
    fn voters_nobody_can_reach_are_refused() {
        for bad in [
            "",
            "a:9093",
            "x@a:9093",
            "-1@a:1",
            "1@0.0.0.0:9093",
            "1@a:0",
            "1@a",
            "1@:1",
        ] {
            let error = parse_voters(bad).unwrap_err();
            assert_eq!(error.key, "controller.quorum.voters", "{bad}");
        }
        assert!(
            parse_voters("1@a:1,1@b:1")
                .unwrap_err()
                .reason
                .contains("twice")
        );
    }
}
