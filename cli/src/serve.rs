//! `tradewind serve`: one process of a deployment, a node or a mirror as the topology says.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tradewind_gateway::{Backend, Gateway, Options, Security};
use tradewind_mirror::{Mirror, mirror_json};
use tradewind_site::{Ended, Feed, Node, StartError};
use tradewind_topology::{Link, Ports, Process, Site, Topology};
use tradewind_transport::quic::{self, Tuning};
use tradewind_transport::tls::{Credentials, Protocol};
use tradewind_transport::{Directory, Identity};
use tradewind_wan::protocol::wire::Part;
use tradewind_wan::{Mirrors, ServeConfig, Server, Source, timing_of};

use crate::exit::Exit;
use crate::output::Output;
use crate::restart::{Image, Restarter};
use crate::runtime::runtime;
use crate::scrub::{Pace, Scrub};
use crate::topology::load;

/// Run one process of a deployment: a node or a mirror, by its name in the topology
#[derive(Args, Debug)]
#[command(after_help = "\
The process finds its role, addresses and peers in the topology, its private key in \
`<keys>/NAME.key` and its data in `<data>/NAME`. It logs to stderr (RUST_LOG sets what), and ends on \
SIGTERM or Ctrl-C after what is in its log is on disk. Clients send requests that are under way again, \
under the same number, to another node.

When an administrator asks for a restart (`tradewind roll`), it ends in the same way and begins anew: \
the same process id, but a fresh process image of the executable that is then there, with the topology \
file as it then is.

Exit code 0 after a signal, 2 if it could not start or could not go on, 6 if it is to be started again \
(with --no-restart, for supervisors that do that themselves).

Examples:
  tradewind serve --topology atlas.toml ams-1
  RUST_LOG=debug tradewind serve --topology atlas.toml nyc-leaf")]
