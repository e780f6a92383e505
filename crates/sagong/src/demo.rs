//! `sagong demo`: the chapter's rolling update, for real, on a cluster of its own, with every request counted.

mod load;
mod show;

use crate::cli;
use crate::data_dir::DataDir;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Config, ResourceExt};
use load::Tally;
use parking_lot::Mutex;
use sagong_image::{ImageStore, ImportOptions, ImportedFile};
use serde_json::json;
use show::Scene;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The app, built by build.rs.
const KUBIA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kubia"));
/// How long traffic flows before, between and after the roll-outs.
const STEADY: Duration = Duration::from_secs(2);
/// No phase takes this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds each phase took.
#[derive(Default)]
struct Phases {
    up: f64,
    create: f64,
    update: f64,
    undo: f64,
    down: f64,
}

/// Runs the demo. An error if any request failed.
pub(crate) async fn run(options: cli::Demo) -> Result<()> {
    let temporary = std::env::temp_dir().join(format!("sagong-demo-{}", std::process::id()));
    let data = DataDir::create(options.data_dir.as_deref().unwrap_or(&temporary))?;
    if data.running()?.is_some() || data.config()?.is_some() {
        bail!("{} belongs to another cluster; choose another --data-dir for the demo", data.path().display());
    }
    let outcome = tokio::select! {
        outcome = perform(&data, options.rate) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let began = Instant::now();
    let cleaned = sagong(&["down", "--purge", "--data-dir", &data.path().display().to_string()]).await;
    let (tally, mut phases) = outcome?;
    cleaned?;
    phases.down = began.elapsed().as_secs_f64();
    report(&tally, &phases, options.output.is_some())
}

async fn perform(data: &DataDir, rate: u32) -> Result<(Arc<Tally>, Phases)> {
    let mut phases = Phases::default();
    let directory = data.path().display().to_string();

    step("Starting a cluster of one node");
    let began = Instant::now();
    let (pods, services) = free_networks()?;
    let port = free_port()?.to_string();
    sagong(&[
        "up",
        "-d",
        "--no-kubeconfig",
        "--data-dir",
        &directory,
        "--port",
        &port,
        "--pod-cidr",
        &pods,
        "--service-cidr",
        &services,
    ])
    .await?;
    phases.up = began.elapsed().as_secs_f64();

    step("Packing the images luksa/kubia:v1 and v2");
    pack(&data.join("images")).await?;

    step("Creating the Deployment kubia (3 replicas) and its LoadBalancer Service");
    let began = Instant::now();
    let stage = Stage::open(data).await?;
    let address = stage.create().await?;
    phases.create = began.elapsed().as_secs_f64();

    step(&format!("Sending {rate} requests a second to http://{address}"));
    let (tally, scene) = (Arc::new(Tally::default()), Arc::new(Mutex::new(Scene::default())));
    let (stop_load, stop_show) = (CancellationToken::new(), CancellationToken::new());
    let load = tokio::spawn(load::run(address, rate, Arc::clone(&tally), stop_load.clone()));
    let show = tokio::spawn(show::run(Arc::clone(&scene), Arc::clone(&tally), stop_show.clone()));
    let _stop = (stop_load.clone().drop_guard(), stop_show.clone().drop_guard());

    scene.lock().title = "v1";
    stage.steady(&scene).await?;
    scene.lock().title = "v1 -> v2";
    phases.update = stage.roll(&scene, set_image("luksa/kubia:v2")).await?;
    scene.lock().title = "v2";
    stage.steady(&scene).await?;
    scene.lock().title = "v2 -> v1";
    let previous = stage.previous_template().await?;
    phases.undo = stage.roll(&scene, previous).await?;
    scene.lock().title = "v1";
    stage.steady(&scene).await?;

    stop_load.cancel();
    load.await?;
    stop_show.cancel();
    show.await?;
    step("Taking everything down");
    Ok((tally, phases))
}

fn step(text: &str) {
    eprintln!("• {text}");
}

/// Runs this same program, as a user would.
async fn sagong(arguments: &[&str]) -> Result<()> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    let output = command.args(arguments).stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("sagong {}: {}", arguments.first().unwrap_or(&""), text.trim().trim_start_matches("error: "));
    }
    Ok(())
}

