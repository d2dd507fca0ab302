//! Key files, the directory, and who is accepted over TLS.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection};
use rustls_pki_types::CertificateDer;
use tradewind_topology::{PublicKey, Right, Rights, Role, Topology};
use tradewind_transport::{
    Directory, DirectoryError, Identity, IdentityError, Peer,
    tls::{Credentials, CredentialsError, PeerError, Protocol, ed25519_key, server_name},
};

fn identity(name: &str) -> Identity {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    Identity::from_seed(name, &seed)
}

fn entry(name: &str, role: Role) -> (PublicKey, Peer) {
    let rights = match role {
        Role::Client => Rights::All(Right::Read),
        _ => Rights::Pools(BTreeMap::new()),
    };
    (identity(name).public_key(), Peer { name: name.to_owned(), role, rights })
}

/// Two nodes of ams, one of lhr, two mirrors, one client.
fn directory() -> Arc<Directory> {
    let node = |site: &str| Role::Node(site.parse().unwrap());
    let peers = [
        entry("a1", node("ams")),
        entry("a2", node("ams")),
        entry("l1", node("lhr")),
        entry("m1", Role::Mirror),
        entry("m2", Role::Mirror),
        entry("reader", Role::Client),
    ];
    Arc::new(Directory::new(peers).unwrap())
}

fn credentials(name: &str) -> Credentials {
    Credentials::new(&identity(name), directory()).unwrap()
}

/// The credentials of somebody whom only its own directory names.
fn stranger() -> Credentials {
    let (_, peer) = entry("a2", Role::Node("ams".parse().unwrap()));
    let thief = Identity::from_seed("a2", &[66; 32]);
    let peers = Directory::new([(thief.public_key(), peer)]).unwrap();
    Credentials::new(&thief, Arc::new(peers)).unwrap()
}

