//! CSV with a header (RFC 4180): a row is a JSON object of texts.

use std::{collections::HashSet, fmt, io::BufRead};

use anyhow::{Context as _, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::{Output, Record, Sink, Visit};
use crate::data;

pub(super) fn read(
    input: impl BufRead,
    name: &str,
    key_column: Option<&str>,
    visit: Visit<'_>,
) -> anyhow::Result<()> {
    let mut reader = csv::Reader::from_reader(input);
    let header = reader.headers().with_context(|| name.to_owned())?.clone();
    let columns: Vec<&str> = header.iter().collect();
    let distinct: HashSet<&&str> = columns.iter().collect();
    ensure!(distinct.len() == columns.len(), "{name}: two columns have the same name");
    ensure!(columns != [""], "{name}: no header: the first line names the columns");
    let key_column = key_column.unwrap_or(columns[0]);
    let key = columns.iter().position(|column| *column == key_column);
    let key = key.with_context(|| {
        format!("{name}: no column {key_column:?}: there are {}", columns.join(", "))
    })?;
    let mut row = csv::StringRecord::new();
    loop {
        if !reader.read_record(&mut row).with_context(|| name.to_owned())? {
            return Ok(());
        }
        let line = row.position().map_or(0, csv::Position::line);
        visit(Record {
            key: row[key].as_bytes().to_vec(),
            value: object(&columns, &row)?.into_bytes(),
            place: format!("{name}:{line}"),
            position: reader.position().byte(),
        })?;
    }
}

/// By hand, since a JSON map would lose the order of the columns.
fn object(columns: &[&str], row: &csv::StringRecord) -> anyhow::Result<String> {
    let mut text = String::from("{");
    for (index, (column, cell)) in columns.iter().zip(row).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text += comma;
        text += &serde_json::to_string(column)?;
        text += ":";
        text += &serde_json::to_string(cell)?;
    }
    Ok(text + "}")
}

/// The fields of a JSON object in their order.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Writes rows; the first record says what columns there are.
pub(super) struct Writer {
    writer: csv::Writer<Output>,
    key_column: Option<String>,
    /// The columns, and which of them is the key.
    shape: Option<(Vec<String>, usize)>,
}

impl Writer {
    pub(super) fn new(output: Output, key_column: Option<String>) -> Self {
        Self { writer: csv::Writer::from_writer(output), key_column, shape: None }
    }

    /// The cells of a record.
    fn row(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<Vec<String>> {
        let Fields(fields) =
            serde_json::from_slice(value).context("its value is no JSON object")?;
        let (columns, cells): (Vec<String>, Vec<Value>) = fields.into_iter().unzip();
        let cells: Vec<String> = cells.into_iter().map(cell).collect::<anyhow::Result<_>>()?;
        if self.shape.is_none() {
            let holds_key = |index: &usize| {
                let named = self.key_column.as_ref().is_none_or(|name| *name == columns[*index]);
                named && cells[*index].as_bytes() == key
            };
            let index = (0..columns.len()).find(holds_key).context("no column holds its key")?;
            self.writer.write_record(&columns)?;
            self.shape = Some((columns.clone(), index));
        }
        let (expected, index) = self.shape.as_ref().expect("just set");
        ensure!(
            *expected == columns,
            "its fields are {}, those of the first record {}",
            columns.join(", "),
            expected.join(", ")
        );
        ensure!(
            cells[*index].as_bytes() == key,
            "its column {:?} is not its key",
            expected[*index]
        );
        Ok(cells)
    }
}

fn cell(value: Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        scalar @ (Value::Bool(_) | Value::Number(_)) => Ok(scalar.to_string()),
        nested => anyhow::bail!("it has the nested field {nested}"),
    }
}

impl Sink for Writer {
    fn write(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let row = self.row(key, value).map_err(|reason| {
            let key = data::shown(key, 64);
            anyhow::anyhow!("{key:?} does not fit into CSV: {reason:#}; export as ndjson instead")
        })?;
        self.writer.write_record(&row)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        let output = self.writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
        output.finish()
    }
}
