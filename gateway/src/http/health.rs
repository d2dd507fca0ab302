//! `/livez`, `/readyz`, `/status`, `/metrics`, and the page at `/`.

use super::{
    Failure, Shared,
    params::{Params, parse_duration},
    status as gathered,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use std::{fmt::Write, sync::atomic::Ordering};

/// No script, style or image but the page's own.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

pub(super) async fn livez() -> &'static str {
    "live\n"
}

pub(super) async fn readyz(State(http): Shared, uri: Uri) -> Result<&'static str, Failure> {
    let mut params = Params::of(&uri)?;
    let max_lag = params.parse("max_lag", "a duration as 250ms, 5s or 2m", parse_duration)?;
    params.end("max_lag")?;
    let readiness = http.service.backend.readiness();
    let lag = readiness.lag;
    let lagging =
        max_lag.filter(|max| lag > *max).map(|max| format!("{lag:?} behind, allowed are {max:?}"));
    match readiness.fault.or(lagging) {
        None => Ok("ready\n"),
        Some(error) => Err(Failure {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error,
            allowed: "all it depends on is there, and it is not further behind than max_lag".into(),
            next_step: "look at /status".into(),
        }),
    }
}

pub(super) async fn status(State(http): Shared) -> Result<Json<Value>, Failure> {
    let gathering =
        tokio::task::spawn_blocking(move || gathered::status(&http.service, &http.counters));
    let status = gathering.await.map_err(|error| {
        Failure::from(tradewind_client::wire::Fault::Internal { reason: error.to_string() })
    })?;
    Ok(Json(status))
}

pub(super) async fn metrics(State(http): Shared) -> Response {
    let mut text = String::new();
    let readiness = http.service.backend.readiness();
    let mut gauge = |name: &str, help: &str, values: &[(String, f64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP tradewind_{name} {help}\n# TYPE tradewind_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "tradewind_{name}{labels} {value}");
        }
    };
    let plain = |value: f64| [(String::new(), value)];
    let counters = &http.counters;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    gauge(
        "ready",
        "Whether the process can do its work.",
        &plain(f64::from(u8::from(readiness.fault.is_none()))),
    );
    gauge("lag_seconds", "How old what it shows may be.", &plain(readiness.lag.as_secs_f64()));
    gauge("client_connections", "Clients connected.", &plain(count(&counters.connections)));
    gauge(
        "client_connections_accepted",
        "Clients ever welcomed.",
        &plain(count(&counters.accepted)),
    );
    gauge(
        "client_connections_failed",
        "Connections that ended by a client's fault.",
        &plain(count(&counters.failed)),
    );
    gauge(
        "large_request_bytes",
        "Bytes of large requests that are coming or have no answer yet.",
        &plain(http.service.large.taken_bytes() as f64),
    );
    let ledgers = gathered::ledgers(&http.service);
    for (field, name, help) in [
        ("readable", "ledger_readable_entries", "Entries that readers may see."),
        ("applied", "ledger_applied_entries", "Entries in the store."),
        (
            "age_ms",
            "ledger_age_milliseconds",
            "How long ago the process last knew it had all there was.",
        ),
        ("keys", "ledger_keys", "Keys that exist."),
        ("bytes", "ledger_bytes", "Bytes of existing keys and values."),
        ("changes", "ledger_changes", "Changes of keys over all time."),
    ] {
        let labelled = |(id, figures): &(String, serde_json::Map<String, Value>)| {
            // Ledger names are letters, digits, dashes and a dot: nothing to escape.
            (format!("{{ledger=\"{id}\"}}"), figures[field].as_f64().unwrap_or_default())
        };
        gauge(name, help, &ledgers.iter().map(labelled).collect::<Vec<_>>());
    }
    text.push_str(&http.service.backend.metrics());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(super) async fn page() -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = HeaderValue::from_static(PAGE_POLICY);
    let headers = [(header::CONTENT_TYPE, html), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("page.html")).into_response()
}