/// Carries bytes between both ends until neither has any; an error is that of who found it.
fn shake(client: &mut Connection, server: &mut Connection) -> Result<(), rustls::Error> {
    for _ in 0..10 {
        carry(client, server)?;
        carry(server, client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// Dials `server`, which is who it is, as `name`, over `protocol`; returns whom the server sees.
fn dial(
    protocol: Protocol,
    client: &Credentials,
    name: &str,
    server: &Credentials,
) -> Result<Arc<Peer>, String> {
    let client_config = client.client(protocol, name);
    dial_with(client_config, protocol, server)
}

fn dial_with(
    client: Arc<ClientConfig>,
    protocol: Protocol,
    server: &Credentials,
) -> Result<Arc<Peer>, String> {
    let mut client = ClientConnection::new(client, server_name()).unwrap().into();
    let mut connection = ServerConnection::new(server.server(protocol)).unwrap().into();
    shake(&mut client, &mut connection).map_err(|error| error.to_string())?;
    server.peer(protocol, &connection).map_err(|error| error.to_string())
}

#[test]
fn the_right_peers_are_accepted_and_known_by_name_role_and_rights() {
    for (protocol, client, server) in [
        (Protocol::Group, "a2", "a1"),
        (Protocol::Wan, "m1", "a1"),
        (Protocol::Wan, "m2", "m1"),
        (Protocol::Client, "reader", "l1"),
        (Protocol::Client, "reader", "m1"),
    ] {
        let peer = dial(protocol, &credentials(client), server, &credentials(server));
        let (_, expected) = entry(client, peer.as_ref().unwrap().role.clone());
        assert_eq!(*peer.unwrap(), expected, "{client} to {server} over {protocol}");
    }
}

#[test]
fn who_may_not_speak_a_protocol_is_refused_in_words() {
    for (protocol, client, server, words) in [
        (Protocol::Group, "l1", "a1", "a1 is a node of ams: it may not speak the group protocol"),
        (Protocol::Group, "m1", "a1", "may not speak the group protocol"),
        (Protocol::Wan, "a2", "a1", "may not speak the wan protocol"),
        (Protocol::Wan, "reader", "m1", "may not speak the wan protocol"),
        (Protocol::Client, "m1", "a1", "may not speak the client protocol"),
    ] {
        // The client's own look at the roles comes first.
        let refused = dial(protocol, &credentials(client), server, &credentials(server));
        assert!(refused.as_ref().is_err_and(|e| e.contains(words)), "{client}: {refused:?}");
    }
    // A client that does not look: the server does. It believes to be what it is not.
    let liar = |name: &str, role: Role| {
        let node = Role::Node("ams".parse().unwrap());
        let peers = Directory::new([entry(name, role), entry("a1", node)]).unwrap();
        Credentials::new(&identity(name), Arc::new(peers)).unwrap()
    };
    let node = || Role::Node("ams".parse().unwrap());
    for (protocol, client, words) in [
        (
            Protocol::Group,
            liar("m1", node()),
            "m1 is a mirror: it may not speak the group protocol",
        ),
        (Protocol::Group, liar("l1", node()), "l1 is a node of lhr"),
        (Protocol::Wan, liar("reader", Role::Mirror), "reader is a client"),
        (Protocol::Client, liar("m1", Role::Client), "m1 is a mirror"),
    ] {
        let refused = dial(protocol, &client, "a1", &credentials("a1"));
        assert!(refused.as_ref().is_err_and(|e| e.contains(words)), "{refused:?}");
    }
}

#[test]
fn unknown_keys_and_wrong_names_are_refused_at_both_ends() {
    let unknown = "no process or client of the topology has the peer's key";
    let refused = dial(Protocol::Group, &credentials("a1"), "a2", &stranger());
    assert!(refused.as_ref().is_err_and(|e| e.contains(unknown)), "{refused:?}");

    // The stranger knows a1, but a1 does not know the stranger.
    let (key, a1) = entry("a1", Role::Node("ams".parse().unwrap()));
    let thief = Identity::from_seed("a2", &[66; 32]);
    let (_, own) = entry("a2", Role::Node("ams".parse().unwrap()));
    let peers = Directory::new([(key, a1), (thief.public_key(), own)]).unwrap();
    let thief = Credentials::new(&thief, Arc::new(peers)).unwrap();
    let refused = dial(Protocol::Group, &thief, "a1", &credentials("a1"));
    assert!(refused.as_ref().is_err_and(|e| e.contains(unknown)), "{refused:?}");

    let refused = dial(Protocol::Wan, &credentials("m1"), "a1", &credentials("a2"));
    let words = "the peer's key is that of a2, but a1 was dialled";
    assert!(refused.as_ref().is_err_and(|e| e.contains(words)), "{refused:?}");
}

/// A client configuration with no certificate, or with one whose private key it does not hold.
fn forged(certificate: Option<(CertificateDer<'static>, &Identity)>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&credentials("a2").client(Protocol::Group, "a1"));
    config.client_auth_cert_resolver = match certificate {
        None => Arc::new(NoCertificate),
        Some((certificate, key)) => {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            let folder = tempfile::tempdir().unwrap();
            key.save(&folder.path().join("key")).unwrap();
            let pem = fs::read(folder.path().join("key")).unwrap();
            let der = rustls_pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
            let key = provider.key_provider.load_private_key(der).unwrap();
            let certified = rustls::sign::CertifiedKey::new(vec![certificate], key);
            Arc::new(rustls::sign::SingleCertAndKey::from(certified))
        }
    };
    Arc::new(config)
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The certificate that a process shows: public, whoever connects has it.
fn certificate_of(name: &str, dialled_by: &str) -> CertificateDer<'static> {
    let config = credentials(dialled_by).client(Protocol::Group, name);
    let mut client = ClientConnection::new(config, server_name()).unwrap().into();
    let server = credentials(name).server(Protocol::Group);
    let mut server = ServerConnection::new(server).unwrap().into();
    shake(&mut client, &mut server).unwrap();
    client.peer_certificates().unwrap()[0].clone()
}

#[test]
fn no_certificate_or_a_copied_one_does_not_open_the_door() {
    let a1 = credentials("a1");
    let refused = dial_with(forged(None), Protocol::Group, &a1);
    assert_eq!(refused, Err("peer sent no certificates".to_owned()));

    let copied = certificate_of("a2", "a1");
    assert_eq!(ed25519_key(&copied), Ok(identity("a2").public_key()));
    let forged = forged(Some((copied, &identity("m1"))));
    let refused = dial_with(forged, Protocol::Group, &a1);
    assert_eq!(refused, Err("invalid peer certificate: BadSignature".to_owned()));
}

#[test]
fn one_protocol_is_not_taken_for_another() {
    let mut config = ClientConfig::clone(&credentials("m1").client(Protocol::Wan, "a1"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused = dial_with(Arc::new(config.clone()), Protocol::Wan, &credentials("a1"));
    assert_eq!(refused, Err("peer doesn't support any known protocol".to_owned()));
    config.alpn_protocols.clear();
    let refused = dial_with(Arc::new(config), Protocol::Wan, &credentials("a1"));
    assert_eq!(refused, Err("the peer did not agree on the wan protocol".to_owned()));
}

#[test]
fn credentials_want_the_own_key_in_the_topology() {
    let unnamed = Credentials::new(&identity("x9"), directory()).unwrap_err();
    assert!(matches!(unnamed, CredentialsError::NotNamed { .. }), "{unnamed}");
    let (_, swapped) = entry("a1", Role::Mirror);
    let peers = Directory::new([(identity("a2").public_key(), swapped)]).unwrap();
    let other = Credentials::new(&identity("a2"), Arc::new(peers)).unwrap_err();
    assert_eq!(
        other.to_string(),
        "the key of a2 is the one that the topology gives to a1: wrong key file?"
    );
}

#[test]
fn a_directory_refuses_one_key_for_two_names() {
    let (key, first) = entry("m1", Role::Mirror);
    let (_, second) = entry("m2", Role::Mirror);
    let refused = Directory::new([(key, first), (key, second)]).unwrap_err();
    let expected =
        DirectoryError::DuplicateKey { key, first: "m1".to_owned(), second: "m2".to_owned() };
    assert_eq!(refused, expected);
}

#[test]
fn the_directory_of_a_topology_names_all_and_gives_rights_to_clients_only() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../topology/testdata/good/atlas.toml");
    let topology = Topology::load(file).expect("a good file").topology;
    let directory = Directory::from_topology(&topology).unwrap();
    let none = Rights::Pools(BTreeMap::new());
    assert!(!topology.clients.is_empty());
    for (key, name, role) in topology.identities() {
        let client = topology.client(name).filter(|_| role == Role::Client);
        let peer = directory.peer(&key).expect("named");
        assert_eq!((peer.name.as_str(), &peer.role), (name, &role));
        assert_eq!(&peer.rights, client.map_or(&none, |client| &client.rights));
    }
}

#[test]
fn a_key_file_comes_back_and_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a1.key");
    let missing = Identity::load("a1", &path).unwrap_err();
    assert!(missing.to_string().ends_with("is missing: make one with `tradewind keys new`"));

    let made = Identity::generate("a1").unwrap();
    made.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let loaded = Identity::load("a1", &path).unwrap();
    assert_eq!((loaded.name(), loaded.public_key()), ("a1", made.public_key()));
    assert_eq!(loaded.sign(b"words"), made.sign(b"words"));
    assert!(matches!(made.save(&path), Err(IdentityError::Exists { .. })));

    for mode in [0o640, 0o604, 0o620, 0o644, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let lax = Identity::load("a1", &path).unwrap_err().to_string();
        assert!(lax.contains(&format!("mode {mode:04o}")) && lax.contains("chmod 600"), "{lax}");
    }
    let not_a_file = Identity::load("a1", folder.path()).unwrap_err();
    assert!(not_a_file.to_string().ends_with("not a regular file"), "{not_a_file}");
}

/// Made by `openssl genpkey -algorithm ed25519`; the public half by `openssl pkey -pubout`.
const OPENSSL_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

#[test]
fn only_an_ed25519_key_in_pkcs8_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Identity::load("a1", &path)
    };
    // RFC 8410, section 10.3.
    let key = load(OPENSSL_KEY).unwrap();
    assert_eq!(key.public_key().to_string(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    let other_kind = OPENSSL_KEY.replace("MC4CAQAwBQYDK2Vw", "MC4CAQAwBQYDK2Vu");
    let long = "x".repeat(5_000);
    for (bad, words) in [
        ("", "no items found"),
        ("not a key", "no items found"),
        (&other_kind, "another kind of private key"),
        (&OPENSSL_KEY[..60], "section end"),
        (&long, "5000 bytes, more than any key"),
    ] {
        let error = load(bad).unwrap_err().to_string();
        assert!(error.contains(words), "{bad:.30}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_in_place_of_a_certificate_make_it_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = certificate_of("a2", "a1").to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever comes out, it is a key of the curve or an error.
        _ = ed25519_key(&CertificateDer::from(&bytes[..]));
        bytes.truncate(length.index(bytes.len()));
        let cut = ed25519_key(&CertificateDer::from(&bytes[..]));
        prop_assert!(matches!(cut, Err(PeerError::Certificate(_))));
        prop_assert!(ed25519_key(&CertificateDer::from(&noise[..])).is_err());
    }
}
