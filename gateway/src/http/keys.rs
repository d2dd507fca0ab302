//! `/v1/pools/...`: keys, values, listings, histories.

use super::{
    Failure, Http, Shared,
    params::{Params, key_in, pool_in},
};
use crate::{ReplySink, ReplyTo, Submission};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::oneshot;
use tradewind_client::{
    Page,
    wire::{self, Access, Answer, AsOf, CallId, Fault, Key, Listed, PoolIndex, PoolInfo},
};
use tradewind_ledger::{Hlc, KeyVersion, Version, entry::MAX_VALUE};
use tradewind_store::{Command, Condition, Durability, Item, Refusal, Reply, shard_of};

const READ_PARAMS: &str = "version, at, min_version, max_staleness, level, wait";
/// Keys of a page if the request does not say, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1000;

pub(super) async fn pools(State(http): Shared) -> Json<Value> {
    let welcome = http.service.renewed().welcome;
    let pools = welcome.pools.iter().map(|pool| {
        let here = pool.shards.iter().filter(|shard| shard.here).count();
        json!({ "name": pool.name, "home": pool.home, "shards": pool.shards.len(), "shards_here": here })
    });
    Json(json!({ "pools": pools.collect::<Vec<_>>() }))
}

pub(super) async fn get(
    State(http): Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let (index, _) = http.pool(pool_in(&uri))?;
    let mut params = Params::of(&uri)?;
    let read = params.read()?;
    params.end(READ_PARAMS)?;
    let key = key_in(&uri, "keys/")?;
    let query = http.service.get(&http.caller, &wire::Get { pool: index, key: &key, read })?;
    let Answer::Item { item, as_of } = http.service.ask(query).await? else {
        return Err(confused());
    };
    let Some(item) = item else {
        let failure = Failure {
            status: StatusCode::NOT_FOUND,
            error: format!("there is no such key as of version {}", as_of.at),
            allowed: "keys that exist".into(),
            next_step: format!("list them: /v1/pools/{}/keys", pool_in(&uri)),
        };
        let mut response = failure.into_response();
        state_headers(&mut response, &as_of);
        return Ok(response);
    };
    let mut response = match headers.get(header::IF_NONE_MATCH).map(tags) {
        Some(Some(Tags::Any)) => StatusCode::NOT_MODIFIED.into_response(),
        Some(Some(Tags::One(version))) if version == item.version => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        _ => {
            let bytes = item.bytes().ok_or_else(confused)?;
            let mut response = Response::new(Body::from(bytes.to_vec()));
            let octets = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, octets);
            response
        }
    };
    item_headers(&mut response, item.version, item.key_version, item.hlc);
    state_headers(&mut response, &as_of);
    Ok(response)
}

pub(super) async fn put(
    State(http): Shared,
    headers: HeaderMap,
    uri: Uri,
    request: Request,
) -> Result<Response, Failure> {
    let (index, info) = http.writable(pool_in(&uri), &headers)?;
    let durability = durability(Params::of(&uri)?)?;
    let condition = condition(&headers)?;
    let key = key_in(&uri, "keys/")?;
    let _slot = http.uploads.acquire().await.expect("never closed");
    let value = axum::body::to_bytes(request.into_body(), MAX_VALUE as usize).await;
    let value = value.map_err(|error| Failure {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        ..Failure::bad(error.to_string(), format!("values of up to {MAX_VALUE} bytes"))
    })?;
    let shard = shard_of(&key, info.shards.len() as u32);
    let command = Command::Put { key, value: Bytes::into(value), condition };
    http.write(index, shard, &command, durability).await
}

