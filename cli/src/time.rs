//! Moments: RFC 3339 in UTC on the command line and in tables, hybrid clock stamps inside.

use std::str::FromStr;

use tradewind_ledger::Hlc;

/// A moment given on the command line, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// The last stamp of this microsecond: "at this time or before" includes all of it.
    pub(crate) fn hlc(self) -> Hlc {
        Hlc(Hlc::from_micros(self.0 + 1).0 - 1)
    }
}

impl FromStr for Moment {
    type Err = String;

    /// `2026-11-22T14:03:07.25Z`, with any number of fractional digits, or seconds since 1970.
    fn from_str(text: &str) -> Result<Self, String> {
        let micros = if text.contains('T') { rfc3339(text) } else { seconds(text) };
        // The year 2112 is as far as stamps go.
        let micros = micros.filter(|micros| *micros < u64::MAX >> Hlc::LOGICAL_BITS);
        micros.map(Self).ok_or_else(|| {
            "a time is like 2026-11-22T14:03:07.25Z (UTC), or seconds since 1970".to_owned()
        })
    }
}

fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    digits(whole)?.checked_mul(1_000_000)?.checked_add(micros(fraction)?)
}

fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(digits);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(digits);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let good = (1970..2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let days = good.then(|| days_from_civil(year, month, day))?;
    let (back_year, back_month, back_day) = civil_from_days(days);
    if (back_year, back_month, back_day) != (year, month, day) {
        return None;
    }
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros(fraction)?)
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

/// Fractional digits as microseconds; more than six are cut.
fn micros(fraction: &str) -> Option<u64> {
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<6}")[..6].parse().ok()
}

/// A stamp for people: `2026-11-22T14:03:07.250000Z`.
pub(crate) fn text(hlc: Hlc) -> String {
    let micros = hlc.micros();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar, from 1970 on.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse, `civil_from_days`: year, month, day.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_shown_in_utc() {
        let moment: Moment = "2026-11-22T14:03:07.25Z".parse().unwrap();
        assert_eq!(moment, "1795356187.25".parse().unwrap());
        assert_eq!(text(Hlc::from_micros(moment.0)), "2026-11-22T14:03:07.250000Z");
        assert_eq!(text(Hlc(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!("2024-02-29T00:00:00Z".parse::<Moment>().unwrap().0, 1_709_164_800_000_000);
        for bad in
            ["", "noon", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T24:00:00Z"]
        {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_includes_its_whole_microsecond() {
        let hlc = Moment(7).hlc();
        assert_eq!((hlc.micros(), hlc.logical()), (7, 4_095));
    }
}
