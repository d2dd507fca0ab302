//! Frames and bulk on QUIC streams.

use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use tradewind_wan_protocol::wire::{BulkHeader, HEADER_BYTES, Header, WireError};

/// Bytes that are read from a bulk stream before its receiver is told that it moves.
const CHUNK_BYTES: usize = 256 << 10;

/// Priorities of streams: the higher goes first.
pub(crate) const PRIORITY_CONTROL: i32 = 3;
pub(crate) const PRIORITY_TAIL: i32 = 2;
pub(crate) const PRIORITY_VALUE: i32 = 1;
pub(crate) const PRIORITY_BULK: i32 = 0;

/// Why a stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The other side ended it in order.
    #[error("the stream is at its end")]
    End,
    #[error("reading failed: {0}")]
    Read(#[from] ReadExactError),
    #[error("reading failed: {0}")]
    ReadChunk(#[from] quinn::ReadError),
    #[error("writing failed: {0}")]
    Write(#[from] WriteError),
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// Reads one frame: its checked header and its payload, which is to be checked by its decoder.
pub(crate) async fn read_frame(stream: &mut RecvStream) -> Result<(Header, Vec<u8>), StreamError> {
    let mut bytes = [0; HEADER_BYTES];
    match stream.read_exact(&mut bytes).await {
        Err(ReadExactError::FinishedEarly(0)) => return Err(StreamError::End),
        other => other?,
    }
    let header = Header::decode(&bytes)?;
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload).await?;
    Ok((header, payload))
}

/// Reads what a bulk stream announces.
pub(crate) async fn read_announcement(stream: &mut RecvStream) -> Result<BulkHeader, StreamError> {
    let (header, payload) = read_frame(stream).await?;
    Ok(BulkHeader::decode(&header, &payload)?)
}

/// Reads the body of a bulk stream, of a length that was checked when it was announced; `progress`
/// is called now and then. Memory grows with what came, not with what was announced.
pub(crate) async fn read_body(
    stream: &mut RecvStream,
    length: u64,
    mut progress: impl FnMut(),
) -> Result<Vec<u8>, StreamError> {
    let mut body = Vec::new();
    let mut told = 0;
    while let Some(chunk) = stream.read_chunk(CHUNK_BYTES, true).await? {
        let found = body.len() as u64 + chunk.bytes.len() as u64;
        if found > length {
            return Err(WireError::Size { found, expected: length }.into());
        }
        if body.is_empty() {
            body.reserve_exact((length as usize).min(2 << 20));
        }
        body.extend_from_slice(&chunk.bytes);
        if body.len() - told >= CHUNK_BYTES {
            told = body.len();
            progress();
        }
    }
    Ok(body)
}

/// Sends a bulk stream as a whole.
pub(crate) async fn write_bulk(
    stream: &mut SendStream,
    header: &BulkHeader,
    body: Vec<u8>,
) -> Result<(), StreamError> {
    stream.write_all(&header.encode()).await?;
    stream.write_chunk(body.into()).await?;
    // Fails only if it was finished before.
    _ = stream.finish();
    Ok(())
}
