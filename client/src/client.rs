//! The client: finds the servers of a shard, numbers requests, fails over.

use crate::{
    Config, Endpoint, Error,
    connection::{Connection, ConnectionError, Unanswered},
    session::Session,
    wire::{Answer, Executed, Fault, PoolIndex, PoolInfo, Request, Role, Welcome, Write},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tradewind_ledger::{Hlc, RequestId, RequestNumber};
use tradewind_store::{Command, Durability, Refusal, Reply, session_id};

/// The first pause between two attempts of a request; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a server that could not be reached is left in peace while there are others; doubled each time, up to
/// [`AVOID_MAX`].
const AVOID_MIN: Duration = Duration::from_millis(250);
const AVOID_MAX: Duration = Duration::from_secs(16);

/// A client of a deployment. Cheap to clone; all clones share connections and sessions.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    config: Config,
    welcome: Welcome,
    /// When the welcome came.
    welcomed: Instant,
    /// The servers that the caller named, then the nodes that the welcome named.
    links: BTreeMap<String, Arc<Link>>,
    /// The names of the former, in the caller's order, the one first connected to in front.
    preferred: Vec<String>,
    routes: Mutex<BTreeMap<(PoolIndex, u32), Arc<Route>>>,
}

/// How writes reach a shard; made with the first one.
#[derive(Debug)]
struct Route {
    session: Session,
    /// The servers that may execute a command, the preferred ones first.
    candidates: Vec<Arc<Link>>,
}

/// The connection to one server, made when needed and again when broken.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    current: Mutex<Option<Arc<Connection>>>,
    /// Held while a connection is made: one at a time.
    connecting: tokio::sync::Mutex<()>,
    avoided: Mutex<Option<Avoided>>,
}

/// A server that could not be reached.
#[derive(Clone, Debug)]
struct Avoided {
    until: Instant,
    pause: Duration,
    error: ConnectionError,
}

impl Link {
    fn new(endpoint: Endpoint) -> Self {
        let (current, connecting, avoided) = Default::default();
        Self { endpoint, current, connecting, avoided }
    }

    /// A connection, made if there is none. While there are `others` to ask, an error at once instead of trying to
    /// connect to a server again that could not be reached a moment ago (it may be one that takes a connection and then
    /// does not answer), and instead of one that owes a sign of life.
    async fn connection(
        &self,
        config: &Config,
        known: &Welcome,
        deadline: Instant,
        others: bool,
    ) -> Result<Arc<Connection>, ConnectionError> {
        if let Some(known) = self.known(others) {
            return known;
        }
        let _connecting = self.connecting.lock().await;
        if let Some(known) = self.known(others) {
            return known;
        }
        self.slot().take();
        // Meanwhile others do not wait for a server that is back perhaps.
        if let Some(avoided) = &mut *self.avoided() {
            avoided.until = Instant::now() + config.connect_timeout;
        }
        let opened = self.open(config, known, deadline).await;
        let mut avoided = self.avoided();
        let pause = avoided.as_ref().map_or(AVOID_MIN, |last| (last.pause * 2).min(AVOID_MAX));
        let until = Instant::now() + pause;
        *avoided = opened.as_ref().err().map(|e| Avoided { until, pause, error: e.clone() });
        Ok(Arc::clone(self.slot().insert(opened?)))
    }

    /// The connection, or why this server is left in peace now; `None` if one is to be made.
    fn known(&self, others: bool) -> Option<Result<Arc<Connection>, ConnectionError>> {
        if let Some(connection) = self.current() {
            let doubt = connection.doubt().filter(|_| others);
            return Some(doubt.map_or(Ok(connection), Err));
        }
        let avoided = self.avoided();
        let avoided = avoided.as_ref().filter(|a| others && Instant::now() < a.until);
        avoided.map(|a| Err(a.error.clone()))
    }

    fn avoided(&self) -> MutexGuard<'_, Option<Avoided>> {
        self.avoided.lock().expect("no panic while it is held")
    }

    async fn open(
        &self,
        config: &Config,
        known: &Welcome,
        deadline: Instant,
    ) -> Result<Arc<Connection>, ConnectionError> {
        let connection = Connection::open(&self.endpoint, config, deadline).await?;
        let shape = |welcome: &Welcome| -> Vec<_> {
            welcome.pools.iter().map(|pool| (pool.name.clone(), pool.shards.len())).collect()
        };
        if shape(&connection.welcome) != shape(known) {
            return Err(ConnectionError::Differs { server: self.endpoint.name.clone() });
        }
        Ok(Arc::new(connection))
    }

    /// The connection, if there is one that is not closed.
    fn current(&self) -> Option<Arc<Connection>> {
        self.slot().as_ref().filter(|connection| connection.is_open()).cloned()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.current.lock().expect("no panic while it is held")
    }
}

