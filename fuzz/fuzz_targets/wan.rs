//! The mirroring protocol: whatever is accepted as a message or an announcement is written back the
//! same; a batch of any bytes is cut into entries without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_wan_protocol::wire::{
    Ask, Bulk, BulkHeader, ChildMessage, HEADER_BYTES, Header, ParentMessage,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    let Ok(header) = Header::decode(header) else { return };
    let Some((payload, body)) = rest.split_at_checked(header.length as usize) else { return };
    let frame = &bytes[..HEADER_BYTES + payload.len()];
    if let Ok(message) = ChildMessage::decode(&header, payload) {
        assert_eq!(message.encode(), frame);
    }
    if let Ok(message) = ParentMessage::decode(&header, payload) {
        assert_eq!(message.encode(), frame);
    }
    if let Ok(ask) = Ask::decode(&header, payload) {
        assert_eq!(ask.encode(), frame);
    }
    if let Ok(announced) = BulkHeader::decode(&header, payload) {
        assert_eq!(announced.encode(), frame);
        if let Ok(Bulk::Batch(batch)) = announced.with_body(body.to_vec()) {
            let taken: usize = batch.entries().map(|entry| entry.len() + 2).sum();
            assert!(taken <= body.len() && batch.end() >= batch.header.first);
        }
    }
});
