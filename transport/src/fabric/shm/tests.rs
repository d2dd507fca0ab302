//! What a fabric says when a peer cannot be reached by shared memory.

use std::{net::TcpListener, time::Duration};

use super::*;
use crate::fabric::tcp::{Note, Security, TcpNode, TcpOptions, Timing};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

/// A, and the bare link of B, for a test to say on it what it likes.
fn pair(required: bool) -> (ShmFabric, TcpFabric) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
    let mut fabrics = listeners.into_iter().zip([A, B]).map(|(listener, own)| {
        let node = |(name, address): (&str, _)| TcpNode {
            name: name.to_owned(),
            address,
            is_former: false,
        };
        let options = TcpOptions {
            own,
            nodes: ["a1", "a2"].into_iter().zip(addresses).map(node).collect(),
            deployment: "atlas".to_owned(),
            site: "ams".to_owned(),
            digest: [0; 32],
            incarnation: 1,
            security: Security::Plain,
            timing: Timing { silence: Duration::from_secs(60), ..Timing::default() },
        };
        TcpFabric::with_listener(options, listener).unwrap()
    });
    let (a, mut b) = (fabrics.next().unwrap(), fabrics.next().unwrap());
    b.take_notes();
    let mut a = ShmFabric::new(a, required).unwrap();
    for fabric in [&mut a as &mut dyn Fabric, &mut b] {
        fabric.prepare(1, &[A, B], 64).unwrap();
    }
    (a, b)
}

/// Lets B say something once it is connected, until `done`; gives what A was told.
fn after(
    (a, b): &mut (ShmFabric, TcpFabric),
    words: &[u8],
    mut done: impl FnMut(&ShmFabric, &[FabricEvent]) -> bool,
) -> Vec<FabricEvent> {
    let mut events = Vec::new();
    for _ in 0..10_000 {
        a.poll(Some(Duration::from_millis(1)), &mut events);
        b.poll(Some(Duration::from_millis(1)), &mut Vec::new());
        for note in b.take_notes() {
            if let Note::Up(peer) = note {
                b.say(peer, words.to_vec());
            }
        }
        if done(a, &events) {
            return events;
        }
    }
    panic!("never; {events:?}");
}

/// An invitation to where nobody is, as of a peer on another host.
fn elsewhere() -> Vec<u8> {
    Words::Invite { name: [7; 16], token: [8; 16], space: door::process_space() }.encode()
}

#[test]
fn rows_go_over_tcp_to_a_peer_elsewhere_and_the_path_says_why() {
    let mut pair = pair(false);
    after(&mut pair, &elsewhere(), |a, _| {
        let path = a.paths.to(B).unwrap();
        path.kind == PathKind::Tcp && path.why.contains("not on this host")
    });
    let mut other_space = elsewhere();
    *other_space.last_mut().unwrap() ^= 1;
    let mut pair = self::pair(false);
    after(&mut pair, &other_space, |a, _| {
        a.paths.to(B).unwrap().why.contains("another process-id namespace")
    });
}

#[test]
fn a_peer_elsewhere_is_refused_with_the_remedy_where_shared_memory_is_asked_for() {
    let mut pair = pair(true);
    let lost = |event: &FabricEvent| match event {
        FabricEvent::Lost { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    let events =
        after(&mut pair, &elsewhere(), |_, events| events.iter().any(|e| lost(e).is_some()));
    let reason = events.iter().find_map(lost).unwrap();
    assert_eq!(
        reason,
        "fabric = \"shm\", but a2 cannot be reached by shared memory: its socket is not on this host, or in \
         another network namespace; put all nodes of the site on one host under one user, or choose \
         fabric = \"auto\""
    );
}

#[test]
fn words_that_break_the_protocol_end_the_link() {
    let attach = Words::Attach { view: 1, position: 0 }.encode();
    for (words, told) in [(&b"\x09"[..], "malformed"), (&attach, "of which we mapped nothing")] {
        after(&mut pair(false), words, |_, events| {
            events
                .iter()
                .any(|e| matches!(e, FabricEvent::Lost { reason, .. } if reason.contains(told)))
        });
    }
}

#[test]
fn memory_of_another_title_or_that_can_be_cut_is_not_mapped() {
    use mapping::MappingError;
    let title = Title { owner: 0, incarnation: 1, view: 1, row_len: 64 };
    let own = Mapping::create(title).unwrap();
    let file = own.file().unwrap();
    Mapping::open(file, title).unwrap();
    for other in
        [Title { owner: 1, ..title }, Title { incarnation: 2, ..title }, Title { view: 2, ..title }]
    {
        assert!(matches!(Mapping::open(file, other), Err(MappingError::Title)), "{other:?}");
    }
    let longer = Title { row_len: 1 << 20, ..title };
    assert!(matches!(Mapping::open(file, longer), Err(MappingError::Length { .. })));
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
    let unsealed = rustix::fs::memfd_create("unsealed", flags).unwrap();
    assert!(matches!(Mapping::open(&unsealed, title), Err(MappingError::NotSealed)));
}

#[test]
fn a_broken_record_is_found_and_nothing_of_it_lands() {
    let title = Title { owner: 0, incarnation: 1, view: 1, row_len: 64 };
    let own = Mapping::create(title).unwrap();
    let mut aside = vec![0; ring::RECORD_BYTES_MAX];
    let head = |offset: u64, bytes: u64| offset | bytes << 32;
    for broken in [head(64, 8), head(60, 8), head(0, 0), head(0, 12), head(0, 1 << 20), u64::MAX] {
        own.words()[ring::RING].store(broken, atomic::Ordering::Relaxed);
        own.words()[ring::RING + 1].store(1, atomic::Ordering::Relaxed);
        let found = Reader::new(0, 1, 64).next(own.words(), 3, &mut aside);
        assert_eq!(found, Found::Broken, "{broken:x}");
    }
}
