//! Takes out of a text what differs from run to run.

use std::path::Path;

/// Shortest run of hexadecimal digits that is taken for a digest.
const DIGEST: usize = 16;

/// What of a text is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redact {
    /// The directory, addresses, durations, digests.
    Places,
    /// And every other number that stands alone.
    Numbers,
}

impl Redact {
    /// The text without it: `DIR`, `ADDRESS`, `N ms`, `DIGEST`, `N` stand in its place.
    pub(crate) fn text(self, text: &str, dir: &Path) -> String {
        let text = text.replace(&*dir.to_string_lossy(), "DIR");
        let is_part = |char: char| char.is_ascii_alphanumeric() || "-_.:/".contains(char);
        let (mut told, mut rest) = (String::new(), text.as_str());
        while let Some(first) = rest.chars().next() {
            if !is_part(first) {
                told.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
            let word = rest[..end].trim_end_matches(['.', ':', '-', '/']);
            let word = if word.is_empty() { &rest[..end] } else { word };
            rest = &rest[word.len()..];
            let before_unit = [" ms", " s", " µs"].iter().any(|unit| {
                let after = rest.strip_prefix(unit);
                after.is_some_and(|after| !after.starts_with(|char: char| char.is_alphanumeric()))
            });
            told += &self.word(word, before_unit);
        }
        told
    }

    fn word(self, word: &str, before_unit: bool) -> String {
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| text.split('.').all(digits) && text.split('.').count() <= 2;
        let unit =
            ["ms", "s", "µs"].iter().find(|unit| word.strip_suffix(*unit).is_some_and(number));
        if let Some(unit) = unit {
            return format!("N {unit}");
        }
        if number(word) && (before_unit || self == Self::Numbers) {
            return "N".into();
        }
        if self == Self::Numbers
            && let Some((file, line)) = word.rsplit_once(':')
            && digits(line)
            && !file.ends_with(|char: char| char.is_ascii_digit())
        {
            return format!("{}:N", self.word(file, false));
        }
        let address = word.strip_prefix("http://").unwrap_or(word);
        let host = address.split([':', '/']).next().unwrap_or_default();
        if host.split('.').count() == 4 && host.split('.').all(digits) {
            return "ADDRESS".into();
        }
        let hex =
            |part: &str| part.len() >= DIGEST && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if word.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            return "0xN".into();
        }
        let parts = word.split(['.', '-', '/']);
        parts.fold(
            word.to_owned(),
            |word, part| {
                if hex(part) { word.replace(part, "DIGEST") } else { word }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_replaced_and_nothing_else() {
        let dir = Path::new("/tmp/x");
        let text = "/tmp/x/a: ams-1 at 127.0.0.1:7003, 12 ms of 1.5s, line 3, \
                    5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9.";
        let places = "DIR/a: ams-1 at ADDRESS, N ms of N s, line 3, DIGEST.";
        assert_eq!(Redact::Places.text(text, dir), places);
        assert_eq!(Redact::Numbers.text(text, dir), places.replace("line 3", "line N"));
        assert_eq!(Redact::Numbers.text("3 shards: 4", dir), "N shards: N");
        assert_eq!(Redact::Numbers.text("a.seg:17: byte 3", dir), "a.seg:N: byte N");
        assert_eq!(Redact::Numbers.text("is 0xdbb986e2", dir), "is 0xN");
        assert_eq!(Redact::Numbers.text("10.77.0.2:7003", dir), "ADDRESS");
    }
}
