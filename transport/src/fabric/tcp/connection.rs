//! One TCP connection, with or without TLS, that never blocks: bytes in, bytes out.

use std::{
    io::{self, BufRead as _, ErrorKind, Read as _, Write as _},
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Token, net::TcpStream};

use super::wire::{self, HEADER_BYTES, Header, Kind};
use crate::{
    fabric::NodeId,
    tls::{Credentials, PeerError, Protocol, server_name},
};

/// A new batch is made only when less than this waits in the connection: until then the ranges wait
/// as ranges, where a newer value replaces an older one.
pub(super) const BACKLOG_BYTES: usize = 256 << 10;

/// Encrypted bytes that may wait for the socket.
const TLS_BUFFER_BYTES: usize = 128 << 10;

/// What is taken from one connection before the others have their turn.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// Buffers that grew beyond this are given back when empty.
const KEPT_BYTES: usize = 1 << 20;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// TCP, TLS and the hellos are exchanged, until the deadline.
    Greeting(Instant),
    /// Both ends have accepted each other.
    Up,
    /// A farewell is on its way; what comes in is thrown away, until the deadline.
    Closing(Instant),
}

/// One connection. `peer` is whom we dialled, or who has said hello.
pub(super) struct Connection {
    pub(super) token: Token,
    /// Where it is kept.
    pub(super) slot: usize,
    pub(super) phase: Phase,
    pub(super) peer: Option<NodeId>,
    pub(super) dialled: bool,
    pub(super) heard: Instant,
    pub(super) spoke: Instant,
    /// The kernel may have bytes for us / room for more: learnt from edge-triggered events.
    pub(super) readable: bool,
    pub(super) writable: bool,
    stream: TcpStream,
    read_closed: bool,
    tls: Option<Box<rustls::Connection>>,
    /// Plaintext from the peer, not yet taken frame by frame.
    inbound: Vec<u8>,
    /// Bytes of a frame to be thrown away as they come.
    skip: usize,
    /// Frames for the peer, sealed; those before `sent` are with TLS or the kernel.
    outbound: Vec<u8>,
    sent: usize,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the peer closed the connection")]
    Eof,
    #[error("{0}")]
    Wire(#[from] wire::WireError),
    #[error("{0}")]
    Peer(#[from] PeerError),
    /// The peer said why.
    #[error("closed by the peer: {0}")]
    Farewell(String),
    /// We say why.
    #[error("{0}")]
    Refused(String),
    #[error("{0} for {1:?}")]
    Deadline(&'static str, Duration),
}

/// Whoever makes sense of frames.
pub(super) trait Handler {
    /// Whether a frame may come: `false` throws it away as it does. Asked again for the same frame
    /// while it is not complete, if it may.
    fn admit(&mut self, connection: &Connection, header: Header) -> Result<bool, Failure>;

    /// A whole frame that was admitted.
    fn handle(
        &mut self,
        connection: &mut Connection,
        header: Header,
        body: &[u8],
    ) -> Result<(), Failure>;
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        tls: Option<rustls::Connection>,
        peer: Option<NodeId>,
        deadline: Instant,
        now: Instant,
    ) -> Self {
        let tls = tls.map(|mut tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER_BYTES));
            Box::new(tls)
        });
        Self {
            token: Token(0),
            slot: 0,
            phase: Phase::Greeting(deadline),
            peer,
            dialled: peer.is_some(),
            heard: now,
            spoke: now,
            readable: false,
            writable: false,
            stream,
            read_closed: false,
            tls,
            inbound: Vec::new(),
            skip: 0,
            outbound: Vec::new(),
            sent: 0,
        }
    }

    /// TLS for a connection that we dial.
    pub(super) fn dialling_tls(credentials: &Credentials, name: &str) -> rustls::Connection {
        let config = credentials.client(Protocol::Group, name);
        rustls::ClientConnection::new(config, server_name())
            .expect("the configuration is ours")
            .into()
    }

    /// TLS for a connection that we accept.
    pub(super) fn accepting_tls(config: &Arc<rustls::ServerConfig>) -> rustls::Connection {
        let config = Arc::clone(config);
        rustls::ServerConnection::new(config).expect("the configuration is ours").into()
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The TLS side of the connection, unless it is plain.
    pub(super) fn tls(&self) -> Option<&rustls::Connection> {
        self.tls.as_deref()
    }

    /// Takes note of what an event says.
    pub(super) fn note(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.read_closed |= event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable();
    }

    /// Takes bytes from the kernel until it has none, or this connection's turn is over (then
    /// `readable` stays set). Returns how many.
    pub(super) fn read(&mut self, scratch: &mut [u8], now: Instant) -> Result<usize, Failure> {
        let mut total = 0;
        while self.readable && total < READ_BYTES_PER_TURN {
            match self.stream.read(scratch) {
                Ok(0) => return if total > 0 { Ok(total) } else { Err(Failure::Eof) },
                Ok(read) => {
                    total += read;
                    self.heard = now;
                    // A short read has emptied the socket, and the next byte is a new event; the
                    // end of the stream, if it is there already, is not.
                    self.readable = read == scratch.len() || self.read_closed;
                    self.take_in(&scratch[..read])?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(total)
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        if matches!(self.phase, Phase::Closing(_)) {
            return Ok(());
        }
        let Some(tls) = &mut self.tls else {
            self.inbound.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            if tls.read_tls(&mut bytes)? == 0 {
                return Err(Failure::Eof);
            }
            let state = tls.process_new_packets()?;
            let mut reader = tls.reader();
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let chunk = reader.fill_buf()?;
                self.inbound.extend_from_slice(chunk);
                let length = chunk.len();
                reader.consume(length);
                left -= length;
            }
        }
        Ok(())
    }

    /// Hands each whole frame that has come to `handler`.
    ///
    /// Its header is shown before a byte of the body is kept.
    pub(super) fn frames(&mut self, handler: &mut impl Handler) -> Result<(), Failure> {
        let inbound = std::mem::take(&mut self.inbound);
        let mut rest = &inbound[..];
        let outcome = loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else {
                break Ok(());
            };
            let header = match Header::decode(header) {
                Ok(header) => header,
                Err(error) => break Err(error.into()),
            };
            match handler.admit(self, header) {
                Ok(true) => {}
                Ok(false) => {
                    self.skip = header.length;
                    rest = body;
                    continue;
                }
                Err(failure) => break Err(failure),
            }
            let Some((body, after)) = body.split_at_checked(header.length) else {
                break Ok(());
            };
            if let Err(failure) = handler.handle(self, header, body) {
                break Err(failure);
            }
            rest = after;
        };
        let consumed = inbound.len() - rest.len();
        self.inbound = inbound;
        self.inbound.drain(..consumed);
        if self.inbound.is_empty() {
            self.inbound.shrink_to(KEPT_BYTES);
        }
        outcome
    }

    /// Bytes that wait to be sent, those with TLS not counted.
    pub(super) fn backlog(&self) -> usize {
        self.outbound.len() - self.sent
    }

    /// Where the next frame is to be appended.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        // Moved only when what is gone is as much as what is left, so each byte moves once at most.
        if self.sent > 0 && self.sent >= self.backlog() {
            self.outbound.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.outbound
    }

    /// Appends one frame.
    pub(super) fn put(&mut self, kind: Kind, view: u64, body: &[u8]) {
        let out = self.out();
        out.extend_from_slice(&Header { kind, length: body.len(), view }.encode());
        out.extend_from_slice(body);
    }

    /// Whether there is something for the kernel.
    pub(super) fn wants_write(&self) -> bool {
        self.backlog() > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Hands bytes to the kernel until it takes no more or there are none. Returns how many.
    pub(super) fn write(&mut self, now: Instant) -> Result<usize, Failure> {
        let mut total = 0;
        while self.writable && self.wants_write() {
            match self.write_once() {
                // TLS holds the bytes back until its handshake is over.
                Ok(None) => break,
                Ok(Some(written)) => {
                    total += written;
                    self.spoke = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.sent == self.outbound.len() {
            self.outbound.clear();
            self.outbound.shrink_to(KEPT_BYTES);
            self.sent = 0;
        }
        Ok(total)
    }

    fn write_once(&mut self) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            let written = self.stream.write(&self.outbound[self.sent..])?;
            self.sent += written;
            return Ok(Some(written));
        };
        if self.sent < self.outbound.len() {
            self.sent += tls.writer().write(&self.outbound[self.sent..])?;
        }
        if !tls.wants_write() {
            return Ok(None);
        }
        tls.write_tls(&mut self.stream).map(Some)
    }

    /// Begins to close: the last frame, then the end of the stream; until `deadline` the peer may
    /// read it, since a socket closed with unread bytes would take the farewell back.
    pub(super) fn close(&mut self, reason: &str, deadline: Instant, now: Instant) {
        self.put(Kind::Farewell, 0, wire::farewell(reason));
        if let Some(tls) = &mut self.tls {
            // TLS that failed takes no more words, only its alert can leave.
            if !tls.is_handshaking() {
                _ = tls.writer().write(&self.outbound[self.sent..]);
            }
            self.sent = self.outbound.len();
            tls.send_close_notify();
        }
        // Best effort: a peer that is gone does not care.
        _ = self.write(now);
        _ = self.stream.shutdown(Shutdown::Write);
        self.inbound = Vec::new();
        self.outbound = Vec::new();
        self.sent = 0;
        self.phase = Phase::Closing(deadline);
    }
}
