//! One connection to a parent, as the follower's shell sees it: tasks that turn streams into inputs.

use std::sync::Arc;

use quinn::{Connection, Endpoint, RecvStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tradewind_ledger::entry::MAX_VALUE;
use tradewind_transport::{
    quic::{self, Tuning},
    tls::{Credentials, Protocol},
};
use tradewind_wan_protocol::SessionId;
use tradewind_wan_protocol::wire::{Bulk, BulkHeader, ChildMessage, ParentMessage};

use crate::{
    route::Candidate,
    stream::{self, StreamError},
};

/// Bulk streams that are read or wait to be handled at once.
const BULK_MAX: usize = 12;

/// What the tasks of a connection tell the follower.
pub(crate) enum Input {
    Connected(SessionId),
    Closed(SessionId, String),
    Message(SessionId, ParentMessage),
    /// With the room that it takes up, given back when it is dropped.
    Bulk(SessionId, Bulk, Room),
    Progress(SessionId),
}

/// Permits for what is read and not yet handled: a stream's, and those of a value's bytes.
pub(crate) struct Room {
    _stream: OwnedSemaphorePermit,
    _value: Option<OwnedSemaphorePermit>,
}

/// What it takes to dial.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) tuning: Tuning,
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl Dialer {
    /// Dials a parent and runs the connection until either side ends it. What is sent on `outgoing`
    /// goes to the parent's control stream; dropping its sender ends the connection.
    pub(crate) async fn run(
        self,
        session: SessionId,
        parent: Candidate,
        outgoing: mpsc::Receiver<ChildMessage>,
    ) {
        let reason = self.connect(session, &parent, outgoing).await;
        _ = self.inputs.send(Input::Closed(session, reason)).await;
    }

    async fn connect(
        &self,
        session: SessionId,
        parent: &Candidate,
        outgoing: mpsc::Receiver<ChildMessage>,
    ) -> String {
        let Self { endpoint, credentials, tuning, .. } = self;
        let (name, address) = (&parent.name, parent.address);
        let connected =
            quic::connect(endpoint, credentials, Protocol::Wan, name, address, tuning).await;
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return error.to_string(),
        };
        let reason = match self.converse(session, &connection, outgoing).await {
            Ok(()) => "closed here".to_owned(),
            // The connection's own reason says more than that of a stream that ended with it.
            Err(error) => match connection.close_reason() {
                Some(reason) => reason.to_string(),
                None => error.to_string(),
            },
        };
        connection.close(VarInt::from_u32(0), b"the child is done");
        reason
    }

    async fn converse(
        &self,
        session: SessionId,
        connection: &Connection,
        mut outgoing: mpsc::Receiver<ChildMessage>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (mut send, receive) = connection.open_bi().await?;
        _ = send.set_priority(stream::PRIORITY_CONTROL);
        if self.inputs.send(Input::Connected(session)).await.is_err() {
            return Ok(());
        }
        let write = async {
            while let Some(message) = outgoing.recv().await {
                send.write_all(&message.encode()).await?;
            }
            Ok(())
        };
        let read = async { Err(self.read_control(session, receive).await.into()) };
        let bulk = async { Err(self.accept_bulk(session, connection).await) };
        tokio::select! { end = write => end, end = read => end, end = bulk => end }
    }

    async fn read_control(&self, session: SessionId, mut stream: RecvStream) -> StreamError {
        loop {
            let message = match stream::read_frame(&mut stream).await {
                Ok((header, payload)) => ParentMessage::decode(&header, &payload),
                Err(error) => return error,
            };
            match message {
                Ok(message) => {
                    if self.inputs.send(Input::Message(session, message)).await.is_err() {
                        return StreamError::End;
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// Reads bulk streams, a bounded number and a bounded volume of values at once.
    async fn accept_bulk(
        &self,
        session: SessionId,
        connection: &Connection,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        let streams = Arc::new(Semaphore::new(BULK_MAX));
        let values = Arc::new(Semaphore::new(MAX_VALUE as usize));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                Some(done) = tasks.join_next() => match done {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => return Box::<StreamError>::new(error),
                    Err(error) => return error.into(),
                },
                permit = Arc::clone(&streams).acquire_owned() => {
                    let permit = permit.expect("it is never closed");
                    tokio::select! {
                        Some(done) = tasks.join_next() => match done {
                            Ok(Ok(())) => continue,
                            Ok(Err(error)) => return Box::<StreamError>::new(error),
                            Err(error) => return error.into(),
                        },
                        accepted = connection.accept_uni() => accepted.map(|stream| (stream, permit)),
                    }
                }
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => return error.into(),
            };
            let (inputs, values) = (self.inputs.clone(), Arc::clone(&values));
            tasks.spawn(async move {
                let (bulk, value) = read_bulk(session, stream, &inputs, values).await?;
                let room = Room { _stream: permit, _value: value };
                _ = inputs.send(Input::Bulk(session, bulk, room)).await;
                Ok(())
            });
        }
    }
}

async fn read_bulk(
    session: SessionId,
    mut stream: RecvStream,
    inputs: &mpsc::Sender<Input>,
    values: Arc<Semaphore>,
) -> Result<(Bulk, Option<OwnedSemaphorePermit>), StreamError> {
    let header = stream::read_announcement(&mut stream).await?;
    let bytes = header.body_bytes();
    let room = match &header {
        BulkHeader::Value(_) => {
            let permits = u32::try_from(bytes).expect("values are limited");
            Some(values.acquire_many_owned(permits).await.expect("it is never closed"))
        }
        BulkHeader::Batch(_) => None,
    };
    // Progress is a hint: when the follower is busy it needs none.
    let progress = || _ = inputs.try_send(Input::Progress(session));
    let body = stream::read_body(&mut stream, bytes, progress).await?;
    Ok((header.with_body(body)?, room))
}