/// What has become of a request so far.
struct Attempts {
    began: Instant,
    deadline: Instant,
    pause: Duration,
    /// Whether an attempt may have had an effect without our learning of it.
    unknown: bool,
    writes: bool,
    tried: usize,
    /// The latest reason that a server gave: it says more than that another one is gone.
    fault: Option<Error>,
}

impl Attempts {
    fn new(allowed: Duration, writes: bool) -> Self {
        let began = Instant::now();
        let deadline = began + allowed;
        Self { began, deadline, pause: PAUSE_MIN, unknown: false, writes, tried: 0, fault: None }
    }

    /// The error of a request that is given up.
    fn over(&mut self, last: Error) -> Error {
        let after_ms = self.began.elapsed().as_millis() as u64;
        let last = Box::new(self.fault.take().unwrap_or(last));
        match self.writes && self.unknown {
            true => Error::OutcomeUnknown { after_ms, last },
            false => Error::NotExecuted { after_ms, last },
        }
    }

    /// Waits before the next attempt, a little longer each time all candidates were tried; ends with an error when
    /// time is up.
    async fn failed(&mut self, error: Error, candidates: usize) -> Result<(), Error> {
        self.tried += 1;
        if matches!(error, Error::Fault(_)) {
            self.fault = Some(error.clone());
        }
        let pause = if self.tried.is_multiple_of(candidates) { self.pause } else { Duration::ZERO };
        if Instant::now() + pause >= self.deadline {
            return Err(self.over(error));
        }
        if !pause.is_zero() {
            sleep_until(Instant::now() + pause).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    }
}

impl Client {
    /// Connects to the first of `endpoints` that answers, and learns from it what pools and nodes there are.
    ///
    /// Reads go to that server as long as it is there and holds the shard, writes to it if it is a member of the
    /// shard; otherwise, and when it fails, to other servers.
    ///
    /// # Errors
    /// [`Error::Connection`] with the last endpoint's reason, if none answers within the deadline.
    pub async fn connect(config: Config, endpoints: Vec<Endpoint>) -> Result<Self, Error> {
        let mut attempts = Attempts::new(config.deadline, false);
        loop {
            let mut last = Error::NoEndpoints;
            for endpoint in &endpoints {
                match Connection::open(endpoint, &config, attempts.deadline).await {
                    Ok(connection) => return Ok(Self::with(config, endpoints, connection)),
                    Err(error) => last = error.into(),
                }
            }
            if endpoints.is_empty() || attempts.failed(last.clone(), 1).await.is_err() {
                return Err(last);
            }
        }
    }

    fn with(config: Config, endpoints: Vec<Endpoint>, connection: Connection) -> Self {
        let welcome = connection.welcome.clone();
        let first = connection.server().to_owned();
        let mut preferred = vec![first.clone()];
        preferred.extend(endpoints.iter().map(|e| e.name.clone()).filter(|name| *name != first));
        let named = welcome
            .nodes
            .iter()
            .map(|node| Endpoint { name: node.name.clone(), address: node.address.clone() });
        let link = |endpoint: Endpoint| {
            let name = endpoint.name.clone();
            (name, Arc::new(Link::new(endpoint)))
        };
        // The caller's addresses come last, to win over those of the welcome.
        let links: BTreeMap<_, _> = named.chain(endpoints).map(link).collect();
        *links[&first].slot() = Some(Arc::new(connection));
        let (welcomed, routes) = (Instant::now(), Mutex::default());
        Self { shared: Arc::new(Shared { config, welcome, welcomed, links, preferred, routes }) }
    }

    /// What the first server said: the deployment, its nodes and pools.
    pub fn welcome(&self) -> &Welcome {
        &self.shared.welcome
    }