pub(crate) struct ServeArgs {
    /// The topology file
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: PathBuf,
    /// The process' name in the topology
    name: String,
    /// When a restart is due, end with exit code 6 instead of beginning anew
    #[arg(long)]
    no_restart: bool,
    #[command(flatten)]
    pace: Pace,
    /// End when standard input closes: so that no process outlives whoever started it
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

/// Why the process ends.
enum End {
    /// It was asked to.
    Asked(&'static str),
    /// It is to begin anew.
    Restart,
    /// It cannot go on.
    Failed(String),
}

impl ServeArgs {
    pub(crate) fn run(self, _: &Output) -> anyhow::Result<Exit> {
        let image = Image::of_this_process()?;
        log_to_stderr();
        end_with_any_panic();
        let topology = Arc::new(load(&self.topology)?);
        let stdin = self.exit_with_stdin.then(stdin_closes);
        let restarter = Arc::new(Restarter::new(&self.topology, &self.name));
        let until = Until { stdin, restarter };
        let runtime = runtime()?;
        let end = runtime.block_on(serve(topology, &self.name, self.pace, until));
        // Tasks that still run belong to connections that nobody waits for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        match end? {
            End::Asked(how) => {
                tracing::info!(how, "ended");
                Ok(Exit::Done)
            }
            End::Restart if self.no_restart => {
                tracing::info!("ended, to be started again");
                Ok(Exit::Again)
            }
            End::Restart => {
                tracing::info!("begins anew");
                let error = image.execute();
                Err(error).context("beginning anew; start the process again")
            }
            End::Failed(reason) => bail!("{} cannot go on: {reason}", self.name),
        }
    }
}

/// What a process serves until.
struct Until {
    stdin: Option<oneshot::Receiver<()>>,
    restarter: Arc<Restarter>,
}

async fn serve(
    topology: Arc<Topology>,
    name: &str,
    pace: Pace,
    until: Until,
) -> anyhow::Result<End> {
    let Some(process) = topology.process(name) else {
        let mut sites = topology.sites.iter();
        if let Some(site) = sites.find(|site| site.nodes.iter().any(|node| node.name == *name)) {
            let name = name.to_owned();
            return Err(StartError::Removed { name, site: site.name.to_string() }.into());
        }
        let names: Vec<_> =
            topology.processes().map(|process| process.name().to_string()).collect();
        bail!("the topology has no process {name}; it has {}", names.join(", "));
    };
    let identity = Identity::load(name, &topology.keys.join(format!("{name}.key")))?;
    let directory = Arc::new(Directory::from_topology(&topology)?);
    let credentials = Credentials::new(&identity, directory)?;
    let listeners = listen(process.ports()).await?;
    match process {
        Process::Node { site, .. } => {
            node(&topology, site, identity, (credentials, listeners, until), pace).await
        }
        Process::Mirror(_) => {
            mirror(&topology, identity, (credentials, listeners, until), pace).await
        }
    }
}

/// What a process serves with, and until when.
type Serving = (Credentials, Listeners, Until);

async fn node(
    topology: &Arc<Topology>,
    site: &Site,
    identity: Identity,
    serving: Serving,
    pace: Pace,
) -> anyhow::Result<End> {
    let starting = (Arc::clone(topology), Arc::new(identity));
    // Opening reads every entry that there is.
    let mut node =
        tokio::task::spawn_blocking(move || Node::start(starting.0, starting.1)).await??;
    let end = serve_node(&mut node, topology, site, serving, pace).await;
    // However it ends: what is in its log is kept.
    tokio::task::spawn_blocking(move || node.stop()).await?;
    end
}

async fn serve_node(
    node: &mut Node,
    topology: &Arc<Topology>,
    site: &Site,
    (credentials, listeners, until): Serving,
    pace: Pace,
) -> anyhow::Result<End> {
    let (feeding, mirrors) = feed_mirrors(topology, site, &credentials, node)?;
    let ledgers = node.feeds().into_iter().map(|feed| (feed.ledger, feed.reader));
    let scrub = Scrub::start(topology, &credentials.own().name, ledgers, pace)?;
    let scrubbed = scrub.status();
    node.add_status(Box::new(move || {
        let mirrors = mirrors.status().iter().map(mirror_json).collect::<Vec<_>>();
        json!({ "mirrors": mirrors, "scrub": scrubbed() })
    }));
    let gateway = listeners.serve(node.backend(), credentials, &until)?;
    tracing::info!(name = %topology.name, "node started");
    let end = tokio::select! {
        asked = until.asked() => asked,
        ended = node.failed() => Ok(match ended {
            Ended::Restart(_) => End::Restart,
            Ended::Failed(reason) => End::Failed(reason),
        }),
    };
    drop(feeding);
    gateway.stop().await;
    end
}

/// Feeds mirrors until it is dropped.
struct Feeding {
    _server: Server,
    _path: watch::Sender<Option<Vec<String>>>,
}

/// Feeds the mirrors that name this site as a parent.
fn feed_mirrors(
    topology: &Arc<Topology>,
    site: &Site,
    credentials: &Credentials,
    node: &Node,
) -> anyhow::Result<(Feeding, Mirrors)> {
    let name = credentials.own().name.clone();
    let own = topology.process(&name).context("this process is in the topology")?;
    let timing = timing_of(topology);
    // The widest of the links that children have: windows are an upper bound.
    let link = topology.mirrors.iter().map(|mirror| mirror.link).max_by_key(window);
    let link = link.unwrap_or_default();
    let tuning = Tuning { link, idle_timeout: timing.stall, ..Tuning::default() };
    let endpoint = quic::server(own.ports().wan(), credentials, Protocol::Wan, &tuning)?;
    let sources: Vec<Source> =
        node.feeds().into_iter().map(|feed| source(feed, node.backend())).collect();
    let mirrors = Mirrors::new(sources.clone());
    // At a node the path to the site never changes.
    let (path, unchanging) = watch::channel(Some(vec![name, site.name.to_string()]));
    let config = ServeConfig {
        topology: Arc::clone(topology),
        credentials: credentials.clone(),
        sources,
        path: unchanging,
        mirrors: mirrors.clone(),
        timing,
    };
    Ok((Feeding { _server: tradewind_wan::serve(endpoint, config), _path: path }, mirrors))
}

fn window(link: &Link) -> u64 {
    u64::from(link.rtt_ms) * u64::from(link.bandwidth_mbps)
}

fn source(feed: Feed, backend: Arc<dyn Backend>) -> Source {
    let Feed { ledger, lineage, reader, head, shelf } = feed;
    let age = Arc::new(move || backend.readiness().lag);
    let (entries, notes) = (reader.clone(), head.clone());
    let lend = Arc::new(move |size, part| match part {
        Part::Manifest => shelf.manifest(&entries, notes.borrow().as_deref().cloned()),
        Part::Block(index) => shelf.block(&entries, size, index),
        Part::Chunk(index) => shelf.chunk(size, index),
        Part::Value(digest) => entries.value(&digest).map_err(|error| error.to_string()),
    });
    Source::of_notes(ledger, lineage, reader, head, age, lend)
}

async fn mirror(
    topology: &Arc<Topology>,
    identity: Identity,
    serving: Serving,
    pace: Pace,
) -> anyhow::Result<End> {
    let name = identity.name().to_owned();
    let data = topology.data.join(identity.name());
    let config =
        tradewind_mirror::Config { topology: Arc::clone(topology), identity, data, timing: None };
    let mirror = Mirror::start(config).await?;
    let ledgers = mirror.sources().into_iter().map(|source| (source.ledger, source.reader));
    let scrub = Scrub::start(topology, &name, ledgers, pace)?;
    let scrubbed = scrub.status();
    mirror.add_status(Box::new(move || json!({ "scrub": scrubbed() })));
    let end = serve_mirror(&mirror, serving).await;
    mirror.stop().await;
    end
}

async fn serve_mirror(
    mirror: &Arc<Mirror>,
    (credentials, listeners, until): Serving,
) -> anyhow::Result<End> {
    let backend: Arc<dyn Backend> = mirror.clone();
    let gateway = listeners.serve(backend, credentials, &until)?;
    tracing::info!("mirror started");
    let mut failure = mirror.failure();
    let end = tokio::select! {
        asked = until.asked() => asked,
        reason = failure.wait_for(Option::is_some) => {
            Ok(match reason.ok().and_then(|reason| reason.clone()) {
                Some(tradewind_mirror::Ended::Restart(reason)) => {
                    tracing::warn!(reason, "the mirror begins anew");
                    End::Restart
                }
                Some(tradewind_mirror::Ended::Failed(reason)) => End::Failed(reason),
                None => End::Failed("its threads have ended".into()),
            })
        }
    };
    gateway.stop().await;
    end
}

/// Where clients are taken.
struct Listeners {
    client: TcpListener,
    http: TcpListener,
}

async fn listen(ports: &Ports) -> anyhow::Result<Listeners> {
    let bind = async |what: &str, address| {
        let explain = || format!("listening for {what} at {address}: is another process there?");
        TcpListener::bind(address).await.with_context(explain)
    };
    Ok(Listeners {
        client: bind("clients", ports.client()).await?,
        http: bind("HTTP", ports.http()).await?,
    })
}

impl Listeners {
    fn serve(
        self,
        backend: Arc<dyn Backend>,
        credentials: Credentials,
        until: &Until,
    ) -> anyhow::Result<Gateway> {
        let restarter = Arc::clone(&until.restarter);
        let options = Options {
            client: self.client,
            security: Security::Tls(credentials),
            http: Some(self.http),
            connections_max: connections_max()?,
            large_bytes: Options::LARGE_BYTES,
            restart: Some(restarter),
        };
        Ok(Gateway::start(backend, options)?)
    }
}

/// Descriptors that a process needs beside those of its clients: for ledgers, peers, mirrors and the runtime.
const DESCRIPTORS: u64 = 256;
/// Fewer clients than this are not worth to begin.
const CONNECTIONS_MIN: u64 = 16;

/// How many clients may be connected, by each protocol, so that the ledgers never lack a descriptor: that would end the
/// process. Raises the limit of open files as far as the system allows.
fn connections_max() -> anyhow::Result<u32> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // It stays as it was where this is refused.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let rest = files.saturating_sub(DESCRIPTORS) / 2;
    if rest < CONNECTIONS_MIN {
        let least = DESCRIPTORS + 2 * CONNECTIONS_MIN;
        bail!(
            "this process may open {files} files; it needs at least {least}: raise `ulimit -n`, or LimitNOFILE= of its service"
        );
    }
    Ok(rest.min(Options::CONNECTIONS_MAX.into()) as u32)
}

