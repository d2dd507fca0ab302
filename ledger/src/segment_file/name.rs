//! Names of segment files: `<first>-<last>.seg` once sealed, `<first>.open` before.

use core::fmt;
use core::str::FromStr;

use crate::ids::Version;

const DIGITS: usize = 20;

/// The name of a segment's file, which shows its range and state. Ordered by the first version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Version of the first record.
    pub first: Version,
    /// Version of the SEAL that ends the segment; none while it is open.
    pub last: Option<Version>,
}

/// A name is `<first>-<last>.seg` or `<first>.open`, each version with 20 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a segment file is named `<first>-<last>.seg` or `<first>.open`, versions of 20 digits")]
pub struct SegmentNameError;

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{:020}-{:020}.seg", self.first.0, last.0),
            None => write!(f, "{:020}.open", self.first.0),
        }
    }
}

impl FromStr for SegmentName {
    type Err = SegmentNameError;

    fn from_str(name: &str) -> Result<Self, SegmentNameError> {
        let version = |digits: &str| {
            let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok().map(Version)).flatten().ok_or(SegmentNameError)
        };
        if let Some(first) = name.strip_suffix(".open") {
            return Ok(Self { first: version(first)?, last: None });
        }
        let range = name.strip_suffix(".seg").and_then(|range| range.split_once('-'));
        let (first, last) = range.ok_or(SegmentNameError)?;
        let name = Self { first: version(first)?, last: Some(version(last)?) };
        if name.last >= Some(name.first) { Ok(name) } else { Err(SegmentNameError) }
    }
}
