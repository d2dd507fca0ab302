//! One JSON object a line.

use std::io::{BufRead, Read as _, Write as _};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};
use tradewind_ledger::entry::MAX_VALUE;

use super::{Output, Record, Sink, Visit};
use crate::data;

/// The longest line: base64 and escapes make a value longer, but not as much as this.
const LINE_BYTES_MAX: u64 = 2 * MAX_VALUE;

/// A line without a key column. Other fields are ignored.
#[derive(Deserialize)]
struct Envelope {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

pub(super) fn read(
    mut input: impl BufRead,
    name: &str,
    key_column: Option<&str>,
    visit: Visit<'_>,
) -> anyhow::Result<()> {
    let mut position = 0;
    for number in 1_u64.. {
        let mut line = Vec::new();
        let place = format!("{name}:{number}");
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let read = read.with_context(|| place.clone())? as u64;
        if read == 0 {
            break;
        }
        ensure!(read < LINE_BYTES_MAX, "{place}: a line of more than {LINE_BYTES_MAX} bytes");
        position += read;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let parsed = match key_column {
            None => envelope(line),
            Some(column) => key_of(line, column).map(|key| (key, line.to_vec())),
        };
        let (key, value) = parsed.with_context(|| place.clone())?;
        visit(Record { key, value, place, position })?;
    }
    Ok(())
}

fn envelope(line: &[u8]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let Envelope { key, key_base64, value, value_base64 } = serde_json::from_slice(line).context(
        "not {\"key\": \"...\", \"value\": \"...\"}; to import whole lines as values, give --key-column",
    )?;
    Ok((data::either("key", key, key_base64)?, data::either("value", value, value_base64)?))
}

fn key_of(line: &[u8], column: &str) -> anyhow::Result<Vec<u8>> {
    let mut object: Map<String, Value> = serde_json::from_slice(line).context("no JSON object")?;
    match object.remove(column) {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        Some(Value::Number(number)) => Ok(number.to_string().into_bytes()),
        Some(other) => bail!("{column:?} is {other}: a key is a text or a number"),
        None => {
            let fields: Vec<&str> = object.keys().map(String::as_str).collect();
            bail!("no field {column:?}: there are {}", fields.join(", "))
        }
    }
}

/// Writes lines.
pub(super) struct Writer {
    output: Output,
    values_only: bool,
}

impl Writer {
    pub(super) fn new(output: Output, values_only: bool) -> Self {
        Self { output, values_only }
    }
}

impl Sink for Writer {
    fn write(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        if self.values_only {
            let is_line =
                !value.contains(&b'\n') && serde_json::from_slice::<IgnoredAny>(value).is_ok();
            ensure!(
                is_line,
                "the value of {:?} is no JSON on one line: export without --values-only",
                data::shown(key, 64)
            );
            self.output.write_all(value)?;
        } else {
            let mut object = Map::new();
            data::insert(&mut object, "key", key);
            data::insert(&mut object, "value", value);
            serde_json::to_writer(&mut self.output, &object)?;
        }
        self.output.write_all(b"\n")?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        self.output.finish()
    }
}
