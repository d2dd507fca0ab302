//! Snapshots for children that lack what their parents have pruned: at the parent, and at the child.
//!
//! The child has a connection of its own for it, on which it follows nothing: the parent that keeps it up to date may change
//! meanwhile. One part is asked for at a time.

use std::{collections::BTreeMap, fmt, sync::Arc};

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::task::spawn_blocking;
use tradewind_ledger::ids::{LedgerId, Version};
use tradewind_transport::{quic, tls::Protocol};
use tradewind_wan_protocol::wire::{Ask, ChildMessage, Hello, Lent, Part};

use crate::{
    link::Dialer,
    route::Candidate,
    source::Source,
    stream::{self, StreamError},
};

/// Answers a child's questions for parts, one after the other, until the connection ends.
pub(crate) async fn serve(connection: Connection, sources: BTreeMap<LedgerId, Source>) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        if let Err(error) = answer(send, receive, &sources).await {
            tracing::warn!(%error, "no part of a snapshot for a child");
        }
    }
}

async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    sources: &BTreeMap<LedgerId, Source>,
) -> Result<(), StreamError> {
    _ = send.set_priority(stream::PRIORITY_BULK);
    let (header, payload) = stream::read_frame(&mut receive).await?;
    let Ask { ledger, size, part } = Ask::decode(&header, &payload)?;
    let bytes = match sources.get(&ledger) {
        None => None,
        Some(source) => {
            let lend = Arc::clone(&source.lend);
            let found = spawn_blocking(move || lend(size, part));
            let found = found.await.map_err(|error| error.to_string()).flatten();
            found.unwrap_or_else(|error| {
                tracing::error!(%ledger, %size, ?part, error, "a part of a snapshot cannot be given");
                None
            })
        }
    };
    let lent = Lent(bytes.as_ref().map(|bytes| bytes.len() as u64));
    send.write_all(&lent.encode()).await?;
    if let Some(bytes) = bytes {
        send.write_chunk(bytes.into()).await?;
    }
    // Fails only if it was finished before.
    _ = send.finish();
    Ok(())
}

/// A parent that gives a snapshot of a ledger.
#[derive(Clone)]
pub struct Lender {
    dialer: Dialer,
    parent: Candidate,
    ledger: LedgerId,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lender({} of {})", self.ledger, self.parent.name)
    }
}

/// A connection to it.
#[derive(Debug)]
pub struct Lending {
    connection: Connection,
    ledger: LedgerId,
    /// Kept open: with it the parent ends the connection.
    _control: (SendStream, RecvStream),
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"the child is done");
    }
}

impl Lender {
    pub(crate) fn new(dialer: Dialer, parent: Candidate, ledger: LedgerId) -> Self {
        Self { dialer, parent, ledger }
    }

    /// The parent's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parent.name
    }

    /// Connects.
    ///
    /// # Errors
    /// In words why that cannot be.
    pub async fn connect(&self, deployment: &str) -> Result<Lending, String> {
        let Dialer { endpoint, credentials, tuning, .. } = &self.dialer;
        let Candidate { name, address } = &self.parent;
        let connected =
            quic::connect(endpoint, credentials, Protocol::Wan, name, *address, tuning).await;
        let connection = connected.map_err(|error| error.to_string())?;
        let greeting = async {
            let mut control = connection.open_bi().await.map_err(|error| error.to_string())?;
            let (deployment, mirror) = (deployment.to_owned(), credentials.own().name.clone());
            let hello = ChildMessage::Hello(Hello { deployment, mirror });
            control.0.write_all(&hello.encode()).await.map_err(|error| error.to_string())?;
            // Its welcome.
            stream::read_frame(&mut control.1).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(control)
        };
        let control = greeting.await?;
        Ok(Lending { connection, ledger: self.ledger.clone(), _control: control })
    }
}

impl Lending {
    /// Fetches a part of the snapshot of `size` entries; `None` if the parent has none, or not yet. Nothing of it is verified.
    ///
    /// # Errors
    /// In words what went wrong with the connection.
    pub async fn part(&self, size: Version, part: Part) -> Result<Option<Vec<u8>>, String> {
        self.fetch(size, part).await.map_err(|error| match self.connection.close_reason() {
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        })
    }

    async fn fetch(
        &self,
        size: Version,
        part: Part,
    ) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> {
        let (mut send, mut receive) = self.connection.open_bi().await?;
        let ask = Ask { ledger: self.ledger.clone(), size, part };
        send.write_all(&ask.encode()).await?;
        send.finish()?;
        let (header, payload) = stream::read_frame(&mut receive).await?;
        let Lent(Some(bytes)) = Lent::decode(&header, &payload, part)? else { return Ok(None) };
        let body = stream::read_body(&mut receive, bytes, || ()).await?;
        match body.len() as u64 == bytes {
            true => Ok(Some(body)),
            false => Err(format!("{} of {bytes} bytes came", body.len()).into()),
        }
    }
}
