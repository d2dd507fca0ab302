//! The control stream's messages. Kinds are numbered for ever; fields are never added to one.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};
use tradewind_ledger::ids::{Digest, Hlc, LedgerId, Lineage, Version};

use super::{Header, WireError};
use super::{LIST_MAX, frame};
use crate::claim::Claim;

/// The first message of a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The deployment that the child belongs to.
    pub deployment: String,
    /// The child's name; the same as that of its certificate.
    pub mirror: String,
}

/// How far a child has come with a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which ledger.
    pub ledger: LedgerId,
    /// The ledger's identity as the child knows it.
    pub lineage: Lineage,
    /// Entries that it has verified; it wants to continue with the entry of this version.
    pub size: Version,
    /// The root over them.
    pub root: Digest,
}

/// A child asks for the bodies of detached values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Whose.
    pub ledger: LedgerId,
    /// SHA-256 of each.
    pub digests: Vec<Digest>,
}

/// How far a mirror has come with one ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Entries received without a gap.
    pub received: Version,
    /// Entries verified.
    pub verified: Version,
    /// Entries on disk and shown to readers.
    pub durable: Version,
    /// Time of the last durable entry; 0 if there is none.
    pub hlc: Hlc,
}

/// The frontiers of one mirror: the reporting child or one below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorReport {
    /// Which mirror.
    pub mirror: String,
    /// The parent it is fed by; empty if it has none at the moment.
    pub parent: String,
    /// One for each ledger it follows.
    pub ledgers: Vec<Frontier>,
}

/// Either side's last message, if it can still say one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// In words, for the other side's log.
    pub reason: String,
}

/// The parent's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The parent's name; the same as that of its certificate.
    pub name: String,
    /// See [`Beat::path`].
    pub path: Option<Vec<String>>,
}

/// The parent feeds a ledger from the child's position on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Entries that the parent can offer; fewer than the child has if the parent lags behind it.
    pub size: Version,
    /// Why the child's position is to be believed: links lead from it to the signed note.
    /// `None` if the parent has nothing signed, or nothing beyond the child.
    pub claim: Option<Claim>,
}

/// Why a parent does not feed a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseReason {
    /// The parent does not hold it, or the child has no right to it.
    Unknown,
    /// The parent's ledger of that name has another lineage.
    Lineage {
        /// The parent's.
        ours: Lineage,
    },
    /// The parent's ledger has another root at the child's size: one of both is a fork.
    Fork {
        /// The parent's root at the child's size.
        root: Digest,
        /// Leads from there to a signed note.
        claim: Claim,
    },
    /// The parent cannot read its own ledger.
    Unreadable,
    /// The parent keeps the entries from here on only: what comes before can be had as a snapshot.
    Pruned {
        /// The first entry that is kept.
        first: Version,
    },
}

/// The parent does not feed a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Why.
    pub reason: RefuseReason,
}

/// The parent lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Names from the parent itself to the site; `None` while it is cut off from every site.
    pub path: Option<Vec<String>>,
    /// How fresh the ledgers are that it feeds.
    pub ledgers: Vec<Fresh>,
}

/// What a parent has of a ledger, and how old that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Entries that it offers.
    pub size: Version,
    /// How long ago these were all that the home site had committed, in milliseconds.
    pub age_ms: u64,
}

/// A signed checkpoint of a ledger in which the child is ahead of its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadNote {
    /// Which ledger.
    pub ledger: LedgerId,
    /// The signed note's text.
    pub note: String,
}

/// The parent has no body of a detached value that it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoValue {
    /// Whose.
    pub ledger: LedgerId,
    /// SHA-256 of the value.
    pub digest: Digest,
}

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($payload:ty) = $kind:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($payload),)*
        }

        impl $name {
            /// The whole frame.
            ///
            /// # Panics
            /// If a list in it is beyond its limit, which the sender keeps.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$variant(payload) => frame::encode($kind, payload),)*
                }
            }

            /// Reads the payload of a frame.
            ///
            /// # Errors
            /// On a checksum that does not match, an unknown kind, and anything but one message.
            pub fn decode(header: &Header, payload: &[u8]) -> Result<Self, WireError> {
                let message = match header.kind {
                    $($kind => Self::$variant(header.payload(payload)?),)*
                    found => return Err(WireError::Kind { found }),
                };
                message.check()?;
                Ok(message)
            }
        }
    };
}

messages! {
    /// What a child says.
    ChildMessage {
        /// Who it is.
        Hello(Hello) = 1,
        /// Feed these ledgers from here on; replaces every earlier position.
        Follow(Vec<Position>) = 2,
        /// Bytes of batches that the parent may have sent in all on this connection.
        Grant(u64) = 3,
        /// Bodies of detached values, please.
        Want(Want) = 4,
        /// Frontiers that changed, of the child and of those below it.
        Report(Vec<MirrorReport>) = 5,
        /// The end.
        Bye(Bye) = 6,
    }
}

messages! {
    /// What a parent says.
    ParentMessage {
        /// Who it is.
        Welcome(Welcome) = 17,
        /// It feeds a ledger.
        Accept(Accept) = 18,
        /// It does not feed a ledger.
        Refuse(Refuse) = 19,
        /// It lives.
        Beat(Beat) = 20,
        /// What it has of a ledger in which the child is ahead.
        Head(HeadNote) = 21,
        /// It lacks a value.
        NoValue(NoValue) = 22,
        /// The end.
        Bye(Bye) = 23,
    }
}

/// Bytes of a name or reason at most.
const TEXT_MAX: usize = 1_024;

fn text(text: &str) -> Result<(), WireError> {
    let (found, max) = (text.len() as u64, TEXT_MAX as u64);
    if found > max { Err(WireError::Length { what: "text", found, max }) } else { Ok(()) }
}

fn names(path: Option<&Vec<String>>) -> Result<(), WireError> {
    let path = path.map_or(&[][..], Vec::as_slice);
    limit("path", path.len())?;
    path.iter().try_for_each(|name| text(name))
}

fn limit(what: &'static str, found: usize) -> Result<(), WireError> {
    if found > LIST_MAX {
        return Err(WireError::Length { what, found: found as u64, max: LIST_MAX as u64 });
    }
    Ok(())
}

impl ChildMessage {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Hello(hello) => text(&hello.deployment).and_then(|()| text(&hello.mirror)),
            Self::Follow(positions) => limit("list of ledgers", positions.len()),
            Self::Grant(_) => Ok(()),
            Self::Want(want) => limit("list of values", want.digests.len()),
            Self::Report(reports) => {
                limit("list of mirrors", reports.len())?;
                reports.iter().try_for_each(|report| {
                    text(&report.mirror)?;
                    text(&report.parent)?;
                    limit("list of ledgers", report.ledgers.len())
                })
            }
            Self::Bye(bye) => text(&bye.reason),
        }
    }
}

impl ParentMessage {
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Welcome(welcome) => {
                text(&welcome.name)?;
                names(welcome.path.as_ref())
            }
            Self::Beat(beat) => {
                names(beat.path.as_ref())?;
                limit("list of ledgers", beat.ledgers.len())
            }
            Self::Bye(bye) => text(&bye.reason),
            // Notes and proofs have limits of their own where they are verified.
            Self::Accept(_) | Self::Refuse(_) | Self::Head(_) | Self::NoValue(_) => Ok(()),
        }
    }
}
