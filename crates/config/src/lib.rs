//! Every configuration key, its default, unit and check.
