//! What a service costs: requests over kept connections straight to a pod, through its ClusterIP, and through the
//! balancer, in turns, so that all meet the same machine.

use crate::cluster::Cluster;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections at a time.
const CLIENTS: usize = 16;
/// Turns of every way.
const TURNS: usize = 5;
/// How long a turn lasts.
const TURN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of all turns of one way.
#[derive(Default)]
struct Tally {
    /// In milliseconds.
    latencies: Vec<f64>,
    seconds: f64,
    /// CPU seconds of Sagong's process meanwhile.
    cpu: f64,
}

impl Tally {
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }
}

/// Measures one pod behind one service.
pub(crate) async fn run(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &[])?;
    cluster.import_kubia()?;
    let ways = stage(&cluster).await?;
    let mut tallies: Vec<Tally> = ways.iter().map(|_| Tally::default()).collect();
    for _ in 0..TURNS {
        for (way, tally) in ways.iter().zip(&mut tallies) {
            let (cpu, began) = (cluster.cpu()?, Instant::now());
            tally.latencies.extend(turn(*way).await?);
            tally.seconds += began.elapsed().as_secs_f64();
            tally.cpu += cluster.cpu()? - cpu;
        }
    }
    let [direct, cluster_ip, balancer] = &mut tallies[..] else { bail!("three ways") };
    report.figure("service: requests/s straight to the pod", direct.rate(), "/s", Goal::None);
    let throughput = cluster_ip.rate() / direct.rate();
    report.figure("service: ClusterIP, requests/s against that", throughput, "x", Goal::Above(0.95));
    let tail = percentile(&mut cluster_ip.latencies, 99.0) / percentile(&mut direct.latencies, 99.0);
    report.figure("service: ClusterIP, p99 against that", tail, "x", Goal::Below(1.2));
    report.figure("service: balancer, requests/s", balancer.rate(), "/s", Goal::None);
    let per_core = balancer.latencies.len() as f64 / balancer.cpu;
    report.figure("service: balancer, requests per CPU second", per_core, "/s", Goal::Above(30_000.0));
    Ok(())
}

/// A pod behind a LoadBalancer service: its own address, the ClusterIP, the balancer's.
async fn stage(cluster: &Cluster) -> Result<[SocketAddr; 3]> {
    let client = cluster.client().await?;
    let (pods, services): (Api<Pod>, Api<Service>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client));
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "bench", "labels": { "app": "bench" } },
        "spec": { "containers": [{ "name": "kubia", "image": "luksa/kubia:v1" }], "terminationGracePeriodSeconds": 0 },
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let service = serde_json::from_value(json!({
        "metadata": { "name": "bench" },
        "spec": { "type": "LoadBalancer", "selector": { "app": "bench" }, "ports": [{ "port": port, "targetPort": 8080 }] },
    }))?;
    let service = services.create(&PostParams::default(), &service).await?;
    let cluster_ip = service.spec.and_then(|spec| spec.cluster_ip).context("no ClusterIP")?;
    let address = |pod: Option<&Pod>| pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
    let has_address = |pod: Option<&Pod>| address(pod).is_some();
    let pod = tokio::time::timeout(PATIENCE, await_condition(pods, "bench", has_address)).await??;
    let balanced = |service: Option<&Service>| {
        let status = service.and_then(|service| service.status.as_ref()?.load_balancer.as_ref());
        status.and_then(|status| status.ingress.as_ref()?.first()?.ip.clone())
    };
    let is_balanced = |service: Option<&Service>| balanced(service).is_some();
    let service = tokio::time::timeout(PATIENCE, await_condition(services, "bench", is_balanced)).await??;
    let pod = address(pod.as_ref()).context("no address")?;
    let balancer = balanced(service.as_ref()).context("no balancer")?;
    let ways: [SocketAddr; 3] = [
        format!("{pod}:8080").parse()?,
        format!("{cluster_ip}:{port}").parse()?,
        format!("{balancer}:{port}").parse()?,
    ];
    for way in ways {
        let deadline = Instant::now() + PATIENCE;
        while exchange(&mut None, way).await.is_err() {
            anyhow::ensure!(Instant::now() < deadline, "{way} does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(ways)
}

/// Latencies of one turn, in milliseconds.
async fn turn(way: SocketAddr) -> Result<Vec<f64>> {
    let until = Instant::now() + TURN;
    let client = || async move {
        let (mut latencies, mut connection) = (Vec::new(), None);
        while Instant::now() < until {
            let began = Instant::now();
            exchange(&mut connection, way).await?;
            latencies.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        Ok::<_, anyhow::Error>(latencies)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client())).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await??);
    }
    Ok(all)
}

/// One request over a kept connection.
async fn exchange(kept: &mut Option<TcpStream>, way: SocketAddr) -> Result<()> {
    let stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(way).await?;
            stream.set_nodelay(true)?;
            kept.insert(stream)
        }
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let (mut answer, mut length) = ([0; 1024], 0);
    loop {
        let count = stream.read(&mut answer[length..]).await?;
        anyhow::ensure!(count > 0, "closed before the answer");
        length += count;
        if is_whole(&answer[..length])? {
            return Ok(());
        }
    }
}

/// Whether an answer has come to its end.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let text = std::str::from_utf8(answer)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(body.len() >= length.context("no length")?)
}
