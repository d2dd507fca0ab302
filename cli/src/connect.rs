//! From flags, environment and contexts to a connected client.
//!
//! The topology says whom to trust: a server must hold the key that the topology gives to its name.
//! The client's own key is `<keys>/<client>.key` beside it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;
use tradewind_client::{Client, Config, Endpoint, TlsFor};
use tradewind_topology::{Process, ProcessName, Topology};
use tradewind_transport::{
    Directory, Identity,
    tls::{Credentials, Protocol, server_name},
};

use crate::runtime::runtime;
use crate::topology::load;

/// A process that is asked for itself alone has so long to answer.
const ONE_PROCESS: Duration = Duration::from_secs(3);

/// How to reach the servers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// The topology file: it names the servers and their keys
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Which client of the topology to be [default: the one whose key file is here]
    #[arg(long = "as", env = "TRADEWIND_AS", hide_env_values = true, value_name = "CLIENT")]
    client: Option<String>,
    /// Whom to ask first: nodes or mirrors by name, separated by commas; NAME=ADDRESS:PORT through a
    /// tunnel [default: the nodes of the pool's home]
    #[arg(
        long,
        env = "TRADEWIND_ENDPOINTS",
        hide_env_values = true,
        value_name = "NAMES",
        value_delimiter = ','
    )]
    endpoints: Vec<String>,
    /// Ask nobody else, even if none of them answers
    #[arg(long)]
    only: bool,
    /// A named set of the above, from ~/.config/tradewind/contexts.toml
    #[arg(long, env = "TRADEWIND_CONTEXT", hide_env_values = true, value_name = "NAME")]
    context: Option<String>,
    /// Seconds until a request is given up, failing over included
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let good = |duration: &Duration| *duration > Duration::ZERO && duration.as_secs() <= 3_600;
    seconds.filter(good).ok_or_else(|| "a number of seconds, more than 0, up to 3600".to_owned())
}

/// One context of the contexts file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    topology: Option<PathBuf>,
    #[serde(rename = "as")]
    client: Option<String>,
    #[serde(default)]
    endpoints: Vec<String>,
}

/// Whom to connect to, and as whom.
#[derive(Clone)]
pub(crate) struct Connector {
    topology: Arc<Topology>,
    credentials: Credentials,
    endpoints: Vec<String>,
    only: bool,
    timeout: Duration,
}

impl ConnectArgs {
    /// Reads topology, context and key.
    ///
    /// # Errors
    /// What is missing, and how to give it.
    pub(crate) fn connector(&self) -> anyhow::Result<Connector> {
        let context = self.context.as_deref().map(context).transpose()?.unwrap_or_default();
        let file = self.topology.clone().or(context.topology).context(
            "which deployment? Give its topology file by --topology FILE or TRADEWIND_TOPOLOGY, \
             or a context by --context NAME",
        )?;
        let topology = Arc::new(load(&file)?);
        let client = self.client.clone().or(context.client);
        let identity = identity(&topology, client)?;
        let directory = Arc::new(Directory::from_topology(&topology)?);
        let credentials = Credentials::new(&identity, directory)?;
        let endpoints =
            if self.endpoints.is_empty() { context.endpoints } else { self.endpoints.clone() };
        if self.only && endpoints.is_empty() {
            bail!("--only needs --endpoints: only whom?");
        }
        Ok(Connector { topology, credentials, endpoints, only: self.only, timeout: self.timeout })
    }

    /// Connects to ask about `pool`.
    ///
    /// # Errors
    /// What is missing, or who did not answer.
    pub(crate) async fn client(&self, pool: &str) -> anyhow::Result<Client> {
        self.connector()?.client(Some(pool)).await
    }
}

impl Connector {
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Connects to the named endpoints, or to the nodes of the pool's home, or to any node.
    ///
    /// # Errors
    /// Who did not answer.
    pub(crate) async fn client(&self, pool: Option<&str>) -> anyhow::Result<Client> {
        let endpoints = self.endpoints(pool)?;
        let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let connected = self.connect(endpoints, self.only, self.timeout).await;
        connected.with_context(|| {
            let names = names.join(", ");
            format!("asked {names}; are they running? See `tradewind status`, and their logs")
        })
    }

    /// The processes that were named as endpoints, or all of the topology.
    ///
    /// # Errors
    /// If an endpoint is not in the topology.
    pub(crate) fn named_or_all(&self) -> anyhow::Result<Vec<ProcessName>> {
        if self.endpoints.is_empty() {
            return Ok(self.topology.processes().map(|process| process.name().clone()).collect());
        }
        let names = self.endpoints.iter().map(|text| Ok(self.parse(text)?.name.parse()?));
        names.collect()
    }

