//! The API server and the store over HTTPS: durable creates, watch fan-out.

use crate::cluster::Cluster;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 64;
/// Objects created.
const CREATES: usize = 20_000;
/// Watches open at once.
const WATCHERS: usize = 100;
/// Writes they are all told of.
const WRITES: usize = 200;

pub(crate) async fn run(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &[])?;
    let client = cluster.client().await?;
    let reads = requests(&client, CREATES, |_| Ok(Request::get("/version").body(Vec::new())?)).await?;
    report.figure("baseline: GET /version, 64 connections", reads, "/s", Goal::None);

    let before = cluster.cpu()?;
    let creates = requests(&client, CREATES, |n| create(&format!("create-{n}"))).await?;
    let used = cluster.cpu()? - before;
    report.figure("durable creates over HTTPS, 64 connections", creates, "/s", Goal::Above(5000.0));
    report.figure("durable creates, as a part of GET /version", creates / reads, "", Goal::None);
    report.figure("durable creates: CPU of Sagong for one", used * 1000.0 / CREATES as f64, "ms", Goal::None);
    report.figure("durable creates: resident memory after 20,000", cluster.resident()?, "MB", Goal::None);
    fan_out(&client, report).await
}

fn create(name: &str) -> Result<Request<Vec<u8>>> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name }, "data": { "key": "x".repeat(512) },
    });
    let request =
        Request::post("/api/v1/namespaces/default/configmaps").header("content-type", "application/json");
    Ok(request.body(serde_json::to_vec(&object)?)?)
}

/// Makes `count` requests, 64 at a time; answers how many a second.
async fn requests(
    client: &Client,
    count: usize,
    make: impl Fn(usize) -> Result<Request<Vec<u8>>>,
) -> Result<f64> {
    let began = Instant::now();
    let answers = stream::iter(0..count).map(|n| {
        let (client, request) = (client.clone(), make(n));
        async move { tokio::spawn(async move { anyhow::Ok(client.request_text(request?).await?) }).await? }
    });
    answers.buffer_unordered(CONNECTIONS).try_for_each(|_| std::future::ready(Ok(()))).await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// From before the request that writes to the arrival of its event at each of the watchers.
async fn fan_out(client: &Client, report: &mut Report) -> Result<()> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let version = maps.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={}",
        version.context("the list has no version")?
    );
    let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let late: Arc<Mutex<Vec<f64>>> = Arc::default();
    let open = Arc::new(AtomicUsize::new(0));
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let (client, path) = (client.clone(), path.clone());
        let (sent, late, open) = (sent.clone(), late.clone(), open.clone());
        watchers.spawn(async move {
            let answer = client.request_stream(Request::get(path).body(Vec::new())?).await?;
            open.fetch_add(1, Ordering::Relaxed);
            let mut lines = Box::pin(answer).lines();
            for n in 0..WRITES {
                let line = lines.next().await.context("the watch ended")??;
                let now = Instant::now();
                anyhow::ensure!(line.contains(&format!("\"watched-{n}\"")), "lost or out of order: {line}");
                let began = sent.lock().ok().and_then(|sent| sent.get(n).copied()).context("never sent")?;
                if let Ok(mut late) = late.lock() {
                    late.push((now - began).as_secs_f64() * 1000.0);
                }
            }
            anyhow::Ok(())
        });
    }
    while open.load(Ordering::Relaxed) < WATCHERS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in 0..WRITES {
        let object: ConfigMap =
            serde_json::from_value(json!({ "metadata": { "name": format!("watched-{n}") } }))?;
        if let Ok(mut sent) = sent.lock() {
            sent.push(Instant::now());
        }
        maps.create(&PostParams::default(), &object).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while let Some(ended) = watchers.join_next().await {
        ended??;
    }
    let mut late = late.lock().map(|late| late.clone()).unwrap_or_default();
    report.figure(
        "watch: write to its event at 100 watchers, p50",
        percentile(&mut late, 50.0),
        "ms",
        Goal::None,
    );
    report.figure(
        "watch: write to its event at 100 watchers, p99",
        percentile(&mut late, 99.0),
        "ms",
        Goal::Below(20.0),
    );
    Ok(())
}
