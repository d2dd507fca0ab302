//! TLS 1.3 between processes that know each other by their public keys.
//!
//! Both sides show a certificate; whoever signed it, and what it says of names and dates, counts
//! for nothing. What counts is its Ed25519 key: the handshake is signed with it, and the
//! [`Directory`] says which name and role it stands for. A peer is accepted if that role may speak
//! the protocol at hand, and, by the side that dials, if that name is the one dialled.
//!
//! Sessions are never resumed and 0-RTT is off: each connection proves the key anew.

mod verify;

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, CommonState, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tradewind_topology::{PublicKey, Role};

use crate::{Directory, Identity, Peer};
pub use verify::ed25519_key;
use verify::{Expected, Verifier};

/// The host name put where a protocol asks for one. Peers are known by their keys, so it says nothing.
pub const SERVER_NAME: &str = "tradewind.invalid";

/// A protocol spoken over TLS or QUIC, with an ALPN of its own: none can be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Between the nodes of one site.
    Group,
    /// From a client to a node or mirror.
    Client,
    /// From a mirror to its parent, a node or mirror.
    Wan,
}

impl Protocol {
    /// The protocol's name and version in TLS (RFC 7301).
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Group => b"tradewind-group/1",
            Self::Client => b"tradewind-client/1",
            Self::Wan => b"tradewind-wan/1",
        }
    }

    /// Whether a process of role `client` may dial one of role `server` and speak this protocol.
    #[must_use]
    pub fn admits(self, client: &Role, server: &Role) -> bool {
        match self {
            // Who was a node once is told so by the nodes.
            Self::Group => matches!(
                (client, server),
                (Role::Node(a), Role::Node(b) | Role::Former(b)) | (Role::Former(a), Role::Node(b)) if a == b
            ),
            Self::Client => {
                *client == Role::Client && matches!(server, Role::Node(_) | Role::Mirror)
            }
            Self::Wan => *client == Role::Mirror && matches!(server, Role::Node(_) | Role::Mirror),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Client => "client",
            Self::Wan => "wan",
        })
    }
}

/// Why a peer is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It showed no certificate.
    #[error("the peer showed no certificate: it must be named in the topology and use its key")]
    NoCertificate,
    /// It showed bytes that are no X.509 certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Certificate(String),
    /// Its certificate is for a key of another kind.
    #[error("the peer's certificate holds no usable Ed25519 key, which is the only kind allowed")]
    KeyKind,
    /// Nobody has that key.
    #[error(
        "no process or client of the topology has the peer's key {0}: add it, or give both sides \
         the same topology file"
    )]
    UnknownKey(PublicKey),
    /// Somebody else has that key.
    #[error("the peer's key is that of {found}, but {expected} was dialled: check the addresses")]
    Name {
        /// Who was dialled.
        expected: String,
        /// Whose key it is.
        found: String,
    },
    /// Its role does not speak this protocol with ours.
    #[error("{name} is a {role}: it may not speak the {protocol} protocol with this process")]
    Role {
        /// The peer.
        name: String,
        /// What it is.
        role: String,
        /// What it tried.
        protocol: Protocol,
    },
    /// It agreed on no protocol, or on another.
    #[error("the peer did not agree on the {0} protocol")]
    Protocol(Protocol),
}

/// Why credentials cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The own key is not in the topology.
    #[error(
        "the key of {name} is {key}, which the topology does not name: put it there, or point \
         to the right key file"
    )]
    NotNamed {
        /// The own name.
        name: String,
        /// The public half of the own key.
        key: PublicKey,
    },
    /// The own key belongs to somebody else.
    #[error("the key of {name} is the one that the topology gives to {found}: wrong key file?")]
    OtherName {
        /// The own name.
        name: String,
        /// Whose key it is.
        found: String,
    },
    /// The certificate cannot be made.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refuses the key.
    #[error("cannot use the key for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// All that a process needs to prove who it is and to tell who others are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Credentials {
    own: Arc<Peer>,
    directory: Arc<Directory>,
    certified: Arc<SingleCertAndKey>,
    reset_secret: ResetSecret,
}

