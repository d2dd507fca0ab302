//! One connection: many calls at a time, answered in any order.
//!
//! A call appends its frame to a shared buffer and wakes the writer, which sends all there is in one write; the reader
//! hands each response to the call that waits for it. When anything breaks, every waiting call learns it.

use crate::{
    Error,
    client::later,
    config::{Config, Endpoint},
    wire::{
        self, CallId, FrameError, Hello, Kind, MAX_FRAME, MAX_HANDSHAKE, PoolInfo, Rejected,
        Request, Response, ShardInfo, Welcome,
    },
};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tradewind_ledger::Hlc;

/// Bytes of requests that may be on their way on one connection, in units of KiB.
const KIB_IN_FLIGHT: u32 = 256 << 10;
/// How often the writer stands back while callers add requests, and how many bytes are enough to be sent at once.
const GATHER_TURNS: u32 = 16;
const GATHERED: usize = 64 << 10;
/// After so long without a byte received while something is wanted, the server is asked whether it is there.
const QUIET: Duration = Duration::from_millis(350);
/// After so long what waits for its answer is asked elsewhere, which is not to wait for a process that was stopped; and so is
/// what comes, until a byte is received.
const DOUBTFUL: Duration = Duration::from_millis(700);
/// And after so long the connection is given up.
const DEAD: Duration = Duration::from_secs(2);

/// Why a connection cannot be made, or is no more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No connection to the address.
    #[error("cannot connect to {server} at {address}: {reason}")]
    Connect {
        /// The server's name.
        server: String,
        /// The address dialled.
        address: String,
        /// What the system, or TLS, says.
        reason: String,
    },
    /// The server would not speak with us.
    #[error("{server} refused the connection: {rejected}")]
    Rejected {
        /// The server's name.
        server: String,
        /// Why.
        rejected: Rejected,
    },
    /// The server knows other pools than the server first connected to.
    #[error(
        "{server} has other pools, or other numbers of shards, than the server first connected to; give all processes \
         the same topology file, and connect anew"
    )]
    Differs {
        /// The server's name.
        server: String,
    },
    /// The connection broke.
    #[error("the connection to {server} broke: {reason}")]
    Broken {
        /// The server's name.
        server: String,
        /// What happened.
        reason: String,
    },
}

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Unanswered {
    /// The connection broke first.
    Broken(ConnectionError),
    /// Its deadline passed.
    TimedOut,
}

/// An established connection. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    pub(crate) welcome: Welcome,
    welcomed: Instant,
    /// For bytes of requests, in units of KiB.
    room: Semaphore,
    /// What each call takes of it at least, which bounds the number of calls.
    call_kib: u32,
}

#[derive(Debug)]
struct Shared {
    server: String,
    state: Mutex<State>,
    /// Told when there is something to write, or when the connection is closed.
    wake: Notify,
    /// Told when a call has an earlier deadline than all before it.
    hurry: Notify,
    /// Whether the server owes a sign of life.
    doubted: AtomicBool,
    /// Closed with the connection.
    open: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Vec<u8>,
    waiting: HashMap<u64, Waiter, BuildHasherDefault<CallHasher>>,
    /// When it is looked next for calls whose deadline has passed: at the earliest of all deadlines, or before.
    look_at: Option<Instant>,
    next_call: u64,
    closed: Option<ConnectionError>,
}

/// Whoever waits for the response of a call.
#[derive(Debug)]
struct Waiter {
    sender: oneshot::Sender<Result<Response, Unanswered>>,
    deadline: Instant,
}

impl Waiter {
    fn tell(self, answer: Result<Response, Unanswered>) {
        // A waiter that is gone needs no answer.
        let _ = self.sender.send(answer);
    }
}

/// Spreads the numbers of calls: they are counted here, so nobody chooses them.
#[derive(Default)]
struct CallHasher(u64);

