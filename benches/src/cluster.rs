//! A cluster for measuring, and what the kernel says about its process.

use anyhow::{Context, Result, bail};
use kube::config::Kubeconfig;
use kube::{Client, Config};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A running cluster; taken down when dropped.
pub(crate) struct Cluster {
    program: PathBuf,
    data: PathBuf,
    pid: u32,
    /// From the command's start to its end, which is when the node is Ready.
    pub(crate) up: Duration,
}

impl Cluster {
    /// Starts one with these further arguments.
    pub(crate) fn up(program: &Path, arguments: &[&str]) -> Result<Self> {
        let data = std::env::temp_dir().join(format!("sagong-bench-cluster-{}", std::process::id()));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port().to_string();
        let mut cluster = Cluster { program: program.into(), data, pid: 0, up: Duration::ZERO };
        let began = Instant::now();
        let output = Command::new(program)
            .args(["up", "-d", "--no-kubeconfig", "--port", &port, "--data-dir"])
            .arg(&cluster.data)
            .args(["--pod-cidr", "10.88.0.0/17", "--service-cidr", "10.88.128.0/17"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        cluster.up = began.elapsed();
        if !output.status.success() {
            bail!("sagong up: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let pid = std::fs::read_to_string(cluster.data.join("lock"))?;
        cluster.pid = pid.trim().parse().context("the lock names no process")?;
        Ok(cluster)
    }

    /// A client of its own, over HTTPS.
    pub(crate) async fn client(&self) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(self.data.join("kubeconfig"))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        config.disable_compression = true;
        Ok(Client::try_from(config)?)
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// Packs the example app as luksa/kubia:v1.
    pub(crate) fn import_kubia(&self) -> Result<()> {
        let root = self.data.join("bench-root");
        std::fs::create_dir_all(&root)?;
        run(Command::new("rustc")
            .args([
                "--edition=2024",
                "-Copt-level=2",
                "-Cpanic=abort",
                "-Cstrip=symbols",
                "-Ctarget-feature=+crt-static",
            ])
            .args(["examples/kubia/native/kubia.rs", "-o"])
            .arg(root.join("kubia")))?;
        run(Command::new(&self.program)
            .args(["image", "import", "--data-dir"])
            .arg(&self.data)
            .arg(&root)
            .args(["luksa/kubia:v1", "--entrypoint", "/kubia", "--env", "KUBIA_VERSION=1"]))
    }

    /// Seconds of CPU the process has used: utime and stime of proc_pid_stat(5).
    pub(crate) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: f64 = [11, 12].iter().filter_map(|&n| fields.get(n)?.parse::<f64>().ok()).sum();
        // USER_HZ, which is 100 on every Linux.
        Ok(ticks / 100.0)
    }

    /// Resident memory of the process in MB (million bytes).
    pub(crate) fn resident(&self) -> Result<f64> {
        self.memory("VmRSS:")
    }

    /// The most it has been.
    pub(crate) fn resident_peak(&self) -> Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1.024 / 1000.0)
    }

    /// Percent of one processor used while nothing happens.
    pub(crate) async fn idle_cpu(&self) -> Result<f64> {
        let (before, began) = (self.cpu()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok((self.cpu()? - before) / began.elapsed().as_secs_f64() * 100.0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = run(Command::new(&self.program).args(["down", "--purge", "--data-dir"]).arg(&self.data));
        if let Err(error) = down {
            eprintln!("{error:#}");
        }
    }
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
