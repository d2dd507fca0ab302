//! The words that processes share, under every order in which the memory model lets them be seen.
//!
//! `ring.rs` is compiled here with the atomics of loom, which runs each test for all interleavings of
//! its threads, up to a number of preemptions.

#[expect(dead_code, reason = "the fabric uses more of it than these tests")]
#[path = "../src/fabric/shm/ring.rs"]
mod ring;

/// What `ring.rs` is made of.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

    pub(crate) const LINE: usize = 1;
    pub(crate) const NODES_MAX: usize = 2;
}

use atomic::AtomicU64;
use loom::{sync::Arc, thread};
use ring::{Found, Reader, Writer};

/// The node that reads, as a bit.
const READER: u64 = 1 << 1;
/// Words of a record of one word.
const RECORD: usize = 3;

/// Memory whose ring takes `records` records of one word.
fn memory(records: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..ring::RING + records * RECORD).map(|_| AtomicU64::new(0)).collect())
}

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

/// Writes record `number`, which says where it lies in the ring, for nobody that would have to be waited for.
fn write(writer: &mut Writer, memory: &[AtomicU64], number: u64) {
    assert!(writer.room(memory, 8, u64::MAX));
    writer.append(memory, READER, 8 * number as usize, &(number + 100).to_ne_bytes());
    writer.commit(memory);
}

/// Reads what there is, each record as it was written.
fn read(reader: &mut Reader, memory: &[AtomicU64]) -> Result<(), Found> {
    let head = Reader::head(memory);
    let mut aside = [0; 8];
    while reader.at() < head {
        let number = reader.at() / RECORD as u64;
        match reader.next(memory, head, &mut aside) {
            Found::Record(range) => {
                assert_eq!(range, 8 * number as usize..8 * number as usize + 8);
                assert_eq!(u64::from_ne_bytes(aside), number + 100);
            }
            other => return Err(other),
        }
    }
    Ok(())
}

#[test]
fn what_is_shown_is_whole() {
    model(|| {
        let memory = memory(2);
        let shared = Arc::clone(&memory);
        let writing = thread::spawn(move || {
            let mut writer = Writer::default();
            for number in 0..2 {
                write(&mut writer, &shared, number);
            }
        });
        let mut reader = Reader::new(0, READER, 64);
        for _ in 0..2 {
            read(&mut reader, &memory).expect("nothing is written over");
        }
        writing.join().unwrap();
        read(&mut reader, &memory).expect("nothing is written over");
        assert_eq!(reader.at(), 2 * RECORD as u64);
    });
}

#[test]
fn a_reader_that_is_overtaken_knows_it_and_takes_nothing_torn() {
    model(|| {
        let memory = memory(2);
        let mut writer = Writer::default();
        write(&mut writer, &memory, 0);
        let shared = Arc::clone(&memory);
        let writing = thread::spawn(move || {
            for number in 1..4 {
                write(&mut writer, &shared, number);
            }
        });
        let mut reader = Reader::new(0, READER, 64);
        for _ in 0..2 {
            match read(&mut reader, &memory) {
                Ok(()) => {}
                Err(found) => {
                    assert_eq!(found, Found::Lapped);
                    break;
                }
            }
        }
        writing.join().unwrap();
    });
}

#[test]
fn room_is_what_the_reader_has_taken() {
    const OWN: usize = 0;
    model(|| {
        let (memory, other) = (memory(1), memory(1));
        let (shared, of_reader) = (Arc::clone(&memory), Arc::clone(&other));
        let mut writer = Writer::default();
        write(&mut writer, &memory, 0);
        let writing = thread::spawn(move || {
            // Twice is enough: either the reader has taken the first record by now, or not.
            for _ in 0..2 {
                if writer.room(&shared, 8, ring::taken(&of_reader, OWN)) {
                    writer.append(&shared, READER, 8, &101_u64.to_ne_bytes());
                    writer.commit(&shared);
                    return;
                }
            }
        });
        let mut reader = Reader::new(0, READER, 64);
        for _ in 0..2 {
            read(&mut reader, &memory).expect("the writer waits for it");
            ring::tell_taken(&other, OWN, reader.at());
        }
        writing.join().unwrap();
        read(&mut reader, &memory).expect("the writer waits for it");
    });
}

#[test]
fn nobody_sleeps_on_records() {
    model(|| {
        let (memory, other) = (memory(2), memory(2));
        let (shared, of_reader) = (Arc::clone(&memory), Arc::clone(&other));
        let writing = thread::spawn(move || {
            write(&mut Writer::default(), &shared, 0);
            ring::asleep(&of_reader).is_some()
        });
        ring::fall_asleep(&other);
        let sleeps = Reader::head(&memory) == 0;
        let woken = writing.join().unwrap();
        assert!(!sleeps || woken, "it sleeps, there is a record, and nobody has woken it");
    });
}
