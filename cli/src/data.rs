//! Keys and values as text and JSON: plain if they are UTF-8, base64 if not.

use anyhow::{Context as _, bail};
use base64ct::{Base64, Encoding as _};
use serde_json::{Map, Value};

/// Puts bytes into a JSON object, as `name` or, if they are no UTF-8, as `name_base64`.
pub(crate) fn insert(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), Base64::encode_string(bytes).into()),
    };
}

/// The inverse: exactly one of the two must be there.
///
/// # Errors
/// If none or both are given, or the base64 is bad.
pub(crate) fn either(
    name: &str,
    plain: Option<String>,
    base64: Option<String>,
) -> anyhow::Result<Vec<u8>> {
    match (plain, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            Base64::decode_vec(&base64).ok().with_context(|| format!("{name}_base64: no base64"))
        }
        (None, None) => bail!("no {name}: give \"{name}\" or \"{name}_base64\""),
        (Some(_), Some(_)) => bail!("both \"{name}\" and \"{name}_base64\": give one of them"),
    }
}

/// Bytes for a table: one line, at most `width` characters, control characters escaped.
pub(crate) fn shown(bytes: &[u8], width: usize) -> String {
    // Four bytes a character at most: no need to look at all of a large value.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * width + 4)]);
    let mut shown: String = text
        .chars()
        .flat_map(|c| -> Box<dyn Iterator<Item = char>> {
            if c.is_control() { Box::new(c.escape_default()) } else { Box::new(std::iter::once(c)) }
        })
        .take(width + 1)
        .collect();
    if shown.chars().count() > width {
        shown = shown.chars().take(width.saturating_sub(3)).chain("...".chars()).collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_way_through_json() {
        for bytes in [&b"plain"[..], b"", &[0xff, 0], "ä\n".as_bytes()] {
            let mut object = Map::new();
            insert(&mut object, "value", bytes);
            let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
            assert_eq!(either("value", text("value"), text("value_base64")).unwrap(), bytes);
        }
        assert!(either("value", None, None).is_err());
        assert!(either("value", None, Some("?".into())).is_err());
    }

    #[test]
    fn tables_show_one_short_line() {
        assert_eq!(shown(b"a\nb", 10), "a\\nb");
        assert_eq!(shown(b"abcdefgh", 6), "abc...");
        assert_eq!(shown(&[0xff; 99], 4).chars().count(), 4);
    }
}
