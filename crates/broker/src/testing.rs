//! Small things that several tests build.

use ottla_records::{BatchBuilder, BatchHeader};

/// A header of a valid batch.
pub(crate) fn any_header() -> BatchHeader {
    let mut builder = BatchBuilder::new(0);
    builder.push(0, None, Some(b"value"), &[]);
    BatchHeader::parse(&builder.build()).expect("what was built parses")
}
