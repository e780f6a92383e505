//! `sagong status`.

use crate::cli;
use crate::data_dir::{ClusterConfig, DataDir};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, Config, ResourceExt};
use serde::Serialize;
use std::process::ExitCode;

/// What `status -o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    running: bool,
    data_dir: String,
    /// Six hex digits in the names of all the cluster makes on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<u32>,
    /// Resident memory of the process, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<NodeReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
struct NodeReport {
    name: String,
    ready: bool,
}

#[derive(Serialize)]
struct PodReport {
    total: usize,
    running: usize,
}

/// Exit code 0 while the cluster runs, its node is Ready and writes succeed, 1 otherwise.
pub(crate) async fn run(options: cli::Status) -> Result<ExitCode> {
    let report = observe(&options.data.data_dir).await?;
    if options.output.is_some() {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let healthy = report.node.is_some_and(|node| node.ready) && report.problem.is_none();
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn observe(directory: &std::path::Path) -> Result<Report> {
    let mut report = Report {
        running: false,
        data_dir: directory.display().to_string(),
        instance: None,
        process: None,
        memory: None,
        server: None,
        node: None,
        pods: None,
        problem: None,
    };
    let Some(data) = DataDir::existing(directory)? else { return Ok(report) };
    report.instance = Some(data.instance());
    report.process = data.running()?;
    let Some(pid) = report.process else { return Ok(report) };
    report.running = true;
    report.memory = resident(pid);
    report.server = data.config()?.map(|ClusterConfig { port, .. }| format!("https://127.0.0.1:{port}"));
    match ask(&data).await {
        Ok((node, pods, problem)) => {
            (report.node, report.pods, report.problem) = (Some(node), Some(pods), problem);
        }
        Err(error) => report.problem = Some(format!("{error:#}")),
    }
    Ok(report)
}

/// The node, the pods, and what is wrong though both could be asked for: the disk is full, or read-only.
async fn ask(data: &DataDir) -> Result<(NodeReport, PodReport, Option<String>)> {
    let kubeconfig = kube::config::Kubeconfig::read_from(data.kubeconfig())?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
    let health = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await;
    let said = health.err().map(|error| error.to_string()).unwrap_or_default();
    let problem = said.lines().find_map(|line| line.split_once("[-]store failed: "));
    let problem = problem.map(|(_, reason)| format!("nothing can be stored: {reason}"));
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let own = crate::cluster::node_name();
    let node =
        nodes.items.iter().find(|node| node.name_any() == own).context("the node has not registered yet")?;
    let ready =
        node.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?.items;
    let is_running = |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    let running = pods.iter().filter(is_running).count();
    Ok((NodeReport { name: node.name_any(), ready }, PodReport { total: pods.len(), running }, problem))
}

/// `VmRSS` of proc(5), in bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn print(report: &Report) {
    let Some(pid) = report.process else {
        return println!("Not running ({}).", report.data_dir);
    };
    let memory = report.memory.map(|bytes| format!(", {} MiB", bytes >> 20)).unwrap_or_default();
    println!("Running: process {pid}{memory}, data directory {}", report.data_dir);
    if let Some(server) = &report.server {
        println!("Server:  {server}");
    }
    if let Some(node) = &report.node {
        println!("Node:    {} ({})", node.name, if node.ready { "Ready" } else { "NotReady" });
    }
    if let Some(pods) = &report.pods {
        println!("Pods:    {} running of {}", pods.running, pods.total);
    }
    if let Some(problem) = &report.problem {
        println!("Problem: {problem}");
    }
}
