//! An API server alone, for trying things: `cargo run -p sagong-apiserver --example apiserver -- DIR [PORT]`.
//! Prints the path of a kubeconfig and serves until interrupted.

use sagong_apiserver::authn::User;
use sagong_apiserver::pki::{Pki, default_names};
use sagong_apiserver::{ApiServer, Config};
use sagong_store::EmbeddedStore;
use std::error::Error;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which directory?")?);
    let port: u16 = args.next().map_or(Ok(0), |port| port.parse())?;
    let pki = Pki::open(&dir, &default_names(""), &[])?;
    let config = Config {
        store: Arc::new(EmbeddedStore::open(&dir.join("state.redb"))?),
        kinds: sagong_api::kinds::registry(),
        service_cidr: "10.96.0.0/12".parse()?,
        node_ports: 30000..=32767,
        tokens: vec![(pki.admin_token.clone(), User::admin("kubernetes-admin"))],
        token_key: Some(pki.token_key()?),
    };
    let api = ApiServer::new(config).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    api.bootstrap(Ipv4Addr::LOCALHOST.into(), address.port()).await?;
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, pki.admin_kubeconfig(&format!("https://{address}")))?;
    println!("export KUBECONFIG={}", kubeconfig.display());
    let shutdown = CancellationToken::new();
    let interrupted = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    });
    api.serve(vec![listener], pki.server_config()?, shutdown).await;
    Ok(())
}