impl Until {
    /// Waits until the process is asked to end or to begin anew, and says how.
    async fn asked(self) -> anyhow::Result<End> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stdin = async {
            match self.stdin {
                Some(closed) => _ = closed.await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            _ = terminate.recv() => End::Asked("SIGTERM"),
            _ = interrupt.recv() => End::Asked("SIGINT"),
            () = stdin => End::Asked("standard input closed"),
            () = self.restarter.begun() => End::Restart,
        })
    }
}

/// Tells when standard input ends. A thread of its own: it may never.
fn stdin_closes() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut byte = [0; 64];
        while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
        // The process may end already.
        let _ = sender.send(());
    });
    receiver
}

/// Lets a panic of any thread or task end the whole process, at once: what is half alive would be waited for, and by
/// peers and clients taken for whole. Whatever was promised is on disk; the others go on without this process.
fn end_with_any_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        eprintln!(
            "error: a thread panicked, so the process ends; the words above are worth a bug report"
        );
        std::process::exit(Exit::Failed as i32);
    }));
}

fn log_to_stderr() {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set for this test program when it is to be the process that ends.
    const CHILD: &str = "TRADEWIND_TEST_PANICS";

    /// Nothing of its own: it panics where it is told to.
    #[test]
    fn child() {
        let panics = || panic!("a planted fault");
        match std::env::var(CHILD).as_deref() {
            Ok("thread") => {
                end_with_any_panic();
                let _ = std::thread::spawn(panics).join();
            }
            Ok("task") => {
                end_with_any_panic();
                let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
                let _ = runtime.block_on(async { tokio::spawn(async move { panics() }).await });
            }
            _ => {}
        }
    }

    #[test]
    fn a_panic_in_any_thread_or_task_ends_the_process() {
        let run = |place: &str| {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["serve::tests::child", "--exact", "--nocapture"]);
            test.env(CHILD, place).output().unwrap()
        };
        for place in ["thread", "task"] {
            let output = run(place);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{place}: {said}");
            assert!(
                said.contains("a planted fault") && said.contains("error: "),
                "{place}: {said}"
            );
        }
        assert_eq!(run("nowhere").status.code(), Some(0));
    }
}
