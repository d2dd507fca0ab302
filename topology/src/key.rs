//! Ed25519 public keys as the topology file writes them.

use std::{fmt, str::FromStr};

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};

/// An Ed25519 public key (RFC 8032); text form: standard base64 with padding, 44 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// Why a text is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 44 characters of standard base64.
    #[error("not base64 of 32 bytes (44 characters)")]
    Encoding,
    /// 32 bytes that are no point of the curve, or one of its weak points.
    #[error("32 bytes, but no usable Ed25519 public key")]
    Point,
}

impl PublicKey {
    /// Takes the 32 bytes of a key.
    ///
    /// # Errors
    /// [`KeyError::Point`] for bytes that no signature could be verified with.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        match ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(KeyError::Point),
        }
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        match Base64::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Self::from_bytes(bytes),
            _ => Err(KeyError::Encoding),
        }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Base64::encode_string(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// DER of an Ed25519 `SubjectPublicKeyInfo` up to the 32 key bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// DER of a PKCS#8 Ed25519 private key between its version and its 32 secret bytes (RFC 8410,
/// section 7).
const PKCS8_MIDDLE: [u8; 11] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The Ed25519 key that the first certificate of a PEM text is for.
pub(crate) fn public_key_of_certificate(pem: &str) -> Option<PublicKey> {
    let der = pem_block(pem, "CERTIFICATE")?;
    let (0x30, certificate, _) = der_element(&der)? else { return None };
    let (0x30, mut fields, _) = der_element(certificate)? else { return None };
    // RFC 5280, section 4.1: [0] version (optional), serial, signature, issuer, validity, subject.
    if fields.first() == Some(&0xa0) {
        fields = der_element(fields)?.2;
    }
    for _ in 0..5 {
        fields = der_element(fields)?.2;
    }
    let key: [u8; 32] = fields.strip_prefix(&SPKI_PREFIX)?.get(..32)?.try_into().ok()?;
    PublicKey::from_bytes(key).ok()
}

/// The public half of an Ed25519 private key in PKCS#8 PEM.
pub(crate) fn public_key_of_private(pem: &str) -> Option<PublicKey> {
    let der = pem_block(pem, "PRIVATE KEY")?;
    let (0x30, fields, _) = der_element(&der)? else { return None };
    let (0x02, _version, fields) = der_element(fields)? else { return None };
    let secret: [u8; 32] = fields.strip_prefix(&PKCS8_MIDDLE)?.get(..32)?.try_into().ok()?;
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
    Some(PublicKey(public.to_bytes()))
}

/// The bytes of the first PEM block with this label (RFC 7468).
fn pem_block(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    Base64::decode_vec(&body).ok()
}

/// Tag, contents and what follows of the first DER element; lengths of up to two bytes.
fn der_element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (length, rest) = match *rest {
        [short @ 0..=0x7f, ref rest @ ..] => (short.into(), rest),
        [0x81, length, ref rest @ ..] => (length.into(), rest),
        [0x82, high, low, ref rest @ ..] => (usize::from(high) << 8 | usize::from(low), rest),
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn text_form_round_trips_and_is_strict() {
        let key: PublicKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        for bad in ["", "AAAA", &KEY[..43], &format!("{KEY}="), &format!(" {KEY}")] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError::Encoding), "{bad:?}");
        }
        let zeros = Base64::encode_string(&[0; 32]);
        assert_eq!(zeros.parse::<PublicKey>(), Err(KeyError::Point));
    }
}