/// The key of stateless resets.
#[derive(Clone)]
pub(crate) struct ResetSecret(pub(crate) [u8; 32]);

impl fmt::Debug for ResetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetSecret")
    }
}

/// The one cryptography provider, given explicitly wherever rustls wants one.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

impl Credentials {
    /// Makes the certificate of `identity`, after a look whether the topology knows it.
    ///
    /// # Errors
    /// [`CredentialsError`], above all if the topology gives that name another key.
    pub fn new(identity: &Identity, directory: Arc<Directory>) -> Result<Self, CredentialsError> {
        let (name, key) = (identity.name().to_owned(), identity.public_key());
        let own = match directory.peer(&key) {
            None => return Err(CredentialsError::NotNamed { name, key }),
            Some(peer) if peer.name != name => {
                return Err(CredentialsError::OtherName { name, found: peer.name.clone() });
            }
            Some(peer) => Arc::clone(peer),
        };
        let certified = Arc::new(SingleCertAndKey::from(certify(identity)?));
        let reset_secret =
            ResetSecret(identity.derive("tradewind QUIC stateless resets, version 1"));
        Ok(Self { own, directory, certified, reset_secret })
    }

    pub(crate) fn reset_secret(&self) -> &ResetSecret {
        &self.reset_secret
    }

    /// This process, as the topology names it.
    #[must_use]
    pub fn own(&self) -> &Arc<Peer> {
        &self.own
    }

    /// TLS for those who dial this process to speak `protocol`.
    ///
    /// # Panics
    /// Never: the provider knows TLS 1.3.
    #[must_use]
    pub fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let verifier = self.verifier(protocol, Expected::Client);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.certified) as _);
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// TLS to dial the process `server` and speak `protocol`. The host name to give with it is
    /// [`SERVER_NAME`].
    ///
    /// # Panics
    /// Never: the provider knows TLS 1.3.
    #[must_use]
    pub fn client(&self, protocol: Protocol, server: &str) -> Arc<ClientConfig> {
        let verifier = self.verifier(protocol, Expected::Server(server.to_owned()));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider knows TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::clone(&self.certified) as _);
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    }

    /// Who is at the other end of a connection whose handshake is over.
    ///
    /// # Errors
    /// [`PeerError`] if another protocol was agreed on, or none.
    pub fn peer(
        &self,
        protocol: Protocol,
        connection: &CommonState,
    ) -> Result<Arc<Peer>, PeerError> {
        self.peer_by(protocol, connection.peer_certificates(), connection.alpn_protocol())
    }

    /// As [`Self::peer`], from what the handshake has shown.
    pub(crate) fn peer_by(
        &self,
        protocol: Protocol,
        certificates: Option<&[CertificateDer<'_>]>,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<Peer>, PeerError> {
        if alpn != Some(protocol.alpn()) {
            return Err(PeerError::Protocol(protocol));
        }
        let certificate = certificates.and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
        let key = ed25519_key(certificate)?;
        self.directory.peer(&key).map(Arc::clone).ok_or(PeerError::UnknownKey(key))
    }

    fn verifier(&self, protocol: Protocol, expected: Expected) -> Arc<Verifier> {
        Arc::new(Verifier {
            directory: Arc::clone(&self.directory),
            own: Arc::clone(&self.own),
            protocol,
            expected,
            algorithms: PROVIDER.signature_verification_algorithms,
        })
    }
}

/// [`SERVER_NAME`] in the form that TLS wants.
///
/// # Panics
/// Never: it is a host name.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a host name")
}

/// A certificate signed by its own key. Its name and dates are not looked at by anybody.
fn certify(identity: &Identity) -> Result<CertifiedKey, CredentialsError> {
    let pkcs8 = identity.to_pkcs8();
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, identity.name());
    let chain = vec![params.self_signed(&key)?.der().clone()];
    Ok(CertifiedKey::from_der(chain, PrivateKeyDer::Pkcs8(pkcs8), &PROVIDER)?)
}
