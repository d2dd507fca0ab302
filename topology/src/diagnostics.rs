//! What is wrong with a topology file, said so that it can be mended without a manual.
//!
//! A reader never stops at the first fault: it collects [`Diagnostic`]s, each naming the place, the
//! key, what was found there and what is allowed.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably says something that nobody wants.
    Warning,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The file as a whole, or something that is missing from it.
    File,
    /// A line of the file, counted from 1.
    Line(u32),
    /// An environment variable that overrides the file.
    Environment(String),
}

impl fmt::Display for Place {
    /// The place as another diagnostic refers to it: "line 8".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Line(line) => write!(f, "line {line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// How bad.
    pub severity: Severity,
    /// Dotted path of the key, such as `sites.ams.nodes[1].name`.
    pub key: String,
    /// What the file says.
    pub found: String,
    /// What it could say instead.
    pub allowed: String,
}

/// All faults of one file, by place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The file as the caller named it.
    pub file: PathBuf,
    /// The faults: those of the whole file first, then line by line, then the environment's.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// None as yet, for `file`.
    #[must_use]
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), list: Vec::new() }
    }

    pub(crate) fn error(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.push(Severity::Error, place, key.into(), found.into(), allowed.into());
    }

    pub(crate) fn warn(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.push(Severity::Warning, place, key.into(), found.into(), allowed.into());
    }

    fn push(
        &mut self,
        severity: Severity,
        place: &Place,
        key: String,
        found: String,
        allowed: String,
    ) {
        self.list.push(Diagnostic { place: place.clone(), severity, key, found, allowed });
    }

    /// The same, by place; faults of one place stay in the order of their discovery.
    pub(crate) fn sorted(mut self) -> Self {
        self.list.sort_by(|a, b| (&a.place, a.severity).cmp(&(&b.place, b.severity)));
        self
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings there are.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

impl fmt::Display for Diagnostics {
    /// Three lines a fault, the first in the `file:line: severity:` form that editors can follow,
    /// then a summary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for Diagnostic { place, severity, key, found, allowed } in &self.list {
            let severity = match severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            match place {
                Place::File => write!(f, "{file}: {severity}: {key}")?,
                Place::Line(line) => write!(f, "{file}:{line}: {severity}: {key}")?,
                Place::Environment(name) => write!(f, "${name}: {severity}: {key}")?,
            }
            writeln!(f, "\n    found:   {found}\n    allowed: {allowed}")?;
        }
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let (errors, warnings) =
            (plural(self.errors(), "error"), plural(self.warnings(), "warning"));
        write!(f, "{file}: {errors}, {warnings}")
    }
}

impl std::error::Error for Diagnostics {}
