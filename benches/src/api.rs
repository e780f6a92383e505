//! The API server and the store over HTTPS: durable creates, and watches of what was created.

use crate::cluster::Cluster;
use crate::fan_out::fan_out;
use crate::report::{Goal, Report};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// Connections, each with one request at a time.
const CONNECTIONS: usize = 64;
/// Objects created.
const CREATES: usize = 20_000;

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
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = serde_json::from_value(json!({ "metadata": { "name": "watched" } }))?;
    maps.create(&PostParams::default(), &map).await?;
    let mut late = fan_out(&client, "/api/v1/namespaces/default/configmaps", "watched", 100, 200).await?;
    let [middle, most] = late.figures();
    report.figure("watch: write to its event at 100 watchers, p50", middle, "ms", Goal::None);
    report.figure("watch: write to its event at 100 watchers, p99", most, "ms", Goal::Below(20.0));
    Ok(())
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
