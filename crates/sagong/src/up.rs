//! `sagong up`: in the foreground, or as the parent of a process that stays in the background.

use crate::cli;
use crate::cluster::{self, Cluster, Parts};
use crate::data_dir::{ClusterConfig, DataDir};
use crate::kubeconfig::UserFile;
use crate::preflight;
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sagong_kubelet::SimulatedNodes;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The line by which a background process tells its parent that the cluster is up.
const READY: &str = "\u{4}ready";

/// `sagong up -d`: starts the background process and passes on what it says until the node is Ready.
pub(crate) async fn detached(options: &cli::Up) -> Result<()> {
    if check(options).await? == Found::Running {
        return Ok(());
    }
    let data = DataDir::create(&options.data.data_dir)?;
    let log_path = data.join("sagong.log");
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path);
    let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--background")
        .arg("--data-dir")
        .arg(data.path())
        .args(["--port", &options.port.to_string()])
        .args(["--pod-cidr", &options.pod_cidr.to_string()])
        .args(["--service-cidr", &options.service_cidr.to_string()])
        .args(["--max-pods", &options.max_pods.to_string()])
        .args(options.no_load_balancer.then_some("--no-load-balancer"))
        .args(options.no_kubeconfig.then_some("--no-kubeconfig"))
        .args(["--simulated-nodes", &options.simulated_nodes.to_string()])
        .args(["--simulated-ready-delay", &format!("{}ms", options.simulated_ready_delay.as_millis())])
        .args(options.without_controllers.then_some("--without-controllers"))
        .args(options.without_scheduler.then_some("--without-scheduler"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let said = child.stdout.take().context("the background process has no output")?;
    let mut failure = None;
    for line in BufReader::new(said).lines() {
        let line = line?;
        if line == READY {
            return Ok(());
        }
        match line.strip_prefix("\u{4}error ") {
            Some(error) => failure = Some(error.to_owned()),
            // Whoever read this may be gone; the cluster is what matters.
            None => drop(writeln!(std::io::stdout(), "{line}")),
        }
    }
    child.wait()?;
    match failure {
        Some(failure) => bail!("{failure}"),
        None => bail!("the cluster stopped while it was starting; see {}", log_path.display()),
    }
}

/// `sagong up`, in this process, until it is told to stop.
pub(crate) async fn attached(options: cli::Up) -> Result<()> {
    if options.background {
        // Away from the terminal: its end must not be ours.
        let _ = nix::unistd::setsid();
    }
    raise_file_limit();
    let result = run(&options).await;
    if options.background
        && let Err(error) = &result
    {
        let _ = writeln!(std::io::stdout(), "\u{4}error {}", crate::told(error));
    }
    result
}

async fn run(options: &cli::Up) -> Result<()> {
    // The parent of a background process has checked already.
    if !options.background && check(options).await? == Found::Running {
        return Ok(());
    }
    let config = config(options);
    let data = DataDir::create(&options.data.data_dir)?;
    let lock = match data.lock()? {
        Ok(lock) => lock,
        Err(pid) => return say_running(&data, pid, &config),
    };

    let shutdown = CancellationToken::new();
    let parts = Parts {
        controllers: !options.without_controllers,
        scheduler: !options.without_scheduler,
        simulated_nodes: simulated_nodes(options)?,
    };
    let cluster = Cluster::start(&data, &config, parts, shutdown.clone()).await?;
    data.set_config(&config)?;
    cluster.node_ready().await?;
    say_ready(options, &data, &cluster);

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {
            let told = "\nStopped. Containers go on; `sagong up` takes them over again, `sagong down` stops them.";
            let _ = writeln!(std::io::stdout(), "{told}");
        }
        failed = cluster.failed() => {
            shutdown.cancel();
            return Err(failed);
        }
    }
    shutdown.cancel();
    cluster.stopped().await;
    drop(lock);
    Ok(())
}

/// What was there before.
#[derive(PartialEq, Eq)]
enum Found {
    /// This cluster, running. The user was told.
    Running,
    /// Nothing that is in the way.
    Room,
}

