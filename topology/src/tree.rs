//! The file as a tree in which everything knows its place.
//!
//! TOML's own spans give each key and value a line; environment overrides, read by the `config`
//! crate, are laid over the tree afterwards and keep the variable's name as their place.

use std::collections::HashMap;

use config::Source as _;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::diagnostics::{Diagnostics, Place};

/// Prefix of the environment variables that override the file.
pub const ENVIRONMENT_PREFIX: &str = "TRADEWIND";

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value as the file, or the environment, gives it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    /// `None` if it does not fit; the text is what the file says.
    Integer(Option<i128>, String),
    Bool(bool),
    List(Vec<Item>),
    Table(Table),
    /// A float or a date, which no key takes.
    Other(String),
    /// Text from the environment: whatever type the key wants, it is parsed as that.
    Override(String),
}

/// Keys in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(pub(crate) Vec<(String, Item)>);

impl Table {
    fn find(&mut self, key: &str) -> Option<usize> {
        self.0.iter().position(|(own, _)| own == key)
    }
}

impl Value {
    /// The value as a message shows it: short, on one line.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(text) | Self::Override(text) => quote(text),
            Self::Integer(_, text) | Self::Other(text) => cut(text),
            Self::Bool(bool) => bool.to_string(),
            Self::List(list) => format!("a list of {}", list.len()),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// Text in quotes, escaped and cut, whatever it holds.
pub(crate) fn quote(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Parses TOML; syntax errors go to `diagnostics`, and what could be understood is returned.
pub(crate) fn parse(text: &str, diagnostics: &mut Diagnostics) -> Table {
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = error.span().map_or(Place::File, |span| lines.place(span.start));
        let found = match error.span() {
            Some(span) => lines.line_text(text, span.start),
            None => "a file that cannot be parsed".to_owned(),
        };
        let allowed = format!("TOML 1.0: {}", error.message().replace('\n', ", "));
        diagnostics.error(&place, "(syntax)", found, allowed);
    }
    table(document.get_ref(), &lines)
}

fn table(raw: &DeTable<'_>, lines: &Lines) -> Table {
    let mut keys: Vec<_> = raw.iter().collect();
    // The parser sorts keys by name; a reader expects the order of the file.
    keys.sort_by_key(|(key, value)| (key.span().start, value.span().start));
    let entries = keys.into_iter().map(|(key, value)| {
        let place = lines.place(key.span().start);
        (key.get_ref().to_string(), Item { value: convert(value.get_ref(), lines), place })
    });
    Table(entries.collect())
}

fn convert(raw: &DeValue<'_>, lines: &Lines) -> Value {
    match raw {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
            Value::Integer(number, integer.to_string())
        }
        DeValue::Boolean(bool) => Value::Bool(*bool),
        DeValue::Float(float) => Value::Other(float.to_string()),
        DeValue::Datetime(date) => Value::Other(date.to_string()),
        DeValue::Array(array) => {
            let item = |raw: &Spanned<DeValue<'_>>| Item {
                place: lines.place(raw.span().start),
                value: convert(raw.get_ref(), lines),
            };
            Value::List(array.iter().map(item).collect())
        }
        DeValue::Table(raw) => Value::Table(table(raw, lines)),
    }
}

/// Byte offsets to line numbers.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(
            text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at).collect(),
        )
    }

    fn index(&self, offset: usize) -> usize {
        self.0.partition_point(|&newline| newline < offset)
    }

    fn place(&self, offset: usize) -> Place {
        Place::Line(u32::try_from(self.index(offset) + 1).unwrap_or(u32::MAX))
    }

    fn line_text(&self, text: &str, offset: usize) -> String {
        let index = self.index(offset);
        let start = if index == 0 { 0 } else { self.0[index - 1] + 1 };
        let end = self.0.get(index).copied().unwrap_or(text.len());
        format!("`{}`", cut(text[start..end].trim()))
    }
}

/// Lays `TRADEWIND_SECTION__KEY=value` over the tree.
///
/// Variables without `__` belong to the command line (`TRADEWIND_ENDPOINTS` and the like) and are
/// left alone.
pub(crate) fn apply_environment(
    tree: &mut Table,
    environment: &[(String, String)],
    diagnostics: &mut Diagnostics,
) {
    let source: HashMap<String, String> = environment
        .iter()
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name.contains("__"))
        .cloned()
        .collect();
    let collected = config::Environment::with_prefix(ENVIRONMENT_PREFIX)
        .prefix_separator("_")
        .separator("__")
        .source(Some(source.into_iter().collect()))
        .collect();
    let overrides = match collected {
        Ok(overrides) => overrides,
        Err(error) => {
            let allowed = "TRADEWIND_SECTION__KEY=value";
            return diagnostics.error(&Place::File, "(environment)", error.to_string(), allowed);
        }
    };
    let mut overrides: Vec<(String, String)> = overrides
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.into_string().ok()?)))
        .collect();
    overrides.sort();
    for (path, text) in overrides {
        let name = format!("{ENVIRONMENT_PREFIX}_{}", path.to_uppercase().replace('.', "__"));
        let place = Place::Environment(name);
        // No key lies deeper than five levels.
        let steps: Vec<&str> = path.splitn(6, '.').collect();
        if let Err(found) = lay_over(tree, &steps, &text, &place) {
            let allowed = "a key inside tables; lists of tables can only be changed in the file";
            diagnostics.error(&place, path, found, allowed);
        }
    }
}

fn lay_over(tree: &mut Table, path: &[&str], text: &str, place: &Place) -> Result<(), String> {
    let (key, rest) = path.split_first().ok_or("an empty path")?;
    let index = tree.find(key).unwrap_or_else(|| {
        let value = Value::Table(Table::default());
        tree.0.push(((*key).to_owned(), Item { place: place.clone(), value }));
        tree.0.len() - 1
    });
    let item = &mut tree.0[index].1;
    match &mut item.value {
        _ if rest.is_empty() => {
            *item = Item { place: place.clone(), value: Value::Override(text.to_owned()) };
            Ok(())
        }
        Value::Table(table) => lay_over(table, rest, text, place),
        other => Err(format!("{key} is {}", other.describe())),
    }
}
