//! `tradewind get`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};
use tradewind_client::{Item, ItemValue};

use crate::{
    connect::{ConnectArgs, block_on},
    data,
    exit::Exit,
    output::Output,
    read::{FreshnessArgs, MomentArgs, as_of},
    time,
};

/// Print a key's value
#[derive(Args, Debug)]
#[command(after_help = "\
Prints the value's bytes as they are. Exit code 1 if the key does not exist.

Examples:
  tradewind get flights KL601
  tradewind get flights KL601 -o json                         # version and time too
  tradewind get flights KL601 --at 2026-11-22T14:03:07Z
  tradewind get flights KL601 --endpoints nyc-1 --min-version 17")]
pub(crate) struct GetArgs {
    /// The pool
    pool: String,
    /// The key
    key: OsString,
    #[command(flatten)]
    moment: MomentArgs,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl GetArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let key = self.key.as_bytes();
        let (item, state) = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            let read = self.freshness.read(self.moment.at(), &client);
            Ok(client.get(&self.pool, key, read).await?)
        })?;
        let Some(item) = item else {
            let mut value = Map::from_iter([("found".to_owned(), false.into())]);
            data::insert(&mut value, "key", key);
            value.insert("as_of".to_owned(), as_of(state));
            if output.is_json() {
                output.print(&value, |_| String::new())?;
            } else {
                output.note(&format!("no key {:?} in {}", data::shown(key, 64), self.pool));
            }
            return Ok(Exit::No);
        };
        if output.is_json() {
            let mut value = item_json(key, &item, true)?;
            value.insert("found".to_owned(), true.into());
            value.insert("as_of".to_owned(), as_of(state));
            output.print(&value, |_| String::new())?;
            return Ok(Exit::Done);
        }
        let value = inline(&item)?;
        output.bytes(value)?;
        if output.is_terminal() && !value.ends_with(b"\n") {
            output.bytes(b"\n")?;
        }
        Ok(Exit::Done)
    }
}

/// The value's bytes.
///
/// # Errors
/// If the server left them out, which it never does when they are asked for.
pub(crate) fn inline(item: &Item) -> anyhow::Result<&[u8]> {
    match &item.value {
        ItemValue::Inline(bytes) => Ok(bytes),
        other => bail!("the server left the value of version {} out: {other:?}", item.version),
    }
}

/// A key as a JSON object.
pub(crate) fn item_json(
    key: &[u8],
    item: &Item,
    with_value: bool,
) -> anyhow::Result<Map<String, Value>> {
    let mut object = Map::new();
    data::insert(&mut object, "key", key);
    object.insert("version".to_owned(), json!(item.version));
    object.insert("key_version".to_owned(), json!(item.key_version));
    object.insert("time".to_owned(), time::text(item.hlc).into());
    if with_value {
        data::insert(&mut object, "value", inline(item)?);
    }
    Ok(object)
}
