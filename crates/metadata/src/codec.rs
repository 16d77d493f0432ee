//! How commands, outcomes, records and images travel and rest: a version byte, then msgpack with
//! field names, so that a field added later with a default is read by both sides of an upgrade.

use serde::{Serialize, de::DeserializeOwned};

/// The format that [`encode`] writes.
const VERSION: u8 = 1;

/// The bytes are not what [`encode`] writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Nothing to read.
    #[error("the value is empty")]
    Empty,
    /// Written by a newer version.
    #[error("format version {0} is not known, {VERSION} is")]
    UnknownVersion(u8),
    /// The body cannot be read.
    #[error("the value is malformed: {0}")]
    Malformed(String),
    /// Bytes are left over after the value.
    #[error("{0} bytes follow the value")]
    TrailingBytes(usize),
}

/// Encodes a value of this crate.
///
/// # Panics
/// If `T` refuses to be serialized; the types of this crate never do.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write_named(&mut bytes, value)
        .expect("plain data into memory cannot fail to encode");
    bytes
}

/// Decodes what [`encode`] wrote, whole.
///
/// # Errors
/// If the bytes are of another version, broken, or too many.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, mut body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::UnknownVersion(version));
    }
    let value = rmp_serde::decode::from_read(&mut body)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if body.is_empty() {
        Ok(value)
    } else {
        Err(CodecError::TrailingBytes(body.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Record};
    use ottla_types::{BrokerId, ProducerId};

    #[test]
    fn a_value_survives_the_round_trip() {
        let command = Command::UnregisterBroker {
            broker_id: BrokerId(7),
        };
        assert_eq!(decode::<Command>(&encode(&command)), Ok(command));
    }

    #[test]
    fn broken_bytes_are_an_error_and_never_a_panic() {
        let good = encode(&Record::ProducerIds {
            next: ProducerId(5000),
        });
        assert_eq!(decode::<Record>(&[]), Err(CodecError::Empty));
        for cut in 1..good.len() {
            assert!(matches!(
                decode::<Record>(&good[..cut]),
                Err(CodecError::Malformed(_))
            ));
        }
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(decode::<Record>(&newer), Err(CodecError::UnknownVersion(2)));
        let mut longer = good;
        longer.push(0);
        assert_eq!(decode::<Record>(&longer), Err(CodecError::TrailingBytes(1)));
    }
}
