//! One key as it should be.

use tradewind_ledger::{KeyVersion, Version};
use tradewind_store::{Condition, Current};

use super::history::{Call, Op, Outcome};

/// What a key is after some calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Register {
    /// How often it was changed. A write that is lost, or applied twice, shows here.
    changes: KeyVersion,
    /// The call that gave it its value; `None` if it does not exist.
    writer: Option<usize>,
    /// The version of the last change.
    version: Known,
}

/// What is known of a version: of a change whose reply never came only that it is later than the one before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Known {
    Never,
    Is(Version),
    AtLeast(Version),
}

impl Known {
    /// The least version that the next change may have.
    fn next(self) -> Version {
        match self {
            Self::Never => Version(0),
            Self::Is(version) | Self::AtLeast(version) => version.next(),
        }
    }

    fn may_be(self, version: Version) -> bool {
        match self {
            Self::Never => false,
            Self::Is(is) => is == version,
            Self::AtLeast(least) => least <= version,
        }
    }
}

impl Register {
    pub(super) fn new() -> Self {
        Self { changes: KeyVersion(0), writer: None, version: Known::Never }
    }

    /// What the key is after the call `calls[index]`; `None` if the call's reply cannot be right here, or, of a call of
    /// unknown outcome, if it would have no effect here.
    pub(super) fn after(self, calls: &[Call], index: usize) -> Option<Self> {
        let Call { op, ended, .. } = &calls[index];
        let outcome = ended.as_ref().map(|(_, outcome)| outcome);
        match (op, outcome) {
            (Op::Get, None) => None,
            (Op::Get, Some(Outcome::Value(None))) => self.writer.is_none().then_some(self),
            (Op::Get, Some(Outcome::Value(Some(seen)))) => {
                let is = Current { version: seen.version, key_version: seen.key_version };
                let Op::Put { value, .. } = &calls[self.writer?].op else { return None };
                let same = seen.value.as_ref().is_none_or(|seen| seen == value);
                self.being(is).filter(|_| same)
            }
            (Op::Put { condition, .. }, None | Some(Outcome::Written { .. })) => {
                self.fulfilling(*condition)?.changed(Some(index), outcome)
            }
            (Op::Delete { condition }, None | Some(Outcome::Written { .. })) => {
                self.writer?;
                self.fulfilling(*condition)?.changed(None, outcome)
            }
            (Op::Erase, None | Some(Outcome::Written { .. })) => self.changed(None, outcome),
            (
                Op::Put { condition, .. } | Op::Delete { condition },
                Some(Outcome::Conflict(current)),
            ) => {
                let (is, holds) = match current {
                    None => {
                        (self.writer.is_none().then_some(self)?, *condition == Condition::Absent)
                    }
                    Some(is) => (self.being(*is)?, *condition == Condition::Version(is.version)),
                };
                (!holds && *condition != Condition::Always).then_some(is)
            }
            (Op::Delete { condition }, Some(Outcome::Absent)) => {
                let may = !matches!(condition, Condition::Version(_));
                (may && self.writer.is_none()).then_some(self)
            }
            _ => None,
        }
    }

    /// The same, if it exists and may be this.
    fn being(self, is: Current) -> Option<Self> {
        let may = self.writer.is_some()
            && is.key_version == self.changes
            && self.version.may_be(is.version);
        may.then_some(Self { version: Known::Is(is.version), ..self })
    }

    /// The same, if the condition may hold.
    fn fulfilling(self, condition: Condition) -> Option<Self> {
        match condition {
            Condition::Always => Some(self),
            Condition::Absent => self.writer.is_none().then_some(self),
            Condition::Version(version) => {
                self.being(Current { version, key_version: self.changes })
            }
        }
    }

    fn changed(self, writer: Option<usize>, outcome: Option<&Outcome>) -> Option<Self> {
        let changes = KeyVersion(self.changes.0 + 1);
        let least = self.version.next();
        let version = match outcome {
            Some(Outcome::Written { version, key_version })
                if *key_version == changes && least <= *version =>
            {
                Known::Is(*version)
            }
            Some(_) => return None,
            None => Known::AtLeast(least),
        };
        Some(Self { changes, writer, version })
    }
}
