//! Binding every listener before anything else happens.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use ottla_config::{Listener, ServerConfig};
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::ExitReason;

/// A node's sockets, bound and listening.
pub(crate) struct BoundListeners {
    /// Kafka protocol.
    pub(crate) clients: Vec<Bound>,
    /// Replication, on a broker.
    pub(crate) replication: Option<Bound>,
    /// Controller gRPC, on a controller.
    pub(crate) controllers: Vec<Bound>,
    /// Metrics and health, unless turned off.
    pub(crate) http: Option<TcpListener>,
}

/// One listener with its socket.
pub(crate) struct Bound {
    /// Its name.
    pub(crate) name: String,
    /// The socket.
    pub(crate) socket: TcpListener,
    /// What others connect to, if it is advertised.
    pub(crate) advertised: Option<(String, u16)>,
}

impl BoundListeners {
    /// Binds all of them, or says which one cannot be.
    pub(crate) fn bind(config: &ServerConfig) -> Result<BoundListeners, ExitReason> {
        let backlog = config.network.socket_listen_backlog_size;
        let bind = |listener: &Listener| bind_listener(listener, backlog);
        let listeners = &config.listeners;
        Ok(BoundListeners {
            clients: listeners
                .clients
                .iter()
                .map(bind)
                .collect::<Result<_, _>>()?,
            replication: listeners.replication.as_ref().map(bind).transpose()?,
            controllers: listeners
                .controllers
                .iter()
                .map(bind)
                .collect::<Result<_, _>>()?,
            http: match &listeners.http {
                Some((host, port)) => Some(
                    bind_address(host, *port, backlog)
                        .map_err(|error| bind_error("http.listener", host, *port, &error))?,
                ),
                None => None,
            },
        })
    }
}

fn bind_listener(listener: &Listener, backlog: i32) -> Result<Bound, ExitReason> {
    let socket = bind_address(&listener.host, listener.port, backlog)
        .map_err(|error| bind_error(&listener.name, &listener.host, listener.port, &error))?;
    let bound_port = socket
        .local_addr()
        .map_or(listener.port, |address| address.port());
    // Port 0 asks the system for one: others must be told which it was.
    let advertised = listener.advertised.clone().map(|(host, port)| match port {
        0 => (host, bound_port),
        port => (host, port),
    });
    Ok(Bound {
        name: listener.name.clone(),
        socket,
        advertised,
    })
}

fn bind_error(name: &str, host: &str, port: u16, error: &io::Error) -> ExitReason {
    ExitReason::Start(format!("listener {name}: bind {host}:{port}: {error}"))
}

/// An empty host is every interface, over IPv6 with IPv4 mapped in where the kernel has both.
fn bind_address(host: &str, port: u16, backlog: i32) -> io::Result<TcpListener> {
    if host.is_empty() {
        let every = |address: [u16; 8]| SocketAddr::from((address, port));
        return bind(every([0; 8]), backlog)
            .or_else(|_| bind(SocketAddr::from(([0, 0, 0, 0], port)), backlog));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match bind(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted node takes its ports back while connections of its former life still linger.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_the_bound_port_in_what_is_advertised() {
        let listener = Listener {
            name: "PLAINTEXT".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 0,
            advertised: Some(("127.0.0.1".to_owned(), 0)),
        };
        let bound = bind_listener(&listener, 10).unwrap();
        let port = bound.socket.local_addr().unwrap().port();
        assert_ne!(port, 0);
        assert_eq!(bound.advertised, Some(("127.0.0.1".to_owned(), port)));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = bind_address("127.0.0.1", 0, 10).unwrap();
        let port = taken.local_addr().unwrap().port();
        let listener = Listener {
            name: "A".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            advertised: None,
        };
        let error = bind_listener(&listener, 10).err().unwrap().to_string();
        assert!(
            error.contains("listener A") && error.contains(&port.to_string()),
            "{error}"
        );
    }

    #[test]
    fn an_empty_host_takes_ipv4_too() {
        let every = bind_address("", 0, 10).unwrap();
        let port = every.local_addr().unwrap().port();
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}
