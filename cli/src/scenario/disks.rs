//! Disks, clocks and files that are changed under a process or behind its back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use tradewind_local::faults::Field;

use super::command::{DiskChange, FileChange};
use super::stage::Stage;

/// Bytes at the begin of a segment that hold no entries.
const HEADER: usize = 4096;

impl Stage {
    pub(super) fn disk(&mut self, name: &str, change: DiskChange) -> anyhow::Result<String> {
        let small = || self.disks.get(name).context("it has no disk of its own");
        let faults = || self.faults.get(name).context("its disk cannot fail");
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match change {
            DiskChange::Fill => small()?.fill()?,
            DiskChange::Free => small()?.free()?,
            DiskChange::ReadOnly(read_only) => small()?.set_read_only(read_only)?,
            DiskChange::FailSyncs(errno) => faults()?.set(Field::SyncErrno, errno)?,
            DiskChange::StallSyncs { ms } => faults()?.set(Field::SyncDelayMs, ms)?,
            DiskChange::FailWrites(errno) => faults()?.set(Field::WriteErrno, errno)?,
            DiskChange::Heal => {
                for field in [Field::SyncErrno, Field::SyncDelayMs, Field::WriteErrno] {
                    faults()?.set(field, 0)?;
                }
            }
            DiskChange::ClockOffset { s } => faults()?.set(Field::ClockOffsetS, s)?,
            DiskChange::ClockFrozen => {
                faults()?.set(Field::ClockFrozenS, i64::try_from(now())?)?;
            }
            DiskChange::ClockRight => {
                faults()?.set(Field::ClockOffsetS, 0)?;
                faults()?.set(Field::ClockFrozenS, 0)?;
            }
        }
        Ok(String::new())
    }

    pub(super) fn files(&mut self, change: &FileChange) -> anyhow::Result<String> {
        let saved = |label: &str| self.deployment.dir().join("saved").join(label);
        match change {
            FileChange::Flip { name, files } => {
                for file in self.found(name, files)? {
                    flip(&file).with_context(|| file.display().to_string())?;
                }
            }
            FileChange::Truncate { name, files, bytes } => {
                for path in self.found(name, files)? {
                    let file = File::options().write(true).open(&path)?;
                    let length = file.metadata()?.len().min(u64::from(*bytes));
                    file.set_len(length).with_context(|| path.display().to_string())?;
                }
            }
            FileChange::Delete { name, files } => {
                for path in self.found(name, files)? {
                    let removed = if path.is_dir() {
                        fs::remove_dir_all(&path)
                    } else {
                        fs::remove_file(&path)
                    };
                    removed.with_context(|| path.display().to_string())?;
                }
            }
            FileChange::Wipe { name } => remove_inside(&self.data(name)?)?,
            FileChange::Swap { one, other } => {
                let (one, other) = (self.data(one)?, self.data(other)?);
                let aside = one.with_extension("aside");
                fs::rename(&one, &aside)?;
                fs::rename(&other, &one)?;
                fs::rename(&aside, &other)?;
            }
            FileChange::Copy { from, to } => {
                let (from, to) = (self.deployment.data(from), self.data(to)?);
                remove_inside(&to)?;
                copy(&from, &to)?;
            }
            // A backup may well be taken of a process that runs.
            FileChange::Save { name, label } => {
                copy(&self.deployment.data(name), &saved(label))?;
            }
            FileChange::Restore { name, label } => {
                let to = self.data(name)?;
                remove_inside(&to)?;
                copy(&saved(label), &to)?;
            }
        }
        Ok(String::new())
    }

    /// The data of a process that does not run.
    fn data(&self, name: &str) -> anyhow::Result<PathBuf> {
        if self.deployment.pid(name).is_some() {
            bail!("{name} runs: stop it before its files are changed");
        }
        Ok(self.deployment.data(name))
    }

    /// The files of a process that does not run which match a pattern; at least one.
    fn found(&self, name: &str, pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = vec![self.data(name)?];
        for part in pattern.split('/') {
            let mut inside = Vec::new();
            for dir in &found {
                let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
                for entry in entries {
                    let entry = entry?;
                    if fits(part, &entry.file_name().to_string_lossy()) {
                        inside.push(entry.path());
                    }
                }
            }
            found = inside;
        }
        found.sort();
        if found.is_empty() {
            bail!("{name} has no file {pattern}");
        }
        Ok(found)
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))
}

/// Flips a bit amid what a file holds: behind its header page if it is that long, before reserved space, all zero.
fn flip(path: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(path)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("the file holds nothing")?;
    let at = if used > HEADER { HEADER.midpoint(used) } else { used / 2 };
    let file = File::options().write(true).open(path)?;
    file.write_all_at(&[bytes[at] ^ 1], at as u64)?;
    Ok(())
}

fn remove_inside(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

/// Copies what is in a directory, holes and all.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let output = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).output()?;
    if !output.status.success() {
        bail!("cp: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(
            fits("*.seg", "0-7.seg") && fits("a*b*c", "abxbc") && fits("*", "") && fits("a", "a")
        );
        assert!(!fits("*.seg", "0.open") && !fits("a*b", "acbd") && !fits("a", "ab"));
    }
}