    /// Executes a command exactly once, however often it has to be sent. A shard's refusal is an error, a condition
    /// that does not hold is a [`Reply`].
    ///
    /// # Errors
    /// [`Error::NotExecuted`] or [`Error::OutcomeUnknown`] when the deadline passes; other errors at once, and
    /// without an effect.
    pub async fn execute(
        &self,
        pool: &str,
        command: &Command,
        durability: Option<Durability>,
    ) -> Result<Reply, Error> {
        command.check()?;
        let (index, info) = self.pool(pool)?;
        let shard = command.shard(info.shards.len() as u32)?;
        let bytes = command.encode();
        let mut attempts = Attempts::new(self.shared.config.allowed(bytes.len()), true);
        let route = self.route(index, info, shard);
        let Route { session, candidates } = &*route;
        loop {
            let numbered = match session.try_number() {
                Some(numbered) => numbered,
                None => match timeout_at(attempts.deadline, session.number()).await {
                    Ok(numbered) => numbered,
                    Err(_) => return Err(attempts.over(Error::TimedOut)),
                },
            };
            let request = numbered.request;
            let send = |command| Write { pool: index, shard, request, durability, command };
            let mut answered = None;
            while answered.is_none() && !attempts.unknown {
                let write = Request::Write(send(&bytes));
                answered = self.attempt(&write, bytes.len(), candidates, &mut attempts).await?;
            }
            let (answer, connection) = match answered {
                Some(answered) => answered,
                // Perhaps executed, perhaps still on its way: from now on an effect, or none, is made known to the latter.
                None => {
                    let bytes = Command::settle(&bytes);
                    self.ask(&Request::Write(send(&bytes)), bytes.len(), candidates, &mut attempts)
                        .await?
                }
            };
            match answer {
                Answer::Reply(Reply::Refused(Refusal::SessionExpired)) if !attempts.unknown => {
                    // Never executed, so it may be numbered anew, in a session the shard cannot have forgotten.
                    session.renew(request.session, connection.server_now(), random());
                    attempts.failed(Refusal::SessionExpired.into(), 1).await?;
                }
                Answer::Reply(Reply::Refused(refusal)) => return Err(refusal.into()),
                Answer::Reply(reply) => return Ok(reply),
                _ => return Err(connection.confused()),
            }
        }
    }

    /// A request number that nobody else has, for [`execute_numbered`](Self::execute_numbered).
    pub fn request_number(&self) -> RequestId {
        let opened = later(self.shared.welcome.now, self.shared.welcomed);
        RequestId { session: session_id(opened, random()), number: RequestNumber(1) }
    }

    /// Executes a command under a request number that the caller keeps. Whoever sends the same command under the same
    /// number again, be it another process after a crash of this one, gets the first reply as long as the shard
    /// remembers it.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); and [`Refusal`]s: of another command under that number, of a number no longer
    /// remembered.
    pub async fn execute_numbered(
        &self,
        pool: &str,
        command: &Command,
        request: RequestId,
    ) -> Result<Reply, Error> {
        command.check()?;
        let (index, info) = self.pool(pool)?;
        let shard = command.shard(info.shards.len() as u32)?;
        let bytes = command.encode();
        let mut attempts = Attempts::new(self.shared.config.allowed(bytes.len()), true);
        let write = Write { pool: index, shard, request, durability: None, command: &bytes };
        let candidates = self.writers(info, shard);
        let (answer, connection) =
            self.ask(&Request::Write(write), bytes.len(), &candidates, &mut attempts).await?;
        match answer {
            Answer::Reply(Reply::Refused(refusal)) => Err(refusal.into()),
            Answer::Reply(reply) => Ok(reply),
            _ => Err(connection.confused()),
        }
    }

    /// Reads: asks the servers in `candidates`, in turn, until one answers.
    pub(crate) async fn read(
        &self,
        request: &Request<'_>,
        candidates: &[Arc<Link>],
    ) -> Result<(Answer, Arc<Connection>), Error> {
        let mut attempts = Attempts::new(self.shared.config.deadline, false);
        self.ask(request, 0, candidates, &mut attempts).await
    }

    async fn ask(
        &self,
        request: &Request<'_>,
        size: usize,
        candidates: &[Arc<Link>],
        attempts: &mut Attempts,
    ) -> Result<(Answer, Arc<Connection>), Error> {
        loop {
            if let Some(found) = self.attempt(request, size, candidates, attempts).await? {
                return Ok(found);
            }
        }
    }

