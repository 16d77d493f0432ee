//! This machine's name, advertised where a listener has no host.

/// The name, or `localhost` where the system does not say.
#[must_use]
pub fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() || name == "(none)" {
        "localhost".to_owned()
    } else {
        name
    }
}
