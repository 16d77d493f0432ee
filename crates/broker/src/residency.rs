//! Bringing file ranges into the page cache before they are sent.
//!
//! A socket is fed with `sendfile` from threads that serve many sockets, and a page that is not in
//! memory would stop all of them. So the I/O pool, which has located the range, looks whether it is
//! resident and reads it if not. Memory may still run out before it is sent: then one read is slow.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

/// What the kernel reads ahead at a time: a range is looked at in pieces of this size.
const PIECE_BYTES: usize = 128 << 10;

/// Reads what is not in memory of a range; waits for the disk.
pub(crate) fn make_resident(file: BorrowedFd<'_>, position: u64, len: usize) {
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < len {
        let piece = PIECE_BYTES.min(len - at);
        let offset = |bytes: usize| position.saturating_add(u64::try_from(bytes).unwrap_or(0));
        let here = is_resident(file, offset(at)) && is_resident(file, offset(at + piece - 1));
        if !here {
            buffer.resize(PIECE_BYTES, 0);
            // An error, or an end before its time, is seen again when the range is sent.
            if !matches!(pread(file, &mut buffer[..piece], offset(at)), Ok(read) if read > 0) {
                return;
            }
        }
        at += piece;
    }
}

/// Whether a byte can be had without waiting for the disk; true where the file system cannot tell.
fn is_resident(file: BorrowedFd<'_>, offset: u64) -> bool {
    let mut byte = [0];
    let mut slices = [std::io::IoSliceMut::new(&mut byte)];
    let read = preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT);
    !matches!(read, Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsFd as _};

    use rustix::fs::{Advice, fadvise};

    use super::*;

    #[test]
    fn a_range_that_was_dropped_from_memory_is_read_again() {
        let mut file = tempfile::tempfile().unwrap();
        let len = 10 * PIECE_BYTES + 17;
        file.write_all(&vec![7; len]).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let fd = file.as_fd();
        let cold = (0..10).filter(|piece| !is_resident(fd, piece * (128 << 10)));
        println!("{} pieces are cold", cold.count()); // None where files live in memory.
        make_resident(fd, 5, len - 5);
        for piece in 0..10 {
            assert!(is_resident(fd, 5 + piece * (128 << 10)), "{piece}");
        }
        make_resident(fd, u64::MAX, 100);
    }
}
