//! QUIC endpoints (RFC 9000) with the deployment's identities, their windows fitted to the link.
//!
//! quinn's defaults suit 100 Mbit/s at 100 ms and never notice a silent peer in time. Here the
//! windows follow from the link that the topology describes, bounded in memory, and a connection
//! that is silent is given up within seconds.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use quinn::{
    Connection, ConnectionId, ConnectionIdGenerator, Endpoint, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Socket, Type};
use tradewind_topology::Link;

use crate::{
    Peer,
    tls::{Credentials, PeerError, Protocol, SERVER_NAME},
};

/// Windows are never smaller: what the defaults of most implementations give.
const WINDOW_BYTES_MIN: u64 = 1 << 20;

/// Windows are never larger: what one peer may make this process keep for one stream.
const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// The largest datagram that is tried; what a path takes is found out by probing (RFC 8899).
///
/// quinn hands ten datagrams at once to the kernel, which takes 65,507 bytes: with larger ones it
/// would refuse them all.
const DATAGRAM_BYTES_MAX: u16 = 6_400;

/// What the controller of a connection's rate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438): well tried, slow to recover on long fat lossy links.
    #[default]
    Cubic,
    /// BBR: better on lossy links, experimental in quinn.
    Bbr,
}

/// How a connection is tuned.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// What is known of the link; windows are made from it.
    pub link: Link,
    /// The congestion controller.
    pub congestion: Congestion,
    /// A silent connection sends a sign of life after this long.
    pub keep_alive: Duration,
    /// A connection that heard nothing for this long is given up.
    pub idle_timeout: Duration,
    /// Streams of either kind that the peer may have open at once.
    pub streams_max: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            link: Link::default(),
            congestion: Congestion::default(),
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            streams_max: 64,
        }
    }
}

/// Why there is no endpoint or no connection.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The UDP socket could not be had.
    #[error("cannot open UDP {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The connection could not be started.
    #[error("cannot dial {name} at {address}: {source}")]
    Dial {
        /// Whom.
        name: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: quinn::ConnectError,
    },
    /// The connection was refused or timed out.
    #[error("cannot reach {name} at {address}: {source}")]
    Connect {
        /// Whom.
        name: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: quinn::ConnectionError,
    },
    /// The other end is not who it should be.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Opens an endpoint that accepts connections of `protocol` at `address`, and can also dial.
///
/// Within a tokio runtime only. [`peer`] tells who an accepted connection is from.
///
/// # Errors
/// [`QuicError::Bind`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn server(
    address: SocketAddr,
    credentials: &Credentials,
    protocol: Protocol,
    tuning: &Tuning,
) -> Result<Endpoint, QuicError> {
    let tls = QuicServerConfig::try_from(credentials.server(protocol))
        .expect("the provider has QUIC's initial cipher suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(tuning)));
    endpoint(address, restartable(credentials), Some(config), tuning)
}

/// Opens an endpoint that only dials, from `address` (port 0: any port).
///
/// Within a tokio runtime only.
///
/// # Errors
/// [`QuicError::Bind`].
///
/// # Panics
/// Outside of a tokio runtime.
pub fn client(address: SocketAddr, tuning: &Tuning) -> Result<Endpoint, QuicError> {
    endpoint(address, quinn::EndpointConfig::default(), None, tuning)
}

/// Dials the process `name` at `address`; when this returns, its identity is proven.
///
/// Whether it accepts *us* shows with the first bytes it answers: in TLS 1.3 the side that dials is
/// verified last.
///
/// # Errors
/// [`QuicError`].
///
/// # Panics
/// Never: the provider has QUIC's initial cipher suite.
pub async fn connect(
    endpoint: &Endpoint,
    credentials: &Credentials,
    protocol: Protocol,
    name: &str,
    address: SocketAddr,
    tuning: &Tuning,
) -> Result<Connection, QuicError> {
    let tls = QuicClientConfig::try_from(credentials.client(protocol, name))
        .expect("the provider has QUIC's initial cipher suite");
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(tuning)));
    let named = || name.to_owned();
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|source| QuicError::Dial { name: named(), address, source })?;
    let connection =
        connecting.await.map_err(|source| QuicError::Connect { name: named(), address, source })?;
    peer(&connection, credentials, protocol)?;
    Ok(connection)
}

