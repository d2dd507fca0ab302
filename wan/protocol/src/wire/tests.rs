//! Golden bytes of protocol version 1, and what decoders refuse.

use alloc::{
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};

use proptest::prelude::*;
use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Lineage, Version};

use super::*;
use crate::claim::{Claim, Link};

fn ledger() -> LedgerId {
    "flights.0".parse().unwrap()
}

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn claim() -> Claim {
    let link = Link { size: Version(9), root: digest(2), proof: vec![digest(3)] };
    Claim { note: "note\n".into(), links: vec![link] }
}

fn path() -> Option<Vec<String>> {
    Some(vec!["relay".into(), "ams".into()])
}

fn child_messages() -> Vec<ChildMessage> {
    let frontier = Frontier {
        ledger: ledger(),
        received: Version(4),
        verified: Version(3),
        durable: Version(2),
        hlc: Hlc(300),
    };
    let (size, root, lineage) = (Version(7), digest(1), Lineage(digest(9)));
    let (mirror, parent) = ("leaf".into(), "relay".into());
    vec![
        ChildMessage::Hello(Hello { deployment: "atlas".into(), mirror: "leaf".into() }),
        ChildMessage::Follow(vec![Position { ledger: ledger(), lineage, size, root }]),
        ChildMessage::Grant(1 << 20),
        ChildMessage::Want(Want { ledger: ledger(), digests: vec![digest(5)] }),
        ChildMessage::Report(vec![MirrorReport { mirror, parent, ledgers: vec![frontier] }]),
        ChildMessage::Bye(Bye { reason: "why".into() }),
    ]
}

fn parent_messages() -> Vec<ParentMessage> {
    let refuse = |reason| ParentMessage::Refuse(Refuse { ledger: ledger(), reason });
    let fresh = Fresh { ledger: ledger(), size: Version(8), age_ms: 130 };
    vec![
        ParentMessage::Welcome(Welcome { name: "relay".into(), path: path() }),
        ParentMessage::Accept(Accept { ledger: ledger(), size: Version(9), claim: Some(claim()) }),
        refuse(RefuseReason::Unknown),
        refuse(RefuseReason::Lineage { ours: Lineage(digest(4)) }),
        refuse(RefuseReason::Fork { root: digest(6), claim: claim() }),
        refuse(RefuseReason::Unreadable),
        refuse(RefuseReason::Pruned { first: Version(70) }),
        ParentMessage::Beat(Beat { path: None, ledgers: vec![fresh] }),
        ParentMessage::Head(HeadNote { ledger: ledger(), note: "note\n".into() }),
        ParentMessage::NoValue(NoValue { ledger: ledger(), digest: digest(7) }),
        ParentMessage::Bye(Bye { reason: "why".into() }),
    ]
}

fn bulk_headers() -> Vec<BulkHeader> {
    let (first, count, bytes) = (Version(200), 3, 1_000);
    vec![
        BulkHeader::Batch(BatchHeader { ledger: ledger(), first, count, bytes, claim: claim() }),
        BulkHeader::Value(ValueHeader { ledger: ledger(), digest: digest(8), bytes: 40_000 }),
    ]
}

fn asks() -> Vec<Ask> {
    let parts = [Part::Manifest, Part::Block(7), Part::Chunk(300), Part::Value(digest(8))];
    parts.map(|part| Ask { ledger: ledger(), size: Version(90), part }).into()
}

