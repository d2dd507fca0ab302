//! Clients of a local deployment, under the identity [`OPERATOR`].

use std::sync::Arc;
use std::time::Duration;

use tradewind_client::{Client, Config, Endpoint, TlsFor};
use tradewind_transport::tls::{Credentials, Protocol, server_name};
use tradewind_transport::{Directory, Identity};

use crate::plan::OPERATOR;
use crate::process::{Deployment, ProcessError};

/// How long a request may take, unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(10);

impl Deployment {
    /// A client that begins with the processes `names` and fails over to whom it likes.
    ///
    /// # Errors
    /// When none answers within 10 s.
    pub async fn client(&self, names: &[&str]) -> Result<Client, ProcessError> {
        self.client_within(names, DEADLINE).await
    }

    /// As [`client`](Self::client), with so much time for each request, and to connect.
    ///
    /// # Errors
    /// When none answers within that time.
    pub async fn client_within(
        &self,
        names: &[&str],
        deadline: Duration,
    ) -> Result<Client, ProcessError> {
        let credentials = self.credentials()?;
        let tls: TlsFor = Arc::new(move |server: &str| {
            (credentials.client(Protocol::Client, server), server_name())
        });
        self.connect(names, tls, deadline).await
    }

    /// A client that takes answers from the process `name` only: whoever else it may dial does not hold the one key
    /// that it trusts.
    ///
    /// # Errors
    /// When the process does not answer within 10 s.
    pub async fn client_of_only(&self, name: &str) -> Result<Client, ProcessError> {
        self.client_of_only_within(name, DEADLINE).await
    }

    /// As [`client_of_only`](Self::client_of_only), with so much time for each request, and to connect.
    ///
    /// # Errors
    /// When the process does not answer within that time.
    pub async fn client_of_only_within(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<Client, ProcessError> {
        let config = self.credentials()?.client(Protocol::Client, name);
        let tls: TlsFor = Arc::new(move |_: &str| (Arc::clone(&config), server_name()));
        self.connect(&[name], tls, deadline).await
    }

    async fn connect(
        &self,
        names: &[&str],
        tls: TlsFor,
        deadline: Duration,
    ) -> Result<Client, ProcessError> {
        let endpoint =
            |name: &&str| Endpoint { name: (*name).into(), address: self.endpoint(name) };
        let mut config = Config::new(Some(tls));
        config.deadline = deadline;
        config.connect_timeout = config.connect_timeout.min(deadline);
        config.agent = "tradewind-local".into();
        let connected = Client::connect(config, names.iter().map(endpoint).collect()).await;
        connected.map_err(|error| ProcessError::Client {
            names: names.join(", "),
            reason: error.to_string(),
        })
    }

    fn credentials(&self) -> Result<Credentials, ProcessError> {
        let failed = |reason: String| ProcessError::Client { names: OPERATOR.into(), reason };
        let key = self.dir().join("keys").join(format!("{OPERATOR}.key"));
        let identity = Identity::load(OPERATOR, &key).map_err(|error| failed(error.to_string()))?;
        let directory = Directory::from_topology(self.topology());
        let directory = directory.map_err(|error| failed(error.to_string()))?;
        Credentials::new(&identity, Arc::new(directory)).map_err(|error| failed(error.to_string()))
    }
}
