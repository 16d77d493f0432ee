//! Environment variables to keys, as the official Kafka image maps them.

use crate::tables::broker_key;

/// Variables of Kafka's scripts and image, which configure a JVM and not a server.
const EXEMPT: [&str; 11] = [
    "KAFKA_HOME",
    "KAFKA_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_JMX_OPTS",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_LOG4J_CONFIG",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
];

/// What a variable means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// It sets this key.
    Sets(String),
    /// It looks as if it should set this key, but there is none of the name.
    Unknown(String),
    /// It is not for us.
    Ignored,
}

pub(crate) fn variable(name: &str, value: &str) -> Variable {
    if name == "CLUSTER_ID" {
        return Variable::Sets("cluster.id".to_owned());
    }
    let Some(rest) = name.strip_prefix("KAFKA_") else {
        return Variable::Ignored;
    };
    if EXEMPT.contains(&name) {
        return Variable::Ignored;
    }
    let key = key_of(rest);
    if broker_key(&key).is_some() || crate::load::is_open_ended(&key) {
        Variable::Sets(key)
    } else if is_service_link(rest, value) {
        Variable::Ignored
    } else {
        Variable::Unknown(key)
    }
}

/// `X_Y` → `x.y`, `__` → `_`, `___` → `-`.
fn key_of(rest: &str) -> String {
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '_' {
            key.push(c.to_ascii_lowercase());
            continue;
        }
        let mut run = 1;
        while run < 3 && chars.peek() == Some(&'_') {
            chars.next();
            run += 1;
        }
        key.push(match run {
            1 => '.',
            2 => '_',
            _ => '-',
        });
    }
    key
}

/// Kubernetes and Docker tell a container where a service named `kafka…` is:
/// `KAFKA_SERVICE_HOST`, `KAFKA_PORT=tcp://…`, `KAFKA_PORT_9092_TCP_ADDR`, `KAFKA_ENV_…`.
fn is_service_link(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let service = words
        .windows(2)
        .any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]));
    let port = words.windows(3).any(
        |three| matches!(three, ["PORT", number, "TCP" | "UDP"] if number.parse::<u16>().is_ok()),
    );
    let address = ["tcp://", "udp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let link = words.first() == Some(&"ENV") || words.first() == Some(&"NAME");
    service || port || (address && words.last() == Some(&"PORT")) || link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_as_the_official_image_does() {
        let sets = |name: &str| match variable(name, "") {
            Variable::Sets(key) => key,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(sets("KAFKA_NODE_ID"), "node.id");
        assert_eq!(sets("CLUSTER_ID"), "cluster.id");
        assert_eq!(sets("KAFKA_HTTP_LISTENER"), "http.listener");
        assert_eq!(sets("KAFKA_OTTLA_FLUSH_THREADS"), "ottla.flush.threads");
        assert_eq!(key_of("A__B___C_D"), "a_b-c.d");
    }

    #[test]
    fn what_is_not_for_the_server_is_ignored() {
        for (name, value) in [
            ("PATH", "/bin"),
            ("KAFKA_HOME", "/opt/kafka"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("KAFKA_OPTS", ""),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("KAFKA_SERVICE_PORT", "9092"),
            ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("KAFKA_BROKERS_SERVICE_PORT_CLIENT", "9092"),
            ("KAFKA_ENV_JAVA", "x"),
        ] {
            assert_eq!(variable(name, value), Variable::Ignored, "{name}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_unknown() {
        assert_eq!(
            variable("KAFKA_NODEID", "1"),
            Variable::Unknown("nodeid".to_owned())
        );
    }
}
