use super::*;
use alloc::string::ToString;
use alloc::vec::Vec;

const HEADER: Header = Header { first: Version(7), lineage: Lineage(Digest([0xab; 32])) };

fn framing() -> Framing {
    Framing::new(HEADER.lineage, crc32c_append)
}

fn open_page(marks: &[Watermark]) -> [u8; PAGE] {
    let mut page = HEADER.page();
    for mark in marks {
        let (offset, slot) = mark.slot(&HEADER);
        page[offset..offset + slot.len()].copy_from_slice(&slot);
    }
    page
}

#[test]
fn a_page_without_marks_is_sealed() {
    assert_eq!(Header::parse(&HEADER.page()), Ok((HEADER, State::Sealed)));
}

#[test]
fn the_later_mark_counts() {
    let first = Watermark::initial(HEADER.first);
    let second = Watermark { sequence: 2, bytes: 5_000, next: Version(9) };
    for marks in [[first, second], [second, first]] {
        let state = State::Open { watermark: second, torn_slot: false };
        assert_eq!(Header::parse(&open_page(&marks)), Ok((HEADER, state)));
    }
}

#[test]
fn a_torn_mark_leaves_the_one_before() {
    let first = Watermark::initial(HEADER.first);
    let second = Watermark { sequence: 2, bytes: 5_000, next: Version(9) };
    let mut page = open_page(&[first, second]);
    page[second.slot(&HEADER).0 + 9] ^= 1;
    let state = State::Open { watermark: first, torn_slot: true };
    assert_eq!(Header::parse(&page), Ok((HEADER, state)));
    page[first.slot(&HEADER).0] ^= 1;
    assert_eq!(Header::parse(&page), Ok((HEADER, State::Torn)));
}

#[test]
fn any_flipped_bit_of_a_sealed_page_is_found() {
    for bit in 0..PAGE * 8 {
        let mut page = HEADER.page();
        page[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(Header::parse(&page), Ok((HEADER, State::Sealed)), "bit {bit}");
    }
}

#[test]
fn a_short_page_is_refused() {
    let page = HEADER.page();
    assert_eq!(Header::parse(&page[..PAGE - 1]), Err(HeaderError::Short(PAGE - 1)));
}

#[test]
fn a_record_is_found_again_and_only_at_its_place() {
    let mut bytes = Vec::from(framing().record_header(Version(7), b"entry"));
    bytes.extend_from_slice(b"entry");
    assert_eq!(framing().parse(Version(7), &bytes), Ok(Record::Entry(b"entry")));
    assert!(framing().parse(Version(8), &bytes).is_err());
    let other = Framing::new(Lineage(Digest([1; 32])), crc32c_append);
    assert!(other.parse(Version(7), &bytes).is_err());
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(framing().parse(Version(7), &bytes).is_err(), "bit {bit}");
    }
    for len in 1..bytes.len() {
        let short = framing().parse(Version(7), &bytes[..len]);
        assert!(matches!(short, Err(RecordError::Incomplete { .. })), "{len} bytes");
    }
}

#[test]
fn zeroes_and_nothing_are_unused_space() {
    assert_eq!(framing().parse(Version(7), &[0; 64]), Ok(Record::End));
    assert_eq!(framing().parse(Version(7), &[]), Ok(Record::End));
}

#[test]
fn names_round_trip_and_nothing_else_is_one() {
    let open = SegmentName { first: Version(7), last: None };
    let sealed = SegmentName { first: Version(7), last: Some(Version(9)) };
    assert_eq!(open.to_string(), "00000000000000000007.open");
    assert_eq!(sealed.to_string(), "00000000000000000007-00000000000000000009.seg");
    for name in [open, sealed] {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
    for name in [
        "",
        "7.open",
        "0000000000000000007.open",
        "+0000000000000000007.open",
        "00000000000000000007.OPEN",
        "00000000000000000009-00000000000000000007.seg",
        "00000000000000000007.seg",
        "99999999999999999999.open",
        "00000000000000000007.open.tmp",
    ] {
        assert_eq!(name.parse::<SegmentName>(), Err(SegmentNameError), "{name}");
    }
}
