//! Which address speaks what: Kafka's listener keys and their rules.
//!
//! The listeners named in `controller.listener.names` speak controller gRPC, the one named in
//! `inter.broker.listener.name` replication gRPC, all others the Kafka protocol.

use std::collections::{BTreeMap, BTreeSet};

use crate::{error::ConfigError, key::split_list, load::StaticConfig, server::Roles};

/// Where replication listens if no listener is kept for it.
pub const DEFAULT_REPLICATION_PORT: u16 = 9094;

/// Name of the listener that replication gets where none is kept for it.
const REPLICATION: &str = "REPLICATION";

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// One address to listen on, and what others are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, upper case.
    pub name: String,
    /// Host to bind; empty for every interface.
    pub host: String,
    /// Port to bind; 0 lets the system choose.
    pub port: u16,
    /// Host and port that others connect to, where it is advertised; port 0 stands for the one
    /// that was bound.
    pub advertised: Option<(String, u16)>,
}

/// Every address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Kafka protocol; empty on a pure controller.
    pub clients: Vec<Listener>,
    /// Replication between brokers; `None` on a pure controller.
    pub replication: Option<Listener>,
    /// Controller gRPC; empty on a pure broker.
    pub controllers: Vec<Listener>,
    /// Host and port of `/metrics`, `/healthz` and `/readyz`; `None` is off.
    pub http: Option<(String, u16)>,
}

impl Listeners {
    pub(crate) fn resolve(
        statics: &StaticConfig,
        roles: Roles,
        hostname: &str,
        notes: &mut Vec<String>,
    ) -> Result<Listeners, ConfigError> {
        let keys = Keys { statics, hostname };
        let bound = keys.bound()?;
        let controller_names = keys.names("controller.listener.names");
        keys.check_roles(&bound, &controller_names, roles)?;
        keys.check_protocols(&bound, &controller_names)?;
        let advertised = keys.advertised(&bound, &controller_names)?;

        let (mut controllers, mut others) = (Vec::new(), Vec::new());
        for (name, host, port) in bound {
            let is_controller = controller_names.contains(&name);
            let advertised = advertised.get(&name).cloned();
            let listener = Listener {
                name,
                host,
                port,
                advertised,
            };
            if is_controller {
                &mut controllers
            } else {
                &mut others
            }
            .push(listener);
        }
        let replication = if roles.broker {
            Some(keys.replication(&mut others, notes)?)
        } else {
            None
        };
        Ok(Listeners {
            clients: others,
            replication,
            controllers,
            http: keys.http()?,
        })
    }
}

/// Name, host and port.
type Bound = (String, String, u16);

struct Keys<'a> {
    statics: &'a StaticConfig,
    hostname: &'a str,
}