fn split(frame: &[u8]) -> (Header, &[u8]) {
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().unwrap();
    (Header::decode(header).unwrap(), payload)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every frame that there is, one a line: what version 1 was released with stays readable.
fn golden() -> String {
    let child = child_messages().into_iter().map(|message| message.encode());
    let parent = parent_messages().into_iter().map(|message| message.encode());
    let bulk = bulk_headers().into_iter().map(|header| header.encode());
    let asks = asks().into_iter().map(|ask| ask.encode());
    let lent = [Lent(None), Lent(Some(40_000))].map(|lent| lent.encode());
    child
        .chain(parent)
        .chain(bulk)
        .chain(asks)
        .chain(lent)
        .map(|frame| hex(&frame) + "\n")
        .collect()
}

#[test]
fn frames_have_the_bytes_of_version_1() {
    assert_eq!(golden(), include_str!("../../testdata/v1-frames.hex"));
}

#[test]
fn every_message_is_read_as_it_was_written() {
    for message in child_messages() {
        let frame = message.encode();
        let (header, payload) = split(&frame);
        assert_eq!(ChildMessage::decode(&header, payload).as_ref(), Ok(&message));
        assert!(matches!(ParentMessage::decode(&header, payload), Err(WireError::Kind { .. })));
        assert!(matches!(BulkHeader::decode(&header, payload), Err(WireError::Kind { .. })));
    }
    for message in parent_messages() {
        let frame = message.encode();
        let (header, payload) = split(&frame);
        assert_eq!(ParentMessage::decode(&header, payload).as_ref(), Ok(&message));
        assert!(matches!(ChildMessage::decode(&header, payload), Err(WireError::Kind { .. })));
    }
    for announcement in bulk_headers() {
        let frame = announcement.encode();
        let (header, payload) = split(&frame);
        assert_eq!(BulkHeader::decode(&header, payload).as_ref(), Ok(&announcement));
    }
    for ask in asks() {
        let frame = ask.encode();
        let (header, payload) = split(&frame);
        assert_eq!(Ask::decode(&header, payload).as_ref(), Ok(&ask));
        let most = ask.part.max_bytes();
        for (bytes, fits) in [(None, true), (Some(most), true), (Some(most + 1), false)] {
            let frame = Lent(bytes).encode();
            let (header, payload) = split(&frame);
            assert_eq!(Lent::decode(&header, payload, ask.part).is_ok(), fits);
            assert!(matches!(Ask::decode(&header, payload), Err(WireError::Kind { .. })));
        }
    }
}

#[test]
fn announcements_beyond_the_limits_are_refused() {
    let refused = |header: &BulkHeader| {
        let frame = header.encode();
        let (header, payload) = split(&frame);
        matches!(BulkHeader::decode(&header, payload), Err(WireError::Length { .. }))
    };
    for announcement in bulk_headers() {
        assert!(!refused(&announcement));
        match announcement {
            BulkHeader::Batch(header) => {
                let bytes = BATCH_BYTES_MAX + 1;
                assert!(refused(&BulkHeader::Batch(BatchHeader { bytes, ..header.clone() })));
                let count = BATCH_ENTRIES_MAX + 1;
                assert!(refused(&BulkHeader::Batch(BatchHeader { count, ..header })));
            }
            BulkHeader::Value(header) => {
                let bytes = tradewind_ledger::entry::MAX_VALUE + 1;
                assert!(refused(&BulkHeader::Value(ValueHeader { bytes, ..header })));
            }
        }
    }
    let digests = vec![digest(0); LIST_MAX + 1];
    let frame = ChildMessage::Want(Want { ledger: ledger(), digests }).encode();
    let (header, payload) = split(&frame);
    let refused = ChildMessage::decode(&header, payload);
    assert!(matches!(refused, Err(WireError::Length { .. })), "{refused:?}");
}

#[test]
fn a_body_of_another_length_than_announced_is_refused() {
    for announcement in bulk_headers() {
        let bytes = usize::try_from(announcement.body_bytes()).unwrap();
        for length in [0, bytes - 1, bytes + 1] {
            let refused = announcement.clone().with_body(vec![0; length]);
            assert!(matches!(refused, Err(WireError::Size { .. })));
        }
        assert!(announcement.with_body(vec![0; bytes]).is_ok());
    }
}

#[test]
fn other_versions_kinds_and_lengths_are_named() {
    let mut frame = ChildMessage::Grant(1).encode();
    let header = |frame: &[u8]| Header::decode(frame.first_chunk().unwrap());
    frame[4] = 2;
    let error = header(&frame).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol version 2, this process speaks 1: upgrade the older one"
    );
    frame[4] = 1;
    frame[11] = 1;
    assert!(matches!(header(&frame), Err(WireError::Length { .. })));
    frame[11] = 0;
    frame[7] = 1;
    assert_eq!(header(&frame), Err(WireError::Reserved));
    frame[0] = 0;
    assert!(matches!(header(&frame), Err(WireError::Magic { .. })));
}

proptest! {
    #[test]
    fn no_payload_makes_a_decoder_panic(
        kind in 0_u8..60, payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = frame::encode_raw(kind, &payload);
        let (header, payload) = split(&frame);
        _ = ChildMessage::decode(&header, payload);
        _ = ParentMessage::decode(&header, payload);
        _ = BulkHeader::decode(&header, payload);
        _ = Ask::decode(&header, payload);
        _ = Lent::decode(&header, payload, Part::Manifest);
    }
}
