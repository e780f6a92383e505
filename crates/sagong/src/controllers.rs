//! `sagong controllers`: the controllers alone, against any Kubernetes API server.

use crate::cli;
use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs them until interrupted. There is no leader election: nobody else may do the same work meanwhile.
pub(crate) async fn run(options: cli::Controllers) -> Result<()> {
    let kubeconfig = match &options.kubeconfig {
        Some(file) => {
            Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        None => Kubeconfig::read().context("no kubeconfig; name one with --kubeconfig")?,
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.context("the kubeconfig does not say how to reach a cluster")?;
    let server = config.cluster_url.clone();
    let client = Client::try_from(config).with_context(|| format!("cannot use {server}"))?;
    let version = client.apiserver_version().await.with_context(|| format!("{server} does not answer"))?;
    println!("Running the controllers against {server} ({}) until interrupted.", version.git_version);

    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = sagong_controllers::run(client, Default::default(), shutdown.clone());
    let mut running = std::pin::pin!(running);
    tokio::select! {
        ended = &mut running => return ended.context("the controllers stopped"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    shutdown.cancel();
    running.await.context("the controllers stopped")
}
