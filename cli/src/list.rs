//! `tradewind list` and `tradewind history`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use clap::Args;
use serde_json::{Value, json};
use tradewind_client::{Range, wire::At};
use tradewind_ledger::Version;

use crate::{
    connect::{ConnectArgs, block_on},
    data,
    exit::Exit,
    get::{inline, item_json},
    output::{Output, table},
    read::{FreshnessArgs, MomentArgs, as_of},
    time,
};

/// Characters of a key and of a value in a table.
const SHOWN: usize = 60;

/// List keys in ascending order
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind list flights --prefix KL
  tradewind list flights --keys-only --limit 100000 -o json | jq -r '.items[].key'
  tradewind list flights --after KL601 --at 2026-11-22T14:00:00Z")]
pub(crate) struct ListArgs {
    /// The pool
    pool: String,
    /// Keys that begin with this
    #[arg(long, default_value = "")]
    prefix: OsString,
    /// Keys after this one
    #[arg(long, value_name = "KEY")]
    after: Option<OsString>,
    /// Most keys
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    moment: MomentArgs,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Show all versions of a key, newest first
#[derive(Args, Debug)]
#[command(after_help = "\
The value of a version is printed by `tradewind get POOL KEY --version VERSION`.

Examples:
  tradewind history flights KL601
  tradewind history flights KL601 --before 17 --limit 10 -o json")]
pub(crate) struct HistoryArgs {
    /// The pool
    pool: String,
    /// The key
    key: OsString,
    /// Versions before this one
    #[arg(long, value_name = "VERSION")]
    before: Option<u64>,
    /// Most versions
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    freshness: FreshnessArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl ListArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let values = !self.keys_only;
        let page = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            let read = self.freshness.read(self.moment.at(), &client);
            let mut after = self.after.as_ref().map(|after| after.as_bytes().to_vec());
            let mut items = Vec::new();
            // A page may be shorter than asked for, even empty, and still go on.
            loop {
                let wanted = self.limit - items.len() as u32;
                let range = Range {
                    prefix: self.prefix.as_bytes(),
                    after: after.as_deref(),
                    limit: wanted.min(1_000),
                    values,
                };
                let page = client.list(&self.pool, range, read).await?;
                items.extend(page.items);
                after = page.next;
                if after.is_none() || items.len() >= self.limit as usize {
                    return Ok((items, after, page.as_of));
                }
            }
        })?;
        let (items, next, states) = page;
        let rows: Vec<Value> = items
            .iter()
            .map(|listed| Ok(Value::Object(item_json(&listed.key, &listed.item, values)?)))
            .collect::<anyhow::Result<_>>()?;
        let mut value = json!({
            "items": rows,
            "as_of": states.into_iter().map(as_of).collect::<Vec<_>>(),
            "more": next.is_some(),
        });
        if let (Some(next), Some(object)) = (&next, value.as_object_mut()) {
            data::insert(object, "next", next);
        }
        if output.is_json() {
            output.print(&value, |_| String::new())?;
            return Ok(Exit::Done);
        }
        let head: &[&str] = if values {
            &["key", "version", "written", "value"]
        } else {
            &["key", "version", "written"]
        };
        let mut table = table(head);
        for listed in &items {
            let mut row = vec![
                data::shown(&listed.key, SHOWN),
                listed.item.version.to_string(),
                time::text(listed.item.hlc),
            ];
            if values {
                row.push(data::shown(inline(&listed.item)?, SHOWN));
            }
            table.add_row(row);
        }
        output.print(&(), |()| table.trim_fmt())?;
        if let Some(next) = next {
            let next = data::shown(&next, SHOWN);
            output
                .note(&format!("there are more: continue with --after {next:?}, or raise --limit"));
        }
        Ok(Exit::Done)
    }
}

impl HistoryArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let key = self.key.as_bytes();
        let (revisions, more, state) = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            let read = self.freshness.read(At::Latest, &client);
            let mut before = self.before.map(Version);
            let mut all = Vec::new();
            loop {
                let wanted = self.limit - all.len() as u32;
                let (revisions, more, state) =
                    client.history(&self.pool, key, before, wanted.min(1_000), read).await?;
                before = revisions.last().map(|last| last.version);
                let stuck = revisions.is_empty();
                all.extend(revisions);
                if !more || stuck || all.len() >= self.limit as usize {
                    return Ok((all, more, state));
                }
            }
        })?;
        let rows: Vec<Value> = revisions
            .iter()
            .map(|revision| {
                json!({
                    "version": revision.version,
                    "key_version": revision.key_version,
                    "time": time::text(revision.hlc),
                    "deleted": revision.deleted,
                })
            })
            .collect();
        let mut value = json!({ "revisions": rows, "more": more, "as_of": as_of(state) });
        if let Some(object) = value.as_object_mut() {
            data::insert(object, "key", key);
        }
        output.print(&value, |_| {
            let mut table = table(&["version", "key version", "written", "what"]);
            for revision in &revisions {
                table.add_row([
                    revision.version.to_string(),
                    revision.key_version.to_string(),
                    time::text(revision.hlc),
                    if revision.deleted { "deleted" } else { "set" }.to_owned(),
                ]);
            }
            table.trim_fmt()
        })?;
        if more {
            output.note("there are more: continue with --before, or raise --limit");
        }
        Ok(if revisions.is_empty() { Exit::No } else { Exit::Done })
    }
}