/// Who is at the other end of a connection.
///
/// # Errors
/// [`PeerError`] if another protocol was agreed on, or none.
pub fn peer(
    connection: &Connection,
    credentials: &Credentials,
    protocol: Protocol,
) -> Result<Arc<Peer>, PeerError> {
    let certificates =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'_>>>().ok());
    let handshake =
        connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    let alpn = handshake.and_then(|data| data.protocol);
    credentials.peer_by(protocol, certificates.as_ref().map(|chain| &chain[..]), alpn.as_deref())
}

/// The bytes on their way when a link is full, twice: so that a lost packet or a slow reader
/// does not stop the sender at once.
fn window_bytes(link: Link) -> u64 {
    let product = u64::from(link.bandwidth_mbps) * 1_000_000 / 8 * u64::from(link.rtt_ms) / 1_000;
    (2 * product).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
}

fn transport_config(tuning: &Tuning) -> TransportConfig {
    let window = window_bytes(tuning.link);
    let var = |value: u64| VarInt::from_u64(value).expect("windows are far below 2^62");
    let idle = IdleTimeout::try_from(tuning.idle_timeout.min(Duration::from_secs(3_600)))
        .expect("an hour fits");
    let mut mtu = MtuDiscoveryConfig::default();
    // A burst lost in a full buffer can look like a path that has shrunk: look again soon.
    mtu.upper_bound(DATAGRAM_BYTES_MAX).black_hole_cooldown(Duration::from_secs(5));
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(var(window))
        .receive_window(var(window * 3 / 2))
        .send_window(window * 3 / 2)
        .max_concurrent_bidi_streams(tuning.streams_max.into())
        .max_concurrent_uni_streams(tuning.streams_max.into())
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(Duration::from_millis(u64::from(tuning.link.rtt_ms).clamp(10, 1_000)))
        .keep_alive_interval(Some(tuning.keep_alive))
        .max_idle_timeout(Some(idle));
    match tuning.congestion {
        Congestion::Cubic => {
            config.congestion_controller_factory(Arc::new(CubicConfig::default()));
        }
        Congestion::Bbr => {
            config.congestion_controller_factory(Arc::new(BbrConfig::default()));
        }
    }
    config
}

/// A configuration with which packets of connections that the process had before it was killed are known for what they
/// are, and answered by a stateless reset (RFC 9000, section 10.3): so the other end notices at once. That takes the
/// same key for the resets at each start, and connection ids that any start takes for possible ones.
fn restartable(credentials: &Credentials) -> quinn::EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &credentials.reset_secret().0);
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Connection ids of eight random bytes. (quinn's own are marked with a key of this start of the process; it drops all
/// others before it thinks of a reset.)
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        getrandom::fill(&mut id).expect("the operating system has random numbers");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn endpoint(
    address: SocketAddr,
    mut config: quinn::EndpointConfig,
    server: Option<quinn::ServerConfig>,
    tuning: &Tuning,
) -> Result<Endpoint, QuicError> {
    let bind = |source| QuicError::Bind { address, source };
    let socket = socket(address, window_bytes(tuning.link)).map_err(bind)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("within the bounds of RFC 9000");
    Endpoint::new(config, server, socket, runtime).map_err(bind)
}

/// A bound UDP socket with buffers for a burst; the kernel may grant less, which is logged.
fn socket(address: SocketAddr, window: u64) -> io::Result<UdpSocket> {
    let wanted = usize::try_from(window.min(8 << 20)).expect("8 MiB fit");
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_recv_buffer_size(wanted)?;
    socket.set_send_buffer_size(wanted)?;
    // The kernel keeps as much again for its own books, and reports the sum.
    let granted = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    if granted.0.min(granted.1) < wanted {
        tracing::info!(
            %address, wanted, received = granted.0, sent = granted.1,
            "the kernel grants smaller UDP buffers than the link wants: \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_twice_what_is_on_its_way_within_bounds() {
        let window = |rtt_ms, bandwidth_mbps| window_bytes(Link { rtt_ms, bandwidth_mbps });
        assert_eq!(window(100, 1_000), 25_000_000);
        assert_eq!(window(1, 100), WINDOW_BYTES_MIN);
        assert_eq!(window(10_000, 400_000), WINDOW_BYTES_MAX);
    }
}
