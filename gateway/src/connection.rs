//! One client's connection.
//!
//! The reader decodes all requests that have arrived and submits their writes as one batch; answers gather in the
//! [`Outbox`]; the writer sends all there are in one write. Everything is bounded: requests without an answer, bytes
//! of large ones, bytes to be sent, and the time that either side may be silent.

use crate::{
    ReplySink, Shard, Submission,
    caller::Caller,
    completion::ReplyTo,
    http,
    large::{Room, Roomy, Taken},
    outbox::{Outbox, Unfinished},
    reads::{Behind, Reads},
    service::{self, Service},
};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tradewind_client::wire::{
    self, CallId, Fault, Frame, FrameError, Hello, Incarnation, Kind, MAGIC, MAX_FRAME,
    MAX_HANDSHAKE, PROTOCOL, Rejected, Request,
};
use tradewind_store::Reply;

/// Most requests without an answer on a connection.
pub(crate) const IN_FLIGHT_MAX: u32 = 4096;
/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// How long a client that wants nothing may be silent before it is asked whether it is there, how long it may take to
/// say so, or to go on with a frame that it began.
const SILENCE: Duration = Duration::from_secs(20);
/// While a frame is coming, or waits for room, and nothing else is said, the client is told so often that it is not in
/// vain: it asks elsewhere when it hears nothing for 0.7 s, and gives up after 2 s.
const COMING: Duration = Duration::from_millis(250);
/// How long a client may refuse to take answers.
const STUCK: Duration = Duration::from_secs(20);

/// Why a connection ended; for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("no hello within {} s", HELLO.as_secs())]
    NoHello,
    #[error("closed before a hello")]
    ClosedEarly,
    #[error("not the client protocol: {0}")]
    Malformed(#[from] FrameError),
    #[error("no common protocol version: the client speaks {min} to {max}, this server {PROTOCOL}")]
    Protocol { min: u16, max: u16 },
    #[error("as many connections as this server takes")]
    Full,
    #[error("silent for {} s", SILENCE.as_secs())]
    Silent,
    #[error("took no answers for {} s", STUCK.as_secs())]
    Stuck,
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What came in one go.
#[derive(Default)]
struct Batch {
    writes: Vec<Submission>,
    behind: Behind,
}

/// One client, after TLS.
pub(crate) struct Connection {
    service: Service,
    caller: Caller,
    outbox: Arc<Outbox>,
    reads: Reads,
}

/// Serves a connection until it ends. `Ok` if the client closed it in good order, or the server is going down.
pub(crate) async fn serve<S>(
    mut stream: S,
    service: Service,
    caller: Caller,
    connections_max: Option<u32>,
    stop: CancellationToken,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut input = Vec::with_capacity(16 << 10);
    let hello = timeout(HELLO, hello(&mut stream, &mut input)).await.unwrap_or(Err(Ended::NoHello));
    let refused = match (&hello, connections_max) {
        (Ok(_), Some(max)) => Some((Rejected::Full(max), Ended::Full)),
        (Ok(hello), None) if !(hello.protocol_min..=hello.protocol_max).contains(&PROTOCOL) => {
            let Hello { protocol_min: min, protocol_max: max, .. } = *hello;
            Some((
                Rejected::Protocol { min: PROTOCOL, max: PROTOCOL },
                Ended::Protocol { min, max },
            ))
        }
        (Err(Ended::Malformed(error)), _) => {
            Some((Rejected::Malformed(error.to_string()), Ended::Malformed(error.clone())))
        }
        _ => None,
    };
    if let Some((rejected, ended)) = refused {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, Kind::Rejected, CallId(0), &rejected)?;
        let _ = timeout(HELLO, stream.write_all(&bytes)).await;
        let _ = timeout(HELLO, stream.shutdown()).await;
        return Err(ended);
    }
    let agent = hello?.agent;
    tracing::debug!(client = caller.name(), agent = %agent.escape_debug(), "welcome");
    let outbox = Arc::new(Outbox::default());
    let mut welcome = (*service.welcome).clone();
    welcome.in_flight_max = IN_FLIGHT_MAX;
    outbox.send(Kind::Welcome, &welcome);
    let reads = Reads::new(service.clone(), Arc::clone(&outbox));
    let connection = Connection { service, caller, outbox, reads };
    let (reading, writing) = tokio::io::split(stream);
    let broken = CancellationToken::new();
    let read = async {
        let result = tokio::select! {
            result = connection.read(reading, input) => result,
            () = stop.cancelled() => {
                connection.outbox.send(Kind::Rejected, &Rejected::ShuttingDown);
                Ok(())
            }
            () = broken.cancelled() => Ok(()),
        };
        if let Err(Ended::Malformed(error)) = &result {
            connection.outbox.send(Kind::Rejected, &Rejected::Malformed(error.to_string()));
        }
        connection.outbox.close();
        result
    };
    let write = async {
        let result = connection.write(writing).await;
        broken.cancel();
        result
    };
    let (read, write) = tokio::join!(read, write);
    read.and(write)
}

