//! One consumer group as a pure state machine, and the records it persists.
