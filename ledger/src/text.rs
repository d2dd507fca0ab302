//! Strict scraps of text that several formats share: decimals without leading zeroes, padded base64.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};

use crate::ids::Digest;

/// An ASCII decimal without sign or leading zero that fits 64 bits.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero { text.parse().ok() } else { None }
}

/// Standard base64 with padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Strict: padding required, unused bits zero, no white space.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

/// A digest in base64.
pub(crate) fn digest_from_base64(text: &str) -> Option<Digest> {
    if text.len() != 44 {
        return None;
    }
    from_base64(text)?.try_into().ok().map(Digest)
}
