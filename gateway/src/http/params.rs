//! Query parameters, times, durations, and keys in paths.

use super::Failure;
use axum::http::Uri;
use std::{collections::BTreeMap, time::Duration};
use tradewind_client::wire::{At, Level, Read};
use tradewind_ledger::{Hlc, Version};

/// How long a read waits for what it asks for, if the request does not say.
const WAIT: Duration = Duration::from_secs(5);

/// The query of a request: each name once, none but those taken.
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn of(uri: &Uri) -> Result<Self, Failure> {
        let mut params = BTreeMap::new();
        for pair in uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |encoded: &str| {
                let decoded = percent_decode(&encoded.replace('+', " "));
                decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
                    Failure::bad(format!("{encoded:?} in the query"), "percent-encoded UTF-8")
                })
            };
            let (name, value) = (text(name)?, text(value)?);
            if let Some(first) = params.insert(name.clone(), value) {
                return Err(Failure::bad(
                    format!("{name} is given twice, first as {first:?}"),
                    "each parameter once",
                ));
            }
        }
        Ok(Self(params))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn parse<T>(
        &mut self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::bad(format!("{name}={text}"), format!("{name}: {allowed}"))),
        }
    }

    /// Nothing must be left.
    pub(super) fn end(self, allowed: &str) -> Result<(), Failure> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Failure::bad(format!("unknown parameter {name}"), allowed)),
        }
    }

    /// `version`, `at`, `min_version`, `max_staleness`, `level`, `wait`.
    pub(super) fn read(&mut self) -> Result<Read, Failure> {
        let version = |text: &str| text.parse().ok().map(Version);
        let at_version = self.parse("version", "a version, as an ETag has it", version)?;
        let at_time = self.parse(
            "at",
            "a time as 2026-01-31T14:03:07.25Z or in microseconds since 1970",
            parse_time,
        )?;
        let at = match (at_version, at_time) {
            (Some(_), Some(_)) => return Err(Failure::bad("both version and at", "one of them")),
            (Some(version), None) => At::Version(version),
            (None, Some(time)) => At::Time(time),
            (None, None) => At::Latest,
        };
        let durations = "a duration as 250ms, 5s or 2m";
        let level = self.parse("level", "local or linearizable", |text| match text {
            "local" => Some(Level::Local),
            "linearizable" => Some(Level::Linearizable),
            _ => None,
        })?;
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        Ok(Read {
            at,
            min_version: self.parse("min_version", "a version, as an ETag has it", version)?,
            max_staleness_ms: self.parse("max_staleness", durations, parse_duration)?.map(ms),
            level: level.unwrap_or_default(),
            wait_ms: ms(self.parse("wait", durations, parse_duration)?.unwrap_or(WAIT)),
        })
    }
}

/// The pool in `/v1/pools/<pool>/...`, as it stands there: names of pools have nothing to decode.
pub(super) fn pool_in(uri: &Uri) -> &str {
    uri.path().split('/').nth(3).unwrap_or("")
}

/// The key at the end of a path: what follows `marker`, percent-decoded, any bytes.
pub(super) fn key_in(uri: &Uri, marker: &str) -> Result<Vec<u8>, Failure> {
    let encoded = uri.path().splitn(5, '/').nth(4).and_then(|rest| rest.strip_prefix(marker));
    encoded.and_then(percent_decode).ok_or_else(|| {
        Failure::bad(
            format!("no key in {}", uri.path()),
            "a key, percent-encoded where it is not plain text",
        )
    })
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = after;
    }
    Some(bytes)
}

/// `250ms`, `5s`, `2m`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let count: u32 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(count.into())),
        "s" => Some(Duration::from_secs(count.into())),
        "m" => Some(Duration::from_secs(u64::from(count) * 60)),
        _ => None,
    }
}

/// The last moment of a time written in RFC 3339 in UTC, as `2026-01-31T14:03:07.25Z`, or in microseconds since 1970;
/// `None` if it is neither.
pub fn parse_time(text: &str) -> Option<Hlc> {
    let micros = if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()?
    } else {
        rfc3339_micros(text)?
    };
    // Beyond this no clock can be, and the shift into the stamp would lose bits.
    const MICROS_MAX: u64 = (1 << (64 - Hlc::LOGICAL_BITS)) - 1;
    let logical_max = (1 << Hlc::LOGICAL_BITS) - 1;
    (micros <= MICROS_MAX).then(|| Hlc(Hlc::from_micros(micros).0 | logical_max))
}

fn rfc3339_micros(text: &str) -> Option<u64> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator, widths: [usize; 3]| -> Option<[u64; 3]> {
        let mut parts = text.split(separator);
        let mut part = |width| {
            let part = parts
                .next()
                .filter(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_digit()))?;
            part.parse().ok()
        };
        let found = [part(widths[0])?, part(widths[1])?, part(widths[2])?];
        parts.next().is_none().then_some(found)
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid = (1..=12).contains(&month) && (1..=days_in_month).contains(&day);
    if !valid
        || year < 1970
        || hour > 23
        || minute > 59
        || second > 60
        || fraction.is_empty()
        || fraction.len() > 6
    {
        return None;
    }
    let digits: u64 =
        fraction.bytes().all(|b| b.is_ascii_digit()).then(|| fraction.parse().ok())??;
    let micros = digits * 10_u64.pow(6 - fraction.len() as u32);
    // Days since 1970-01-01, counting years from March (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_exactly_or_not_at_all() {
        let micros = |text| parse_time(text).map(Hlc::micros);
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2026-11-22T14:03:07.25Z"), Some(1_795_356_187_250_000));
        assert_eq!(micros("2024-02-29T23:59:59.999999Z"), Some(1_709_251_199_999_999));
        assert_eq!(micros("1795356187250000"), Some(1_795_356_187_250_000));
        for bad in [
            "",
            "2026",
            "x",
            "2026-02-29T00:00:00Z",
            "2026-11-22T14:03:07",
            "2026-11-22T24:00:00Z",
            "2026-11-22T14:03:07.Z",
            "2026-11-22T14:03:07.1234567Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999",
        ] {
            assert!(bad == "2026" || micros(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_are_any_bytes() {
        let uri: Uri = "/v1/pools/p/keys/a%2Fb/%00%ff?x".parse().expect("a URI");
        assert_eq!(key_in(&uri, "keys/").ok(), Some(b"a/b/\x00\xff".to_vec()));
        assert_eq!(percent_decode("%f"), None);
        assert_eq!(percent_decode("%+1"), None);
    }

    #[test]
    fn durations_name_their_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "5h", "99999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
