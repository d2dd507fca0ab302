//! How much history the processes that hold a pool keep, beside its state.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

/// How much history is kept. Whole segments go, behind a snapshot of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// All of it.
    #[default]
    All,
    /// Entries that are younger than this, at least.
    Age(Duration),
    /// The newest segments that have so many bytes together, at least.
    Bytes(u64),
}

pub(crate) const RETAIN_RULE: &str =
    "\"all\", an age as in \"30d\", \"12h\" or \"90m\", or a size as in \"512MiB\" or \"10GiB\"";

const AGES: [(&str, u64); 3] = [("d", 86_400), ("h", 3_600), ("m", 60)];
const SIZES: [(&str, u64); 3] = [("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl Retain {
    /// After how many written bytes the state is worth a snapshot: pruning goes from one to the next.
    #[must_use]
    pub fn snapshot_bytes(self) -> u64 {
        const USUAL: u64 = 256 << 20;
        match self {
            Self::All | Self::Age(_) => USUAL,
            Self::Bytes(bytes) => (bytes / 4).min(USUAL),
        }
    }
}

impl FromStr for Retain {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "all" {
            return Ok(Self::All);
        }
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or(())?);
        if digits.starts_with('0') {
            return Err(());
        }
        let count: u64 = digits.parse().map_err(|_| ())?;
        let times = |units: &[(&str, u64)]| {
            let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
            // So that no sum of times or sizes overflows anywhere.
            count.checked_mul(*factor).filter(|product| *product < 1 << 50)
        };
        let age = times(&AGES).map(|seconds| Self::Age(Duration::from_secs(seconds)));
        age.or_else(|| times(&SIZES).map(Self::Bytes)).ok_or(())
    }
}

impl fmt::Display for Retain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, units) = match self {
            Self::All => return f.write_str("all"),
            Self::Age(age) => (age.as_secs(), AGES),
            Self::Bytes(bytes) => (*bytes, SIZES),
        };
        let fits = |(_, factor): &&(&str, u64)| count.is_multiple_of(*factor);
        let largest = units.iter().filter(fits).max_by_key(|(_, factor)| *factor);
        let (unit, factor) = largest.expect("made of whole units");
        write!(f, "{}{unit}", count / factor)
    }
}

impl Serialize for Retain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_in_the_largest_unit() {
        for (text, written) in
            [("all", "all"), ("30d", "30d"), ("48h", "2d"), ("90m", "90m"), ("1024MiB", "1GiB")]
        {
            assert_eq!(text.parse::<Retain>().map(|it| it.to_string()), Ok(written.into()));
        }
        for text in [
            "",
            "30",
            "d",
            "0d",
            "-1d",
            "1.5h",
            "3 d",
            "10GB",
            "99999999999999999999d",
            "9999999TiB",
        ] {
            assert_eq!(text.parse::<Retain>(), Err(()), "{text}");
        }
    }
}
