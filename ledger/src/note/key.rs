//! Keys of notes: verifier keys as text ("vkeys"), key ids, and the trait behind which a secret key lives.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::signed::NoteSignature;
use crate::text;

/// The first four bytes of a hash over name, type and public key: finds the key of a signature, and
/// is no proof of anything. Written as eight hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a key signs. The type byte of the format stays open: more kinds will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// 0x01: Ed25519 over the note's text.
    Ed25519,
    /// 0x04: Ed25519 over a time and the note's text (c2sp.org/tlog-cosignature, `cosignature/v1`).
    CosignatureV1,
}

impl KeyKind {
    /// The type byte of signed-note.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ed25519, Self::CosignatureV1].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// `SHA-256(name || 0A || type || public key)[..4]`.
#[must_use]
pub fn key_id(name: &str, kind: KeyKind, public_key: &[u8; 32]) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update([b'\n', kind.byte()]);
    hash.update(public_key);
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    KeyId([a, b, c, d])
}

/// A public key that verifies notes; as text a vkey: `<name>+<key id in hex>+<base64>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: KeyId,
    kind: KeyKind,
    public_key: [u8; 32],
}

/// Why a text is not a vkey that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierKeyError {
    /// Not of the form.
    #[error("not a vkey: `<name>+<key id, 8 hex digits>+<base64 of type and key>` is allowed")]
    Form,
    /// Bad name.
    #[error(
        "`{0}` is not a key name: it must not be empty nor contain spaces, `+` or control bytes"
    )]
    Name(String),
    /// The key id is of another key.
    #[error("the vkey states key id {stated}, but its name and key give {computed}")]
    Id {
        /// As written.
        stated: KeyId,
        /// As computed.
        computed: KeyId,
    },
    /// A signature type this program does not know.
    #[error("signature type {0:#04x} is not supported: 0x01 (Ed25519) and 0x04 (cosignature) are")]
    Kind(u8),
    /// Not a public key.
    #[error("the vkey's bytes are not an Ed25519 public key")]
    PublicKey,
}

/// Whether C2SP allows this as a key name.
pub(super) fn is_key_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_whitespace() && c != '+' && c >= ' ';
    !name.is_empty() && name.chars().all(allowed)
}

impl VerifierKey {
    /// The verifier of a name, kind and Ed25519 key.
    ///
    /// # Errors
    /// If the name is not allowed or the bytes are no (or a weak) public key.
    pub fn new(name: &str, kind: KeyKind, public_key: [u8; 32]) -> Result<Self, VerifierKeyError> {
        if !is_key_name(name) {
            return Err(VerifierKeyError::Name(name.chars().take(80).collect()));
        }
        let key = VerifyingKey::from_bytes(&public_key);
        if !key.is_ok_and(|key| !key.is_weak()) {
            return Err(VerifierKeyError::PublicKey);
        }
        let id = key_id(name, kind, &public_key);
        Ok(Self { name: name.to_owned(), id, kind, public_key })
    }

    /// The key's name: for a ledger's own keys its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// How it signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The raw Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Whether `signature` claims to be by this key (name and id agree).
    #[must_use]
    pub fn claims(&self, signature: &NoteSignature) -> bool {
        signature.key_id == self.id && signature.name == self.name
    }

    /// Whether `signature` is this key's over the note `text`. For a cosignature the time it states
    /// is [`NoteSignature::cosigned_at`].
    #[must_use]
    pub fn verify(&self, text: &str, signature: &NoteSignature) -> bool {
        if !self.claims(signature) {
            return false;
        }
        match self.kind {
            KeyKind::Ed25519 => self.verify_bytes(text.as_bytes(), &signature.bytes),
            KeyKind::CosignatureV1 => {
                signature.bytes.split_first_chunk::<8>().is_some_and(|(time, rest)| {
                    let message = cosignature_message(u64::from_be_bytes(*time), text);
                    self.verify_bytes(message.as_bytes(), rest)
                })
            }
        }
    }

    fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) =
            (VerifyingKey::from_bytes(&self.public_key), Signature::from_slice(signature))
        else {
            return false;
        };
        key.verify_strict(message, &signature).is_ok()
    }
}

/// What a `cosignature/v1` signs: a header with the time in seconds since 1970, then the note's text.
#[must_use]
pub fn cosignature_message(time: u64, text: &str) -> String {
    alloc::format!("cosignature/v1\ntime {time}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::from([self.kind.byte()]);
        bytes.extend_from_slice(&self.public_key);
        write!(f, "{}+{}+{}", self.name, self.id, text::to_base64(&bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(vkey: &str) -> Result<Self, VerifierKeyError> {
        let mut fields = vkey.splitn(3, '+');
        let mut field = || fields.next().ok_or(VerifierKeyError::Form);
        let (name, id, key) = (field()?, field()?, field()?);
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if id.len() != 8 || !id.bytes().all(hex) {
            return Err(VerifierKeyError::Form);
        }
        let stated = u32::from_str_radix(id, 16).map_err(|_| VerifierKeyError::Form)?;
        let stated = KeyId(stated.to_be_bytes());
        let key = text::from_base64(key).ok_or(VerifierKeyError::Form)?;
        let (kind, public_key) = key.split_first().ok_or(VerifierKeyError::Form)?;
        let kind = KeyKind::from_byte(*kind).ok_or(VerifierKeyError::Kind(*kind))?;
        let public_key = public_key.try_into().map_err(|_| VerifierKeyError::PublicKey)?;
        let key = Self::new(name, kind, public_key)?;
        if key.id == stated {
            Ok(key)
        } else {
            Err(VerifierKeyError::Id { stated, computed: key.id })
        }
    }
}

/// Holds a secret Ed25519 key: a file, an agent, a module. It never hands the key out.
pub trait Signer {
    /// The public key.
    fn public_key(&self) -> [u8; 32];
    /// The Ed25519 signature (RFC 8032) of `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

impl<T: Signer + ?Sized> Signer for &T {
    fn public_key(&self) -> [u8; 32] {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        (**self).sign(message)
    }
}

/// A secret key in memory, wiped when dropped.
#[derive(Clone)]
pub struct Ed25519Signer(SigningKey);

impl Ed25519Signer {
    /// From the 32 secret bytes (the seed of RFC 8032).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }
}

impl fmt::Debug for Ed25519Signer {
    /// Shows the public key only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Signer({})", text::to_base64(&self.public_key()))
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}