impl Hasher for CallHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("calls have numbers");
    }

    fn write_u64(&mut self, call: u64) {
        self.0 = call.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whether a pool has shards, and each of them is at this server or at a node that the welcome names.
fn makes_sense(pool: &PoolInfo, welcome: &Welcome) -> bool {
    let is_known = |&member: &u32| (member as usize) < welcome.nodes.len();
    let is_somewhere = |shard: &ShardInfo| shard.here || shard.members.iter().any(is_known);
    !pool.shards.is_empty() && pool.shards.iter().all(is_somewhere)
}

impl Connection {
    /// Connects, agrees on keys and protocol, and starts to serve calls, all before `deadline`.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        config: &Config,
        deadline: Instant,
    ) -> Result<Self, ConnectionError> {
        let failed = |reason: String| ConnectionError::Connect {
            server: endpoint.name.clone(),
            address: endpoint.address.clone(),
            reason,
        };
        let opening = async {
            let tcp =
                TcpStream::connect(&endpoint.address).await.map_err(|e| failed(e.to_string()))?;
            tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
            match &config.tls {
                None => Self::establish(tcp, endpoint, config).await,
                Some(tls) => {
                    let (tls, name) = tls(&endpoint.name);
                    let tls = TlsConnector::from(tls).connect(name, tcp);
                    let stream = tls.await.map_err(|e| failed(format!("TLS: {e}")))?;
                    Self::establish(stream, endpoint, config).await
                }
            }
        };
        let limit = deadline.min(Instant::now() + config.connect_timeout);
        timeout_at(limit, opening).await.unwrap_or_else(|_| Err(failed("no answer in time".into())))
    }

    async fn establish<S>(
        mut stream: S,
        endpoint: &Endpoint,
        config: &Config,
    ) -> Result<Self, ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let server = endpoint.name.clone();
        let broken = |reason: String| ConnectionError::Broken { server: server.clone(), reason };
        let mut hello = Vec::new();
        wire::encode(&mut hello, Kind::Hello, CallId(0), &Hello::new(config.agent.clone()))
            .map_err(|e| broken(e.to_string()))?;
        let sent = async {
            stream.write_all(&hello).await?;
            stream.flush().await
        };
        sent.await.map_err(|e| broken(e.to_string()))?;
        let mut input = Vec::with_capacity(16 << 10);
        let welcome = loop {
            if let Some((frame, used)) =
                wire::split(&input, MAX_HANDSHAKE).map_err(|e| broken(e.to_string()))?
            {
                let welcome = match frame.kind {
                    Kind::Welcome => wire::decode::<Welcome>(&frame),
                    Kind::Rejected => {
                        let rejected = wire::decode(&frame).map_err(|e| broken(e.to_string()))?;
                        return Err(ConnectionError::Rejected { server, rejected });
                    }
                    other => Err(FrameError::Unexpected(other)),
                };
                input.drain(..used);
                let welcome = welcome.map_err(|e| broken(e.to_string()))?;
                if let Some(pool) = welcome.pools.iter().find(|pool| !makes_sense(pool, &welcome)) {
                    let name = pool.name.escape_debug();
                    return Err(broken(format!(
                        "its pool {name} has no shard, or one that is at no known server"
                    )));
                }
                break welcome;
            }
            match stream.read_buf(&mut input).await {
                Ok(0) => {
                    return Err(broken(
                        "closed before a welcome; is it a Tradewind server?".into(),
                    ));
                }
                Ok(_) => {}
                Err(error) => return Err(broken(error.to_string())),
            }
        };
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            doubted: AtomicBool::new(false),
            open: Semaphore::new(0),
        });
        let (reading, writing) = tokio::io::split(stream);
        tokio::spawn(Arc::clone(&shared).read(reading, input));
        tokio::spawn(Arc::clone(&shared).write(writing));
        tokio::spawn(Arc::clone(&shared).watch_deadlines());
        let call_kib = (KIB_IN_FLIGHT / welcome.in_flight_max.clamp(1, KIB_IN_FLIGHT)).max(1);
        Ok(Self {
            shared,
            welcome,
            welcomed: Instant::now(),
            room: Semaphore::new(KIB_IN_FLIGHT as usize),
            call_kib,
        })
    }

    /// The name under which the server was dialled.
    pub(crate) fn server(&self) -> &str {
        &self.shared.server
    }

    /// The server's time.
    pub(crate) fn server_now(&self) -> Hlc {
        later(self.welcome.now, self.welcomed)
    }

    /// The error that the server answered something else than was asked.
    pub(crate) fn confused(&self) -> Error {
        Error::Confused { server: self.shared.server.clone() }
    }

    /// Whether calls can be made.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.open.is_closed()
    }

    /// Why another server had better be asked, if so.
    pub(crate) fn doubt(&self) -> Option<ConnectionError> {
        let shared = &self.shared;
        shared.doubted.load(Ordering::Relaxed).then(|| shared.silent(DOUBTFUL))
    }

    /// Sends a request and waits for its response, until `deadline`. `size` is about how many bytes it has.
    pub(crate) async fn call(
        &self,
        request: &Request<'_>,
        size: usize,
        deadline: Instant,
    ) -> Result<Response, Unanswered> {
        let kib =
            u32::try_from(size >> 10).map_or(KIB_IN_FLIGHT, |kib| kib.clamp(1, KIB_IN_FLIGHT));
        let room = kib.max(self.call_kib);
        let _room = match self.room.try_acquire_many(room) {
            Ok(room) => room,
            Err(_) => timeout_at(deadline, self.room.acquire_many(room))
                .await
                .map_err(|_| Unanswered::TimedOut)?
                .expect("never closed"),
        };
        let (sender, response) = oneshot::channel();
        let call = {
            let mut state = self.shared.lock();
            if let Some(error) = &state.closed {
                return Err(Unanswered::Broken(error.clone()));
            }
            let call = state.next_call;
            state.next_call += 1;
            let was_empty = state.outgoing.is_empty();
            if let Err(error) =
                wire::encode(&mut state.outgoing, Kind::Request, CallId(call), request)
            {
                let reason = error.to_string();
                return Ok(Err(wire::Fault::BadRequest { reason }));
            }
            state.waiting.insert(call, Waiter { sender, deadline });
            if state.look_at.is_none_or(|at| deadline < at) {
                state.look_at = Some(deadline);
                self.shared.hurry.notify_one();
            }
            if was_empty {
                self.shared.wake.notify_one();
            }
            call
        };
        let forget = Forget { shared: &self.shared, call };
        let response = response.await.expect("a call is answered before it is forgotten");
        // Whoever answered has taken the call out.
        std::mem::forget(forget);
        response
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close(self.shared.broken("closed by this client".into()));
    }
}

