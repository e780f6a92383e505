//! From before the request that writes to the arrival of its event at each of many watchers.

use crate::report::percentile;
use anyhow::{Context, Result};
use futures::AsyncBufReadExt;
use http::Request;
use kube::Client;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, watch};

/// How late each event was at each watcher, in milliseconds.
pub(crate) struct Late(Vec<f64>);

impl Late {
    /// Median and 99th percentile.
    pub(crate) fn figures(&mut self) -> [f64; 2] {
        [50.0, 99.0].map(|part| percentile(&mut self.0, part))
    }
}

/// Watchers of a collection, each a request of its own.
pub(crate) struct Watchers {
    tasks: tokio::task::JoinSet<Result<Vec<f64>>>,
    sent: watch::Sender<Vec<Instant>>,
    client: Client,
    object: String,
    writes: usize,
}

/// Opens the watches, changes the object so many times and waits until each watcher was told of each change.
pub(crate) async fn fan_out(
    client: &Client,
    collection: &str,
    name: &str,
    watchers: usize,
    writes: usize,
) -> Result<Late> {
    Watchers::open(client, collection, name, watchers, writes).await?.told().await
}

impl Watchers {
    /// Opens the watches; all have been answered when this returns.
    pub(crate) async fn open(
        client: &Client,
        collection: &str,
        name: &str,
        watchers: usize,
        writes: usize,
    ) -> Result<Self> {
        let object = format!("{collection}/{name}");
        // The object's own version may be too old to watch from.
        let request = Request::get(format!("{collection}?limit=1")).body(Vec::new())?;
        let list: serde_json::Value = client.request(request).await?;
        let version = list["metadata"]["resourceVersion"].as_str().context("the list has no version")?;
        let path = format!("{collection}?watch=1&resourceVersion={version}");
        let (sent, times) = watch::channel(Vec::new());
        let open = Arc::new(Barrier::new(watchers + 1));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..watchers {
            let (client, path, times, open) = (client.clone(), path.clone(), times.clone(), open.clone());
            tasks.spawn(async move {
                let answer = client.request_stream(Request::get(path).body(Vec::new())?).await?;
                open.wait().await;
                listen(Box::pin(answer), &times, writes).await
            });
        }
        tokio::select! {
            _ = open.wait() => {}
            Some(ended) = tasks.join_next() => drop(ended??),
        }
        Ok(Self { tasks, sent, client: client.clone(), object, writes })
    }

    /// Writes, and waits until everybody was told.
    pub(crate) async fn told(mut self) -> Result<Late> {
        for n in 0..self.writes {
            let change = json!({ "metadata": { "annotations": { "told": n.to_string() } } });
            let request = Request::patch(&self.object).header("content-type", "application/merge-patch+json");
            let request = request.body(serde_json::to_vec(&change)?)?;
            self.sent.send_modify(|sent| sent.push(Instant::now()));
            self.client.request_text(request).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut late = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            late.extend(ended??);
        }
        Ok(Late(late))
    }
}

async fn listen(
    answer: impl futures::AsyncBufRead + Unpin,
    sent: &watch::Receiver<Vec<Instant>>,
    writes: usize,
) -> Result<Vec<f64>> {
    use futures::StreamExt;
    let mut lines = answer.lines();
    let mut late = Vec::with_capacity(writes);
    while late.len() < writes {
        let line = lines.next().await.context("the watch ended")??;
        let now = Instant::now();
        // Others may write too: a status, say.
        if !line.contains(&format!("\"told\":\"{}\"", late.len())) {
            anyhow::ensure!(!line.contains("\"ERROR\""), "{line}");
            continue;
        }
        let began = *sent.borrow().get(late.len()).context("never sent")?;
        late.push((now - began).as_secs_f64() * 1000.0);
    }
    Ok(late)
}
