//! Zigzag varints, as records use them. Reading takes at most five or ten bytes.

/// Reads a varint of at most 32 bits from the front of `bytes`.
pub(crate) fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    let mut value: u32 = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        // The fifth byte has room for four bits.
        if shift == 28 && bits > 0xf {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// Reads a varint of at most 64 bits from the front of `bytes`.
pub(crate) fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

/// Appends `value` to `out`.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// Appends `value` to `out`; the encoding is that of the same number in 64 bits.
pub(crate) fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_i64(out, i64::from(value));
}

/// Bytes that [`write_i64`] takes for `value`.
pub(crate) fn size_i64(value: i64) -> usize {
    let bits = 64 - (((value << 1) ^ (value >> 63)).cast_unsigned() | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn longs_round_trip(value: i64) {
            let mut out = Vec::new();
            write_i64(&mut out, value);
            prop_assert_eq!(out.len(), size_i64(value));
            prop_assert_eq!(read_i64(&mut out.as_slice()), Some(value));
        }

        #[test]
        fn ints_round_trip(value: i32) {
            let mut out = Vec::new();
            write_i32(&mut out, value);
            let mut rest = out.as_slice();
            prop_assert_eq!(read_i32(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn endless_and_oversized_numbers_are_refused() {
        assert_eq!(read_i32(&mut &[0xff; 5][..]), None);
        assert_eq!(read_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(read_i64(&mut &[0xff; 11][..]), None);
        assert_eq!(read_i64(&mut &[0x80][..]), None);
        assert_eq!(read_i32(&mut &[][..]), None);
        // The numbers of Kafka's documentation of the format: zigzag of -1 is 1.
        assert_eq!(read_i32(&mut &[1][..]), Some(-1));
        assert_eq!(read_i32(&mut &[0xac, 0x02][..]), Some(150));
    }
}
