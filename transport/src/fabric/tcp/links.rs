//! The life of links: dial or accept, greet, keep alive, lose, and try again.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use mio::{Interest, Token, net::TcpStream};

use super::{
    NodeId, Note, PeerLink, Security, TcpFabric,
    connection::{Connection, Failure, Phase},
    node_id,
    wire::{Hello, Kind},
};
use crate::{fabric::FabricEvent, tls::Protocol};

/// A peer may read a farewell for so long.
const CLOSING: Duration = Duration::from_secs(1);

/// A link that held so long makes the next pause short again.
const STEADY: Duration = Duration::from_secs(1);

/// The pause between attempts to tell a node that it was removed.
const FORMER: Duration = Duration::from_secs(30);

/// When the process has no descriptor left for a new connection, it looks again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl TcpFabric {
    /// Whether it is us who dials: of two nodes the one with the higher index.
    fn dials(&self, peer: NodeId) -> bool {
        peer < self.options.own
    }

    fn hello_to(&self, peer: NodeId) -> Hello {
        Hello {
            from: self.options.own,
            to: peer,
            incarnation: self.options.incarnation,
            digest: self.options.digest,
            deployment: self.options.deployment.clone(),
            site: self.options.site.clone(),
            name: self.options.nodes[self.options.own.index()].name.clone(),
        }
    }

    fn dial(&mut self, peer: NodeId, now: Instant) {
        self.peers[peer.index()].dial_at = None;
        let node = &self.options.nodes[peer.index()];
        let tls = match &self.options.security {
            Security::Tls(credentials) => Some(Connection::dialling_tls(credentials, &node.name)),
            Security::Plain => None,
        };
        let stream = match TcpStream::connect(node.address) {
            Ok(stream) => stream,
            Err(error) => return self.unreachable(peer, &error.to_string(), now),
        };
        let hello = self.hello_to(peer).encode();
        let deadline = now + self.options.timing.connect;
        let mut connection = Connection::new(stream, tls, Some(peer), deadline, now);
        connection.put(Kind::Hello, 0, &hello);
        self.admit_connection(connection);
    }

    /// Takes whoever knocks, as far as there is room for strangers.
    pub(super) fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of another node");
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            };
            let strangers = self.connections.iter().flatten();
            let strangers = strangers.filter(|c| !c.dialled && c.phase != Phase::Up).count();
            if strangers >= 2 * self.peers.len() + 8 {
                self.counters.refused += 1;
                continue;
            }
            let tls = self.accepting.as_ref().map(Connection::accepting_tls);
            let deadline = now + self.options.timing.connect;
            self.admit_connection(Connection::new(stream, tls, None, deadline, now));
        }
    }

    fn admit_connection(&mut self, mut connection: Connection) {
        // Small batches must not wait for an acknowledgement of the one before.
        _ = connection.stream().set_nodelay(true);
        // Never used twice, so that no late event is taken for one of another connection.
        self.tokens += 1;
        connection.token = Token(super::LISTENER.0 + self.tokens);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = connection.token;
        if let Err(error) = self.queue.registry().register(connection.stream(), token, interest) {
            panic!("the kernel's event queue is broken: {error}");
        }
        let free = self.connections.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        connection.slot = slot;
        self.connections[slot] = Some(Box::new(connection));
    }

    /// Looks at a hello; the link is up when it is accepted.
    pub(super) fn greet(
        &mut self,
        connection: &mut Connection,
        hello: &Hello,
    ) -> Result<(), Failure> {
        let peer = self.identify(connection, hello)?;
        connection.peer = Some(peer);
        self.compare(hello)?;
        if let Some(old) = self.peers[peer.index()].link {
            if hello.incarnation < self.peers[peer.index()].incarnation {
                let words = format!("a newer start of {} is connected already", hello.name);
                return Err(Failure::Refused(words));
            }
            if let Some(old_connection) = self.connections[old].take() {
                let failure = Failure::Refused("replaced by a new connection".to_owned());
                self.fail(old, old_connection, &failure, connection.heard);
            }
        }
        if !connection.dialled {
            // Our answer is our consent: the side that dialled hears it only if we accepted it.
            let answer = self.hello_to(peer).encode();
            connection.put(Kind::Hello, 0, &answer);
        }
        if let Some(region) = &self.region {
            connection.put(Kind::Prepared, region.view, &[]);
        }
        connection.phase = Phase::Up;
        let state = &mut self.peers[peer.index()];
        state.link = Some(connection.slot);
        state.dial_at = None;
        state.up_since = Some(connection.heard);
        state.incarnation = hello.incarnation;
        state.view = 0;
        state.complaint = None;
        self.counters.links_made += 1;
        self.pending.push(FabricEvent::Connected { peer, incarnation: hello.incarnation });
        self.note(Note::Up(peer));
        Ok(())
    }

    /// Who says hello, held against the key it has proven and the name it was dialled by.
    fn identify(&self, connection: &Connection, hello: &Hello) -> Result<NodeId, Failure> {
        let name = &hello.name;
        let refused = |words: String| Err(Failure::Refused(words));
        let node = self.options.nodes.get(hello.from.index());
        if node.is_none_or(|node| node.name != *name) {
            let (from, site) = (hello.from, &self.options.site);
            return refused(format!("{name} is not {from} of site {site} in our topology"));
        }
        if let (Security::Tls(credentials), Some(tls)) = (&self.options.security, connection.tls())
        {
            let proven = credentials.peer(Protocol::Group, tls)?;
            if proven.name != *name {
                return refused(format!("{} calls itself {name}", proven.name));
            }
        }
        if hello.to != self.options.own {
            return refused(format!("{name} takes us for {}: check the addresses", hello.to));
        }
        match connection.peer {
            Some(dialled) if dialled != hello.from => {
                refused(format!("{name} answers at the address of {dialled}"))
            }
            None if hello.from <= self.options.own => {
                refused(format!("{name} dialled us, but its index is not above ours"))
            }
            _ => Ok(hello.from),
        }
    }

    /// Whether the peer runs what we run.
    fn compare(&self, hello: &Hello) -> Result<(), Failure> {
        let Hello { name, deployment, site, digest, .. } = hello;
        let own = &self.options;
        let words = if *deployment != own.deployment {
            format!("{name} is of deployment {deployment}, this node is of {}", own.deployment)
        } else if *site != own.site {
            format!("{name} is of site {site}, this node is of {}", own.site)
        } else if *digest != own.digest {
            format!(
                "{name} runs another topology of site {site} ({}, here {}): \
                 give all nodes of the site the same file",
                short(digest),
                short(&own.digest)
            )
        } else {
            return Ok(());
        };
        Err(Failure::Refused(words))
    }

    /// Ends a connection; the peer is told why if it may not know.
    pub(super) fn fail(
        &mut self,
        slot: usize,
        mut connection: Box<Connection>,
        failure: &Failure,
        now: Instant,
    ) {
        let reason = failure.to_string();
        match (connection.phase, connection.peer) {
            (Phase::Closing(_), _) => return,
            (Phase::Up, Some(peer)) => self.lost(peer, &reason, now),
            (_, Some(peer)) => self.unreachable(peer, &reason, now),
            (_, None) => tracing::info!(reason, "a connection from a stranger came to nothing"),
        }
        use Failure::{Peer, Refused, Tls, Wire};
        if matches!(failure, Peer(_) | Refused(_) | Tls(_) | Wire(_)) {
            if connection.phase != Phase::Up {
                self.counters.refused += 1;
            }
            connection.close(&reason, now + CLOSING, now);
            self.connections[slot] = Some(connection);
        }
    }

    fn lost(&mut self, peer: NodeId, reason: &str, now: Instant) {
        let state = &mut self.peers[peer.index()];
        let steady = state.up_since.take().is_some_and(|since| now - since >= STEADY);
        if steady {
            state.attempts = 0;
        }
        state.link = None;
        state.view = 0;
        state.unsent = state.published.clone();
        state.lane.clear();
        state.lane_bytes = 0;
        self.counters.links_lost += 1;
        self.pending.push(FabricEvent::Lost { peer, reason: reason.to_owned() });
        self.note(Note::Down(peer));
        self.try_later(peer, now);
    }

    fn unreachable(&mut self, peer: NodeId, reason: &str, now: Instant) {
        let state = &mut self.peers[peer.index()];
        if state.link.is_some() {
            // A second connection failed; the first holds.
            return;
        }
        if state.complaint.as_deref() != Some(reason) {
            state.complaint = Some(reason.to_owned());
            self.pending.push(FabricEvent::Unreachable { peer, reason: reason.to_owned() });
        }
        self.try_later(peer, now);
    }

    fn try_later(&mut self, peer: NodeId, now: Instant) {
        if self.dials(peer) {
            let pause = self.pause(peer, self.peers[peer.index()].attempts);
            let state = &mut self.peers[peer.index()];
            state.attempts = state.attempts.saturating_add(1);
            state.dial_at = Some(now + pause);
        }
    }

    /// The pause before an attempt: doubled each time, between half of that and all of it, differing
    /// by pair and attempt so that nodes which lost a link together do not dial together.
    fn pause(&self, peer: NodeId, attempt: u32) -> Duration {
        let timing = &self.options.timing;
        let doubled = timing.backoff_min.saturating_mul(1 << attempt.min(16));
        let pause = match self.options.nodes[peer.index()].is_former {
            true => FORMER,
            false => doubled.min(timing.backoff_max),
        };
        let pair = u64::from(self.options.own.0) << 16 | u64::from(peer.0);
        let jitter = mix(pair << 32 | u64::from(attempt)) % 1_000;
        pause / 2 + (pause / 2).mul_f64(jitter as f64 / 1_000.0)
    }

    /// Does what is due.
    pub(super) fn timers(&mut self, now: Instant) {
        let timing = self.options.timing;
        let late = self.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if late > timing.keep_alive {
            // This thread itself stood still (a stopped process, a starved machine), and perhaps the
            // others with it: that time says nothing about them.
            for connection in self.connections.iter_mut().flatten() {
                connection.heard = now.min(connection.heard + late);
            }
        }
        for slot in 0..self.connections.len() {
            let Some(mut connection) = self.connections[slot].take() else { continue };
            let failure = match connection.phase {
                // Bytes that wait in the kernel are a sign of life that was not looked at yet.
                _ if connection.readable => None,
                Phase::Greeting(deadline) if now >= deadline => {
                    Some(Failure::Deadline("no answer", timing.connect))
                }
                Phase::Closing(deadline) if now >= deadline => continue,
                Phase::Up if now >= connection.heard + timing.silence => {
                    Some(Failure::Deadline("silent", timing.silence))
                }
                Phase::Up if now >= connection.spoke + timing.keep_alive => {
                    if !connection.wants_write() {
                        connection.put(Kind::KeepAlive, 0, &[]);
                    }
                    // Whether it leaves or waits behind other bytes: enough for this period.
                    connection.spoke = now;
                    self.push_out(&mut connection, now).err()
                }
                _ => None,
            };
            match failure {
                None => self.connections[slot] = Some(connection),
                Some(failure) => self.fail(slot, connection, &failure, now),
            }
        }
        for index in 0..self.peers.len() {
            if self.peers[index].dial_at.is_some_and(|at| now >= at) {
                self.dial(node_id(index), now);
            }
        }
        if self.accept_at.is_some_and(|at| now >= at) {
            self.accept(now);
        }
        self.due = self.next_timer();
    }

    /// When [`Self::timers`] has something to do next.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let timing = &self.options.timing;
        let connections = self.connections.iter().flatten().map(|c| match c.phase {
            Phase::Greeting(deadline) | Phase::Closing(deadline) => deadline,
            Phase::Up => (c.heard + timing.silence).min(c.spoke + timing.keep_alive),
        });
        let dials = self.peers.iter().filter_map(|PeerLink { dial_at, .. }| *dial_at);
        connections.chain(dials).chain(self.accept_at).min()
    }
}

/// The first bytes of a digest, for people.
fn short(digest: &[u8; 32]) -> String {
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SplitMix64: spreads small numbers over all of 64 bits.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
