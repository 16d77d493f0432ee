//! One replica of a partition as a pure state machine.
