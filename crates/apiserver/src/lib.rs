//! The API server: REST over a [`sagong_store::Store`], for any set of [`sagong_api::kind::ServedKind`]s.
//!
//! How a request travels: `serve` (TLS) or `in_process` → `router` → [`authn`], `authz` → a verb in
//! `rest`, or a special subresource ([`pods`], [`streams`], `namespaces`, `tokens`, `reviews`) → `answer`.
//! Writes pass `admission` and the `allocator`. `discovery` and [`health`] tell what is served. [`pki`]
//! makes the certificates.

mod absent;
mod admission;
mod allocator;
mod answer;
pub mod authn;
mod authz;
pub mod body;
mod bootstrap;
mod compress;
mod context;

mod discovery;
mod events;
mod failure;
pub mod health;
mod impersonation;
mod in_process;
mod namespaces;
mod negotiate;
pub mod pki;
pub mod pods;
mod protobuf;
mod proxy;
mod query;
mod resources;
mod rest;
mod reviews;
mod router;
mod serve;
mod state;
pub mod streams;
mod table;
mod target;
mod tokens;
mod wire;

use allocator::Allocators;
use authn::{Tokens, User};

use failure::Failure;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use pods::log::LogSource;
use resources::Resources;
use sagong_api::kind::ServedKind;
use sagong_store::{Store, StoreError};
use state::Core;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use streams::StreamSource;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What an API server is made of.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// What is served.
    pub kinds: Vec<Box<dyn ServedKind>>,
    /// Where service addresses come from; the first is the `kubernetes` service's.
    pub service_cidr: Ipv4Net,
    /// Where node ports come from (30000 to 32767).
    pub node_ports: RangeInclusive<u16>,
    /// Bearer tokens and whose they are.
    pub tokens: Vec<(String, User)>,
    /// The key that signs service account tokens: ECDSA P-256, PKCS#8 DER ([`pki::Pki::token_key`]). None: no
    /// tokens are issued.
    pub token_key: Option<Vec<u8>>,
}

/// Why an API server could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error("reading the services that exist: {0}")]
    Store(#[from] StoreError),
    /// The key for service account tokens is not one.
    #[error("reading the key for service account tokens: {0}")]
    TokenKey(String),
    /// Something every cluster has could not be made.
    #[error("making what every cluster has: {0}")]
    Bootstrap(String),
}

/// The API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
    service_ip: Ipv4Addr,
}

impl ApiServer {
    /// Makes a server, reading from the store which addresses and ports are taken.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let resources = Resources::new(config.kinds);
        let allocators = Allocators::new(config.service_cidr, config.node_ports);
        if let Ok(services) = resources.core("services") {
            for entry in config.store.list(&services.prefix(None), None, 0).await?.entries {
                match serde_json::from_slice::<Service>(&entry.value()) {
                    Ok(service) => allocators.adopt(&service),
                    Err(error) => tracing::error!(key = %entry.key, %error, "a stored service is unreadable"),
                }
            }
        }
        let signer = config.token_key.map(|key| tokens::Signer::new(&key)).transpose();
        let core = Core {
            store: config.store,
            discovery: discovery::Cache::new(&resources),
            resources,
            allocators,
            tokens: Tokens::new(config.tokens),
            signer: signer.map_err(|error| StartError::TokenKey(error.to_string()))?,
            logs: OnceLock::new(),
            streams: OnceLock::new(),
            stopping: CancellationToken::new(),
        };
        let service_ip = Ipv4Addr::from(u32::from(config.service_cidr.network()).saturating_add(1));
        Ok(Self { core: Arc::new(core), service_ip })
    }

    /// Makes the namespaces and the `kubernetes` service every cluster has, keeps them there, and begins to expire
    /// events.
    /// `address` and `port` are where pods reach this server. Idempotent.
    pub async fn bootstrap(&self, address: IpAddr, port: u16) -> Result<(), StartError> {
        let made = bootstrap::bootstrap(&self.core, self.service_ip, address, port).await;
        made.map_err(|Failure(status)| StartError::Bootstrap(status.message.unwrap_or_default()))?;
        tokio::spawn(bootstrap::keep(self.core.clone(), self.service_ip, address, port));
        tokio::spawn(events::sweep(self.core.clone()));
        Ok(())
    }

    /// A client in this process that asks as `user`: the router is called directly.
    pub fn client(&self, user: User) -> kube::Client {
        let service = in_process::InProcess { core: self.core.clone(), user: Arc::new(user) };
        kube::Client::new(service, "default")
    }

    /// Where container logs come from. May be set once; later calls are ignored.
    pub fn set_logs(&self, source: Arc<dyn LogSource>) {
        let _ = self.core.logs.set(source);
    }

    /// Where exec, attach and port-forward go. May be set once; later calls are ignored.
    pub fn set_streams(&self, source: Arc<dyn StreamSource>) {
        let _ = self.core.streams.set(source);
    }

    /// The address of the `kubernetes` service: the first of the service range.
    pub fn service_ip(&self) -> Ipv4Addr {
        self.service_ip
    }

    /// Serves HTTPS on these listeners until `shutdown`; then ends watches and lets requests in flight finish,
    /// for a few seconds.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
        tls: Arc<rustls::ServerConfig>,
        shutdown: CancellationToken,
    ) {
        serve::serve(self.core.clone(), listeners, tls, shutdown).await;
    }

    /// Ends all watches, streams and background work. [`ApiServer::serve`] does so when it ends.
    pub fn stop(&self) {
        self.core.stopping.cancel();
    }
}
