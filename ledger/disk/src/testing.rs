//! What the tests of this crate share: an author of entries, a model of a disk that loses power.

mod author;
mod model;

use std::path::Path;

pub(crate) use author::Author;
pub(crate) use model::{Event, Image, Random, Recorder};
use tempfile::TempDir;

/// A directory in memory where there is one: these tests make and sync thousands of files.
pub(crate) fn tempdir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a directory for the test")
}