impl Keys<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.statics.value(key).filter(|value| !value.is_empty())
    }

    fn error(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        self.statics.error(key, reason)
    }

    fn names(&self, key: &str) -> Vec<String> {
        split_list(self.text(key).unwrap_or_default())
            .map(str::to_ascii_uppercase)
            .collect()
    }

    fn addresses(&self, key: &str) -> Result<Vec<Bound>, ConfigError> {
        let mut addresses: Vec<Bound> = Vec::new();
        for item in split_list(self.text(key).unwrap_or_default()) {
            let (name, host, port) = parse_listener(item).map_err(|reason| {
                self.error(key, format!("{item:?}: {reason}"))
                    .accepted("NAME://host:port, …")
            })?;
            if addresses.iter().any(|(other, _, _)| *other == name) {
                return Err(self.error(key, format!("listener {name} occurs twice")));
            }
            addresses.push((name, host, port));
        }
        Ok(addresses)
    }

    fn bound(&self) -> Result<Vec<Bound>, ConfigError> {
        let bound = self.addresses("listeners")?;
        if bound.is_empty() {
            return Err(self.error("listeners", "names no listener"));
        }
        for (position, (name, host, port)) in bound.iter().enumerate() {
            for (other, other_host, other_port) in &bound[..position] {
                if *port != 0 && port == other_port && overlap(host, other_host) {
                    let reason = format!("listeners {other} and {name} share port {port}");
                    return Err(self.error("listeners", reason));
                }
            }
        }
        Ok(bound)
    }

    fn check_roles(
        &self,
        bound: &[Bound],
        controllers: &[String],
        roles: Roles,
    ) -> Result<(), ConfigError> {
        if controllers.is_empty() {
            let reason = "must name the listener that speaks to controllers, such as CONTROLLER";
            return Err(self.error("controller.listener.names", reason));
        }
        let of_controllers =
            |(name, _, _): &&Bound| controllers.iter().any(|controller| controller == name);
        let found = bound.iter().filter(of_controllers).count();
        let reason = match (roles.controller, roles.broker) {
            (true, _) if found == 0 => {
                "a controller needs a listener in it that is named in \
                                        controller.listener.names, such as CONTROLLER://:9093"
            }
            (true, false) if found < bound.len() => {
                "a pure controller may only have listeners named in controller.listener.names"
            }
            (false, true) if found > 0 => {
                "a pure broker may not listen on what controller.listener.names names"
            }
            (_, true) if found == bound.len() => "a broker needs a listener for clients",
            _ => return Ok(()),
        };
        Err(self.error("listeners", reason))
    }

    fn check_protocols(&self, bound: &[Bound], controllers: &[String]) -> Result<(), ConfigError> {
        const KEY: &str = "listener.security.protocol.map";
        let mut protocols: BTreeMap<String, String> = BTreeMap::new();
        for item in split_list(self.text(KEY).unwrap_or_default()) {
            let pair = item
                .split_once(':')
                .map(|(name, protocol)| (name.trim(), protocol.trim()));
            let Some((name, protocol)) = pair.filter(|(name, _)| !name.is_empty()) else {
                return Err(self.error(KEY, format!("{item:?} is not NAME:PROTOCOL")));
            };
            if !PROTOCOLS.contains(&protocol) {
                let error = self.error(KEY, format!("{protocol:?} is not a security protocol"));
                return Err(error.accepted(PROTOCOLS.join(", ")));
            }
            let name = name.to_ascii_uppercase();
            if protocols
                .insert(name.clone(), protocol.to_owned())
                .is_some()
            {
                return Err(self.error(KEY, format!("listener {name} occurs twice")));
            }
        }
        if self.statics.explicit(KEY).is_none() {
            // As Kafka: without a map, controller listeners are plaintext.
            for name in controllers {
                protocols
                    .entry(name.clone())
                    .or_insert_with(|| "PLAINTEXT".to_owned());
            }
        }
        let own = bound.iter().map(|(name, _, _)| name);
        for name in own.chain(controllers) {
            match protocols.get(name).map(String::as_str) {
                Some("PLAINTEXT") => {}
                Some(protocol) => {
                    let reason = format!(
                        "listener {name} asks for {protocol}: TLS and SASL are not available yet"
                    );
                    return Err(self.error(KEY, reason).accepted("PLAINTEXT"));
                }
                None => return Err(self.error(KEY, format!("says nothing of listener {name}"))),
            }
        }
        Ok(())
    }

    /// What others are told, by listener name.
    fn advertised(
        &self,
        bound: &[Bound],
        controllers: &[String],
    ) -> Result<BTreeMap<String, (String, u16)>, ConfigError> {
        const KEY: &str = "advertised.listeners";
        let explicit = self.addresses(KEY)?;
        let is_explicit = !explicit.is_empty();
        let of_clients = |(name, _, _): &Bound| !controllers.contains(name);
        let told = if is_explicit {
            explicit
        } else {
            bound
                .iter()
                .filter(|bound| of_clients(bound))
                .cloned()
                .collect()
        };
        let bound_names: BTreeSet<&String> = bound.iter().map(|(name, _, _)| name).collect();
        let mut advertised = BTreeMap::new();
        for (name, host, port) in told {
            if !bound_names.contains(&name) && !controllers.contains(&name) {
                return Err(self.error(KEY, format!("{name} is not in listeners")));
            }
            if matches!(host.as_str(), "0.0.0.0" | "::") {
                let reason = format!(
                    "nobody can connect to {host}: advertise {name} under a host name or address"
                );
                return Err(self
                    .error(KEY, reason)
                    .accepted(format!("{name}://{}:{port}", self.hostname)));
            }
            let host = if host.is_empty() {
                self.hostname.to_owned()
            } else {
                host
            };
            advertised.insert(name, (host, port));
        }
        Ok(advertised)
    }

    /// Takes the listener kept for replication out of `others`, or makes one at port 9094.
    fn replication(
        &self,
        others: &mut Vec<Listener>,
        notes: &mut Vec<String>,
    ) -> Result<Listener, ConfigError> {
        const KEY: &str = "inter.broker.listener.name";
        self.check_inter_broker_security()?;
        let name = self.text(KEY).map(str::to_ascii_uppercase);
        let position = match &name {
            Some(name) => match others.iter().position(|listener| listener.name == *name) {
                Some(position) => Some(position),
                None => return Err(self.error(KEY, format!("{name} is not in listeners"))),
            },
            None => None,
        };
        let kept_for_replication =
            |position: &usize| others.len() > 1 && !is_shared_with_clients(&others[*position]);
        if let Some(position) = position.filter(kept_for_replication) {
            let listener = others.remove(position);
            if !listener.name.starts_with(REPLICATION) {
                notes.push(format!(
                    "{KEY}={}: this listener is for replication only, clients cannot use it",
                    listener.name
                ));
            }
            if listener.advertised.is_none() {
                let reason = format!("{} is not in advertised.listeners", listener.name);
                return Err(self.error(KEY, reason));
            }
            return Ok(listener);
        }
        let beside = &others[position.unwrap_or(0)];
        let port = DEFAULT_REPLICATION_PORT;
        if let Some(taken) = others
            .iter()
            .find(|other| other.port == port && overlap(&other.host, &beside.host))
        {
            let reason = format!(
                "replication would listen on port {port}, which listener {} has: add a listener \
                 for it to listeners and name it here",
                taken.name
            );
            return Err(self.error(KEY, reason));
        }
        let Some((host, _)) = &beside.advertised else {
            let reason = format!("{} is not in advertised.listeners", beside.name);
            return Err(self.error(KEY, reason));
        };
        let why = match &name {
            Some(name) => format!("{KEY}={name} is a listener for clients"),
            None => format!("{KEY} is unset"),
        };
        notes.push(format!(
            "{why}: replication listens on port {port} of {host}"
        ));
        Ok(Listener {
            name: REPLICATION.to_owned(),
            host: beside.host.clone(),
            port,
            advertised: Some((host.clone(), port)),
        })
    }

    fn check_inter_broker_security(&self) -> Result<(), ConfigError> {
        const KEY: &str = "security.inter.broker.protocol";
        let Some(setting) = self.statics.explicit(KEY) else {
            return Ok(());
        };
        if self
            .statics
            .explicit("inter.broker.listener.name")
            .is_some()
        {
            return Err(self.error(KEY, "set this or inter.broker.listener.name, not both"));
        }
        if setting.value != "PLAINTEXT" {
            let error = self.error(KEY, "TLS and SASL are not available yet");
            return Err(error.accepted("PLAINTEXT"));
        }
        Ok(())
    }

    fn http(&self) -> Result<Option<(String, u16)>, ConfigError> {
        const KEY: &str = "http.listener";
        let Some(text) = self.text(KEY) else {
            return Ok(None);
        };
        let address = parse_address(text).map_err(|reason| {
            self.error(KEY, reason)
                .accepted("host:port, or empty for none")
        })?;
        Ok(Some(address))
    }
}

