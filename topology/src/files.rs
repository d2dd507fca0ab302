//! The files that a topology file leads to: certificates, and the private keys of this machine.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use crate::{
    diagnostics::{Diagnostics, Place},
    draft::Draft,
    key::{PublicKey, public_key_of_certificate, public_key_of_private},
    section::At,
};

/// Keys and certificates are small; whatever is larger is something else.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Complains about certificates that are missing or for another key, and about private keys that
/// are here but do not fit. A private key that is not here belongs to another machine.
pub(crate) fn check(draft: &Draft, directory: &Path, diagnostics: &mut Diagnostics) {
    let nodes = draft.sites.iter().flat_map(|site| &site.nodes);
    let processes = nodes.chain(draft.mirrors.iter().map(|mirror| &mirror.process));
    for process in processes.clone() {
        if let (Some(certificate), Some(key)) = (&process.certificate, &process.key) {
            check_certificate(certificate, key, directory, diagnostics);
        }
    }
    let keys = directory.join(draft.keys.as_ref().map_or("keys", |at| at.value.as_str()));
    let clients = draft.clients.iter().map(|client| (Some(&client.name), client.key.as_ref()));
    let owners = processes.map(|process| (process.name.as_ref(), process.key.as_ref()));
    for (name, key) in owners.chain(clients) {
        // A name with a slash in it has been refused, and must not become a path.
        if let (Some(name), Some(key)) = (name, key)
            && name.value.parse::<crate::names::ProcessName>().is_ok()
        {
            check_private(&keys.join(format!("{}.key", name.value)), key, diagnostics);
        }
    }
}

fn check_certificate(
    certificate: &At<String>,
    key: &At<PublicKey>,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) {
    let path = directory.join(&certificate.value);
    let found = match read(&path) {
        Err(error) => format!("{:?}: {error}", certificate.value),
        Ok(text) => match public_key_of_certificate(&text) {
            None => format!("{:?}, which holds no Ed25519 certificate in PEM", certificate.value),
            Some(own) if own == key.value => return,
            Some(own) => format!("{:?}, which is for the key {own}", certificate.value),
        },
    };
    let allowed =
        format!("a certificate for the key {}; or none: then one is self-signed", key.value);
    diagnostics.error(&certificate.place, certificate.key.as_str(), found, allowed);
}

fn check_private(path: &Path, key: &At<PublicKey>, diagnostics: &mut Diagnostics) {
    let place: &Place = &key.place;
    let text = match read(path) {
        Ok(text) => text,
        // Not ours to read, or not here: only the process that needs it must be able to.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return;
        }
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            return diagnostics.error(
                place,
                key.key.as_str(),
                found,
                "a readable private key file",
            );
        }
    };
    let Some(own) = public_key_of_private(&text) else {
        let found = format!("{}, which holds no Ed25519 private key", path.display());
        let allowed = "an Ed25519 private key in PKCS#8 PEM, as `tradewind keys new` writes it";
        return diagnostics.error(place, key.key.as_str(), found, allowed);
    };
    if own != key.value {
        let found = format!("{}, but {} is the private key of {own}", key.value, path.display());
        diagnostics.error(place, key.key.as_str(), found, "the public key of that private key");
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}
