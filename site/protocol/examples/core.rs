//! What the core costs: three nodes in one thread, memory that peers see at once, disks that are done at once.
//!
//! `cargo run --release -p tradewind-site-protocol --example core` prints CPU time per durable put and node.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant as Clock};

use tradewind_ledger::{
    Digest, Ed25519Signer, Genesis, LedgerId, Member, Replay, RequestId, RequestNumber, SessionId,
    Signer, Version,
};
use tradewind_site_protocol::{
    Action, Durability, Incarnation, Instant, Limits, Memory, NodeConfig, NodeCore, NodeId,
    NodeInfo, Now, Promise, RecoveredShard, Roster, ShardConfig, ShardIndex, Submission, Ticket,
};
use tradewind_store::{Command, Condition, Store};

const NODES: usize = 3;
const PUTS: u64 = 300_000;
const VALUE: usize = 256;

/// All rows; each node's view of them.
struct Rows<'a>(usize, &'a mut Vec<Vec<u8>>);

impl Memory for Rows<'_> {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.1[self.0][offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fn publish(&mut self, _: Range<usize>, _: &[NodeId]) {}
    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        let word = &self.1[peer.index()][offset..offset + 8];
        u64::from_le_bytes(word.try_into().expect("eight bytes"))
    }
    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.1[peer.index()][offset..offset + out.len()]);
    }
}

fn config(own: usize, signers: &[Ed25519Signer]) -> NodeConfig {
    let nodes: Vec<_> = signers
        .iter()
        .enumerate()
        .map(|(i, signer)| NodeInfo { name: format!("n{i}"), public_key: signer.public_key() })
        .collect();
    let member = |node: &NodeInfo| Member { name: node.name.clone(), public_key: node.public_key };
    let genesis = Genesis {
        deployment: "bench".into(),
        site: "ams".into(),
        ledger: LedgerId::new("flights", 0).expect("a name"),
        members: nodes.iter().map(member).collect(),
    };
    let members = (0..NODES as u16).map(NodeId).collect();
    let shards = vec![ShardConfig { genesis, members }];
    NodeConfig {
        own: NodeId(own as u16),
        rosters: vec![Roster::founding(Digest::ZERO, &nodes, &shards)],
        nodes,
        shards,
        incarnation: Incarnation(1),
        limits: Limits::default(),
    }
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("Linux tells CPU time in nanoseconds"))
}

fn main() {
    let signers: Vec<_> =
        (0..NODES as u8).map(|i| Ed25519Signer::from_seed(&[i + 1; 32])).collect();
    let start = Clock::now();
    let now = || {
        let us = start.elapsed().as_micros() as u64;
        Now { instant: Instant(us), wall_us: 1_700_000_000_000_000 + us }
    };
    let recovered = || vec![RecoveredShard { replay: Replay::new(), store: Store::new() }];
    let mut cores: Vec<_> = (0..NODES)
        .map(|i| {
            NodeCore::new(config(i, &signers), recovered(), Promise::default(), now())
                .expect("valid")
        })
        .collect();
    let mut rows: Vec<Vec<u8>> = vec![Vec::new(); NODES];
    let mut messages = VecDeque::new();
    for (i, core) in cores.iter_mut().enumerate() {
        (0..NODES).filter(|j| *j != i).for_each(|j| core.handle_connected(now(), NodeId(j as u16)));
    }
    let shard = ShardIndex(0);
    for inflight in [1_u64, 64, 256] {
        let (mut sent, mut done) = (0_u64, 0_u64);
        let begun = cpu();
        let puts = if inflight == 1 { PUTS / 10 } else { PUTS };
        while done < puts {
            for i in 0..NODES {
                while let Some((to, from, message)) = messages.pop_front() {
                    let core: &mut NodeCore<Store> = &mut cores[to];
                    let message: Vec<u8> = message;
                    core.handle_message(now(), from, &message);
                    let mut ended = 0;
                    act(to, core, &mut rows, &mut messages, &signers, &mut ended, now());
                }
                while i == sent as usize % NODES && sent < puts && sent - done < inflight {
                    let key = (sent.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes().to_vec();
                    let value = vec![7; VALUE];
                    let command = Command::Put { key, value, condition: Condition::Always };
                    let number = RequestNumber(sent + 1);
                    let session = SessionId(u128::from(inflight) << 64);
                    let submission = Submission {
                        ticket: Ticket(sent),
                        request: RequestId { session, number },
                        durability: Durability::Disk,
                        command: command.encode(),
                        bodies: Vec::new(),
                    };
                    if cores[i].handle_submit(shard, submission).is_err() {
                        break;
                    }
                    sent += 1;
                    if sent % 64 == 0 {
                        break;
                    }
                }
                cores[i].handle_rows(now(), &mut Rows(i, &mut rows));
                act(i, &mut cores[i], &mut rows, &mut messages, &signers, &mut done, now());
            }
        }
        let each =
            |time: std::time::Duration| time.as_secs_f64() * 1e6 / (puts as f64 * NODES as f64);
        let all = each(cpu() - begun);
        println!("{inflight:>4} in flight: {all:.2} us of CPU a put and node");
    }
    println!("{:#?}", cores[0].status().counters);
}

fn act(
    own: usize,
    core: &mut NodeCore<Store>,
    rows: &mut [Vec<u8>],
    messages: &mut VecDeque<(usize, NodeId, Vec<u8>)>,
    signers: &[Ed25519Signer],
    done: &mut u64,
    now: Now,
) {
    while let Some(action) = core.poll_action() {
        match action {
            Action::Prepare { row_len, .. } => rows[own] = vec![0; row_len],
            Action::Send { to, message } => {
                messages.push_back((to.index(), NodeId(own as u16), message));
            }
            Action::Append { shard, first, entries, .. } => {
                let size: Version = first.plus(entries.len() as u64);
                core.handle_durable(now, shard, size);
            }
            Action::Promise(promise) => core.handle_promised(now, promise.view),
            Action::Sign { shard, checkpoint } => {
                let signature = signers[own].sign(checkpoint.to_string().as_bytes());
                core.handle_signature(shard, checkpoint.size, signature);
            }
            Action::Answers(answers) => *done += answers.len() as u64,
            Action::Committed { .. } | Action::Checkpoint { .. } => {}
            Action::Stopped { .. } | Action::Installed { .. } => {}
            other => panic!("not expected here: {other:?}"),
        }
    }
}
