//! Evidence of a fork: two signed heads of one ledger that exclude each other.

use alloc::string::String;
use core::fmt;

use tradewind_ledger::ids::{Digest, LedgerId, Lineage, Version};
use tradewind_ledger::note::Policy;

use crate::claim::Claim;

/// The site's members signed two histories of one ledger that differ within the first `size` entries.
///
/// It is self-contained: whoever knows the ledger's public keys can check it with [`Evidence::holds`],
/// or by hand from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which ledger.
    pub ledger: LedgerId,
    /// Its lineage.
    pub lineage: Lineage,
    /// The size at which both histories are compared.
    pub size: Version,
    /// The root that this mirror holds there.
    pub held_root: Digest,
    /// The root that it was shown there.
    pub shown_root: Digest,
    /// Leads from the held root to a signed note; `None` if only an older note was at hand.
    pub held: Option<Claim>,
    /// Leads from the shown root to a signed note.
    pub shown: Claim,
}

impl Evidence {
    /// Whether both histories are signed for and differ.
    #[must_use]
    pub fn holds(&self, policy: &Policy) -> bool {
        let proven = |claim: &Claim, root| claim.verify(policy, self.size, root).is_ok();
        self.held_root != self.shown_root
            && proven(&self.shown, self.shown_root)
            && self.held.as_ref().is_some_and(|held| proven(held, self.held_root))
    }
}

/// The text of an evidence file, as in `docs/formats/wan.md`.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tradewind fork evidence 1")?;
        writeln!(f, "ledger {}", self.ledger)?;
        writeln!(f, "lineage {}", self.lineage)?;
        writeln!(f, "size {}", self.size)?;
        writeln!(f, "held root {}", self.held_root)?;
        writeln!(f, "shown root {}", self.shown_root)?;
        let claim = |f: &mut fmt::Formatter<'_>, title: &str, claim: &Claim| {
            writeln!(f, "\n== {title}")?;
            for link in &claim.links {
                writeln!(f, "link to size {} root {}", link.size, link.root)?;
                link.proof.iter().try_for_each(|digest| writeln!(f, "  {digest}"))?;
            }
            let note: &String = &claim.note;
            write!(f, "note\n{note}")
        };
        if let Some(held) = &self.held {
            claim(f, "held", held)?;
        }
        claim(f, "shown", &self.shown)
    }
}
