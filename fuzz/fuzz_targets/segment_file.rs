//! Segment files: header page, watermarks and records of any content end without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tradewind_ledger::segment_file::{Framing, Header, PAGE, Record, crc32c_append};
use tradewind_ledger::{Digest, Lineage};

fuzz_target!(|bytes: &[u8]| {
    // Most inputs are shorter than a page: they are taken as one that starts like this.
    let mut page = bytes.to_vec();
    page.resize(page.len().max(PAGE), 0);
    let lineage = match Header::parse(&page) {
        Ok((header, _)) => header.lineage,
        Err(_) => Lineage(Digest::ZERO),
    };
    let framing = Framing::new(lineage, crc32c_append);
    let (mut version, mut rest) = (tradewind_ledger::Version::ZERO, bytes);
    while let Ok(Record::Entry(entry)) = framing.parse(version, rest) {
        let header = framing.record_header(version, entry);
        assert_eq!(header[..], rest[..header.len()]);
        rest = &rest[header.len() + entry.len()..];
        version = version.next();
    }
});
