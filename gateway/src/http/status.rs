//! What a process is doing, put together from what every process has and what the backend adds.

use crate::{Counters, Shard, reading, service::Service};
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering;
use tradewind_client::wire::Role;

/// One JSON object: the backend's [`status`](crate::Backend::status), and beside it, where the backend does not say
/// something else under the same name: `deployment`, `name`, `role`, `site`, `incarnation`, `ready`, `fault`, `lag_ms`, `clients`, and
/// `ledgers`, merged into the backend's own list by ledger name.
pub(crate) fn status(service: &Service, counters: &Counters) -> Value {
    let mut status = match service.backend.status() {
        Value::Object(status) => status,
        other => Map::from_iter([("detail".to_owned(), other)]),
    };
    let welcome = &service.welcome;
    let readiness = service.backend.readiness();
    let (role, site) = match &welcome.role {
        Role::Node { site } => ("node", Some(site)),
        Role::Mirror => ("mirror", None),
    };
    let common = [
        ("deployment", json!(welcome.deployment)),
        ("name", json!(welcome.server)),
        ("role", json!(role)),
        ("site", json!(site)),
        ("incarnation", json!(service.backend.incarnation())),
        ("ready", json!(readiness.fault.is_none())),
        ("fault", json!(readiness.fault)),
        ("lag_ms", json!(u64::try_from(readiness.lag.as_millis()).unwrap_or(u64::MAX))),
        ("clients", json!(counters.connections.load(Ordering::Relaxed))),
    ];
    for (name, value) in common {
        status.entry(name).or_insert(value);
    }
    let own = status.remove("ledgers");
    let ledgers = ledgers(service).into_iter().map(|(name, mut ledger)| {
        let more = own.as_ref().and_then(Value::as_array).into_iter().flatten();
        let more =
            more.filter(|other| other["ledger"] == name.as_str()).filter_map(Value::as_object);
        for (field, value) in more.flatten() {
            ledger.insert(field.clone(), value.clone());
        }
        Value::Object(ledger)
    });
    status.insert("ledgers".to_owned(), ledgers.collect());
    Value::Object(status)
}

/// Name and figures of each ledger here.
pub(crate) fn ledgers(service: &Service) -> Vec<(String, Map<String, Value>)> {
    let held = service.backend.ledgers();
    let shards = held.iter().filter_map(|id| Some((id.to_string(), service.backend.ledger(id)?)));
    shards
        .map(|(name, shard)| {
            let figures = figures(&name, &*shard);
            (name, figures)
        })
        .collect()
}

fn figures(name: &str, shard: &dyn Shard) -> Map<String, Value> {
    let horizon = *shard.horizon().borrow();
    let (stats, applied) = reading::look(shard, |store| (store.stats(), store.next()));
    Map::from_iter([
        ("ledger".to_owned(), json!(name)),
        ("readable".to_owned(), json!(horizon.readable)),
        ("applied".to_owned(), json!(applied)),
        ("time_us".to_owned(), json!(reading::covered(shard, horizon).micros())),
        ("age_ms".to_owned(), json!(u64::try_from(shard.age().as_millis()).unwrap_or(u64::MAX))),
        ("keys".to_owned(), json!(stats.keys)),
        ("bytes".to_owned(), json!(stats.bytes)),
        ("changes".to_owned(), json!(stats.changes)),
    ])
}
