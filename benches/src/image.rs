//! What a pull takes: the binary's beside `skopeo copy` and `umoci unpack`, turn by turn from one registry on loopback.

use crate::cluster::run as run_command;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Layers, of 50 MB each once compressed.
const LAYERS: usize = 4;
/// Small files in each, of half noise and half text …
const SMALL: (usize, usize) = (2_500, 8 << 10);
/// … and large ones.
const LARGE: (usize, usize) = (80, 1 << 20);
/// Pulls by each; the median counts.
const RUNS: usize = 3;

/// Measures both, if all that it takes is installed.
pub(crate) fn run(program: &Path, report: &mut Report) -> Result<()> {
    for tool in ["docker-registry", "skopeo", "umoci"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            println!("SKIPPED: pulls: {tool} is not installed");
            return Ok(());
        }
    }
    let work = Work::make()?;
    let registry = Registry::start(&work)?;
    let layout = format!("oci:{}:v1", make_image(&work)?.display());
    let name = format!("127.0.0.1:{}/bench:v1", registry.port);
    let remote = format!("docker://{name}");
    run_command(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &layout,
        &remote,
    ]))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..RUNS {
        let data = work.0.join(format!("sagong-{turn}"));
        let began = Instant::now();
        run_command(Command::new(program).args(["image", "pull", &name, "--data-dir"]).arg(&data))?;
        ours.push(began.elapsed().as_secs_f64());
        std::fs::remove_dir_all(&data)?;

        let (copy, bundle) = (work.0.join(format!("oci-{turn}")), work.0.join(format!("bundle-{turn}")));
        let local = format!("oci:{}:v1", copy.display());
        let began = Instant::now();
        run_command(Command::new("skopeo").args([
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            &remote,
            &local,
        ]))?;
        let image = format!("{}:v1", copy.display());
        run_command(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle))?;
        theirs.push(began.elapsed().as_secs_f64());
        std::fs::remove_dir_all(&copy)?;
        std::fs::remove_dir_all(&bundle)?;
    }
    let (own, other) = (percentile(&mut ours, 50.0), percentile(&mut theirs, 50.0));
    report.figure("pull of 200 MB in 4 gzip layers, checked, unpacked, durable", own, "s", Goal::None);
    report.figure("skopeo copy and umoci unpack of the same, in turn", other, "s", Goal::None);
    report.figure("sagong's time in theirs", own / other, "times", Goal::Below(1.0));
    Ok(())
}

/// A directory for all of it; gone when dropped.
struct Work(PathBuf);

impl Work {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sagong-bench-image-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Debian's docker-registry; stopped when dropped.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(work: &Work) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = work.0.join("registry.yml");
        let root = work.0.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}}}\n",
            root.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn()?, port };
        let began = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OCI layout of the image, tagged `v1`.
fn make_image(work: &Work) -> Result<PathBuf> {
    let layout = work.0.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let (mut noise, mut diff_ids, mut layers) = (Noise(1), Vec::new(), Vec::new());
    for index in 0..LAYERS {
        let directory = work.0.join("files");
        fill(&directory.join(format!("usr/share/layer-{index}")), &mut noise)?;
        let tar = work.0.join("layer.tar");
        run_command(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&directory).arg("."))?;
        std::fs::remove_dir_all(&directory)?;
        diff_ids.push(format!("sha256:{}", sha256(&tar)?));
        run_command(Command::new("gzip").arg("-1").arg(&tar))?;
        layers.push(add(&blobs, &work.0.join("layer.tar.gz"), "layer.v1.tar+gzip")?);
    }
    let document = |name: &str, content: Value| -> Result<PathBuf> {
        let path = work.0.join(name);
        std::fs::write(&path, content.to_string())?;
        Ok(path)
    };
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/none"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = add(&blobs, &document("config.json", config)?, "config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    let mut manifest = add(&blobs, &document("manifest.json", manifest)?, "manifest.v1+json")?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string())?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    Ok(layout)
}

/// Moves a file among the blobs, and describes it.
fn add(blobs: &Path, file: &Path, kind: &str) -> Result<Value> {
    let (digest, size) = (sha256(file)?, std::fs::metadata(file)?.len());
    std::fs::rename(file, blobs.join(&digest))?;
    let kind = format!("application/vnd.oci.image.{kind}");
    Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size }))
}

fn sha256(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

/// Files of half noise, half text, as programs are: gzip makes half of them.
fn fill(directory: &Path, noise: &mut Noise) -> Result<()> {
    for (count, size) in [SMALL, LARGE] {
        for file in 0..count {
            let place = directory.join(format!("{size}-{}", file % 50));
            std::fs::create_dir_all(&place)?;
            let mut content = Vec::with_capacity(size);
            while content.len() < size {
                content.extend((0..256).flat_map(|_| noise.next().to_le_bytes()));
                content.extend(b"What is repeated takes no room at all. ".iter().cycle().take(2048));
            }
            File::create(place.join(file.to_string()))?.write_all(&content)?;
        }
    }
    Ok(())
}

/// The same noise every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
