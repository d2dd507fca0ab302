//! The bytes of protocol version 1 never change, and no bytes make a decoder panic.

use proptest::{collection::vec, prelude::*};
use tradewind_client::{
    Command, Condition, Durability, Item, ItemValue, Reply,
    wire::{
        self, Answer, AsOf, At, CallId, Fault, FrameError, Get, Hello, Incarnation, Key, Kind,
        Level, List, MAX_FRAME, NodeInfo, PoolIndex, PoolInfo, Read, Rejected, Request, Response,
        Role, ShardInfo, Welcome, Write,
    },
};
use tradewind_ledger::{Hlc, KeyVersion, RequestId, RequestNumber, SessionId, Version};

/// A frame as hexadecimal digits: header, blank, body.
fn hex(kind: Kind, call: u64, message: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, kind, CallId(call), message).expect("it fits");
    let digits = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (header, body) = bytes.split_at(wire::HEADER);
    format!("{} {}", digits(header), digits(body))
}

#[test]
fn the_bytes_of_version_1_never_change() {
    let hello = Hello::new("me");
    let welcome = Welcome {
        protocol: 1,
        deployment: "d".into(),
        server: "a1".into(),
        role: Role::Node { site: "s".into() },
        now: Hlc(300),
        in_flight_max: 7,
        nodes: vec![NodeInfo { name: "a1".into(), address: "x:1".into() }],
        pools: vec![PoolInfo {
            name: "p".into(),
            home: "s".into(),
            shards: vec![ShardInfo { members: vec![0], here: true }],
        }],
    };
    let command =
        Command::Put { key: b"k".to_vec(), value: b"vv".to_vec(), condition: Condition::Absent };
    let command = command.encode();
    let write = Request::Write(Write {
        pool: PoolIndex(1),
        shard: 2,
        request: RequestId { session: SessionId(5), number: RequestNumber(6) },
        durability: Some(Durability::Disk),
        command: &command,
    });
    let read = Read {
        at: At::Version(Version(3)),
        min_version: Some(Version(4)),
        max_staleness_ms: None,
        level: Level::Linearizable,
        wait_ms: 200,
    };
    let get = Request::Get(Get { pool: PoolIndex(0), key: b"k", read });
    let list = Request::List(List {
        pool: PoolIndex(0),
        shard: 1,
        prefix: b"k",
        after: Some(Key(b"k1")),
        limit: 9,
        values: true,
        read: Read::default(),
    });
    let written = Reply::Written { version: Version(9), key_version: KeyVersion(1), hlc: Hlc(300) };
    let written: Response = Ok(Answer::Reply(written));
    let value = ItemValue::Inline(b"vv".as_slice().into());
    let item = Item { version: Version(9), key_version: KeyVersion(1), hlc: Hlc(300), value };
    let as_of = AsOf { at: Version(10), readable: Version(11), age_ms: 12 };
    let item: Response = Ok(Answer::Item { item: Some(item), as_of });
    let fault: Response = Err(Fault::Busy { reason: "q".into() });
    let restarting: Response = Ok(Answer::Restarting);
    let found = [
        hex(Kind::Hello, 0, &hello),
        hex(Kind::Welcome, 0, &welcome),
        hex(Kind::Rejected, 0, &Rejected::Full(300)),
        hex(Kind::Ping, 0, &()),
        hex(Kind::Request, 1, &write),
        hex(Kind::Request, 2, &get),
        hex(Kind::Request, 3, &list),
        hex(Kind::Request, 4, &Request::Status),
        hex(Kind::Request, 5, &Request::Restart { incarnation: Incarnation(300) }),
        hex(Kind::Response, 1, &written),
        hex(Kind::Response, 2, &item),
        hex(Kind::Response, 3, &fault),
        hex(Kind::Response, 5, &restarting),
    ];
    assert_eq!(found.join("\n"), include_str!("../testdata/v1.hex").trim_end());
}

#[test]
fn what_is_encoded_is_split_and_decoded_and_nothing_may_follow() {
    let get = Get { pool: PoolIndex(0), key: b"k", read: Read::default() };
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, Kind::Request, CallId(7), &Request::Get(get.clone())).expect("fits");
    for end in 0..bytes.len() {
        assert_eq!(wire::split(&bytes[..end], MAX_FRAME), Ok(None), "incomplete at {end}");
    }
    let length = bytes.len();
    bytes.push(1);
    let (frame, used) = wire::split(&bytes, MAX_FRAME).expect("a frame").expect("complete");
    assert_eq!((frame.kind, frame.call, used), (Kind::Request, CallId(7), length));
    assert_eq!(wire::decode::<Request>(&frame), Ok(Request::Get(get)));
    let longer = wire::Frame { body: &bytes[wire::HEADER..], ..frame };
    assert!(matches!(wire::decode::<Request>(&longer), Err(FrameError::Body { .. })));
}

#[test]
fn a_length_is_refused_by_the_header_alone() {
    let header = |length: u32| [&length.to_le_bytes()[..], &[16, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    for bad in [0, 8, MAX_FRAME as u32 - 3, u32::MAX] {
        let error = wire::split(&header(bad), MAX_FRAME).expect_err("out of bounds");
        assert_eq!(error, FrameError::Length { length: u64::from(bad) + 4, max: MAX_FRAME });
    }
    let longest = header(MAX_FRAME as u32 - 4);
    assert_eq!(wire::split(&longest, MAX_FRAME), Ok(None));
    assert_eq!(wire::announced(&longest), Some(MAX_FRAME));
    assert_eq!(wire::announced(&longest[..12]), None);
}

proptest! {
    #[test]
    fn any_bytes_are_messages_or_errors(bytes in vec(any::<u8>(), 0..300), kind in 0..20_u8) {
        if let Ok(Some((frame, _))) = wire::split(&bytes, 200) {
            prop_assert!(frame.body.len() <= 200);
        }
        let mut framed = (9 + bytes.len() as u32).to_le_bytes().to_vec();
        framed.push(kind);
        framed.extend([0; 8]);
        framed.extend(&bytes);
        if let Ok(Some((frame, _))) = wire::split(&framed, MAX_FRAME) {
            let _ = wire::decode::<Hello>(&frame);
            let _ = wire::decode::<Welcome>(&frame);
            let _ = wire::decode::<Rejected>(&frame);
            let _ = wire::decode::<Request>(&frame);
            let _ = wire::decode::<Response>(&frame);
        }
    }
}
