//! The verifiers of both sides: the key of a certificate, and whether it may speak here.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tradewind_topology::{PublicKey, Role};

use super::{PeerError, Protocol};
use crate::{Directory, Peer};

/// `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410, section 4): this, then the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 public key of a certificate (X.509 version 3, DER).
///
/// # Errors
/// [`PeerError::Certificate`] or [`PeerError::KeyKind`], whatever the bytes are.
pub fn ed25519_key(certificate: &CertificateDer<'_>) -> Result<PublicKey, PeerError> {
    let parsed = ParsedCertificate::try_from(certificate)
        .map_err(|error| PeerError::Certificate(error.to_string()))?;
    let spki = parsed.subject_public_key_info();
    let key = spki.strip_prefix(&SPKI_PREFIX[..]).and_then(|key| <[u8; 32]>::try_from(key).ok());
    key.and_then(|key| PublicKey::from_bytes(key).ok()).ok_or(PeerError::KeyKind)
}

/// Whom a verifier waits for.
#[derive(Debug)]
pub(super) enum Expected {
    /// Whoever may dial us.
    Client,
    /// The process that we dialled.
    Server(String),
}

/// Accepts a certificate whose key the directory names, for a role that may speak `protocol` here.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) directory: Arc<Directory>,
    pub(super) own: Arc<Peer>,
    pub(super) protocol: Protocol,
    pub(super) expected: Expected,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), PeerError> {
        let key = ed25519_key(certificate)?;
        let peer = self.directory.peer(&key).ok_or(PeerError::UnknownKey(key))?;
        let admitted = match &self.expected {
            Expected::Client => self.protocol.admits(&peer.role, &self.own.role),
            Expected::Server(name) if *name != peer.name => {
                return Err(PeerError::Name { expected: name.clone(), found: peer.name.clone() });
            }
            Expected::Server(_) => self.protocol.admits(&self.own.role, &peer.role),
        };
        if !admitted {
            let role = match &peer.role {
                Role::Node(site) => format!("node of {site}"),
                Role::Former(site) => format!("node of {site} that was removed"),
                Role::Mirror => "mirror".to_owned(),
                Role::Client => "client".to_owned(),
            };
            let (name, protocol) = (peer.name.clone(), self.protocol);
            return Err(PeerError::Role { name, role, protocol });
        }
        Ok(())
    }

    fn verify_certificate(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        self.check(certificate)
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(InWords(error)))).into())
    }

    /// The proof that the peer holds the key: without it a certificate is a copy of public bytes.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// rustls and quinn report the verifier's error by its `Debug` form; this makes that readable.
#[derive(thiserror::Error)]
#[error("{0}")]
struct InWords(PeerError);

impl fmt::Debug for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// TLS 1.2 is not spoken, so its signatures are never valid.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_certificate(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_certificate(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