/// All that can be refused before anything is changed.
async fn check(options: &cli::Up) -> Result<Found> {
    preflight::check_machine()?;
    let data = DataDir::planned(&options.data.data_dir)?;
    let config = config(options);
    if let Some(pid) = data.running()? {
        say_running(&data, pid, &config)?;
        return Ok(Found::Running);
    }
    preflight::check_port(options.port)?;
    check_unchanged(&data, &config)?;
    cluster::check_network(&data, &config).await?;
    Ok(Found::Room)
}

fn config(options: &cli::Up) -> ClusterConfig {
    ClusterConfig {
        port: options.port,
        pod_cidr: options.pod_cidr,
        service_cidr: options.service_cidr,
        load_balancer: !options.no_load_balancer,
        max_pods: options.max_pods,
    }
}

/// Simulated nodes and pods share the second half of the pod network; nothing answers there.
fn simulated_nodes(options: &cli::Up) -> Result<Option<SimulatedNodes>> {
    if options.simulated_nodes == 0 {
        return Ok(None);
    }
    let halves = options.pod_cidr.subnets(options.pod_cidr.prefix_len().saturating_add(1));
    let addresses = halves.ok().and_then(|mut halves| halves.nth(1));
    let addresses = addresses.filter(|half| half.prefix_len() <= 24);
    let addresses = addresses.with_context(|| {
        format!(
            "--simulated-nodes needs half of the pod network, and {} is too small; use a /23 or larger",
            options.pod_cidr
        )
    })?;
    Ok(Some(SimulatedNodes {
        count: options.simulated_nodes,
        ready_delay: options.simulated_ready_delay,
        addresses,
    }))
}

/// Connections, watches and containers each take file descriptors; the usual soft limit of 1024 is for `select`.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

/// The networks are written into every object there is: they cannot change under it.
fn check_unchanged(data: &DataDir, config: &ClusterConfig) -> Result<()> {
    let Some(old) = data.config()? else { return Ok(()) };
    for (name, old, new) in [
        ("--pod-cidr", old.pod_cidr, config.pod_cidr),
        ("--service-cidr", old.service_cidr, config.service_cidr),
    ] {
        if old != new {
            bail!(
                "this cluster was made with {name} {old}, which cannot change to {new}; `sagong down --purge` first, or use another --data-dir"
            );
        }
    }
    Ok(())
}

/// Says too which options of this call are not those that the cluster runs with.
fn say_running(data: &DataDir, pid: u32, asked: &ClusterConfig) -> Result<()> {
    println!("Sagong is running already (process {pid}, data directory {}).", data.path().display());
    let others: Vec<String> = data.config()?.map(|running| running.unlike(asked)).unwrap_or_default();
    if !others.is_empty() {
        println!("It goes on as it was started: {}; `sagong down` first to change that.", others.join(", "));
    }
    Ok(())
}

fn say_ready(options: &cli::Up, data: &DataDir, cluster: &Cluster) {
    let mut lines = vec![format!(
        "Node {} is Ready after {:.2} s.",
        cluster::node_name(),
        cluster.since_start().as_secs_f64()
    )];
    let own = format!("export KUBECONFIG={}", data.kubeconfig().display());
    let file = UserFile::find().filter(|_| !options.no_kubeconfig);
    let next = match file.map(|file| (file.add(data), file)) {
        Some((Ok(context), file)) => {
            let path = file.path().display();
            lines.push(format!("kubectl's current context is now \"{context}\" ({path})."));
            None
        }
        Some((Err(error), file)) => {
            lines.push(format!("Could not add a context to {}: {error:#}", file.path().display()));
            Some(own)
        }
        None => Some(own),
    };
    lines
        .extend(sagong_runtime::native::missing_limits().into_iter().map(|lack| format!("Warning: {lack}.")));
    lines.push("Next:".into());
    lines.extend(next.into_iter().chain(["kubectl get nodes".into()]).map(|line| format!("  {line}")));
    // The parent may be gone already; that is no reason to stop.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{}", lines.join("\n"));
    if options.background {
        let _ = writeln!(out, "{READY}");
    }
    let _ = out.flush();
}
