//! One table of the file, read key by key.
//!
//! Each read takes its key out of the table, says what is wrong with the value, and yields nothing
//! in that case; what is left over at [`Section::finish`] is unknown. So a reader is a plain list of
//! reads and never has to stop.

use std::{ops::RangeInclusive, str::FromStr};

use crate::{
    diagnostics::{Diagnostics, Place},
    tree::{Item, Table, Value, quote},
};

/// Longest list of texts: more parents or pools of one mirror make no sense.
const LIST_MAX: usize = 256;

/// A value that remembers where it came from.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    /// Dotted path of its key.
    pub(crate) key: String,
}

/// A table, its path and its place.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) path: String,
    pub(crate) place: Place,
    left: Table,
    known: Vec<&'static str>,
}

impl Section {
    pub(crate) fn new(path: String, item: Item, diagnostics: &mut Diagnostics) -> Option<Self> {
        let Item { place, value } = item;
        match value {
            Value::Table(left) => Some(Self { path, place, left, known: Vec::new() }),
            other => {
                diagnostics.error(&place, path, other.describe(), "a table");
                None
            }
        }
    }

    /// The dotted path of a key of this section.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<(String, Item)> {
        self.known.push(key);
        let index = self.left.0.iter().position(|(own, _)| own == key)?;
        Some((self.key(key), self.left.0.remove(index).1))
    }

    /// Whether `key` is there. To be called before the key is read.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.left.0.iter().any(|(own, _)| own == key)
    }

    /// Complains if `key` is absent. To be called before the key is read.
    pub(crate) fn need(&self, key: &str, allowed: &str, diagnostics: &mut Diagnostics) {
        if !self.has(key) {
            diagnostics.error(&self.place, self.key(key), "nothing", allowed);
        }
    }

    /// A text.
    pub(crate) fn text(
        &mut self,
        key: &'static str,
        allowed: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<At<String>> {
        let (key, item) = self.take(key)?;
        text(key, item, allowed, diagnostics)
    }

    /// A text that means something.
    pub(crate) fn parsed<T: FromStr>(
        &mut self,
        key: &'static str,
        allowed: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<At<T>> {
        let At { value, place, key } = self.text(key, allowed, diagnostics)?;
        match value.parse() {
            Ok(value) => Some(At { value, place, key }),
            Err(_) => {
                diagnostics.error(&place, key, quote(&value), allowed);
                None
            }
        }
    }

    /// A whole number.
    pub(crate) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        diagnostics: &mut Diagnostics,
    ) -> Option<At<u32>> {
        let (key, Item { place, value }) = self.take(key)?;
        let number = match &value {
            Value::Integer(number, _) => *number,
            Value::Override(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(value) => Some(At { value, place, key }),
            None => {
                let allowed = format!("a whole number from {} to {}", range.start(), range.end());
                diagnostics.error(&place, key, value.describe(), allowed);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<At<bool>> {
        let (key, Item { place, value }) = self.take(key)?;
        let flag = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::Override(text) => text.trim().parse().ok(),
            _ => None,
        };
        match flag {
            Some(value) => Some(At { value, place, key }),
            None => {
                diagnostics.error(&place, key, value.describe(), "true or false");
                None
            }
        }
    }

    /// A list of texts; the environment separates them by commas.
    pub(crate) fn texts(
        &mut self,
        key: &'static str,
        allowed: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<At<Vec<At<String>>>> {
        let (key, Item { place, value }) = self.take(key)?;
        let items = match value {
            Value::List(items) => items,
            Value::Override(all) => all
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| Item { place: place.clone(), value: Value::Text(part.to_owned()) })
                .collect(),
            other => {
                diagnostics.error(&place, key, other.describe(), format!("a list: {allowed}"));
                return None;
            }
        };
        if items.len() > LIST_MAX {
            let allowed = format!("at most {LIST_MAX} of {allowed}");
            diagnostics.error(&place, key, format!("a list of {}", items.len()), allowed);
            return None;
        }
        let value = items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| text(format!("{key}[{index}]"), item, allowed, diagnostics))
            .collect();
        Some(At { value, place, key })
    }

    /// A table.
    pub(crate) fn section(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let (path, item) = self.take(key)?;
        Self::new(path, item, diagnostics)
    }

    /// Whatever stands there, for a key that takes several types.
    pub(crate) fn any(&mut self, key: &'static str) -> Option<At<Value>> {
        let (key, Item { place, value }) = self.take(key)?;
        Some(At { value, place, key })
    }

    /// A list of tables, `[[key]]`.
    pub(crate) fn sections(
        &mut self,
        key: &'static str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Self> {
        let Some((key, Item { place, value })) = self.take(key) else { return Vec::new() };
        let Value::List(items) = value else {
            diagnostics.error(&place, &key, value.describe(), format!("tables, each [[{key}]]"));
            return Vec::new();
        };
        items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| Self::new(format!("{key}[{index}]"), item, diagnostics))
            .collect()
    }

    /// All that is left as tables by name, for a section whose keys the user chooses.
    pub(crate) fn named(self, diagnostics: &mut Diagnostics) -> Vec<(At<String>, Self)> {
        let Self { path, left, .. } = self;
        let named = left.0.into_iter().filter_map(|(name, item)| {
            let key = format!("{path}.{}", quote_key(&name));
            let at = At { value: name, place: item.place.clone(), key: key.clone() };
            Some((at, Self::new(key, item, diagnostics)?))
        });
        named.collect()
    }

    /// All that is left as texts by name.
    pub(crate) fn named_texts(
        self,
        allowed: &str,
        diagnostics: &mut Diagnostics,
    ) -> Vec<(String, At<String>)> {
        let Self { path, left, .. } = self;
        let named = left.0.into_iter().filter_map(|(name, item)| {
            let key = format!("{path}.{}", quote_key(&name));
            Some((name, text(key, item, allowed, diagnostics)?))
        });
        named.collect()
    }

    /// Complains about every key that was not read.
    pub(crate) fn finish(self, diagnostics: &mut Diagnostics) {
        let allowed = format!("the keys {}", self.known.join(", "));
        for (key, item) in &self.left.0 {
            let key = self.key(&quote_key(key));
            diagnostics.error(&item.place, key, "an unknown key", allowed.as_str());
        }
    }
}

fn text(
    key: String,
    item: Item,
    allowed: &str,
    diagnostics: &mut Diagnostics,
) -> Option<At<String>> {
    let Item { place, value } = item;
    match value {
        Value::Text(value) | Value::Override(value) => Some(At { value, place, key }),
        other => {
            diagnostics.error(&place, key, other.describe(), format!("a text: {allowed}"));
            None
        }
    }
}

/// A key as TOML writes it: bare if it can be.
fn quote_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty() && key.len() <= 80 && key.bytes().all(bare) {
        key.to_owned()
    } else {
        quote(key)
    }
}
