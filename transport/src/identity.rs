//! The Ed25519 key of a process or client, and the file that holds it.
//!
//! The file is PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` writes it (RFC 8410), readable
//! by its owner only. Which name a key stands for is said by the topology, not by the file: see
//! [`crate::Directory`].

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use base64ct::{Base64, Encoding as _};
use ed25519_dalek::{Signer as _, SigningKey};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use tradewind_topology::PublicKey;

/// PKCS#8 version 1 of an Ed25519 key (RFC 8410, section 7): this, then the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// No key file is longer; what is longer is not read.
const FILE_BYTES_MAX: u64 = 4_096;

/// A private key and the name whose holder it makes.
pub struct Identity {
    name: String,
    key: SigningKey,
}

/// Why a key file cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such file.
    #[error("key file {} is missing: make one with `tradewind keys new`", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the key.
    #[error(
        "key file {} may be used by others (mode {mode:04o}): allowed is 0600, run `chmod 600 {}`; \
         if it was exposed, make a new key with `tradewind keys new`",
        .path.display(), .path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no Ed25519 private key.
    #[error("key file {} is not a PKCS#8 PEM file of an Ed25519 private key: {found}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A key file is never overwritten.
    #[error("key file {} exists and is not overwritten: move it away first", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("key file {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has no randomness to give.
    #[error("no randomness from the system: {0}")]
    Random(getrandom::Error),
}

impl Identity {
    /// Makes a new key from the system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn generate(name: &str) -> Result<Self, IdentityError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(IdentityError::Random)?;
        Ok(Self::from_seed(name, &seed))
    }

    /// The key of a seed (RFC 8032): the same seed, the same key.
    #[must_use]
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) }
    }

    /// Reads the key of `name` from a file.
    ///
    /// # Errors
    /// [`IdentityError`] if the file is missing, not a regular file, usable by anybody but its
    /// owner, or no Ed25519 key.
    pub fn load(name: &str, path: &Path) -> Result<Self, IdentityError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => IdentityError::Missing { path: path.to_owned() },
            _ => IdentityError::Io { path: path.to_owned(), source },
        };
        let format = |found: String| IdentityError::Format { path: path.to_owned(), found };
        let file = fs::File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(format("not a regular file".to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Permissions { path: path.to_owned(), mode });
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(format(format!("{} bytes, more than any key", metadata.len())));
        }
        let mut pem = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut pem).map_err(io)?;
        Self::from_pem(name, &pem).map_err(format)
    }

    /// Writes the key to a new file of mode 0600 and makes it durable.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] or [`IdentityError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.to_owned() },
            _ => IdentityError::Io { path: path.to_owned(), source },
        };
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        file.write_all(self.to_pem().as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(io)
    }

    /// The name that this process goes by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half of the key.
    ///
    /// # Panics
    /// Never: the public half of a private key is a point that signatures verify with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
            .expect("the public half of a private key is a usable point")
    }

    /// The Ed25519 signature (RFC 8032) of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// A secret for one purpose that only the holder of this key can make, the same at each start (HMAC-SHA-256 of the
    /// purpose under the seed; the signature scheme itself uses the seed through SHA-512 only).
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_bytes());
        let tag = hmac::sign(&key, purpose.as_bytes());
        tag.as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }

    /// The key as PKCS#8, for the TLS library.
    pub(crate) fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], self.key.as_bytes()].concat())
    }

    fn to_pem(&self) -> String {
        let body = Base64::encode_string(self.to_pkcs8().secret_pkcs8_der());
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    fn from_pem(name: &str, pem: &[u8]) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
        let der = der.secret_pkcs8_der();
        let seed = der.strip_prefix(&PKCS8_PREFIX[..]).and_then(|seed| seed.try_into().ok());
        let seed = seed.ok_or("another kind of private key")?;
        Ok(Self::from_seed(name, seed))
    }
}

/// Shows the public half only.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.name, self.public_key())
    }
}
