//! The guard in front of the generated decoders: walks a request by its shape, without allocating.
//!
//! The generated code reserves room for as many array elements as the sender claims, so a frame of
//! twenty bytes could ask for gigabytes. A request that passes here has every element it claims,
//! no more elements and unknown tags than its size justifies.
//!
//! Bytes after the last field are ignored, as Apache Kafka does: librdkafka leaves three behind a
//! flexible Metadata request for all topics, because it reserves four bytes for the null array.

use crate::reader::{Reader, ShortRead};

/// How many array elements any request may have, whatever its size.
const ELEMENTS_BASE: usize = 250_000;
/// Beyond the base, one more element for this many bytes of the request.
const BYTES_PER_ELEMENT: usize = 64;
/// How many unknown tagged fields a request may carry: each costs the decoder a tree node.
const TAGS_MAX: usize = 4_096;

/// One field of a request, in the versions in which it exists.
#[derive(Debug)]
pub(crate) struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

/// How a field is laid out.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A number, boolean or uuid of this many bytes.
    Fixed(usize),
    /// A string: i16 length, or compact.
    Text,
    /// Bytes: i32 length, or compact.
    Bytes,
    /// An array of structs.
    Structs(&'static [Field]),
    /// An array of numbers of this many bytes.
    Numbers(usize),
    /// An array of strings.
    Texts,
    /// A struct in a tagged field.
    Struct(&'static [Field]),
    /// A struct behind a byte that says whether it is there.
    Optional(&'static [Field]),
    /// A tagged field that the decoder knows.
    Tag(u32, &'static Kind),
}

/// A field that exists in every version.
pub(crate) const fn field(kind: Kind) -> Field {
    Field {
        kind,
        from: 0,
        to: i16::MAX,
    }
}

impl Field {
    /// The field exists from this version on.
    pub(crate) const fn since(mut self, version: i16) -> Field {
        self.from = version;
        self
    }

    /// The field exists up to this version.
    pub(crate) const fn until(mut self, version: i16) -> Field {
        self.to = version;
        self
    }

    const fn exists_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

/// Why a request cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A length reaches beyond the end of the request, or a number is cut off.
    #[error("the request ends inside a field")]
    Short,
    /// A length below -1.
    #[error("a length is negative")]
    NegativeLength,
    /// The content of a tagged field is not as long as it says.
    #[error("a tagged field is longer than its content")]
    TagLength,
    /// More array elements than a request of this size may have.
    #[error("too many array elements")]
    TooManyElements,
    /// More unknown tagged fields than a request may have.
    #[error("too many tagged fields")]
    TooManyTags,
}

impl From<ShortRead> for ShapeError {
    fn from(_: ShortRead) -> ShapeError {
        ShapeError::Short
    }
}

/// Checks that `body` begins with one request of this shape and version.
pub(crate) fn check(
    shape: &'static [Field],
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<(), ShapeError> {
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible,
        elements_left: ELEMENTS_BASE + body.len() / BYTES_PER_ELEMENT,
        tags_left: TAGS_MAX,
    };
    walk.fields(shape)
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    elements_left: usize,
    tags_left: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        for field in fields {
            if field.exists_in(self.version) && !matches!(field.kind, Kind::Tag(..)) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible {
            self.tags(fields)
        } else {
            Ok(())
        }
    }

    fn value(&mut self, kind: &'static Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => {
                self.reader.take(*bytes)?;
            }
            Kind::Text => self.text()?,
            Kind::Bytes => {
                let len = self.long_length()?;
                self.reader.take(len)?;
            }
            Kind::Structs(fields) => {
                for _ in 0..self.elements()? {
                    self.fields(fields)?;
                }
            }
            Kind::Numbers(bytes) => {
                let count = self.elements()?;
                self.reader.take(count.saturating_mul(*bytes))?;
            }
            Kind::Texts => {
                for _ in 0..self.elements()? {
                    self.text()?;
                }
            }
            Kind::Struct(fields) => self.fields(fields)?,
            Kind::Optional(fields) => {
                if self.reader.take(1)? == [1] {
                    self.fields(fields)?;
                }
            }
            Kind::Tag(_, kind) => self.value(kind)?,
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), ShapeError> {
        let len = if self.flexible {
            self.compact_length()?
        } else {
            length(self.reader.i16()?.into())?
        };
        self.reader.take(len)?;
        Ok(())
    }

    /// The length of an array or of bytes; null counts as empty.
    fn long_length(&mut self) -> Result<usize, ShapeError> {
        if self.flexible {
            self.compact_length()
        } else {
            length(self.reader.i32()?)
        }
    }

    fn compact_length(&mut self) -> Result<usize, ShapeError> {
        let len = self.reader.unsigned_varint()?.saturating_sub(1);
        usize::try_from(len).map_err(|_| ShapeError::Short)
    }

    fn elements(&mut self) -> Result<usize, ShapeError> {
        let count = self.long_length()?;
        if count > self.reader.remaining() {
            return Err(ShapeError::Short); // No element is shorter than a byte.
        }
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(ShapeError::TooManyElements)?;
        Ok(count)
    }

    /// A known tag's content must be exactly as long as it says: the decoder goes by the content.
    fn tags(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        for _ in 0..self.reader.unsigned_varint()? {
            let tag = self.reader.unsigned_varint()?;
            let size = usize::try_from(self.reader.unsigned_varint()?);
            let size = size.map_err(|_| ShapeError::Short)?;
            if size > self.reader.remaining() {
                return Err(ShapeError::Short);
            }
            let end = self.reader.remaining() - size;
            match known_tag(fields, tag, self.version) {
                Some(kind) => {
                    self.value(kind)?;
                    if self.reader.remaining() != end {
                        return Err(ShapeError::TagLength);
                    }
                }
                None => {
                    self.reader.take(size)?;
                    self.tags_left = self
                        .tags_left
                        .checked_sub(1)
                        .ok_or(ShapeError::TooManyTags)?;
                }
            }
        }
        Ok(())
    }
}

fn known_tag(fields: &'static [Field], tag: u32, version: i16) -> Option<&'static Kind> {
    fields.iter().find_map(|field| match &field.kind {
        Kind::Tag(number, kind) if *number == tag && field.exists_in(version) => Some(*kind),
        _ => None,
    })
}

fn length(len: i32) -> Result<usize, ShapeError> {
    match len {
        -1 => Ok(0),
        _ => usize::try_from(len).map_err(|_| ShapeError::NegativeLength),
    }
}
