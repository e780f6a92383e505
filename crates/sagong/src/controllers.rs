//! The controllers, of which one instance works at a time: in the cluster's process, or alone as `sagong controllers`
//! against any Kubernetes API server.

use crate::cli;
use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pem::{EncodeConfig, LineEnding, Pem};
use sagong_controllers::Options;
use sagong_controllers::election::{Election, Settings};
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs those of a cluster's own process until shutdown, whenever nobody else does the same work.
pub(crate) async fn beside_the_server(
    client: Client,
    options: Options,
    instance: &str,
    shutdown: CancellationToken,
) -> Result<()> {
    // The same after a crash, so that the next process need not wait: the data directory's lock lets only one live.
    let settings = Settings::beside_the_server(format!("sagong-{instance}"));
    let mut election = Election::new(client.clone(), settings);
    loop {
        let told = |other: &str| tracing::info!(other, "another instance runs the controllers");
        if shutdown.run_until_cancelled(election.acquire(told)).await.is_none() {
            return Ok(());
        }
        let stop = shutdown.child_token();
        let mut running =
            std::pin::pin!(sagong_controllers::run(client.clone(), options.clone(), stop.clone()));
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = election.lost() => {
                tracing::warn!("the controllers stop: their lease was lost");
                stop.cancel();
                running.await
            }
        };
        ended.context("the controllers stopped")?;
        if shutdown.is_cancelled() {
            election.release().await;
            return Ok(());
        }
    }
}

/// Runs them until interrupted, while nobody else does the same work.
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
    // Without it in their namespace no pod with a token starts; upstream's is told it with --root-ca-file.
    let root_ca = config.root_cert.as_deref().map(text);
    let client = Client::try_from(config).with_context(|| format!("cannot use {server}"))?;
    let version = client.apiserver_version().await.with_context(|| format!("{server} does not answer"))?;

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let interrupted = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut interrupted = std::pin::pin!(interrupted);
    let mut election = Election::new(client.clone(), Settings::new(identity()?));
    tokio::select! {
        () = &mut interrupted => return Ok(()),
        () = election.acquire(|other| println!("Waiting: {other} runs the controllers against {server}.")) => {}
    }
    println!("Running the controllers against {server} ({}) until interrupted.", version.git_version);
    let options = Options { root_ca, ..Options::default() };
    lead(client, options, election, interrupted).await
}

/// Certificates as text.
fn text(certificates: &[Vec<u8>]) -> String {
    let all: Vec<Pem> = certificates.iter().map(|der| Pem::new("CERTIFICATE", der.clone())).collect();
    pem::encode_many_config(&all, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// Works until interrupted or until the lease is lost; then somebody else may be at work already.
async fn lead(
    client: Client,
    options: Options,
    mut election: Election,
    interrupted: impl Future<Output = ()>,
) -> Result<()> {
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let running = sagong_controllers::run(client, options, shutdown.clone());
    let mut running = std::pin::pin!(running);
    let lost = "the lease kube-system/kube-controller-manager was lost";
    tokio::select! {
        ended = &mut running => return ended.context("the controllers stopped"),
        () = election.lost() => bail!(lost),
        () = interrupted => {}
    }
    shutdown.cancel();
    // What is under way is finished, and only by who leads.
    let ended = tokio::select! {
        ended = running => ended.context("the controllers stopped"),
        () = election.lost() => bail!(lost),
    };
    election.release().await;
    ended
}

/// `host_6f1c…`, as upstream's: no two processes have the same.
fn identity() -> Result<String> {
    let read = |file: &str| {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        anyhow::Ok(text.trim().to_owned())
    };
    Ok(format!("{}_{}", read("/proc/sys/kernel/hostname")?, read("/proc/sys/kernel/random/uuid")?))
}
