//! Hashes the detached values: those that entries refer to, and whatever else lies in `values/`.

use std::collections::HashSet;

use tradewind_ledger::entry::MAX_VALUE;
use tradewind_ledger::tree::value_digest;
use tradewind_ledger::{Digest, Version};

use crate::report::{Place, ProblemKind, Problems};
use crate::source::Source;

/// The detached values of a ledger.
pub(crate) struct Values<'a> {
    source: &'a dyn Source,
    checked: HashSet<Digest>,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

fn path(digest: &Digest) -> String {
    let hex = digest.to_string();
    format!("values/{}/{hex}", &hex[..2])
}

impl<'a> Values<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Self {
        Self { source, checked: HashSet::new(), count: 0, bytes: 0 }
    }

    /// Checks the value that entry `version` refers to, once however many refer to it.
    pub(crate) fn check(
        &mut self,
        version: Version,
        len: u64,
        digest: Digest,
        problems: &mut Problems,
    ) {
        if !self.checked.insert(digest) {
            return;
        }
        let path = path(&digest);
        let place = || Place::file(path.clone()).of(version);
        match self.hash(&path, &digest, problems) {
            Ok(Some(found)) if found != len => {
                let message = format!("the value has {found} bytes, the entry says {len}");
                problems.fault(place(), message);
            }
            Ok(Some(_)) => {}
            // C2SP's public face knows no detached values: a server may leave them out.
            Ok(None) if matches!(self.source.list("values"), Ok(None)) => {
                let message = "the detached value is not served, so only its hash is proven";
                problems.add(ProblemKind::Unchecked, place(), message);
            }
            Ok(None) => problems.missing(place(), "the detached value is missing"),
            Err(()) => {}
        }
    }

    /// Checks the values that no entry refers to: harmless, but damage to them is damage.
    pub(crate) fn check_rest(&mut self, problems: &mut Problems) {
        let files = match self.source.list("values") {
            Ok(files) => files.unwrap_or_default(),
            Err(error) => return problems.unread(&error),
        };
        for file in files.into_iter().filter(|file| !file.ends_with(".tmp")) {
            let digest = file.rsplit('/').next().and_then(|name| name.parse::<Digest>().ok());
            match digest.filter(|digest| path(digest) == file) {
                None => problems.fault(Place::file(file), "not a detached value's name"),
                Some(digest) if self.checked.insert(digest) => {
                    // Its own message says what is wrong; that it vanished is fine.
                    let _ = self.hash(&file, &digest, problems);
                }
                Some(_) => {}
            }
        }
    }

    /// The length of the value, if it is there and has its digest.
    fn hash(
        &mut self,
        path: &str,
        digest: &Digest,
        problems: &mut Problems,
    ) -> Result<Option<u64>, ()> {
        let bytes = match self.source.read(path, MAX_VALUE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => {
                problems.unread(&error);
                return Err(());
            }
        };
        self.count += 1;
        self.bytes += bytes.len() as u64;
        let found = value_digest(&bytes);
        if found == *digest {
            return Ok(Some(bytes.len() as u64));
        }
        let message = format!("the value's SHA-256 is {found}, not its name");
        problems.fault(Place::file(path).at(0), message);
        Err(())
    }
}
