//! How soon services follow what happens to pods, and what the order of a pod's end costs: seen by a client that opens
//! a connection to a ClusterIP every millisecond.

use crate::cluster::Cluster;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How often each is measured.
const TIMES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two connections.
const PACE: Duration = Duration::from_millis(1);
/// How long after a crash connections are looked at.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Measures all of it on a cluster of its own.
pub(crate) async fn run(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &[])?;
    cluster.import_kubia()?;
    let client = cluster.client().await?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let address = service(&Api::default_namespaced(client)).await?;

    let (mut routed, mut ends, mut crashes) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
    for n in 0..TIMES {
        let name = format!("routed-{n}");
        routed.push(until_routed(&pods, &name, address).await?);
        // With the service's client gone the pod is idle. Zero is no grace: nothing is waited for.
        for (grace, times) in [30, 0].into_iter().zip(&mut ends) {
            let name = format!("ends-{grace}-{n}");
            create(&pods, &name).await?;
            times.push(until_gone(&pods, &name, grace).await?);
        }
        until_gone(&pods, &name, 0).await?;
    }
    create(&pods, "stays").await?;
    for n in 0..TIMES {
        let name = format!("crashes-{n}");
        create(&pods, &name).await?;
        crashes.push(until_left(&name, address).await?);
        until_gone(&pods, &name, 0).await?;
    }

    let worst = |times: &mut Vec<f64>| percentile(times, 100.0);
    report.figure(
        "pod Ready to first connection, slowest of 20",
        worst(&mut routed),
        "ms",
        Goal::Below(50.0),
    );
    report.figure(
        "crash to last refused connection, slowest of 20",
        worst(&mut crashes),
        "ms",
        Goal::Below(100.0),
    );
    let [polite, at_once] = &mut ends;
    let wait = percentile(polite, 50.0) - percentile(at_once, 50.0);
    report.figure("idle pod: delete to gone, p50", percentile(polite, 50.0), "ms", Goal::Below(300.0));
    report.figure("idle pod: the same against grace period 0", wait, "ms", Goal::Below(200.0));
    Ok(())
}

/// A service for all pods of this measurement.
async fn service(services: &Api<Service>) -> Result<SocketAddr> {
    let service = serde_json::from_value(json!({
        "metadata": { "name": "bench" },
        "spec": { "selector": { "app": "bench" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))?;
    let service = services.create(&PostParams::default(), &service).await?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).context("no ClusterIP")?;
    Ok(format!("{ip}:80").parse()?)
}

/// Creates a pod and gives the moment at which a watch says that it is Ready.
async fn create(pods: &Api<Pod>, name: &str) -> Result<Instant> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": { "restartPolicy": "Never", "containers": [{
            "name": "kubia", "image": "luksa/kubia:v1",
            "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
        }] },
    }))?;
    let created = pods.create(&PostParams::default(), &pod).await?;
    let version = created.metadata.resource_version.unwrap_or_default();
    seen(pods, name, &version, |change| {
        matches!(change, WatchEvent::Added(pod) | WatchEvent::Modified(pod) if crate::node::is_ready(pod))
    })
    .await
}

/// Milliseconds from the deletion to the event that says that the pod is gone.
async fn until_gone(pods: &Api<Pod>, name: &str, grace: u32) -> Result<f64> {
    let version = pods.get(name).await?.metadata.resource_version.unwrap_or_default();
    let began = Instant::now();
    pods.delete(name, &DeleteParams::default().grace_period(grace)).await?;
    let gone = seen(pods, name, &version, |change| matches!(change, WatchEvent::Deleted(_))).await?;
    Ok(milliseconds(gone, began))
}

/// The moment at which a watch of a pod shows something.
async fn seen(
    pods: &Api<Pod>,
    name: &str,
    version: &str,
    is_it: impl Fn(&WatchEvent<Pod>) -> bool,
) -> Result<Instant> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut changes = pods.watch(&params, version).await?.boxed();
    let found = async {
        while let Some(change) = changes.try_next().await? {
            if is_it(&change) {
                return Ok(Instant::now());
            }
        }
        anyhow::bail!("the watch of {name} ended")
    };
    tokio::time::timeout(PATIENCE, found).await.with_context(|| format!("{name} does not get there"))?
}

/// Milliseconds from a pod's readiness to the first connection that reaches it, the only one of its service. None is
/// negative: the rules may be faster than the watch.
async fn until_routed(pods: &Api<Pod>, name: &str, address: SocketAddr) -> Result<f64> {
    refused(address).await?;
    let first = tokio::spawn(async move {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < deadline, "the service does not answer");
            tokio::time::sleep(PACE).await;
        }
        Ok(Instant::now())
    });
    let ready = create(pods, name).await?;
    Ok(milliseconds(first.await??, ready))
}

/// Waits until a service has no pod any more, and its rules say so: the last pod's own kernel refuses, too, and once that
/// is gone nobody answers until the rules do.
async fn refused(address: SocketAddr) -> Result<()> {
    let (deadline, mut in_a_row) = (Instant::now() + PATIENCE, 0);
    while in_a_row < 50 {
        ensure!(Instant::now() < deadline, "the service has pods still");
        in_a_row = match tokio::time::timeout(10 * PACE, TcpStream::connect(address)).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => in_a_row + 1,
            _ => 0,
        };
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// Milliseconds from the death of a pod's only process to the last connection that was refused; there is another pod.
async fn until_left(name: &str, address: SocketAddr) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let clients = tokio::spawn(async move {
        let mut last = None;
        while !stopped.load(Ordering::Relaxed) {
            if TcpStream::connect(address).await.is_err() {
                last = Some(Instant::now());
            }
            tokio::time::sleep(PACE).await;
        }
        last
    });
    let process = process_of(name)?;
    let began = Instant::now();
    let killed = Command::new("kill").args(["-9", &process.to_string()]).status()?;
    ensure!(killed.success(), "{name} is gone already");
    tokio::time::sleep(AFTERMATH).await;
    stop.store(true, Ordering::Relaxed);
    Ok(clients.await?.map_or(0.0, |last| milliseconds(last, began)))
}

/// The process whose container has this host name.
fn process_of(pod: &str) -> Result<u32> {
    let mark = format!("HOSTNAME={pod}");
    let processes = std::fs::read_dir("/proc")?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |id: &u32| {
        let read = |file: &str| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let named = |bytes: Vec<u8>| bytes.split(|byte| *byte == 0).any(|word| word == mark.as_bytes());
        read("comm").starts_with(b"kubia") && named(read("environ"))
    };
    ids.find(is_it).with_context(|| format!("no process of {pod}"))
}

fn milliseconds(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64() * 1000.0
}
