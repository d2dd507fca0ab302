//! What a client asks for: how it is written, and what is told of the answer.

use std::time::Duration;

use super::command::{Scope, seconds};
use super::words::{SyntaxError, Words};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) options: Options,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Put {
        key: String,
        value: String,
    },
    Get {
        key: String,
    },
    Delete {
        key: String,
    },
    List {
        prefix: String,
    },
    /// `value` is `None` for a key that must be absent.
    Txn {
        when: Vec<(String, Option<String>)>,
        then: Vec<Change>,
    },
    /// The request that brought an earlier answer, again; with another value for the same request number.
    Retry {
        answer: String,
        other: Option<String>,
    },
}

/// A change that a transaction makes; no value deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// How it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// This process and no other; whoever answers if it is not told.
    pub(crate) at: Option<String>,
    /// The first pool if it is not told.
    pub(crate) pool: Option<String>,
    /// Only if the key is absent, or has the version of this answer.
    pub(crate) only_if: Option<OnlyIf>,
    /// What the process has, which may not be the newest.
    pub(crate) local: bool,
    /// A state that has the version of this answer.
    pub(crate) since: Option<String>,
    /// How long to try.
    pub(crate) within: Option<Duration>,
    /// How long to make the value, with blanks at its end.
    pub(crate) padded: Option<u32>,
    /// Under which name to keep the answer.
    pub(crate) keep: Option<String>,
}

/// The condition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OnlyIf {
    Absent,
    Version(String),
}

/// Reads a request, if it is one.
pub(crate) fn parse(words: &mut Words, scope: &mut Scope) -> Result<Option<Request>, SyntaxError> {
    let what = if words.take("put") {
        What::Put { key: words.text("a key")?, value: words.text("a value")? }
    } else if words.take("get") {
        What::Get { key: words.text("a key")? }
    } else if words.take("delete") {
        What::Delete { key: words.text("a key")? }
    } else if words.take("list") {
        let option =
            words.is_empty() || words.next_text().is_some_and(|word| word.starts_with("--"));
        What::List { prefix: if option { String::new() } else { words.text("a prefix")? } }
    } else if words.take("txn") {
        txn(words)?
    } else if words.take("retry") {
        let answer = scope.answer(words)?;
        let other = if words.take("with") { Some(words.text("another value")?) } else { None };
        What::Retry { answer, other }
    } else {
        return Ok(None);
    };
    Ok(Some(Request { what, options: options(words, scope)? }))
}

fn txn(words: &mut Words) -> Result<What, SyntaxError> {
    let (mut when, mut then) = (Vec::new(), Vec::new());
    if words.take("when") {
        loop {
            let key = words.text("a key")?;
            words.expect("is")?;
            let value = if words.take("absent") { None } else { Some(words.text("a value")?) };
            when.push((key, value));
            if !words.take("and") {
                break;
            }
        }
    }
    words.expect("do")?;
    loop {
        then.push(match words.choice(&[("put", true), ("delete", false)])? {
            true => Change { key: words.text("a key")?, value: Some(words.text("a value")?) },
            false => Change { key: words.text("a key")?, value: None },
        });
        if !words.take("and") {
            return Ok(What::Txn { when, then });
        }
    }
}

fn options(words: &mut Words, scope: &mut Scope) -> Result<Options, SyntaxError> {
    let mut options = Options::default();
    while !words.is_empty() {
        if words.take("--at") {
            options.at = Some(scope.process(words)?);
        } else if words.take("--pool") {
            options.pool = Some(scope.pool(words)?);
        } else if words.take("--absent") {
            options.only_if = Some(OnlyIf::Absent);
        } else if words.take("--version") {
            options.only_if = Some(OnlyIf::Version(scope.answer(words)?));
        } else if words.take("--local") {
            options.local = true;
        } else if words.take("--since") {
            options.since = Some(scope.answer(words)?);
        } else if words.take("--within") {
            options.within = Some(seconds(words)?);
        } else if words.take("--padded-to") {
            options.padded = Some(words.number("a length")?);
            words.expect("bytes")?;
        } else if words.take("--as") {
            let name = words.text("a name")?;
            if !scope.answers.contains(&name) {
                scope.answers.push(name.clone());
            }
            options.keep = Some(name);
        } else {
            return Err(words.wrong(
                "`--at NAME`, `--pool NAME`, `--absent`, `--version ANSWER`, `--local`, `--since ANSWER`, \
                 `--within N s`, `--padded-to N bytes`, `--as ANSWER`",
            ));
        }
    }
    Ok(options)
}
