//! The log as a whole, on a file system that fails on demand.

mod support;

mod append;
mod damage;
mod directory;
mod faults;
mod flush;
mod kafka;
mod model;
mod read;
mod recovery;
mod retention;
mod truncate;
