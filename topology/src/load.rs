//! From a path, or a text, to a validated [`Topology`].

use std::{fs::File, io::Read as _, path::Path};

use crate::{
    build::build,
    check::check,
    diagnostics::{Diagnostics, Place},
    draft, files,
    model::Topology,
    section::At,
    tree,
};

/// The largest topology file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A topology that can be used, and what is doubtful about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The topology.
    pub topology: Topology,
    /// Warnings only.
    pub warnings: Diagnostics,
}

impl Topology {
    /// Reads a topology file, lays the process's `TRADEWIND_SECTION__KEY` environment variables
    /// over it, and checks everything, key files and certificates that the file names included.
    ///
    /// # Errors
    /// All faults at once, warnings among them.
    pub fn load(path: impl AsRef<Path>) -> Result<Loaded, Diagnostics> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::load_with(path.as_ref(), &environment)
    }

    /// [`Topology::load`] with an environment of the caller's.
    ///
    /// # Errors
    /// All faults at once, warnings among them.
    pub fn load_with(path: &Path, environment: &[(String, String)]) -> Result<Loaded, Diagnostics> {
        let mut diagnostics = Diagnostics::new(path);
        match read(path) {
            Ok(text) => {
                let draft = draft(&text, environment, &mut diagnostics);
                files::check(&draft, directory(path), &mut diagnostics);
                finish(draft, path, diagnostics)
            }
            Err((found, allowed)) => {
                diagnostics.error(&Place::File, "(file)", found, allowed);
                Err(diagnostics)
            }
        }
    }

    /// Checks a text as if it stood in the file `path`, without touching any file.
    ///
    /// # Errors
    /// All faults at once, warnings among them.
    pub fn parse(
        text: &str,
        path: &Path,
        environment: &[(String, String)],
    ) -> Result<Loaded, Diagnostics> {
        let mut diagnostics = Diagnostics::new(path);
        let draft = draft(text, environment, &mut diagnostics);
        finish(draft, path, diagnostics)
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn read(path: &Path) -> Result<String, (String, &'static str)> {
    const READABLE: &str = "a readable topology file; `tradewind topology init` makes one";
    let file = File::open(path).map_err(|error| (error.to_string(), READABLE))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| (error.to_string(), READABLE))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err((format!("more than {FILE_BYTES_MAX} bytes"), "a file of at most 1 MiB"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| (format!("no UTF-8: {}", error.utf8_error()), "UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(("an empty file".to_owned(), READABLE));
    }
    Ok(text)
}

fn draft(
    text: &str,
    environment: &[(String, String)],
    diagnostics: &mut Diagnostics,
) -> draft::Draft {
    let mut tree = tree::parse(text, diagnostics);
    tree::apply_environment(&mut tree, environment, diagnostics);
    let draft = draft::read(tree, diagnostics);
    check(&draft, diagnostics);
    for at in [&draft.keys, &draft.data].into_iter().flatten() {
        check_directory(at, diagnostics);
    }
    draft
}

fn check_directory(at: &At<String>, diagnostics: &mut Diagnostics) {
    if at.value.is_empty() || at.value.contains('\0') {
        let allowed = "a directory, absolute or relative to the file's own";
        diagnostics.error(&at.place, at.key.as_str(), format!("{:?}", at.value), allowed);
    }
}

fn finish(
    draft: draft::Draft,
    path: &Path,
    diagnostics: Diagnostics,
) -> Result<Loaded, Diagnostics> {
    let diagnostics = diagnostics.sorted();
    if diagnostics.errors() > 0 {
        return Err(diagnostics);
    }
    let topology = build(draft, directory(path));
    let topology = topology.expect("a part that is missing or malformed was complained about");
    Ok(Loaded { topology, warnings: diagnostics })
}
