//! The four codecs, decoded as a stream into a bounded buffer and encoded in memory.

use std::io::{Read, Write};

use crate::header::{BatchError, Codec};

/// The framing of the Java Snappy library: a magic, two version numbers, then length-prefixed
/// blocks. Other clients send one raw block.
const XERIAL_MAGIC: &[u8] = &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEAD: usize = 16;
const XERIAL_BLOCK: usize = 32 * 1024;

/// Largest window a zstd frame may ask for: 2^27 bytes, what the reference decoder allows.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Decompresses the records of a batch, to at most `max_bytes`.
///
/// # Errors
/// The bytes are not what the codec writes, or are larger than allowed when decompressed.
pub fn decompress(codec: Codec, bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, BatchError> {
    let fail = |error: std::io::Error| BatchError::Decompress {
        codec,
        reason: error.to_string(),
    };
    match codec {
        Codec::None if bytes.len() > max_bytes => {
            Err(BatchError::DecompressedTooLarge { max_bytes })
        }
        Codec::None => Ok(bytes.to_vec()),
        // Java reads concatenated members as one stream.
        Codec::Gzip => bounded(codec, flate2::read::MultiGzDecoder::new(bytes), max_bytes),
        Codec::Snappy => decompress_snappy(bytes, max_bytes),
        Codec::Lz4 => bounded(codec, lz4_flex::frame::FrameDecoder::new(bytes), max_bytes),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(fail)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(fail)?;
            bounded(codec, decoder, max_bytes)
        }
    }
}

/// Reads all that `source` gives; memory grows with what came out, not with what was announced.
fn bounded(codec: Codec, source: impl Read, max_bytes: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    let limit = u64::try_from(max_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    source
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|error| BatchError::Decompress {
            codec,
            reason: error.to_string(),
        })?;
    if out.len() > max_bytes {
        return Err(BatchError::DecompressedTooLarge { max_bytes });
    }
    Ok(out)
}

fn decompress_snappy(bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        snappy_block(bytes, max_bytes, &mut out)?;
        return Ok(out);
    }
    let short = || BatchError::Decompress {
        codec: Codec::Snappy,
        reason: "a block is out of bounds".to_owned(),
    };
    let mut rest = bytes.get(XERIAL_HEAD..).ok_or_else(short)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| short())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(short)?;
        snappy_block(block, max_bytes, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn snappy_block(block: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let fail = |error: snap::Error| BatchError::Decompress {
        codec: Codec::Snappy,
        reason: error.to_string(),
    };
    let size = snap::raw::decompress_len(block).map_err(fail)?;
    let total = out.len().saturating_add(size);
    if total > max_bytes {
        return Err(BatchError::DecompressedTooLarge { max_bytes });
    }
    // A block of n bytes cannot hold more than 64 n: every copy element takes two bytes at least
    // and yields 64 at most. A size beyond that is a lie, and not worth allocating for.
    if size > block.len().saturating_mul(64) {
        return Err(fail(snap::Error::Header));
    }
    let start = out.len();
    out.resize(total, 0);
    let target = out.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Decoder::new()
        .decompress(block, target)
        .map_err(fail)?;
    out.truncate(start + written);
    Ok(())
}

/// Compresses the records of a batch as Kafka's own producer does.
///
/// # Errors
/// The codec's library failed.
pub fn compress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, BatchError> {
    let fail = |reason: String| BatchError::Decompress { codec, reason };
    match codec {
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder
                .write_all(bytes)
                .map_err(|error| fail(error.to_string()))?;
            encoder.finish().map_err(|error| fail(error.to_string()))
        }
        Codec::Snappy => {
            let mut out = XERIAL_MAGIC.to_vec();
            out.extend_from_slice(&1i32.to_be_bytes());
            out.extend_from_slice(&1i32.to_be_bytes());
            let mut encoder = snap::raw::Encoder::new();
            for block in bytes.chunks(XERIAL_BLOCK) {
                let block = encoder
                    .compress_vec(block)
                    .map_err(|error| fail(error.to_string()))?;
                let length = i32::try_from(block.len()).map_err(|error| fail(error.to_string()))?;
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&block);
            }
            Ok(out)
        }
        Codec::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder
                .write_all(bytes)
                .map_err(|error| fail(error.to_string()))?;
            encoder.finish().map_err(|error| fail(error.to_string()))
        }
        Codec::Zstd => zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)
            .map_err(|error| fail(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    proptest! {
        #[test]
        fn every_codec_round_trips(bytes in proptest::collection::vec(0u8..8, 0..100_000)) {
            for codec in ALL {
                let packed = compress(codec, &bytes).unwrap();
                prop_assert_eq!(&decompress(codec, &packed, bytes.len()).unwrap(), &bytes);
                if !bytes.is_empty() {
                    let error = decompress(codec, &packed, bytes.len() - 1).unwrap_err();
                    let too_large = matches!(error, BatchError::DecompressedTooLarge { .. });
                    prop_assert!(too_large, "{codec}: {error}");
                }
            }
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for codec in ALL {
                let _ = decompress(codec, &bytes, 1 << 20);
            }
        }
    }

    #[test]
    fn raw_snappy_blocks_are_read_too() {
        let packed = snap::raw::Encoder::new()
            .compress_vec(b"hello hello hello")
            .unwrap();
        assert_eq!(
            decompress(Codec::Snappy, &packed, 100).unwrap(),
            b"hello hello hello"
        );
    }

    #[test]
    fn x5_a_bomb_is_cut_off_at_the_limit() {
        let zeros = vec![0u8; 64 << 20];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = compress(codec, &zeros).unwrap();
            assert!(bomb.len() < zeros.len() / 15, "{codec}");
            assert_eq!(
                decompress(codec, &bomb, 1 << 20),
                Err(BatchError::DecompressedTooLarge { max_bytes: 1 << 20 })
            );
        }
    }

    #[test]
    fn x5_a_lying_snappy_size_allocates_nothing() {
        // A block that announces 4 GiB - 1 and holds nothing.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(matches!(
            decompress(Codec::Snappy, &lie, usize::MAX),
            Err(BatchError::Decompress { .. })
        ));
    }
}