    /// Connects to one process and to nobody else.
    ///
    /// # Errors
    /// That it did not answer.
    pub(crate) async fn client_of(&self, process: &Process<'_>) -> anyhow::Result<Client> {
        self.connect(vec![endpoint(process)], true, self.timeout.min(ONE_PROCESS)).await
    }

    async fn connect(
        &self,
        endpoints: Vec<Endpoint>,
        only: bool,
        timeout: Duration,
    ) -> anyhow::Result<Client> {
        let credentials = self.credentials.clone();
        let named: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let tls: TlsFor = Arc::new(move |server: &str| {
            // Whoever else is dialled does not hold the key that is asked for here.
            let admitted = !only || named.iter().any(|name| name == server);
            let expected = if admitted { server } else { &named[0] };
            (credentials.client(Protocol::Client, expected), server_name())
        });
        let mut config = Config::new(Some(tls));
        config.deadline = timeout;
        config.connect_timeout = self.topology.timeouts.connect.min(timeout);
        config.agent = concat!("tradewind/", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Client::connect(config, endpoints).await?)
    }

    fn endpoints(&self, pool: Option<&str>) -> anyhow::Result<Vec<Endpoint>> {
        if !self.endpoints.is_empty() {
            return self.endpoints.iter().map(|text| self.parse(text)).collect();
        }
        let home = pool.and_then(|pool| self.topology.pool(pool)).map(|pool| &pool.home);
        let processes = self.topology.processes().filter(|process| match (process, home) {
            (Process::Node { site, .. }, Some(home)) => &site.name == home,
            (Process::Node { .. }, None) => true,
            (Process::Mirror(_), _) => false,
        });
        Ok(processes.map(|process| endpoint(&process)).collect())
    }

    /// `NAME`, `NAME=ADDRESS:PORT`, or an `ADDRESS:PORT` that the topology names.
    fn parse(&self, text: &str) -> anyhow::Result<Endpoint> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (name, Some(address.to_owned())),
            None => (text, None),
        };
        let by_address = || {
            let address: SocketAddr = name.parse().ok()?;
            self.topology.processes().find(|process| process.ports().client() == address)
        };
        let Some(process) = self.topology.process(name).or_else(by_address) else {
            let known: Vec<String> =
                self.topology.processes().map(|process| process.name().to_string()).collect();
            bail!(
                "endpoint {text:?}: the topology has no such process; it has {}",
                known.join(", ")
            );
        };
        let Endpoint { name, address: own } = endpoint(&process);
        Ok(Endpoint { name, address: address.unwrap_or(own) })
    }
}

fn endpoint(process: &Process<'_>) -> Endpoint {
    let address = process.ports().client().to_string();
    Endpoint { name: process.name().to_string(), address }
}

/// The key of the client of that name; of the only one whose key is here, if none is named.
fn identity(topology: &Topology, name: Option<String>) -> anyhow::Result<Identity> {
    let file = |name: &str| topology.keys.join(format!("{name}.key"));
    let known: Vec<&str> = topology.clients.iter().map(|client| client.name.as_str()).collect();
    let name = match name {
        Some(name) if topology.client(&name).is_none() => {
            bail!("the topology has no client {name}: it has {}", known.join(", "));
        }
        Some(name) => name,
        None => {
            let here: Vec<&str> =
                known.iter().copied().filter(|name| file(name).exists()).collect();
            match here.as_slice() {
                [name] => (*name).to_owned(),
                [] => bail!(
                    "no client's key is in {}: put one of {} there",
                    topology.keys.display(),
                    known.iter().map(|name| format!("{name}.key")).collect::<Vec<_>>().join(", ")
                ),
                several => bail!("which client? Give --as with one of {}", several.join(", ")),
            }
        }
    };
    Ok(Identity::load(&name, &file(&name))?)
}

/// The context of this name.
fn context(name: &str) -> anyhow::Result<Context> {
    let file = contexts_file()?;
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("context {name}: {} has the contexts, as [{name}] topology = ...", file.display())
    })?;
    let mut contexts: BTreeMap<String, Context> =
        toml::from_str(&text).with_context(|| file.display().to_string())?;
    let Some(mut context) = contexts.remove(name) else {
        let known: Vec<String> = contexts.into_keys().collect();
        bail!("no context {name} in {}: it has {}", file.display(), known.join(", "));
    };
    let directory = file.parent().unwrap_or(Path::new(""));
    context.topology = context.topology.map(|topology| directory.join(topology));
    Ok(context)
}

fn contexts_file() -> anyhow::Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = from("TRADEWIND_CONTEXTS") {
        return Ok(file.into());
    }
    let config = from("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(from("HOME")?).join(".config")));
    let config = config.context("no HOME: give the contexts file by TRADEWIND_CONTEXTS")?;
    Ok(config.join("tradewind/contexts.toml"))
}

/// Runs client work to its end.
///
/// # Errors
/// Those of the work.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(work)
}