    /// Asks one server, the next in turn; `None` if that failed and there is time for another attempt.
    async fn attempt(
        &self,
        request: &Request<'_>,
        size: usize,
        candidates: &[Arc<Link>],
        attempts: &mut Attempts,
    ) -> Result<Option<(Answer, Arc<Connection>)>, Error> {
        let Shared { config, welcome, .. } = &*self.shared;
        let link = &candidates[attempts.tried % candidates.len()];
        // After a round in which nobody could be reached, each is tried in earnest.
        let others = attempts.tried < candidates.len() && candidates.len() > 1;
        let opening = link.connection(config, welcome, attempts.deadline, others);
        let connection = match opening.await {
            Ok(connection) => connection,
            Err(error) => {
                attempts.failed(error.into(), candidates.len()).await?;
                return Ok(None);
            }
        };
        let error = match connection.call(request, size, attempts.deadline).await {
            Ok(Ok(answer)) => return Ok(Some((answer, connection))),
            Ok(Err(fault)) => {
                attempts.unknown |= fault.executed() == Executed::Unknown;
                if !fault.is_retryable() {
                    return Err(match attempts.writes && attempts.unknown {
                        true => attempts.over(fault.into()),
                        false => fault.into(),
                    });
                }
                Error::Fault(fault)
            }
            Err(Unanswered::Broken(broken)) => {
                attempts.unknown = true;
                Error::Connection(broken)
            }
            Err(Unanswered::TimedOut) => {
                attempts.unknown = true;
                Error::TimedOut
            }
        };
        attempts.failed(error, candidates.len()).await?;
        Ok(None)
    }

    pub(crate) fn pool(&self, name: &str) -> Result<(PoolIndex, &PoolInfo), Error> {
        let pools = &self.shared.welcome.pools;
        match pools.iter().position(|pool| pool.name == name) {
            Some(index) => Ok((PoolIndex(index as u32), &pools[index])),
            None => Err(Error::Fault(Fault::NoSuchPool {
                pool: name.to_owned(),
                pools: pools.iter().map(|pool| pool.name.clone()).collect(),
            })),
        }
    }

    /// The servers that may execute a command, the preferred ones first. A mirror is asked itself: it says where the
    /// pool's home is.
    fn writers(&self, pool: &PoolInfo, shard: u32) -> Vec<Arc<Link>> {
        let Shared { welcome, links, preferred, .. } = &*self.shared;
        if welcome.role == Role::Mirror {
            return vec![Arc::clone(&links[&preferred[0]])];
        }
        let mut members: Vec<&String> = self.members(pool, shard).collect();
        members.sort_by_key(|name| preferred.iter().position(|p| p == *name).unwrap_or(usize::MAX));
        let links: Vec<_> =
            members.into_iter().filter_map(|name| links.get(name)).cloned().collect();
        if links.is_empty() { vec![Arc::clone(&self.shared.links[&preferred[0]])] } else { links }
    }

    /// The servers that may answer a read: those the caller named, then the shard's members.
    pub(crate) fn readers(&self, pool: &PoolInfo, shard: u32) -> Vec<Arc<Link>> {
        let Shared { welcome, links, preferred, .. } = &*self.shared;
        let here = pool.shards[shard as usize].here;
        let named = preferred.iter().filter(|name| here || **name != welcome.server);
        let mut names: Vec<&String> = named.collect();
        for member in self.members(pool, shard) {
            if !names.contains(&member) {
                names.push(member);
            }
        }
        names.into_iter().filter_map(|name| links.get(name)).cloned().collect()
    }

    /// The servers that the caller named.
    pub(crate) fn named(&self) -> Vec<Arc<Link>> {
        self.shared.preferred.iter().map(|name| Arc::clone(&self.shared.links[name])).collect()
    }

    fn members<'a>(&'a self, pool: &'a PoolInfo, shard: u32) -> impl Iterator<Item = &'a String> {
        let nodes = &self.shared.welcome.nodes;
        let members = pool.shards[shard as usize].members.iter();
        members.filter_map(|&member| nodes.get(member as usize)).map(|node| &node.name)
    }

    fn route(&self, pool: PoolIndex, info: &PoolInfo, shard: u32) -> Arc<Route> {
        let mut routes = self.shared.routes.lock().expect("no panic while it is held");
        let route = routes.entry((pool, shard)).or_insert_with(|| {
            let opened = later(self.shared.welcome.now, self.shared.welcomed);
            let session = Session::new(opened, random());
            Arc::new(Route { session, candidates: self.writers(info, shard) })
        });
        Arc::clone(route)
    }
}

/// The server's time now, if it was `then` at `since`.
pub(crate) fn later(then: Hlc, since: Instant) -> Hlc {
    Hlc::from_micros(then.micros() + since.elapsed().as_micros() as u64)
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system has random numbers")
}