async fn hello(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Result<Hello, Ended> {
    loop {
        if let Some((frame, used)) = wire::split(input, MAX_HANDSHAKE)? {
            if frame.kind != Kind::Hello {
                return Err(FrameError::Unexpected(frame.kind).into());
            }
            let hello: Hello = wire::decode(&frame)?;
            if hello.magic != MAGIC {
                let (kind, length) = (frame.kind, frame.body.len());
                return Err(FrameError::Body { kind, length }.into());
            }
            input.drain(..used);
            return Ok(hello);
        }
        if stream.read_buf(input).await? == 0 {
            return Err(Ended::ClosedEarly);
        }
    }
}

impl Connection {
    async fn read(
        &self,
        mut stream: impl AsyncRead + Unpin,
        mut input: Vec<u8>,
    ) -> Result<(), Ended> {
        let mut asked = false;
        let mut room = None;
        let mut told = Instant::now();
        loop {
            self.handle(&mut input, &mut room).await?;
            self.make_room(&mut input, &mut room).await;
            if input.is_empty() {
                told = Instant::now();
            } else if told.elapsed() >= COMING {
                told = Instant::now();
                self.outbox.send(Kind::Ping, &());
            }
            match timeout(SILENCE, stream.read_buf(&mut input)).await {
                Ok(Ok(0)) if input.is_empty() => return Ok(()),
                Ok(Ok(0)) => {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
                Ok(Ok(_)) => asked = false,
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if asked || !input.is_empty() => return Err(Ended::Silent),
                Err(_) => {
                    asked = true;
                    self.outbox.send(Kind::Ping, &());
                }
            }
        }
    }

    /// Waits until there is room for the large frame that is coming.
    async fn make_room(&self, input: &mut Vec<u8>, room: &mut Option<Taken>) {
        let coming = wire::announced(input).filter(|bytes| Room::is_needed(*bytes));
        if room.as_ref().map(|room| room.bytes) == coming {
            return;
        }
        *room = None;
        let Some(bytes) = coming else { return };
        let taken = self.take_room(bytes).await;
        input.reserve_exact(bytes.saturating_sub(input.len()));
        *room = Some(taken);
    }

    /// Waits for room, and tells the client that its request is not forgotten.
    async fn take_room(&self, bytes: usize) -> Taken {
        let mut taking = pin!(self.service.large.take(bytes));
        loop {
            match timeout(COMING, taking.as_mut()).await {
                Ok(taken) => return taken,
                Err(_) => self.outbox.send(Kind::Ping, &()),
            }
        }
    }

    /// Takes all complete frames off `input`, as far as there is room for their answers.
    async fn handle(
        &self,
        input: &mut Vec<u8>,
        room_of_first: &mut Option<Taken>,
    ) -> Result<(), Ended> {
        let mut at = 0;
        loop {
            let mut batch = Batch::default();
            let room = (IN_FLIGHT_MAX as usize).saturating_sub(self.outbox.in_flight());
            let mut taken = 0;
            let mut next = None;
            while taken < room {
                next = wire::split(&input[at..], MAX_FRAME)?;
                let Some((frame, used)) = next else { break };
                taken += 1;
                at += used;
                let mut held = None;
                if Room::is_needed(used) {
                    held = room_of_first.take().filter(|room| room.bytes == used);
                    if held.is_none() {
                        // It came whole with what was before it, which does not wait for that.
                        self.hand_on(std::mem::take(&mut batch));
                        held = Some(self.take_room(used).await);
                    }
                }
                if let Err(error) = self.frame(&frame, held, &mut batch) {
                    self.hand_on(batch);
                    return Err(error.into());
                }
            }
            self.hand_on(batch);
            if next.is_none() && taken < room {
                break;
            }
            self.outbox.room(IN_FLIGHT_MAX as usize).await;
        }
        input.drain(..at);
        if input.is_empty() {
            input.shrink_to(1 << 20);
        }
        self.outbox.room(IN_FLIGHT_MAX as usize).await;
        Ok(())
    }

    fn hand_on(&self, Batch { writes, behind }: Batch) {
        if !writes.is_empty() {
            self.service.backend.submit(writes);
        }
        self.reads.behind_barriers(behind);
        self.outbox.flush_kept();
    }

    /// Takes a frame, which may have room that it needs until it is answered.
    fn frame(
        &self,
        frame: &Frame<'_>,
        room: Option<Taken>,
        batch: &mut Batch,
    ) -> Result<(), FrameError> {
        match frame.kind {
            Kind::Request => {}
            Kind::Ping => {
                self.outbox.send(Kind::Pong, &());
                return Ok(());
            }
            Kind::Pong => return Ok(()),
            other => return Err(FrameError::Unexpected(other)),
        }
        let request: Request = wire::decode(frame)?;
        self.outbox.took(1);
        let (service, call) = (&self.service, frame.call);
        let query = match &request {
            Request::Write(write) => {
                match service.check_write(&self.caller, write) {
                    Ok(reads) => batch.writes.push(self.submission(call, write, reads, room)),
                    Err(fault) => self.outbox.keep(call, &Err(fault)),
                }
                return Ok(());
            }
            Request::Status => {
                self.spawn_status(call);
                return Ok(());
            }
            Request::Restart { incarnation } => {
                self.spawn_restart(call, *incarnation);
                return Ok(());
            }
            Request::Get(get) => service.get(&self.caller, get),
            Request::List(list) => service.list(&self.caller, list),
            Request::History(history) => service.history(&self.caller, history),
        };
        match query {
            Ok(query) => self.reads.take(call, query, &mut batch.behind),
            Err(fault) => self.outbox.keep(call, &Err(fault)),
        }
        Ok(())
    }

    fn submission(
        &self,
        call: CallId,
        write: &wire::Write<'_>,
        reads: bool,
        room: Option<Taken>,
    ) -> Submission {
        let command = write.command.to_vec();
        let outbox = Arc::clone(&self.outbox);
        let shard = reads.then(|| self.service.backend.shard(write.pool, write.shard)).flatten();
        let sink: Arc<dyn ReplySink> = match shard {
            Some(shard) => Arc::new(ReadingTxn { outbox, shard, command: command.clone() }),
            None => outbox,
        };
        let sink = match room {
            Some(room) => Arc::new(Roomy { sink, _room: room }),
            None => sink,
        };
        Submission {
            pool: write.pool,
            shard: write.shard,
            request: write.request,
            durability: write.durability,
            command,
            reply: ReplyTo::new(sink, call),
        }
    }

    fn spawn_status(&self, call: CallId) {
        let (service, outbox) = (self.service.clone(), Arc::clone(&self.outbox));
        tokio::task::spawn_blocking(move || {
            let status = http::status(&service, &service.counters).to_string();
            outbox.answer(call, &Ok(wire::Answer::Status(status)));
        });
    }

    fn spawn_restart(&self, call: CallId, incarnation: Incarnation) {
        let (service, outbox) = (self.service.clone(), Arc::clone(&self.outbox));
        let caller = self.caller.clone();
        tokio::task::spawn_blocking(move || match service.restart(&caller, incarnation) {
            Ok(restart) => {
                // First the answer: the end closes this connection.
                outbox.answer(call, &Ok(wire::Answer::Restarting));
                if let Some(restart) = restart {
                    tracing::info!(client = caller.name(), "restart asked for");
                    restart.begin();
                }
            }
            Err(fault) => outbox.answer(call, &Err(fault)),
        });
    }

    async fn write(&self, mut stream: impl AsyncWrite + Unpin) -> Result<(), Ended> {
        let mut bytes = Vec::new();
        loop {
            let outgoing = self.outbox.next(bytes).await;
            bytes = outgoing.bytes;
            for unfinished in outgoing.unfinished {
                self.finish(unfinished);
            }
            // A large buffer goes out in pieces: it must move on, not be sent whole, within the time allowed.
            for piece in bytes.chunks(256 << 10) {
                timeout(STUCK, stream.write_all(piece)).await.map_err(|_| Ended::Stuck)??;
            }
            timeout(STUCK, stream.flush()).await.map_err(|_| Ended::Stuck)??;
            if outgoing.closed {
                let _ = timeout(STUCK, stream.shutdown()).await;
                return Ok(());
            }
        }
    }

    /// Looks up the values that a transaction read, and sends its reply.
    fn finish(&self, Unfinished { call, reply, shard, command }: Unfinished) {
        let (service, outbox) = (self.service.clone(), Arc::clone(&self.outbox));
        tokio::spawn(async move {
            let response = service.inline(shard, command, reply).await;
            outbox.answer(call, &response);
        });
    }
}

/// Takes the reply of a transaction that reads: its values may have to be looked up, by the command's keys.
struct ReadingTxn {
    outbox: Arc<Outbox>,
    shard: Arc<dyn Shard>,
    command: Vec<u8>,
}

impl ReplySink for ReadingTxn {
    fn push(&self, call: CallId, answer: Result<Reply, Fault>) {
        match answer {
            Ok(reply) if service::has_remote_values(&reply) => {
                let (shard, command) = (Arc::clone(&self.shard), self.command.clone());
                self.outbox.unfinished(Unfinished { call, reply, shard, command });
            }
            answer => self.outbox.push(call, answer),
        }
    }

    fn flush(&self) {
        self.outbox.flush();
    }
}
