//! What applications call.

use crate::{
    Client, Error,
    wire::{Answer, AsOf, Get, History, Key, List, Listed, Read, Request},
};
use tradewind_store::{Command, Compare, Condition, Item, Reply, Revision, TxnOp, shard_of};

/// One page of a listing of a whole pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in ascending order.
    pub items: Vec<Listed>,
    /// Continue after this key; `None` if there are no more.
    pub next: Option<Vec<u8>>,
    /// The state that was read, for each shard.
    pub as_of: Vec<AsOf>,
}

/// Which keys of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// What the keys begin with.
    pub prefix: &'a [u8],
    /// Keys after this one only.
    pub after: Option<&'a [u8]>,
    /// Most keys.
    pub limit: u32,
    /// Whether the values are wanted too.
    pub values: bool,
}

impl Page {
    /// One page of at most `limit` keys out of a page of each shard, all asked for the same range: items, where to
    /// continue, and the state that was read.
    pub fn merge(
        pages: impl IntoIterator<Item = (Vec<Listed>, Option<Vec<u8>>, AsOf)>,
        limit: usize,
    ) -> Self {
        let mut merged = Self::default();
        // Up to which key every shard has told all it has.
        let mut told: Option<Vec<u8>> = None;
        for (items, next, as_of) in pages {
            merged.items.extend(items);
            merged.as_of.push(as_of);
            told = match (told, next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        merged.items.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        if let Some(told) = &told {
            merged.items.retain(|item| item.key <= *told);
        }
        merged.next = told;
        if merged.items.len() > limit {
            merged.items.truncate(limit);
            merged.next = merged.items.last().map(|item| item.key.clone());
        }
        merged
    }
}

impl Client {
    /// Sets a key, at the pool's durability.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn put(
        &self,
        pool: &str,
        key: &[u8],
        value: &[u8],
        condition: Condition,
    ) -> Result<Reply, Error> {
        let command = Command::Put { key: key.to_vec(), value: value.to_vec(), condition };
        self.execute(pool, &command, None).await
    }

    /// Deletes a key, at the pool's durability.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn delete(
        &self,
        pool: &str,
        key: &[u8],
        condition: Condition,
    ) -> Result<Reply, Error> {
        self.execute(pool, &Command::Delete { key: key.to_vec(), condition }, None).await
    }

    /// Executes a transaction, at the pool's durability.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn txn(
        &self,
        pool: &str,
        compare: Vec<Compare>,
        then: Vec<TxnOp>,
        otherwise: Vec<TxnOp>,
    ) -> Result<Reply, Error> {
        self.execute(pool, &Command::Txn { compare, then, otherwise }, None).await
    }

    /// Reads a key: its value, inline, or `None` if it does not exist; and the state that was read.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(
        &self,
        pool: &str,
        key: &[u8],
        read: Read,
    ) -> Result<(Option<Item>, AsOf), Error> {
        let (index, info) = self.pool(pool)?;
        let shard = shard_of(key, info.shards.len() as u32);
        let request = Request::Get(Get { pool: index, key, read });
        match self.read(&request, &self.readers(info, shard)).await? {
            (Answer::Item { item, as_of }, _) => Ok((item, as_of)),
            (_, connection) => Err(connection.confused()),
        }
    }

    /// The newest changes of a key, newest first, those before `before` only; whether there are more; and the state
    /// that was read.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn history(
        &self,
        pool: &str,
        key: &[u8],
        before: Option<tradewind_ledger::Version>,
        limit: u32,
        read: Read,
    ) -> Result<(Vec<Revision>, bool, AsOf), Error> {
        let (index, info) = self.pool(pool)?;
        let shard = shard_of(key, info.shards.len() as u32);
        let request = Request::History(History { pool: index, key, before, limit, read });
        match self.read(&request, &self.readers(info, shard)).await? {
            (Answer::History { revisions, more, as_of }, _) => Ok((revisions, more, as_of)),
            (_, connection) => Err(connection.confused()),
        }
    }

    /// Lists keys of one shard.
    ///
    /// # Errors
    /// [`Error`].
    ///
    /// # Panics
    /// If the pool has no such shard; [`welcome`](Self::welcome) tells how many it has.
    pub async fn list_shard(
        &self,
        pool: &str,
        shard: u32,
        range: Range<'_>,
        read: Read,
    ) -> Result<(Vec<Listed>, Option<Vec<u8>>, AsOf), Error> {
        let (index, info) = self.pool(pool)?;
        assert!((shard as usize) < info.shards.len(), "pool {pool} has no shard {shard}");
        let Range { prefix, after, limit, values } = range;
        let after = after.map(Key);
        let request =
            Request::List(List { pool: index, shard, prefix, after, limit, values, read });
        match self.read(&request, &self.readers(info, shard)).await? {
            (Answer::Page { items, next, as_of }, _) => Ok((items, next, as_of)),
            (_, connection) => Err(connection.confused()),
        }
    }

    /// Lists keys of a pool in ascending order, from all its shards. Each shard is read by itself: there is no moment
    /// common to all unless `read` names a time.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, pool: &str, range: Range<'_>, read: Read) -> Result<Page, Error> {
        let shards = self.pool(pool)?.1.shards.len() as u32;
        let mut pages = Vec::new();
        for shard in 0..shards {
            pages.push(self.list_shard(pool, shard, range, read).await?);
        }
        Ok(Page::merge(pages, range.limit as usize))
    }

    /// The status of the server first connected to, or of another that the caller named if that is gone: a JSON
    /// document.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self) -> Result<String, Error> {
        match self.read(&Request::Status, &self.named()).await? {
            (Answer::Status(json), _) => Ok(json),
            (_, connection) => Err(connection.confused()),
        }
    }
}
