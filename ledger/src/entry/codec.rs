//! The byte layout of entries, as in `docs/formats/entry.md`. All integers are big-endian.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    Body, ENTRY_FORMAT, Entry, EntryError, Genesis, MAX_ENTRY, MAX_INLINE_VALUE, MAX_KEY,
    MAX_MEMBERS, MAX_VALUE, Member, Seal, SnapshotRecord, Txn, Update, Value, ViewRecord, Write,
};
use crate::ids::{
    Digest, Hlc, KeyVersion, LedgerId, RequestId, RequestNumber, SessionId, Version, ViewId,
    check_name,
};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const TXN: u8 = 3;
const SEAL: u8 = 4;
const VIEW: u8 = 5;
const SNAPSHOT: u8 = 9;
const GENESIS: u8 = 10;

const DELETED: u8 = 0;
const INLINE: u8 = 1;
const DETACHED: u8 = 2;

/// Stands for "no previous version".
const NO_VERSION: u64 = u64::MAX;

pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let start = out.len();
    let result = encode_all(entry, out).and_then(|()| match out.len() - start {
        len if len > MAX_ENTRY => Err(EntryError::TooLong { len }),
        _ => Ok(()),
    });
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_all(entry: &Entry, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let kind = match &entry.body {
        Body::Put(_) => PUT,
        Body::Delete(_) => DELETE,
        Body::Txn(_) => TXN,
        Body::Seal(_) => SEAL,
        Body::View(_) => VIEW,
        Body::Snapshot(_) => SNAPSHOT,
        Body::Genesis(_) => GENESIS,
    };
    out.extend_from_slice(&[ENTRY_FORMAT, kind]);
    put_u64(out, entry.hlc.0);
    put_u64(out, entry.view.0);
    match &entry.body {
        Body::Put(write) | Body::Delete(write) => {
            if write.update.value.is_some() != (kind == PUT) {
                return Err(EntryError::ValuePresence);
            }
            put_request(out, write.request);
            put_update(out, &write.update)
        }
        Body::Txn(txn) => put_txn(out, txn),
        Body::Seal(seal) => put_seal(out, seal),
        Body::View(record) => {
            if record.view != entry.view {
                return Err(EntryError::View { record: record.view, header: entry.view });
            }
            put_members(out, &record.members)
        }
        Body::Snapshot(record) => put_snapshot(out, record),
        Body::Genesis(genesis) => {
            if entry.hlc != Hlc(0) || entry.view != ViewId(0) {
                return Err(EntryError::GenesisStamp);
            }
            put_name(out, &genesis.deployment)?;
            put_name(out, &genesis.site)?;
            put_name(out, genesis.ledger.pool())?;
            out.extend_from_slice(&genesis.ledger.shard().to_be_bytes());
            put_members(out, &genesis.members)
        }
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_request(out: &mut Vec<u8>, request: RequestId) {
    out.extend_from_slice(&request.session.0.to_be_bytes());
    put_u64(out, request.number.0);
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) -> Result<(), EntryError> {
    put_request(out, txn.request);
    let count = txn.updates.len();
    let count = u16::try_from(count).map_err(|_| EntryError::Updates { count })?;
    out.extend_from_slice(&count.to_be_bytes());
    check_key_order(&txn.updates)?;
    txn.updates.iter().try_for_each(|update| put_update(out, update))
}

fn put_update(out: &mut Vec<u8>, update: &Update) -> Result<(), EntryError> {
    check_update(update)?;
    let Update { key, key_version, prev_version, value } = update;
    let key_len = u16::try_from(key.len()).map_err(|_| EntryError::Key { len: key.len() })?;
    out.extend_from_slice(&key_len.to_be_bytes());
    out.extend_from_slice(key);
    put_u64(out, key_version.0);
    put_u64(out, prev_version.map_or(NO_VERSION, |version| version.0));
    match value {
        None => out.push(DELETED),
        Some(Value::Inline(bytes)) => {
            let len = u32::try_from(bytes.len())
                .map_err(|_| EntryError::InlineValue { len: bytes.len() })?;
            out.push(INLINE);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Some(Value::Detached { len, digest }) => {
            out.push(DETACHED);
            put_u64(out, *len);
            out.extend_from_slice(&digest.0);
        }
    }
    Ok(())
}

fn put_seal(out: &mut Vec<u8>, seal: &Seal) -> Result<(), EntryError> {
    if seal.count == 0 {
        return Err(EntryError::SealCount);
    }
    put_u64(out, seal.segment);
    put_u64(out, seal.first.0);
    out.extend_from_slice(&seal.count.to_be_bytes());
    out.extend_from_slice(&seal.prev_seal.0);
    out.extend_from_slice(&seal.root_before.0);
    out.extend_from_slice(&seal.keys_root.0);
    put_u64(out, seal.hlc_first.0);
    put_u64(out, seal.hlc_last.0);
    put_u64(out, seal.policy_epoch);
    Ok(())
}

fn put_snapshot(out: &mut Vec<u8>, record: &SnapshotRecord) -> Result<(), EntryError> {
    check_snapshot(record)?;
    put_u64(out, record.size.0);
    out.extend_from_slice(&record.root.0);
    out.extend_from_slice(&record.chunks.to_be_bytes());
    put_u64(out, record.bytes);
    Ok(())
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Result<(), EntryError> {
    check_name(name)?;
    out.push(u8::try_from(name.len()).expect("a checked name has at most 63 bytes"));
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn put_members(out: &mut Vec<u8>, members: &[Member]) -> Result<(), EntryError> {
    check_members(members)?;
    out.push(u8::try_from(members.len()).expect("checked: at most 255 members"));
    members.iter().try_for_each(|member| {
        put_name(out, &member.name)?;
        out.extend_from_slice(&member.public_key);
        Ok(())
    })
}

fn check_update(update: &Update) -> Result<(), EntryError> {
    let Update { key, key_version, prev_version, value } = update;
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(EntryError::Key { len: key.len() });
    }
    let first = key_version.0 == 1;
    let unreal = key_version.0 == 0 || *prev_version == Some(Version(NO_VERSION));
    if unreal || first != prev_version.is_none() {
        return Err(EntryError::KeyHistory {
            key_version: key_version.0,
            prev_version: *prev_version,
        });
    }
    match value {
        Some(Value::Inline(bytes)) if bytes.len() > MAX_INLINE_VALUE => {
            Err(EntryError::InlineValue { len: bytes.len() })
        }
        Some(Value::Detached { len, .. }) if *len > MAX_VALUE => {
            Err(EntryError::DetachedValue { len: *len })
        }
        _ => Ok(()),
    }
}

fn check_snapshot(record: &SnapshotRecord) -> Result<(), EntryError> {
    let SnapshotRecord { size, chunks, bytes, .. } = *record;
    match size == Version::ZERO || chunks == 0 || bytes < chunks.into() {
        true => Err(EntryError::Snapshot { size, chunks, bytes }),
        false => Ok(()),
    }
}

fn check_key_order(updates: &[Update]) -> Result<(), EntryError> {
    match updates.windows(2).position(|pair| pair[0].key >= pair[1].key) {
        Some(index) => Err(EntryError::KeyOrder { index: index + 1 }),
        None => Ok(()),
    }
}

fn check_members(members: &[Member]) -> Result<(), EntryError> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(EntryError::Members { count: members.len() });
    }
    for (index, member) in members.iter().enumerate() {
        let same =
            |other: &Member| other.name == member.name || other.public_key == member.public_key;
        if members[..index].iter().any(same) {
            return Err(EntryError::MemberTwice { index });
        }
    }
    Ok(())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
    if bytes.len() > MAX_ENTRY {
        return Err(EntryError::TooLong { len: bytes.len() });
    }
    let mut input = Input { bytes, at: 0 };
    let format = input.u8("format version")?;
    if format != ENTRY_FORMAT {
        return Err(EntryError::Format { found: format });
    }
    let kind = input.u8("kind")?;
    let hlc = Hlc(input.u64("time")?);
    let view = ViewId(input.u64("view")?);
    let body = match kind {
        PUT | DELETE => {
            let write = Write { request: input.request()?, update: input.update()? };
            match (kind, &write.update.value) {
                (PUT, Some(_)) => Body::Put(write),
                (DELETE, None) => Body::Delete(write),
                _ => return Err(EntryError::ValuePresence),
            }
        }
        TXN => Body::Txn(input.txn()?),
        SEAL => Body::Seal(input.seal()?),
        VIEW => Body::View(ViewRecord { view, members: input.members()? }),
        SNAPSHOT => Body::Snapshot(input.snapshot()?),
        GENESIS if hlc != Hlc(0) || view != ViewId(0) => return Err(EntryError::GenesisStamp),
        GENESIS => Body::Genesis(input.genesis()?),
        6 => return Err(EntryError::Unsupported { kind, name: "KEY" }),
        7 => return Err(EntryError::Unsupported { kind, name: "POLICY" }),
        8 => return Err(EntryError::Unsupported { kind, name: "ERASE" }),
        _ => return Err(EntryError::Kind { kind }),
    };
    match bytes.len() - input.at {
        0 => Ok(Entry { hlc, view, body }),
        count => Err(EntryError::Trailing { count }),
    }
}

/// Reads fields one after the other; never past the end.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], EntryError> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(EntryError::Truncated { at: self.at, field })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], EntryError> {
        Ok(self.take(N, field)?.try_into().expect("take returns the length asked for"))
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, EntryError> {
        self.array(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, EntryError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, EntryError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, EntryError> {
        self.array(field).map(u64::from_be_bytes)
    }

    fn digest(&mut self, field: &'static str) -> Result<Digest, EntryError> {
        self.array(field).map(Digest)
    }

    fn request(&mut self) -> Result<RequestId, EntryError> {
        Ok(RequestId {
            session: SessionId(self.array("session").map(u128::from_be_bytes)?),
            number: RequestNumber(self.u64("request number")?),
        })
    }

    fn txn(&mut self) -> Result<Txn, EntryError> {
        let request = self.request()?;
        let count = self.u16("number of updates")?;
        // No capacity is reserved for the count: the updates must first prove to be there.
        let mut updates = Vec::new();
        for _ in 0..count {
            updates.push(self.update()?);
        }
        check_key_order(&updates)?;
        Ok(Txn { request, updates })
    }

    fn update(&mut self) -> Result<Update, EntryError> {
        let key_len = usize::from(self.u16("length of a key")?);
        if key_len == 0 || key_len > MAX_KEY {
            return Err(EntryError::Key { len: key_len });
        }
        let key = self.take(key_len, "key")?;
        let key_version = KeyVersion(self.u64("key version")?);
        let prev_version = match self.u64("previous version")? {
            NO_VERSION => None,
            version => Some(Version(version)),
        };
        let value = match self.u8("tag of a value")? {
            DELETED => None,
            INLINE => {
                let len = self.u32("length of a value")? as usize;
                if len > MAX_INLINE_VALUE {
                    return Err(EntryError::InlineValue { len });
                }
                Some(Value::Inline(self.take(len, "value")?.to_owned()))
            }
            DETACHED => Some(Value::Detached {
                len: self.u64("length of a detached value")?,
                digest: self.digest("digest of a detached value")?,
            }),
            found => return Err(EntryError::Tag { field: "a value", found }),
        };
        let update = Update { key: key.to_owned(), key_version, prev_version, value };
        check_update(&update)?;
        Ok(update)
    }

    fn seal(&mut self) -> Result<Seal, EntryError> {
        let seal = Seal {
            segment: self.u64("number of the segment")?,
            first: Version(self.u64("first version")?),
            count: self.u32("count")?,
            prev_seal: self.digest("hash of the previous SEAL")?,
            root_before: self.digest("root before the SEAL")?,
            keys_root: self.digest("root of the keys")?,
            hlc_first: Hlc(self.u64("first time")?),
            hlc_last: Hlc(self.u64("last time")?),
            policy_epoch: self.u64("policy epoch")?,
        };
        if seal.count == 0 { Err(EntryError::SealCount) } else { Ok(seal) }
    }

    fn snapshot(&mut self) -> Result<SnapshotRecord, EntryError> {
        let record = SnapshotRecord {
            size: Version(self.u64("size of the state")?),
            root: self.digest("root of the chunks")?,
            chunks: self.u32("number of chunks")?,
            bytes: self.u64("bytes of the chunks")?,
        };
        check_snapshot(&record).map(|()| record)
    }

    fn name(&mut self, field: &'static str) -> Result<String, EntryError> {
        let len = usize::from(self.u8(field)?);
        let name = core::str::from_utf8(self.take(len, field)?)
            .map_err(|_| EntryError::NameBytes { field })?;
        check_name(name)?;
        Ok(name.to_owned())
    }

    fn members(&mut self) -> Result<Vec<Member>, EntryError> {
        let count = self.u8("number of members")?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(Member {
                name: self.name("name of a member")?,
                public_key: self.array("key of a member")?,
            });
        }
        check_members(&members)?;
        Ok(members)
    }

    fn genesis(&mut self) -> Result<Genesis, EntryError> {
        let deployment = self.name("name of the deployment")?;
        let site = self.name("name of the site")?;
        let pool = self.name("name of the pool")?;
        let ledger = LedgerId::new(&pool, self.u32("shard")?)?;
        Ok(Genesis { deployment, site, ledger, members: self.members()? })
    }
}
