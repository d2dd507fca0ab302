//! One child's connection: the feeder's shell.

use std::collections::BTreeMap;

use quinn::{Connection, RecvStream, SendStream};
use tokio::{sync::mpsc, task::JoinSet};
use tradewind_ledger::ids::{Digest, LedgerId, Version};
use tradewind_ledger::tree::{consistency_proof, root_at};
use tradewind_wan_protocol::wire::{BATCH_ENTRIES_MAX, BatchHeader};
use tradewind_wan_protocol::wire::{BulkHeader, ChildMessage, ParentMessage, ValueHeader};
use tradewind_wan_protocol::{FeedAction, Feeder, FeederConfig, Head, Located, ReadDone};

use crate::{
    clock::Clock,
    lend,
    serve::ServeConfig,
    source::Source,
    stream::{self, StreamError},
};

/// Messages to the child that may wait; a child that does not even read control is dropped.
const OUTBOX: usize = 1_024;

/// What the tasks of a connection tell its loop.
enum Event {
    Message(ChildMessage),
    Head(LedgerId),
    Path,
    Located(LedgerId, Head, Option<Located>),
    Read(LedgerId, Version, Option<ReadDone>),
    Sent,
    ValueSent(LedgerId, Digest, bool),
    End(String),
}

struct Feed<'a> {
    connection: &'a Connection,
    sources: BTreeMap<LedgerId, Source>,
    feeder: Feeder,
    config: &'a ServeConfig,
    via: u64,
    clock: Clock,
    outbox: mpsc::Sender<Vec<u8>>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

/// Feeds a child until either side ends; says why.
pub(crate) async fn run(
    connection: &Connection,
    feeder: FeederConfig,
    sources: BTreeMap<LedgerId, Source>,
    config: &ServeConfig,
    via: u64,
) -> String {
    let (send, receive) =
        match tokio::time::timeout(config.timing.connect, connection.accept_bi()).await {
            Ok(Ok(streams)) => streams,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it opened no control stream".to_owned(),
        };
    let clock = Clock::start();
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    let (events, mut incoming) = mpsc::channel(64);
    let path = config.path.borrow().clone();
    let mut feed = Feed {
        connection,
        sources,
        feeder: Feeder::new(feeder, path, clock.now()),
        config,
        via,
        clock,
        outbox,
        events,
        tasks: JoinSet::new(),
    };
    feed.start(send, receive, outgoing);
    let greeting = clock.system(clock.now().after(config.timing.connect));
    loop {
        let due = clock.system(feed.feeder.poll_timeout());
        let event = tokio::select! {
            Some(event) = incoming.recv() => Some(event),
            () = tokio::time::sleep_until(due) => None,
            () = tokio::time::sleep_until(greeting), if !feed.feeder.is_greeted() => {
                return "it did not say who it is".to_owned();
            }
        };
        if let Some(end) = feed.handle(event) {
            return end;
        }
        while feed.tasks.try_join_next().is_some() {}
    }
}

