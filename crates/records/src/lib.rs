//! The record batch v2, read and stamped in place.
