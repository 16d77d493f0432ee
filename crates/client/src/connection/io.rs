//! The two tasks of a connection: one writes requests, one reads answers.

use std::{io::IoSlice, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
};

use ottla_wire::{Frame, next_frame, take_correlation_id};

use super::{Outgoing, Shared};

/// Requests taken from the queue for one round of writing.
const ROUND_MAX: usize = 32;
/// Slices given to the kernel at once.
const SLICES_MAX: usize = 64;

/// Writes what is queued until the connection ends.
pub(super) async fn write(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) {
    let mut round = Vec::with_capacity(ROUND_MAX);
    loop {
        tokio::select! {
            biased;
            () = shared.ended.cancelled() => break,
            taken = queue.recv_many(&mut round, ROUND_MAX) => if taken == 0 { break },
        }
        let mut chunks: Vec<Bytes> = Vec::with_capacity(round.len());
        let mut told = Vec::new();
        for outgoing in round.drain(..) {
            chunks.extend(outgoing.chunks);
            told.extend(outgoing.written);
        }
        let done = tokio::select! {
            biased;
            () = shared.ended.cancelled() => break,
            done = write_all(&mut socket, chunks) => done,
        };
        if let Err(error) = done {
            for written in told {
                let _ = written.send(Err(shared.disconnected(&error.to_string())));
            }
            shared.end(&error.to_string());
            break;
        }
        for written in told {
            let _ = written.send(Ok(Bytes::new()));
        }
    }
    shared.end("the client closed the connection");
}

async fn write_all(socket: &mut OwnedWriteHalf, chunks: Vec<Bytes>) -> std::io::Result<()> {
    let mut chunks = std::collections::VecDeque::from(chunks);
    while !chunks.is_empty() {
        let slices: Vec<IoSlice<'_>> = chunks
            .iter()
            .take(SLICES_MAX)
            .map(|chunk| IoSlice::new(chunk))
            .collect();
        let mut written = socket.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = chunks.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            chunks.pop_front();
        }
    }
    Ok(())
}

/// Reads answers until the connection ends.
pub(super) async fn read(mut socket: OwnedReadHalf, limit_bytes: usize, shared: Arc<Shared>) {
    let reason = tokio::select! {
        biased;
        () = shared.ended.cancelled() => "the client closed the connection".to_owned(),
        reason = read_answers(&mut socket, limit_bytes, &shared) => reason,
    };
    shared.end(&reason);
}

async fn read_answers(socket: &mut OwnedReadHalf, limit_bytes: usize, shared: &Shared) -> String {
    let mut buffer = BytesMut::new();
    loop {
        match next_frame(&mut buffer, limit_bytes) {
            Ok(Frame::Whole(frame)) => {
                let mut frame = frame.freeze();
                let Some(correlation_id) = take_correlation_id(&mut frame) else {
                    return "an answer without a correlation id".to_owned();
                };
                if !shared.answer(correlation_id, frame) {
                    return format!(
                        "answer {correlation_id} does not belong to the oldest request"
                    );
                }
            }
            Ok(Frame::Partial { reserve_bytes }) => {
                buffer.reserve(reserve_bytes);
                match socket.read_buf(&mut buffer).await {
                    Ok(0) => return "closed by the broker".to_owned(),
                    Ok(_) => {}
                    Err(error) => return error.to_string(),
                }
            }
            Err(error) => return error.to_string(),
        }
    }
}
