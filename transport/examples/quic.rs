//! Measures one QUIC stream on loopback.
//!
//! `cargo run --release -p tradewind-transport --example quic [MIB]`

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

use tradewind_topology::{Link, Rights, Role};
use tradewind_transport::{
    Directory, Identity, Peer,
    quic::{self, Congestion, Tuning},
    tls::{Credentials, Protocol},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(1_024), |count| count.parse())?;
    let parent = Identity::from_seed("a1", &[1; 32]);
    let child = Identity::from_seed("m1", &[2; 32]);
    let peer = |identity: &Identity, role| {
        let (name, rights) = (identity.name().to_owned(), Rights::Pools(BTreeMap::new()));
        (identity.public_key(), Peer { name, role, rights })
    };
    let peers = [peer(&parent, Role::Node("ams".parse()?)), peer(&child, Role::Mirror)];
    let directory = Arc::new(Directory::new(peers)?);
    let parent = Credentials::new(&parent, Arc::clone(&directory))?;
    let child = Credentials::new(&child, directory)?;
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        let link = Link { rtt_ms: 1, bandwidth_mbps: 10_000 };
        let tuning = Tuning { link, congestion, ..Tuning::default() };
        let listening = quic::server("127.0.0.1:0".parse()?, &parent, Protocol::Wan, &tuning)?;
        let dialling = quic::client("127.0.0.1:0".parse()?, &tuning)?;
        let address = listening.local_addr()?;
        let dial = quic::connect(&dialling, &child, Protocol::Wan, "a1", address, &tuning);
        let accept =
            async { listening.accept().await.ok_or("closed")?.await.map_err(|_| "refused") };
        let (accepted, dialled) = tokio::join!(accept, dial);
        let (accepted, dialled) = (accepted?, dialled?);
        let sending = tokio::spawn(async move {
            let mut stream = accepted.open_uni().await?;
            let block = vec![7; 1 << 20];
            for _ in 0..mebibytes {
                stream.write_all(&block).await?;
            }
            stream.finish()?;
            stream.stopped().await?;
            Ok::<_, Box<dyn Error + Send + Sync>>(accepted.stats().path)
        });
        let mut stream = dialled.accept_uni().await?;
        let start = Instant::now();
        let mut total = 0;
        while let Some(chunk) = stream.read_chunk(1 << 20, true).await? {
            total += chunk.bytes.len();
        }
        let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
        let path = sending.await?.map_err(|error| error.to_string())?;
        let (mtu, lost) = (path.current_mtu, path.lost_packets);
        println!("{congestion:?}: {rate:.0} MB/s, datagrams of {mtu} bytes, {lost} packets lost");
    }
    Ok(())
}
