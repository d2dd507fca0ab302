//! `tradewind txn`.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tradewind_client::{Command, Compare, Reply, Test, TxnOp, TxnResult};
use tradewind_ledger::{KeyVersion, Version};
use tradewind_store::MAX_COMMAND;

use crate::{
    connect::{ConnectArgs, block_on},
    data,
    exit::Exit,
    get::item_json,
    output::{Output, table},
    time,
    write::DurabilityArgs,
};

/// Do several reads and writes at once, depending on comparisons
#[derive(Args, Debug)]
#[command(after_help = "\
If all comparisons hold, `then` is done, otherwise `otherwise`; all or nothing. All keys must be of \
one shard: those with the same part in braces are, as in order/{alice}/1 and cart/{alice}. Exit \
code 1 if `otherwise` was done.

  {
    \"compare\":   [ {\"key\": \"{a}/x\", \"version\": 17},
                   {\"key\": \"{a}/y\", \"exists\": false},
                   {\"key\": \"{a}/z\", \"value\": \"open\"},
                   {\"key\": \"{a}/z\", \"key_version\": 2} ],
    \"then\":      [ {\"op\": \"put\", \"key\": \"{a}/x\", \"value\": \"1\"},
                   {\"op\": \"delete\", \"key\": \"{a}/z\"} ],
    \"otherwise\": [ {\"op\": \"get\", \"key\": \"{a}/x\"} ]
  }

Bytes that are no UTF-8 go into \"key_base64\" and \"value_base64\".

Examples:
  tradewind txn accounts transfer.json
  echo '{\"then\": [{\"op\": \"put\", \"key\": \"k\", \"value\": \"v\"}]}' | tradewind txn accounts")]
pub(crate) struct TxnArgs {
    /// The pool
    pool: String,
    /// The transaction as JSON [default: stdin]
    file: Option<PathBuf>,
    #[command(flatten)]
    durability: DurabilityArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transaction {
    #[serde(default)]
    compare: Vec<Comparison>,
    #[serde(default)]
    then: Vec<Operation>,
    #[serde(default, alias = "else")]
    otherwise: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparison {
    key: Option<String>,
    key_base64: Option<String>,
    exists: Option<bool>,
    version: Option<u64>,
    key_version: Option<u64>,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: Verb,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Put,
    Delete,
    Get,
}

impl Comparison {
    fn compare(self) -> anyhow::Result<Compare> {
        let Self { key, key_base64, exists, version, key_version, value, value_base64 } = self;
        let value = match (value, value_base64) {
            (None, None) => None,
            (plain, base64) => Some(Test::Value(data::either("value", plain, base64)?)),
        };
        let mut tests = [
            exists.map(Test::Exists),
            version.map(|version| Test::Version(Version(version))),
            key_version.map(|version| Test::KeyVersion(KeyVersion(version))),
            value,
        ]
        .into_iter()
        .flatten();
        let test = tests.next().filter(|_| tests.next().is_none()).context(
            "a comparison needs one of \"exists\", \"version\", \"key_version\", \"value\"",
        )?;
        Ok(Compare { key: data::either("key", key, key_base64)?, test })
    }
}

impl Operation {
    fn operation(self) -> anyhow::Result<TxnOp> {
        let key = data::either("key", self.key, self.key_base64)?;
        let has_value = self.value.is_some() || self.value_base64.is_some();
        match self.op {
            Verb::Put => {
                let value = data::either("value", self.value, self.value_base64)?;
                Ok(TxnOp::Put { key, value })
            }
            Verb::Delete | Verb::Get if has_value => bail!("only \"put\" takes a value"),
            Verb::Delete => Ok(TxnOp::Delete { key }),
            Verb::Get => Ok(TxnOp::Get { key }),
        }
    }
}

fn parse(text: &str) -> anyhow::Result<Command> {
    let Transaction { compare, then, otherwise } = serde_json::from_str(text)?;
    let branch = |operations: Vec<Operation>| -> anyhow::Result<Vec<TxnOp>> {
        operations.into_iter().map(Operation::operation).collect()
    };
    let compare = compare.into_iter().map(Comparison::compare).collect::<anyhow::Result<_>>()?;
    Ok(Command::Txn { compare, then: branch(then)?, otherwise: branch(otherwise)? })
}

impl TxnArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let text = self.text()?;
        let command = parse(&text).context("the transaction; see `tradewind txn --help`")?;
        command.check()?;
        let reply = block_on(async {
            let client = self.connect.client(&self.pool).await?;
            Ok(client.execute(&self.pool, &command, self.durability.durability()).await?)
        })?;
        let Reply::Txn { succeeded, written, results } = reply else {
            bail!("an unexpected answer: {reply:?}");
        };
        let Command::Txn { then, otherwise, .. } = &command else {
            unreachable!("parse makes transactions");
        };
        let branch = if succeeded { then } else { otherwise };
        let rows: Vec<Map<String, Value>> = branch
            .iter()
            .zip(&results)
            .map(|(operation, result)| row(operation, result))
            .collect::<anyhow::Result<_>>()?;
        let value = json!({
            "succeeded": succeeded,
            "version": written.map(|stamp| stamp.version),
            "time": written.map(|stamp| time::text(stamp.hlc)),
            "results": rows,
        });
        output.print(&value, |_| {
            let mut table = table(&["operation", "key", "result"]);
            for row in &rows {
                let cell = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
                let key = if cell("key").is_empty() { cell("key_base64") } else { cell("key") };
                let result = match (cell("op"), row.get("key_version")) {
                    ("get", None) => "no such key".to_owned(),
                    ("get", _) => data::shown(cell("value").as_bytes(), 60),
                    (_, key_version) => {
                        format!("key version {}", key_version.unwrap_or(&Value::Null))
                    }
                };
                table.add_row([cell("op").to_owned(), key.to_owned(), result]);
            }
            let did = if succeeded { "then" } else { "otherwise" };
            let at = written.map_or("nothing written".to_owned(), |stamp| {
                format!("version {}, at {}", stamp.version, time::text(stamp.hlc))
            });
            format!("did `{did}`: {at}\n{}", table.trim_fmt())
        })?;
        Ok(if succeeded { Exit::Done } else { Exit::No })
    }

    fn text(&self) -> anyhow::Result<String> {
        // Base64 and escapes take more room than the bytes they stand for.
        let most = 4 * MAX_COMMAND as u64;
        let mut text = String::new();
        match &self.file {
            Some(file) => std::fs::File::open(file)
                .and_then(|open| open.take(most).read_to_string(&mut text))
                .with_context(|| file.display().to_string())?,
            None => {
                std::io::stdin().take(most).read_to_string(&mut text).context("reading stdin")?
            }
        };
        Ok(text)
    }
}

fn row(operation: &TxnOp, result: &TxnResult) -> anyhow::Result<Map<String, Value>> {
    let op = match operation {
        TxnOp::Put { .. } => "put",
        TxnOp::Delete { .. } => "delete",
        TxnOp::Get { .. } => "get",
    };
    let mut object = match result {
        TxnResult::Read(Some(item)) => item_json(operation.key(), item, true)?,
        TxnResult::Read(None) | TxnResult::Written { .. } => {
            let mut object = Map::new();
            data::insert(&mut object, "key", operation.key());
            object
        }
    };
    if let TxnResult::Written { key_version } = result {
        object.insert("key_version".to_owned(), json!(key_version));
    }
    object.insert("op".to_owned(), op.into());
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_strictly() {
        let text = r#"{"compare": [{"key": "a", "exists": false}, {"key_base64": "/w==", "value": "x"}],
            "then": [{"op": "put", "key": "a", "value": "1"}], "else": [{"op": "get", "key": "a"}]}"#;
        let Command::Txn { compare, then, otherwise } = parse(text).unwrap() else { panic!() };
        assert_eq!(compare[0].test, Test::Exists(false));
        assert_eq!(compare[1].key, [0xff]);
        assert_eq!(then, [TxnOp::Put { key: b"a".to_vec(), value: b"1".to_vec() }]);
        assert_eq!(otherwise, [TxnOp::Get { key: b"a".to_vec() }]);
        for bad in [
            r#"{"compare": [{"key": "a"}]}"#,
            r#"{"compare": [{"key": "a", "exists": true, "version": 1}]}"#,
            r#"{"then": [{"op": "put", "key": "a"}]}"#,
            r#"{"then": [{"op": "get", "key": "a", "value": "1"}]}"#,
            r#"{"then": [{"op": "get"}]}"#,
            r#"{"than": []}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