pub(super) async fn delete(
    State(http): Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Failure> {
    let (index, info) = http.writable(pool_in(&uri), &headers)?;
    let durability = durability(Params::of(&uri)?)?;
    let condition = condition(&headers)?;
    let key = key_in(&uri, "keys/")?;
    let shard = shard_of(&key, info.shards.len() as u32);
    http.write(index, shard, &Command::Delete { key, condition }, durability).await
}

pub(super) async fn list(
    State(http): Shared,
    Path(pool): Path<String>,
    uri: Uri,
) -> Result<Response, Failure> {
    let (index, info) = http.pool(&pool)?;
    let mut params = Params::of(&uri)?;
    let read = params.read()?;
    let prefix = params.take("prefix").unwrap_or_default();
    let cursor = params.parse("cursor", "what a page before gave as next", from_hex)?;
    let limit = limit(&mut params)?;
    let values =
        params.parse("values", "true or false", |text| text.parse().ok())?.unwrap_or(false);
    params.end(&format!("prefix, cursor, limit, values, {READ_PARAMS}"))?;
    let mut pages = Vec::new();
    for shard in 0..info.shards.len() as u32 {
        let after = cursor.as_deref().map(Key);
        let prefix = prefix.as_bytes();
        let list = wire::List { pool: index, shard, prefix, after, limit, values, read };
        let query = http.service.list(&http.caller, &list)?;
        match http.service.ask(query).await? {
            Answer::Page { items, next, as_of } => pages.push((items, next, as_of)),
            _ => return Err(confused()),
        }
    }
    let page = Page::merge(pages, limit as usize);
    let shards = page.as_of.iter().enumerate().map(|(shard, as_of)| {
        json!({ "shard": shard, "at": as_of.at, "readable": as_of.readable, "age_ms": as_of.age_ms })
    });
    let items = page.items.iter().map(|listed| item_json(listed, values));
    let body = json!({
        "items": items.collect::<Vec<_>>(),
        "next": page.next.as_deref().map(hex),
        "as_of": shards.collect::<Vec<_>>(),
    });
    Ok(Json(body).into_response())
}

pub(super) async fn history(State(http): Shared, uri: Uri) -> Result<Response, Failure> {
    let (index, _) = http.pool(pool_in(&uri))?;
    let mut params = Params::of(&uri)?;
    let read = params.read()?;
    let before = params.parse("before", "a version", |text| text.parse().ok().map(Version))?;
    let limit = limit(&mut params)?;
    params.end(&format!("before, limit, {READ_PARAMS}"))?;
    let key = key_in(&uri, "history/")?;
    let history = wire::History { pool: index, key: &key, before, limit, read };
    let query = http.service.history(&http.caller, &history)?;
    let Answer::History { revisions, more, as_of } = http.service.ask(query).await? else {
        return Err(confused());
    };
    let next = more.then(|| revisions.last().map(|revision| revision.version)).flatten();
    let revisions = revisions.iter().map(|r| {
        json!({ "version": r.version, "key_version": r.key_version, "time_us": r.hlc.micros(), "deleted": r.deleted })
    });
    let mut response = Json(json!({
        "revisions": revisions.collect::<Vec<_>>(),
        "next_before": next,
    }))
    .into_response();
    state_headers(&mut response, &as_of);
    Ok(response)
}

impl Http {
    fn pool(&self, name: &str) -> Result<(PoolIndex, &PoolInfo), Failure> {
        let pools = &self.service.welcome.pools;
        match pools.iter().position(|pool| pool.name == name) {
            Some(index) => Ok((PoolIndex(index as u32), &pools[index])),
            None => Err(self.service.no_such_pool(name).into()),
        }
    }

    /// The pool, if this client may write to it. A page of another site, led here by a name that it controls, may not:
    /// the host that the client means to speak with must be this machine.
    fn writable(&self, pool: &str, headers: &HeaderMap) -> Result<(PoolIndex, &PoolInfo), Failure> {
        let found = self.pool(pool)?;
        self.caller.check(pool, Access::Write)?;
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        let name = if host.ends_with(']') {
            host
        } else {
            host.rsplit_once(':').map_or(host, |(name, _)| name)
        };
        let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        if name == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
            return Ok(found);
        }
        Err(Failure {
            status: StatusCode::FORBIDDEN,
            ..Failure::bad(format!("a write to host {host:?}"), "localhost or a loopback address")
        })
    }

    async fn submit(
        &self,
        pool: PoolIndex,
        shard: u32,
        command: &[u8],
        durability: Option<Durability>,
    ) -> Result<Reply, Failure> {
        let (sender, answer) = oneshot::channel();
        let sink: Arc<dyn ReplySink> = Arc::new(One(Mutex::new(Some(sender))));
        let request = self.request();
        self.service.check_write(
            &self.caller,
            &wire::Write { pool, shard, request, durability, command },
        )?;
        let (command, reply) = (command.to_vec(), ReplyTo::new(sink, CallId(0)));
        let submission = Submission { pool, shard, request, durability, command, reply };
        self.service.backend.submit(vec![submission]);
        let reply = answer.await.map_err(|_| confused())??;
        if reply == Reply::Refused(Refusal::SessionExpired) {
            self.renew(request);
        }
        Ok(reply)
    }

    async fn write(
        &self,
        pool: PoolIndex,
        shard: u32,
        command: &Command,
        durability: Option<Durability>,
    ) -> Result<Response, Failure> {
        let command = command.encode();
        let answer = match self.submit(pool, shard, &command, durability).await? {
            // Never executed before, so it may be sent as a request of a new session.
            Reply::Refused(Refusal::SessionExpired) => {
                self.submit(pool, shard, &command, durability).await?
            }
            answer => answer,
        };
        Ok(match answer {
            Reply::Written { version, key_version, hlc } => {
                let body = json!({ "version": version, "key_version": key_version, "time_us": hlc.micros() });
                let created = key_version == KeyVersion(1);
                let status = if created { StatusCode::CREATED } else { StatusCode::OK };
                let mut response = (status, Json(body)).into_response();
                item_headers(&mut response, version, key_version, hlc);
                response
            }
            Reply::Absent => StatusCode::NO_CONTENT.into_response(),
            Reply::Conflict { current } => {
                let found = match current {
                    Some(current) => format!("the key has version {}", current.version),
                    None => "the key does not exist".to_owned(),
                };
                let failure = Failure {
                    status: StatusCode::PRECONDITION_FAILED,
                    error: format!("the condition does not hold: {found}; nothing was written"),
                    allowed: "If-Match with the current version, or If-None-Match: * for a key that does not exist".into(),
                    next_step: "read the key and decide anew".into(),
                };
                let mut response = failure.into_response();
                if let Some(current) = current {
                    response.headers_mut().insert(header::ETAG, etag(current.version));
                }
                response
            }
            Reply::Refused(refusal) => return Err(refusal.into()),
            Reply::Txn { .. } => return Err(confused()),
        })
    }
}

