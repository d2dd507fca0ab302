//! Byte strings as one block of the wire format, not as a sequence of numbers.
//!
//! serde visits a `Vec<u8>` element by element, which costs more than everything else of a small put together.
//! Used as `#[serde(with = "crate::octets")]` on `Vec<u8>` and `Arc<[u8]>` fields.

use alloc::vec::Vec;
use core::{fmt, marker::PhantomData};
use serde::{Deserializer, Serializer, de};

pub(crate) fn serialize<S: Serializer>(
    bytes: &impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes.as_ref())
}

pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: for<'a> From<&'a [u8]>,
{
    deserializer.deserialize_bytes(Octets(PhantomData))
}

struct Octets<T>(PhantomData<T>);

impl<T: for<'a> From<&'a [u8]>> de::Visitor<'_> for Octets<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        Ok(T::from(bytes))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<T, E> {
        Ok(T::from(&bytes))
    }
}
