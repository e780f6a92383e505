//! `sagong tunnel`: serves LoadBalancer services while it runs, as `minikube tunnel` does.

use crate::cli;
use crate::data_dir::DataDir;
use crate::preflight;
use anyhow::{Context, Result, bail};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

pub(crate) async fn run(options: cli::DataDirectory) -> Result<()> {
    preflight::require_root()?;
    let data = DataDir::existing(&options.data_dir)?.filter(|data| matches!(data.running(), Ok(Some(_))));
    let Some(data) = data else {
        bail!(
            "no cluster runs in {}; start it with `sagong up -d --no-load-balancer`",
            options.data_dir.display()
        );
    };
    if data.config()?.is_some_and(|config| config.load_balancer) {
        bail!(
            "this cluster serves LoadBalancer services itself; a tunnel is for `sagong up --no-load-balancer`"
        );
    }
    let kubeconfig =
        kube::config::Kubeconfig::read_from(data.kubeconfig()).context("cannot read the kubeconfig")?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let terminated = async {
            match &mut terminate {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = terminated => {}
        }
        stop.cancel();
    });
    println!("Serving LoadBalancer services on addresses from 127.0.0.1 upward, until interrupted (Ctrl-C).");
    sagong_network::tunnel(client, shutdown).await;
    Ok(())
}