/// Whether clients connect there too, going by how Kafka's files name such listeners: after a
/// protocol (PLAINTEXT, PLAINTEXT_HOST), or INTERNAL and INSIDE for the clients of the same network.
/// One at the port that replication would get instead is kept for it.
fn is_shared_with_clients(listener: &Listener) -> bool {
    let name = listener.name.as_str();
    let after_protocol = PROTOCOLS.iter().any(|protocol| name.starts_with(protocol));
    let inside = name.contains("INTERNAL") || name.contains("INSIDE");
    (after_protocol || inside) && listener.port != DEFAULT_REPLICATION_PORT
}

/// Two hosts of which one is every interface, or which are the same.
fn overlap(a: &str, b: &str) -> bool {
    let every = |host: &str| matches!(host, "" | "0.0.0.0" | "::");
    every(a) || every(b) || a == b
}

/// `NAME://host:port`; the host may be empty, an IPv6 address stands in brackets.
fn parse_listener(text: &str) -> Result<Bound, &'static str> {
    let (name, address) = text
        .split_once("://")
        .ok_or("no :// after the listener's name")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(legal) {
        return Err("a listener's name is letters, digits, - . and _");
    }
    let (host, port) = parse_address(address)?;
    Ok((name.to_ascii_uppercase(), host, port))
}

/// `host:port`; the host may be empty.
pub(crate) fn parse_address(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text.trim().rsplit_once(':').ok_or("no :port at the end")?;
    let port = port
        .parse()
        .map_err(|_| "the port is not a number from 0 to 65535")?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("an opening [ without its ]")?,
        None if host.contains(':') => return Err("an IPv6 address stands in [ ]"),
        None => host,
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '%');
    if !host.chars().all(legal) {
        return Err("not a host name or address");
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
#[path = "listeners_tests.rs"]
mod tests;