async fn pack(images: &Path) -> Result<()> {
    let store = ImageStore::open(images)?;
    for version in ["1", "2"] {
        let options = ImportOptions {
            name: format!("luksa/kubia:v{version}"),
            entrypoint: vec!["/kubia".into()],
            env: vec![format!("KUBIA_VERSION={version}")],
            ..ImportOptions::default()
        };
        let file = ImportedFile { path: "kubia".into(), content: KUBIA.to_vec() };
        store.import_files(vec![file], options).await?;
    }
    Ok(())
}

/// A port nobody listens on, on loopback.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A pod and a service network that no interface of this machine is in, away from the default ones.
fn free_networks() -> Result<(String, String)> {
    let taken: Vec<Ipv4Addr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| interface.address?.as_sockaddr_in().map(|address| address.ip()))
        .collect();
    let free = |second: u8| !taken.iter().any(|ip| ip.octets()[..2] == [10, second]);
    let second =
        (200..250).find(|&n| free(n)).context("every network from 10.200.0.0 to 10.249.0.0 is in use")?;
    Ok((format!("10.{second}.0.0/17"), format!("10.{second}.128.0/17")))
}

fn set_image(image: &str) -> serde_json::Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "nodejs", "image": image }] } } } })
}

/// The API objects the demo plays with.
struct Stage {
    deployments: Api<Deployment>,
    replica_sets: Api<ReplicaSet>,
    services: Api<Service>,
}

impl Stage {
    async fn open(data: &DataDir) -> Result<Self> {
        let kubeconfig = kube::config::Kubeconfig::read_from(data.kubeconfig())?;
        let client =
            Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?;
        Ok(Self {
            deployments: Api::default_namespaced(client.clone()),
            replica_sets: Api::default_namespaced(client.clone()),
            services: Api::default_namespaced(client),
        })
    }