impl Feed<'_> {
    /// Starts the tasks that live as long as the connection.
    fn start(&mut self, send: SendStream, receive: RecvStream, outgoing: mpsc::Receiver<Vec<u8>>) {
        self.tasks.spawn(write_control(send, outgoing, self.events.clone()));
        self.tasks.spawn(read_control(receive, self.events.clone()));
        self.tasks.spawn(lend::serve(self.connection.clone(), self.sources.clone()));
        for (id, source) in &self.sources {
            let (id, mut heads, events) = (id.clone(), source.heads.clone(), self.events.clone());
            heads.mark_changed();
            self.tasks.spawn(async move {
                while heads.changed().await.is_ok() {
                    heads.borrow_and_update();
                    if events.send(Event::Head(id.clone())).await.is_err() {
                        return;
                    }
                }
            });
        }
        let (mut path, events) = (self.config.path.clone(), self.events.clone());
        self.tasks.spawn(async move {
            while path.changed().await.is_ok() {
                if events.send(Event::Path).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Takes up an event, or that time has passed; `Some` is the end.
    fn handle(&mut self, event: Option<Event>) -> Option<String> {
        let now = self.clock.now();
        match event {
            None => {
                let sources = &self.sources;
                self.feeder.handle_tick(now, &|ledger| {
                    sources.get(ledger).map_or_else(Default::default, |source| (source.age)())
                });
            }
            Some(Event::Message(message)) => self.feeder.handle_message(now, message),
            Some(Event::Head(ledger)) => {
                if let Some(head) = self.sources[&ledger].head() {
                    self.feeder.handle_head(&ledger, Head::clone(&head));
                }
            }
            Some(Event::Path) => {
                let path = self.config.path.borrow().clone();
                self.feeder.handle_path(now, path);
            }
            Some(Event::Located(ledger, head, located)) => {
                self.feeder.handle_located(&ledger, &head, located);
            }
            Some(Event::Read(ledger, first, done)) => {
                self.feeder.handle_read(&ledger, first, done);
            }
            Some(Event::Sent) => self.feeder.handle_sent(),
            Some(Event::ValueSent(ledger, digest, sent)) => {
                self.feeder.handle_value_sent(ledger, digest, sent);
            }
            Some(Event::End(reason)) => return Some(reason),
        }
        while let Some(action) = self.feeder.poll_action() {
            if let Some(end) = self.act(action) {
                return Some(end);
            }
        }
        None
    }

    fn act(&mut self, action: FeedAction) -> Option<String> {
        match action {
            FeedAction::Send(message) => {
                if self.outbox.try_send(message.encode()).is_err() {
                    return Some("it does not read its control stream".to_owned());
                }
                if let ParentMessage::Refuse(refuse) = &message {
                    tracing::warn!(ledger = %refuse.ledger, reason = ?refuse.reason, "refused");
                }
            }
            FeedAction::Locate { ledger, size, head } => {
                let reader = self.sources[&ledger].reader.clone();
                let events = self.events.clone();
                self.tasks.spawn(async move {
                    let target = head.size;
                    let located = tokio::task::spawn_blocking(move || {
                        let root = root_at(&reader, size).ok()?;
                        let proof = consistency_proof(&reader, size, target).ok()?;
                        Some(Located { root, proof, first: reader.first() })
                    });
                    let located = located.await.ok().flatten();
                    _ = events.send(Event::Located(ledger, head, located)).await;
                });
            }
            FeedAction::Read { ledger, first, max_bytes, head, is_tail } => {
                let source = self.sources[&ledger].clone();
                let task = batch(
                    self.connection.clone(),
                    self.events.clone(),
                    source,
                    Wanted { first, max_bytes, head, is_tail },
                );
                self.tasks.spawn(task);
            }
            FeedAction::SendValue { ledger, digest } => {
                let source = self.sources[&ledger].clone();
                self.tasks.spawn(value(
                    self.connection.clone(),
                    self.events.clone(),
                    source,
                    digest,
                ));
            }
            FeedAction::Report(mut reports) => {
                // Names come from the child; only those of mirrors are kept.
                reports.retain(|report| self.config.topology.mirror(&report.mirror).is_some());
                self.config.mirrors.report(self.via, reports);
            }
            FeedAction::Close { reason } => return Some(reason),
        }
        None
    }
}

/// A batch to be read and sent.
struct Wanted {
    first: Version,
    max_bytes: u64,
    head: Head,
    is_tail: bool,
}

/// Reads a batch, says so, and sends it.
async fn batch(
    connection: Connection,
    events: mpsc::Sender<Event>,
    source: Source,
    wanted: Wanted,
) {
    let (ledger, first, is_tail) = (source.ledger.clone(), wanted.first, wanted.is_tail);
    let read = tokio::task::spawn_blocking(move || read(&source, &wanted));
    let read = read.await.map_err(Into::into).and_then(|read| read);
    let (header, body) = match read {
        Ok(batch) => batch,
        Err(error) => {
            tracing::error!(%ledger, %first, %error, "a batch cannot be read");
            _ = events.send(Event::Read(ledger, first, None)).await;
            return;
        }
    };
    let end = header.first.plus(header.count.into());
    let done = ReadDone { end, bytes: body.len() as u64 };
    if events.send(Event::Read(ledger, first, Some(done))).await.is_err() {
        return;
    }
    let priority = if is_tail { stream::PRIORITY_TAIL } else { stream::PRIORITY_BULK };
    let header = BulkHeader::Batch(header);
    let event = match send(&connection, priority, &header, body).await {
        Ok(()) => Event::Sent,
        Err(error) => Event::End(error.to_string()),
    };
    _ = events.send(event).await;
}

/// Reads entries, and proves where they lead.
fn read(
    source: &Source,
    wanted: &Wanted,
) -> Result<(BatchHeader, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let Wanted { first, max_bytes, head, .. } = wanted;
    let end = head.size.min(first.plus(BATCH_ENTRIES_MAX.into()));
    // Most entries are short; what is longer makes the buffer grow.
    let likely = end.since(*first).saturating_mul(320).min(*max_bytes);
    let mut body = Vec::with_capacity(likely as usize);
    let mut count = 0;
    let end = source.reader.for_each(*first, end, *max_bytes as usize, |_, entry| {
        let length = u16::try_from(entry.len()).expect("an entry fits 16 bits");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(entry);
        count += 1;
    })?;
    let proof = consistency_proof(&source.reader, end, head.size)?;
    let header = BatchHeader {
        ledger: source.ledger.clone(),
        first: *first,
        count,
        bytes: u32::try_from(body.len())?,
        claim: head.claim(end, proof),
    };
    Ok((header, body))
}

/// Sends a detached value.
async fn value(
    connection: Connection,
    events: mpsc::Sender<Event>,
    source: Source,
    digest: Digest,
) {
    let ledger = source.ledger;
    let reader = source.reader;
    let body = match tokio::task::spawn_blocking(move || reader.value(&digest)).await {
        Ok(Ok(Some(body))) => body,
        error => {
            tracing::error!(%ledger, %digest, ?error, "a child wants a value that is not here");
            _ = events.send(Event::ValueSent(ledger, digest, false)).await;
            return;
        }
    };
    let header = ValueHeader { ledger: ledger.clone(), digest, bytes: body.len() as u64 };
    let header = BulkHeader::Value(header);
    let event = match send(&connection, stream::PRIORITY_VALUE, &header, body).await {
        Ok(()) => Event::ValueSent(ledger, digest, true),
        Err(error) => Event::End(error.to_string()),
    };
    _ = events.send(event).await;
}

async fn send(
    connection: &Connection,
    priority: i32,
    header: &BulkHeader,
    body: Vec<u8>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = connection.open_uni().await?;
    stream.set_priority(priority)?;
    stream::write_bulk(&mut stream, header, body).await?;
    Ok(())
}

async fn read_control(mut stream: RecvStream, events: mpsc::Sender<Event>) {
    let end = loop {
        let message = match stream::read_frame(&mut stream).await {
            Ok((header, payload)) => ChildMessage::decode(&header, &payload),
            Err(error) => break error,
        };
        match message {
            Ok(message) => {
                if events.send(Event::Message(message)).await.is_err() {
                    return;
                }
            }
            Err(error) => break error.into(),
        }
    };
    let end: StreamError = end;
    _ = events.send(Event::End(end.to_string())).await;
}

async fn write_control(
    mut stream: SendStream,
    mut outgoing: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<Event>,
) {
    _ = stream.set_priority(stream::PRIORITY_CONTROL);
    while let Some(message) = outgoing.recv().await {
        if let Err(error) = stream.write_all(&message).await {
            _ = events.send(Event::End(error.to_string())).await;
            return;
        }
    }
}
