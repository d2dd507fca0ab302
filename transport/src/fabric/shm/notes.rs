//! What links and peers tell: inviting, handing over, mapping, attaching.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{BELL, DOOR};
use super::{
    Fabric as _, Mapping, NodeId, PathKind, Reader, ShmFabric, TcpFabric, bit,
    door::{self, Closed, Gift},
    peer::{PeerMemory, Theirs},
    words::Words,
};
use crate::fabric::tcp::Note;

/// When a peer's socket is busy, it is tried again after this.
const RETRY: Duration = Duration::from_millis(5);

impl ShmFabric {
    pub(super) fn handle_notes(&mut self, now: Instant) {
        for note in self.tcp.take_notes() {
            match note {
                Note::Up(peer) => self.invite(peer),
                Note::Down(peer) => {
                    self.peers[peer.index()] = PeerMemory::default();
                    self.attached &= !bit(peer);
                    self.paths.set(peer, PathKind::Tcp, "no link");
                }
                Note::Landed(peer) => {
                    // It sends batches only to those that it has detached.
                    let state = &mut self.peers[peer.index()];
                    (state.reader, state.lapped) = (None, false);
                }
                Note::Words(peer, bytes) => match Words::decode(&bytes) {
                    Some(words) => self.hear(peer, words),
                    None if Words::is_of_verbs(&bytes) => {
                        self.cannot(peer, "it has an RDMA device, this node has not");
                    }
                    None => self.tcp.disconnect(peer, "malformed words about shared memory"),
                },
                Note::Ready(token) if token == TcpFabric::foreign_token(DOOR) => {
                    self.look_outside();
                }
                Note::Ready(token) => debug_assert_eq!(token, TcpFabric::foreign_token(BELL)),
                Note::Message(peer, bytes) => {
                    unreachable!("{} bytes from {peer}: messages are events here", bytes.len())
                }
            }
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            for index in 0..self.peers.len() {
                self.offer(NodeId(index as u16));
            }
        }
        self.look_who_reads();
    }

    pub(super) fn look_who_reads(&mut self) {
        self.reads = self.peers.iter().any(|peer| peer.reader.is_some());
    }

    fn invite(&mut self, peer: NodeId) {
        let token = match door::random() {
            Ok(token) => token,
            Err(error) => return tracing::warn!(%error, "no random bytes, so no shared memory"),
        };
        self.peers[peer.index()].token = Some(token);
        let (name, space) = (self.door.name(), door::process_space());
        self.tcp.say(peer, Words::Invite { name, token, space }.encode());
        self.paths.set(peer, PathKind::Tcp, "shared memory is not exchanged yet");
    }

    fn hear(&mut self, peer: NodeId, words: Words) {
        let present = self.tcp.present_view();
        let state = &mut self.peers[peer.index()];
        match words {
            Words::Invite { space, .. } if space != door::process_space() => {
                self.cannot(peer, &Closed::OtherSpace.to_string());
            }
            Words::Invite { name, token, .. } => {
                state.invitation = Some((name, token));
                self.offer(peer);
            }
            Words::Mapped { view } => state.mapped |= view == present && state.offered,
            Words::Ask { view } if view == present && state.theirs.is_some() => {
                self.tcp.say(peer, Words::Mapped { view }.encode());
            }
            Words::Attach { view, position } if view == present && state.theirs.is_some() => {
                let (own, _) = self.tcp.place();
                let row_len = self.tcp.rows().row_len;
                state.reader = Some(Reader::new(position, bit(own), row_len));
            }
            // What it has put there since is late.
            Words::Attach { view, .. } if view < present => self.counters.stale_dropped += 1,
            Words::Attach { view, .. } => {
                let words = format!("attached in view {view}, of which we mapped nothing");
                self.tcp.disconnect(peer, &words);
            }
            // Asked in a view that we have left: the answer would not help.
            Words::Ask { .. } => {}
            Words::Refuse { reason } => {
                self.cannot(peer, &format!("it does not take our memory: {reason}"));
            }
        }
    }

    /// Rows cannot reach a peer by shared memory.
    fn cannot(&mut self, peer: NodeId, why: &str) {
        self.paths.set(peer, PathKind::Tcp, why);
        let name = self.tcp.name(peer);
        if self.required {
            let words = format!(
                "fabric = \"shm\", but {name} cannot be reached by shared memory: {why}; put all nodes \
                 of the site on one host under one user, or choose fabric = \"auto\""
            );
            self.tcp.disconnect(peer, &words);
        } else {
            tracing::info!(peer = name, why, "rows go over TCP");
        }
    }

    /// Hands the own memory of the present view over, if the peer is a member and has invited us.
    pub(super) fn offer(&mut self, peer: NodeId) {
        let state = &mut self.peers[peer.index()];
        let (Some((name, token)), Some(own)) = (&state.invitation, &self.own) else { return };
        if state.offered || !self.tcp.rows().is_member(peer) {
            return;
        }
        let file = own.mapping.file().expect("the own memory");
        match door::give(name, token, self.tcp.present_view(), [file, self.bell.as_fd()]) {
            Ok(()) => state.offered = true,
            Err(Closed::Busy) => {
                let at = Instant::now() + RETRY;
                self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
            }
            Err(closed) => {
                state.invitation = None;
                self.cannot(peer, &closed.to_string());
            }
        }
    }

    fn look_outside(&mut self) {
        let token = TcpFabric::foreign_token(DOOR);
        for gift in self.door.receive(self.tcp.registry(), token) {
            let sender = self.peers.iter().position(|peer| peer.token == Some(gift.token));
            let Some(index) = sender else { continue };
            if gift.view >= self.tcp.present_view() {
                self.peers[index].gift = Some(gift);
                self.unwrap_gift(NodeId(index as u16));
            }
        }
    }

    /// Maps the memory that a peer has handed over, if it is of the present view.
    pub(super) fn unwrap_gift(&mut self, peer: NodeId) {
        let view = self.tcp.present_view();
        let state = &mut self.peers[peer.index()];
        let Some(gift) = state.gift.take_if(|gift| gift.view <= view) else { return };
        let rows = self.tcp.rows();
        if gift.view < view || !rows.is_member(peer) {
            return;
        }
        let Gift { memory, bell, .. } = gift;
        let title = self.title(peer, self.tcp.incarnations(peer), rows.row_len);
        let words = match Mapping::open(memory, title) {
            Ok(mapping) => {
                let state = &mut self.peers[peer.index()];
                state.theirs = Some(Theirs { mapping, bell, rung: None });
                state.reader = None;
                Words::Mapped { view }
            }
            Err(error) => Words::Refuse { reason: error.to_string() },
        };
        self.tcp.say(peer, words.encode());
    }
}
