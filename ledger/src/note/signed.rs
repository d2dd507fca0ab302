//! Signed notes (c2sp.org/signed-note): a text, an empty line, and one line a signature.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::key::{KeyId, KeyKind, Signer, cosignature_message, is_key_name, key_id};
use crate::text;

/// Bytes of a note at most.
pub const MAX_NOTE: usize = 1 << 20;
/// Signatures of a note at most. C2SP asks for at least 16.
pub const MAX_SIGNATURES: usize = 512;

const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// A text with signatures, none of which was verified by parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub key_id: KeyId,
    /// The signature in the key's own format; at least one byte.
    pub bytes: Vec<u8>,
}

/// Why bytes are not a signed note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Too long.
    #[error("a note of {len} bytes; at most {MAX_NOTE} are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// Not text.
    #[error("byte {at} of the note is not UTF-8 or is a control character other than newline")]
    Text {
        /// Where.
        at: usize,
    },
    /// No text, or no signature block.
    #[error("a note is a text ending in a newline, an empty line, and signature lines")]
    Form,
    /// A bad signature line.
    #[error("signature line {line} of the note is not `\u{2014} <name> <base64>`")]
    Signature {
        /// Which one, from 1.
        line: usize,
    },
    /// Too many signatures.
    #[error("a note with more than {MAX_SIGNATURES} signatures")]
    TooMany,
}

impl SignedNote {
    /// A text with these signatures.
    ///
    /// # Errors
    /// If the text, a key name, or the number or length of anything is not allowed: whatever this
    /// returns can be written and read back.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Result<Self, NoteError> {
        check_text(text.as_bytes())?;
        if text.len() < 2 || !text.ends_with('\n') || signatures.is_empty() {
            return Err(NoteError::Form);
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::TooMany);
        }
        let bad =
            |signature: &NoteSignature| signature.bytes.is_empty() || !is_key_name(&signature.name);
        if let Some(index) = signatures.iter().position(bad) {
            return Err(NoteError::Signature { line: index + 1 });
        }
        let note = Self { text, signatures };
        match note.to_string().len() {
            len if len > MAX_NOTE => Err(NoteError::TooLong { len }),
            _ => Ok(note),
        }
    }

    /// Reads a note. The signatures are **not** verified.
    ///
    /// # Errors
    /// On anything that signed-note does not allow, and beyond [`MAX_NOTE`] and [`MAX_SIGNATURES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLong { len: bytes.len() });
        }
        let note = check_text(bytes)?;
        let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, block) = (&note[..=split], &note[split + 2..]);
        let block = block.strip_suffix('\n').ok_or(NoteError::Form)?;
        if text.len() < 2 {
            return Err(NoteError::Form);
        }
        let mut signatures = Vec::new();
        for (index, line) in block.split('\n').enumerate() {
            if index == MAX_SIGNATURES {
                return Err(NoteError::TooMany);
            }
            let signature = line.parse().map_err(|()| NoteError::Signature { line: index + 1 })?;
            signatures.push(signature);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text with its final newline: what is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures in the order of their lines.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// The checkpoint that the text is.
    pub fn checkpoint(&self) -> Result<Checkpoint, CheckpointError> {
        self.text.parse()
    }
}

impl Checkpoint {
    /// The note of this checkpoint with these signatures. Fails as [`SignedNote::new`].
    pub fn with_signatures(&self, signatures: Vec<NoteSignature>) -> Result<SignedNote, NoteError> {
        SignedNote::new(self.to_string(), signatures)
    }

    /// Signs this checkpoint as a node of the ledger: key name = origin, type 0x01.
    #[must_use]
    pub fn sign(&self, signer: &(impl Signer + ?Sized)) -> NoteSignature {
        self.signature_of(&signer.public_key(), signer.sign(self.to_string().as_bytes()))
    }

    /// The signature line of a node that signed this checkpoint's text elsewhere.
    #[must_use]
    pub fn signature_of(&self, public_key: &[u8; 32], signature: [u8; 64]) -> NoteSignature {
        NoteSignature {
            name: self.origin.clone(),
            key_id: key_id(&self.origin, KeyKind::Ed25519, public_key),
            bytes: signature.to_vec(),
        }
    }

    /// Cosigns this checkpoint as the witness `name` at `time` (seconds since 1970): type 0x04.
    #[must_use]
    pub fn cosign(&self, name: &str, time: u64, signer: &(impl Signer + ?Sized)) -> NoteSignature {
        let message = cosignature_message(time, &self.to_string());
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.extend_from_slice(&signer.sign(message.as_bytes()));
        let key_id = key_id(name, KeyKind::CosignatureV1, &signer.public_key());
        NoteSignature { name: name.to_owned(), key_id, bytes }
    }
}

impl NoteSignature {
    /// The time that a `cosignature/v1` states, in seconds since 1970; to be believed only if the
    /// signature verified under a key of that kind.
    #[must_use]
    pub fn cosigned_at(&self) -> Option<u64> {
        let time = self.bytes.first_chunk::<8>().filter(|_| self.bytes.len() == 72);
        time.map(|time| u64::from_be_bytes(*time))
    }
}

/// UTF-8 without control characters other than newline.
fn check_text(bytes: &[u8]) -> Result<&str, NoteError> {
    let text =
        core::str::from_utf8(bytes).map_err(|error| NoteError::Text { at: error.valid_up_to() })?;
    match bytes.iter().position(|byte| *byte < b' ' && *byte != b'\n') {
        Some(at) => Err(NoteError::Text { at }),
        None => Ok(text),
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl fmt::Display for NoteSignature {
    /// The line without its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.0.to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(f, "{SIGNATURE_PREFIX}{} {}", self.name, text::to_base64(&bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let line = line.strip_prefix(SIGNATURE_PREFIX).ok_or(())?;
        let (name, base64) = line.split_once(' ').ok_or(())?;
        if !is_key_name(name) {
            return Err(());
        }
        let bytes = text::from_base64(base64).ok_or(())?;
        let (id, signature) = bytes.split_first_chunk::<4>().ok_or(())?;
        if signature.is_empty() {
            return Err(());
        }
        Ok(Self { name: name.to_owned(), key_id: KeyId(*id), bytes: signature.to_owned() })
    }
}
