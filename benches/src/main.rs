//! Measures a whole Sagong from outside: the release binary, real sockets, the process's own CPU and memory.
//!
//! * [`cluster`]: a cluster for measuring, and what the kernel says about its process;
//! * [`node`]: start, idling, real pods, the demo; [`rollout`]: Deployments on simulated nodes; [`memory`]: 10,000 pods;
//! * [`image`]: a pull; [`service`]: what a service costs its clients;
//! * [`termination`]: how soon services follow pods, what the order of a pod's end costs;
//! * [`api`]: durable writes, watches; [`fan_out`]: how late many watchers are told; [`kubectl`]: what a user waits; [`baseline`]: what the machine itself does in the same run;
//! * [`report`]: figures against goals.

mod api;
mod baseline;
mod cluster;
mod fan_out;
mod image;
mod kubectl;
mod memory;
mod node;
mod report;
mod rollout;
mod service;
mod termination;

use clap::Parser;
use report::Report;
use std::path::PathBuf;

/// Figures against the project's goals.
#[derive(Parser)]
struct Options {
    /// The program to measure
    #[arg(long, value_name = "FILE", default_value = "target/release/sagong")]
    sagong: PathBuf,
    /// What to measure [default: all]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Runs of the demo, with 600 requests per second
    #[arg(long, default_value_t = 1, env = "N")]
    demos: u32,
    /// Also write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What the machine does without Sagong
    Baseline,
    /// `up` to Ready, and idling
    Start,
    /// Pods with real containers
    Pods,
    /// A pull, against that by skopeo and umoci
    Pull,
    /// The demo's failed requests
    Demo,
    /// Requests through a service against those straight to a pod
    Service,
    /// How soon services follow pods, and what the order of a pod's end costs
    Termination,
    /// 1,000 replicas on simulated nodes: create, roll, undo, scale to 0
    Rollout,
    /// Create and roll from 100 to 10,000 pods
    Growth,
    /// 10,000 pods: memory, a list, 1,000 watchers
    Memory,
    /// Durable creates, watch fan-out
    Api,
    /// `get pods` by the binary and by the real kubectl
    Kubectl,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let wanted = |part: Part| options.parts.is_empty() || options.parts.contains(&part);
    let program = options.sagong.canonicalize()?;
    let mut report = Report::default();
    report.machine()?;
    if wanted(Part::Baseline) {
        baseline::run(&mut report)?;
    }
    if wanted(Part::Start) {
        node::start(&program, &mut report).await?;
    }
    if wanted(Part::Pods) {
        node::pods(&program, &mut report).await?;
    }
    if wanted(Part::Pull) {
        image::run(&program, &mut report)?;
    }
    if wanted(Part::Demo) {
        node::demo(&program, options.demos, &mut report)?;
    }
    if wanted(Part::Service) {
        service::run(&program, &mut report).await?;
    }
    if wanted(Part::Termination) {
        termination::run(&program, &mut report).await?;
    }
    if wanted(Part::Rollout) {
        rollout::thousand(&program, &mut report).await?;
    }
    if wanted(Part::Growth) {
        rollout::growth(&program, &mut report).await?;
    }
    if wanted(Part::Memory) {
        memory::run(&program, &mut report).await?;
    }
    if wanted(Part::Api) {
        api::run(&program, &mut report).await?;
    }
    if wanted(Part::Kubectl) {
        kubectl::run(&program, &mut report)?;
    }
    if let Some(file) = &options.json {
        std::fs::write(file, report.json())?;
    }
    Ok(())
}