/// Removes a call that nobody waits for any more.
struct Forget<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.lock().waiting.remove(&self.call);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    fn broken(&self, reason: String) -> ConnectionError {
        ConnectionError::Broken { server: self.server.clone(), reason }
    }

    fn silent(&self, for_: Duration) -> ConnectionError {
        self.broken(format!("nothing heard for {} ms", for_.as_millis()))
    }

    fn close(&self, error: ConnectionError) {
        let waiting = {
            let mut state = self.lock();
            let error = state.closed.get_or_insert(error).clone();
            std::mem::take(&mut state.waiting).into_values().map(move |w| (w, error.clone()))
        };
        self.open.close();
        for (waiter, error) in waiting {
            waiter.tell(Err(Unanswered::Broken(error)));
        }
        self.wake.notify_one();
    }

    /// Gives up calls whose deadline has passed, with one timer for all of them.
    async fn watch_deadlines(self: Arc<Self>) {
        loop {
            let look_at = self.lock().look_at;
            let due = async {
                match look_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.give_up(Instant::now()),
                () = self.hurry.notified() => {}
                _ = self.open.acquire() => return,
            }
        }
    }

    fn give_up(&self, now: Instant) {
        let overdue: Vec<Waiter> = {
            let mut state = self.lock();
            let overdue = state.waiting.extract_if(|_, waiter| waiter.deadline <= now);
            let overdue = overdue.map(|(_, waiter)| waiter).collect();
            state.look_at = state.waiting.values().map(|waiter| waiter.deadline).min();
            overdue
        };
        overdue.into_iter().for_each(|waiter| waiter.tell(Err(Unanswered::TimedOut)));
    }

    async fn write(self: Arc<Self>, mut stream: impl AsyncWrite + Unpin) {
        let mut sending = Vec::new();
        loop {
            let closed = {
                let mut state = self.lock();
                std::mem::swap(&mut sending, &mut state.outgoing);
                state.closed.is_some()
            };
            if closed {
                // The peer may be gone already: nothing to do about a failed farewell.
                let _ = stream.shutdown().await;
                return;
            }
            if sending.is_empty() {
                self.wake.notified().await;
                self.gather().await;
                continue;
            }
            let sent = async {
                stream.write_all(&sending).await?;
                stream.flush().await
            };
            if let Err(error) = sent.await {
                return self.close(self.broken(error.to_string()));
            }
            sending.clear();
            sending.shrink_to(1 << 20);
        }
    }

    /// Lets callers that are about to run come first, on all threads: one write for all of them, not one for each.
    async fn gather(&self) {
        let mut before = self.lock().outgoing.len();
        for _ in 0..GATHER_TURNS {
            tokio::task::yield_now().await;
            let now = self.lock().outgoing.len();
            if now == before || now >= GATHERED {
                return;
            }
            before = now;
        }
    }

    async fn read(self: Arc<Self>, mut stream: impl AsyncRead + Unpin, mut input: Vec<u8>) {
        let mut asked_at: Option<Instant> = None;
        loop {
            if let Err(error) = self.handle(&mut input) {
                return self.close(self.broken(error));
            }
            let read = tokio::select! {
                read = timeout(QUIET, stream.read_buf(&mut input)) => read,
                _ = self.open.acquire() => return,
            };
            match read {
                Ok(Ok(0)) => return self.close(self.broken("closed by the server".into())),
                Ok(Ok(_)) => {
                    asked_at = None;
                    self.doubted.store(false, Ordering::Relaxed);
                }
                Ok(Err(error)) => return self.close(self.broken(error.to_string())),
                Err(_) if asked_at.is_none() && self.lock().waiting.is_empty() => {}
                Err(_) => {
                    let quiet = QUIET + asked_at.get_or_insert_with(Instant::now).elapsed();
                    if quiet >= DEAD {
                        return self.close(self.silent(DEAD));
                    }
                    if quiet >= DOUBTFUL && !self.doubted.swap(true, Ordering::Relaxed) {
                        self.turn_away(&self.silent(DOUBTFUL));
                    }
                    self.ask_for_life();
                }
            }
        }
    }

    /// Tells all who wait that they had better ask another server.
    fn turn_away(&self, error: &ConnectionError) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting
            .into_values()
            .for_each(|waiter| waiter.tell(Err(Unanswered::Broken(error.clone()))));
    }

    fn ask_for_life(&self) {
        let mut state = self.lock();
        wire::encode(&mut state.outgoing, Kind::Ping, CallId(0), &()).expect("a ping fits");
        self.wake.notify_one();
    }

    /// Hands out the responses in `input`: those before a farewell or a bad frame too.
    fn handle(&self, input: &mut Vec<u8>) -> Result<(), String> {
        let mut responses = Vec::new();
        let taken = self.take(input, &mut responses);
        let waiters: Vec<_> = {
            let mut state = self.lock();
            let waiter =
                |(call, response): (CallId, _)| Some((state.waiting.remove(&call.0)?, response));
            responses.into_iter().filter_map(waiter).collect()
        };
        // Those told run at once, and take the lock to call again.
        waiters.into_iter().for_each(|(waiter, response)| waiter.tell(Ok(response)));
        input.drain(..taken?);
        if input.is_empty() {
            input.shrink_to(1 << 20);
        }
        Ok(())
    }

    /// Gathers the responses in `input`; tells how many bytes are done with.
    fn take(&self, input: &[u8], responses: &mut Vec<(CallId, Response)>) -> Result<usize, String> {
        let mut at = 0;
        while let Some((frame, used)) =
            wire::split(&input[at..], MAX_FRAME).map_err(|e| e.to_string())?
        {
            match frame.kind {
                Kind::Response => {
                    let response: Response = wire::decode(&frame).map_err(|e| e.to_string())?;
                    responses.push((frame.call, response));
                }
                Kind::Rejected => {
                    let rejected: Rejected = wire::decode(&frame).map_err(|e| e.to_string())?;
                    return Err(rejected.to_string());
                }
                Kind::Pong => {}
                Kind::Ping => {
                    let mut state = self.lock();
                    wire::encode(&mut state.outgoing, Kind::Pong, CallId(0), &())
                        .expect("a pong fits");
                    self.wake.notify_one();
                }
                other => return Err(FrameError::Unexpected(other).to_string()),
            }
            at += used;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;
    use crate::wire::Role;

    /// A connection, and the server's end of it.
    async fn welcomed() -> (Arc<Connection>, DuplexStream) {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let welcome = Welcome {
            protocol: wire::PROTOCOL,
            deployment: "atlas".into(),
            server: "ams-1".into(),
            role: Role::Node { site: "ams".into() },
            now: Hlc(0),
            in_flight_max: 16,
            nodes: Vec::new(),
            pools: Vec::new(),
        };
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, Kind::Welcome, CallId(0), &welcome).unwrap();
        server.write_all(&bytes).await.unwrap();
        let endpoint = Endpoint { name: "ams-1".into(), address: "unused".into() };
        let connection = Connection::establish(client, &endpoint, &Config::new(None)).await;
        (Arc::new(connection.unwrap()), server)
    }

    /// Calls, and gives the outcome with the time it took.
    async fn call(connection: &Connection) -> (Result<Response, Unanswered>, Duration) {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(60);
        let outcome = connection.call(&Request::Status, 0, deadline).await;
        (outcome, began.elapsed())
    }

    async fn says(server: &mut DuplexStream, kind: Kind) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, kind, CallId(0), &()).unwrap();
        server.write_all(&bytes).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_doubted_then_believed_again_and_at_last_given_up() {
        let (connection, mut server) = welcomed().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(connection.doubt().is_none(), "nothing was wanted of it");

        let (outcome, took) = call(&connection).await;
        let told = format!("{outcome:?}");
        assert!(told.contains("Broken") && told.contains("nothing heard for 700 ms"), "{told}");
        assert!((DOUBTFUL - QUIET..DOUBTFUL + QUIET).contains(&took), "{took:?}");
        assert!(connection.is_open() && connection.doubt().is_some());

        says(&mut server, Kind::Pong).await;
        while connection.doubt().is_some() {
            tokio::task::yield_now().await;
        }

        let (_, took) = call(&connection).await;
        assert!((DOUBTFUL - QUIET..DOUBTFUL + QUIET).contains(&took), "{took:?}");
        // Whoever asks it all the same waits for the end.
        let (outcome, took) = call(&connection).await;
        let told = format!("{outcome:?}");
        assert!(told.contains("nothing heard for 2000 ms"), "{told}");
        assert!((DEAD - DOUBTFUL - QUIET..DEAD).contains(&took), "{took:?}");
        assert!(!connection.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_lives_may_take_its_time() {
        let (connection, mut server) = welcomed().await;
        let calling = tokio::spawn(async move { call(&connection).await });
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            says(&mut server, Kind::Pong).await;
        }
        let (outcome, took) = calling.await.unwrap();
        assert!(matches!(outcome, Err(Unanswered::TimedOut)), "{outcome:?}");
        assert_eq!(took.as_secs(), 60);
    }
}