    /// Creates both objects and waits until every pod is available. Returns the service's address.
    async fn create(&self) -> Result<SocketAddr> {
        let port = match TcpListener::bind((Ipv4Addr::LOCALHOST, 80)) {
            Ok(_) => 80,
            Err(_) => free_port()?,
        };
        // Through a tree: reading YAML straight into the type would put another decoder of all its parts into the binary.
        let manifest: serde_json::Value =
            serde_saphyr::from_str(include_str!("../../../examples/kubia/kubia-deployment-v1.yaml"))?;
        let deployment: Deployment = serde_json::from_value(manifest)?;
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "kubia" },
            "spec": { "type": "LoadBalancer", "selector": { "app": "kubia" }, "ports": [{ "port": port, "targetPort": 8080 }] },
        }))?;
        self.services.create(&PostParams::default(), &service).await?;
        self.deployments.create(&PostParams::default(), &deployment).await?;
        self.watch(&Mutex::default(), is_rolled_out).await?;
        self.address(port).await
    }

    async fn address(&self, port: u16) -> Result<SocketAddr> {
        let served = |service: Option<&Service>| external_address(service).is_some();
        let wait = kube::runtime::wait::await_condition(self.services.clone(), "kubia", served);
        let service = tokio::time::timeout(PATIENCE, wait).await.context("the service got no address")??;
        let ip = external_address(service.as_ref()).context("the service has no address")?;
        Ok(SocketAddr::new(ip.parse()?, port))
    }

    /// Changes the Deployment and waits until it is rolled out. Returns the seconds it took.
    async fn roll(&self, scene: &Mutex<Scene>, patch: serde_json::Value) -> Result<f64> {
        let began = Instant::now();
        self.deployments.patch("kubia", &PatchParams::default(), &Patch::Strategic(patch)).await?;
        self.watch(scene, is_rolled_out).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    async fn steady(&self, scene: &Mutex<Scene>) -> Result<()> {
        let deployment = self.deployments.get("kubia").await?;
        scene.lock().observe(&deployment);
        tokio::time::sleep(STEADY).await;
        Ok(())
    }

    /// What `kubectl rollout undo` sends: the template of the revision before the present one.
    async fn previous_template(&self) -> Result<serde_json::Value> {
        let mut revisions: Vec<(i64, ReplicaSet)> = self
            .replica_sets
            .list(&ListParams::default().labels("app=kubia"))
            .await?
            .into_iter()
            .filter_map(|set| {
                Some((set.annotations().get("deployment.kubernetes.io/revision")?.parse().ok()?, set))
            })
            .collect();
        revisions.sort_by_key(|(revision, _)| -revision);
        let (_, previous) = revisions.into_iter().nth(1).context("the Deployment has no earlier revision")?;
        let mut template =
            previous.spec.and_then(|spec| spec.template).context("the ReplicaSet has no template")?;
        if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
            labels.remove("pod-template-hash");
        }
        let mut template = serde_json::to_value(template)?;
        template["$patch"] = json!("replace");
        Ok(json!({ "spec": { "template": template } }))
    }

    /// Follows the Deployment until `done`.
    async fn watch(&self, scene: &Mutex<Scene>, done: fn(&Deployment) -> bool) -> Result<()> {
        use futures::TryStreamExt;
        use kube::runtime::WatchStreamExt;
        let config = watcher::Config::default().fields("metadata.name=kubia");
        let mut changes = std::pin::pin!(watcher(self.deployments.clone(), config).applied_objects());
        let follow = async {
            while let Some(deployment) = changes.try_next().await? {
                scene.lock().observe(&deployment);
                if done(&deployment) {
                    return Ok(());
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(PATIENCE, follow)
            .await
            .with_context(|| format!("not rolled out within {PATIENCE:?}"))?
    }
}

fn external_address(service: Option<&Service>) -> Option<String> {
    service?.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.clone()
}

/// As `kubectl rollout status` judges it, and no old pod left.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let Some((spec, status)) = deployment.spec.as_ref().zip(deployment.status.as_ref()) else { return false };
    let wanted = spec.replicas.unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas == Some(wanted)
        && status.available_replicas == Some(wanted)
        && status.replicas == Some(wanted)
}

fn report(tally: &Tally, phases: &Phases, json_line: bool) -> Result<()> {
    let sent = tally.sent.load(Ordering::Relaxed);
    let failed = tally.failed.load(Ordering::Relaxed);
    let (p50, p99) = tally.percentiles();
    let [v1, v2, ..] = [0, 1].map(|i: usize| tally.versions[i].load(Ordering::Relaxed));
    eprintln!();
    eprintln!("  requests sent     {sent}   (v1 {v1}, v2 {v2}; half on fresh connections, half kept alive)");
    eprintln!("  requests failed   {failed}");
    eprintln!("  latency           p50 {p50:.1} ms, p99 {p99:.1} ms");
    eprintln!(
        "  seconds           up {:.2}, create {:.2}, roll to v2 {:.2}, roll back {:.2}, down {:.2}",
        phases.up, phases.create, phases.update, phases.undo, phases.down
    );
    for (reason, count) in tally.reasons() {
        eprintln!("  {count} × {reason}");
    }
    if json_line {
        let round = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        println!(
            "{}",
            json!({
                "requests": sent, "failed": failed, "v1": v1, "v2": v2,
                "latencyMs": { "p50": p50, "p99": p99 },
                "seconds": {
                    "up": round(phases.up), "create": round(phases.create), "update": round(phases.update),
                    "undo": round(phases.undo), "down": round(phases.down),
                },
            })
        );
    }
    if failed > 0 {
        bail!("{failed} of {sent} requests failed");
    }
    if v1 == 0 || v2 == 0 {
        bail!("only one version answered (v1 {v1}, v2 {v2})");
    }
    Ok(())
}