/// Waits for the answer of one write.
struct One(Mutex<Option<oneshot::Sender<Result<Reply, Fault>>>>);

impl ReplySink for One {
    fn push(&self, _: CallId, answer: Result<Reply, Fault>) {
        if let Some(sender) = self.0.lock().take() {
            // If the client has gone there is nobody to tell.
            let _ = sender.send(answer);
        }
    }

    fn flush(&self) {}
}

enum Tags {
    Any,
    One(Version),
}

/// `*`, or one version as an ETag has it.
fn tags(value: &HeaderValue) -> Option<Tags> {
    match value.to_str().ok()?.trim() {
        "*" => Some(Tags::Any),
        tag => Some(Tags::One(Version(tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?))),
    }
}

fn condition(headers: &HeaderMap) -> Result<Condition, Failure> {
    let matching = headers.get(header::IF_MATCH);
    let none_matching = headers.get(header::IF_NONE_MATCH);
    match (matching, none_matching) {
        (None, None) => Ok(Condition::Always),
        (Some(value), None) => match tags(value) {
            Some(Tags::One(version)) => Ok(Condition::Version(version)),
            _ => Err(Failure::bad(
                format!("If-Match: {value:?}"),
                "one version in quotes: If-Match: \"17\"",
            )),
        },
        (None, Some(value)) => match tags(value) {
            Some(Tags::Any) => Ok(Condition::Absent),
            _ => Err(Failure::bad(
                format!("If-None-Match: {value:?}"),
                "for a write: If-None-Match: *",
            )),
        },
        (Some(_), Some(_)) => Err(Failure::bad("both If-Match and If-None-Match", "one of them")),
    }
}

fn durability(mut params: Params) -> Result<Option<Durability>, Failure> {
    let durability = params.parse("durability", "memory or disk", |text| match text {
        "memory" => Some(Durability::Memory),
        "disk" => Some(Durability::Disk),
        _ => None,
    })?;
    params.end("durability")?;
    Ok(durability)
}

fn limit(params: &mut Params) -> Result<u32, Failure> {
    let allowed = format!("1 to {LIMIT_MAX}");
    let within = |text: &str| text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    Ok(params.parse("limit", &allowed, within)?.unwrap_or(LIMIT))
}

fn item_json(Listed { key, item }: &Listed, values: bool) -> Value {
    let Item { version, key_version, hlc, .. } = item;
    let mut json =
        json!({ "version": version, "key_version": key_version, "time_us": hlc.micros() });
    text_or_hex(&mut json, "key", key);
    if values && let Some(bytes) = item.bytes() {
        text_or_hex(&mut json, "value", bytes);
    }
    json
}

/// Text as it is, other bytes in hexadecimal under a name that says so.
fn text_or_hex(json: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => json[name] = text.into(),
        Err(_) => json[format!("{name}_hex")] = hex(bytes).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

fn etag(version: Version) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes")
}

fn item_headers(response: &mut Response, version: Version, key_version: KeyVersion, hlc: Hlc) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(version));
    headers.insert("tradewind-key-version", HeaderValue::from(key_version.0));
    headers.insert("tradewind-time-us", HeaderValue::from(hlc.micros()));
}

fn state_headers(response: &mut Response, as_of: &AsOf) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("tradewind-at", as_of.at.0),
        ("tradewind-readable", as_of.readable.0),
        ("tradewind-age-ms", as_of.age_ms),
    ] {
        headers.insert(name, HeaderValue::from(value));
    }
}

fn confused() -> Failure {
    Fault::Internal { reason: "an answer of another kind than was asked for".into() }.into()
}
