//! Wiring of roles, listeners, signals and HTTP.
