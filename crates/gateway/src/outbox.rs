//! What a connection has still to write: chunks in order, vectored, file ranges by `sendfile`.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{io::Interest, net::TcpStream};

use ottla_wire::Chunk;

/// Most chunks handed to one `writev`.
const SLICES_MAX: usize = 64;

/// A range of a file that can be sent to a socket without passing through memory.
pub(crate) trait FileSlice: Send + 'static {
    /// Sends up to `bytes` bytes, `skip` bytes into the range; fewer if the socket is full.
    fn send_to(&self, socket: BorrowedFd<'_>, skip: usize, bytes: usize) -> io::Result<usize>;
}

/// The chunks of responses that wait for the socket.
#[derive(Debug)]
pub(crate) struct Outbox<F> {
    chunks: VecDeque<Chunk<F>>,
    /// How much of a file range at the front has been sent.
    skip: usize,
    bytes: usize,
}

impl<F: FileSlice> Outbox<F> {
    pub(crate) const fn new() -> Outbox<F> {
        Outbox {
            chunks: VecDeque::new(),
            skip: 0,
            bytes: 0,
        }
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(crate) fn push(&mut self, chunk: Chunk<F>) {
        let bytes = match &chunk {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::File { bytes, .. } => *bytes,
        };
        if bytes > 0 {
            self.bytes += bytes;
            self.chunks.push_back(chunk);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Outbox::new();
    }

    /// Writes once, as much as the socket takes.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let written = match self.chunks.front() {
                None => return Poll::Ready(Ok(0)),
                Some(Chunk::Bytes(_)) => self.write_bytes(stream),
                Some(Chunk::File { slice, bytes }) => {
                    let left = bytes.saturating_sub(self.skip);
                    let send = || slice.send_to(stream.as_fd(), self.skip, left);
                    stream.try_io(Interest::WRITABLE, send)
                }
            };
            match written {
                // The file ends before the range does: the frame cannot be completed any more.
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(written) => {
                    self.advance(written);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn write_bytes(&self, stream: &TcpStream) -> io::Result<usize> {
        let leading = self.chunks.iter().map_while(|chunk| match chunk {
            Chunk::Bytes(bytes) => Some(bytes),
            Chunk::File { .. } => None,
        });
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(leading) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        match slices.get(..count) {
            Some([one]) => stream.try_write(one),
            Some(some) => stream.try_write_vectored(some),
            None => Ok(0),
        }
    }

    fn advance(&mut self, written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        let mut left = written;
        while left > 0 {
            let done = match self.chunks.front_mut() {
                None => return,
                Some(Chunk::Bytes(bytes)) => advance_bytes(bytes, &mut left),
                Some(Chunk::File { bytes, .. }) => {
                    let step = left.min(bytes.saturating_sub(self.skip));
                    self.skip += step;
                    left -= step;
                    self.skip >= *bytes
                }
            };
            if !done {
                return;
            }
            self.skip = 0;
            self.chunks.pop_front();
        }
    }
}

/// Moves over written bytes; true if none are left in this chunk.
fn advance_bytes(bytes: &mut Bytes, left: &mut usize) -> bool {
    let step = (*left).min(bytes.len());
    bytes.advance(step);
    *left -= step;
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    struct Pages(Vec<u8>);

    impl FileSlice for Pages {
        fn send_to(&self, socket: BorrowedFd<'_>, skip: usize, bytes: usize) -> io::Result<usize> {
            let end = (skip + bytes.min(1000)).min(self.0.len());
            Ok(rustix::io::write(socket, &self.0[skip..end])?)
        }
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn chunks_and_files_arrive_in_order() {
        let (server, mut client) = pair().await;
        let mut outbox = Outbox::new();
        let mut expected = Vec::new();
        for round in 0..200u8 {
            let bytes = vec![round; 3000];
            expected.extend_from_slice(&bytes);
            outbox.push(if round % 3 == 0 {
                Chunk::File {
                    bytes: bytes.len(),
                    slice: Pages(bytes),
                }
            } else {
                Chunk::Bytes(bytes.into())
            });
        }
        let reader = async {
            let mut got = vec![0; expected.len()];
            client.read_exact(&mut got).await.unwrap();
            got
        };
        let writer = async {
            while !outbox.is_empty() {
                poll_fn(|cx| outbox.poll_write(cx, &server)).await.unwrap();
            }
            outbox.bytes()
        };
        let (got, left) = tokio::join!(reader, writer);
        assert!(got == expected);
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_file_that_ends_early_is_an_error() {
        let (server, _client) = pair().await;
        let mut outbox = Outbox::new();
        outbox.push(Chunk::File {
            bytes: 10,
            slice: Pages(vec![1; 4]),
        });
        poll_fn(|cx| outbox.poll_write(cx, &server)).await.unwrap();
        let error = poll_fn(|cx| outbox.poll_write(cx, &server))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
