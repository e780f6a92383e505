//! How long a user waits for `get pods`: the binary's own kubectl beside the real one, turn by turn on one cluster.

use crate::cluster::Cluster;
use crate::report::{Goal, Report, percentile};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs of each program; the median counts.
const RUNS: usize = 31;
/// Runs before, so that caches on both sides are warm.
const WARM: usize = 3;
/// What the binary may take.
const GOAL_MILLIS: f64 = 15.0;

/// Measures both; without a kubectl on the path (or named by `$KUBECTL`) only ours.
pub(crate) fn run(program: &Path, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(program, &[])?;
    let kubeconfig = cluster.kubeconfig();
    let home = kubeconfig.parent().context("a kubeconfig is in a directory")?.to_owned();
    let once = |program: OsString, arguments: &[&str]| -> Result<f64> {
        let mut command = Command::new(program);
        command.args(arguments).env("KUBECONFIG", &kubeconfig).env("HOME", &home);
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output()?;
        let millis = began.elapsed().as_secs_f64() * 1000.0;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(millis)
    };
    // Ten rows; whether their pods run makes no difference to whoever lists them.
    let create = ["create", "deployment", "bench", "--image=bench.invalid/nothing:1", "--replicas=10"];
    once(program.into(), &create)?;
    once(
        program.into(),
        &["wait", "deployment/bench", "--for=jsonpath={.status.replicas}=10", "--timeout=30s"],
    )?;
    let real = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let there = Command::new(&real).args(["version", "--client"]).output().is_ok_and(|o| o.status.success());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 0..WARM + RUNS {
        let own = once(program.into(), &["get", "pods"])?;
        let other = if there { once(real.clone(), &["get", "pods"])? } else { f64::NAN };
        if turn >= WARM {
            ours.push(own);
            theirs.push(other);
        }
    }
    let (own, other) = (percentile(&mut ours, 50.0), percentile(&mut theirs, 50.0));
    report.figure("sagong get pods, 10 pods, median", own, "ms", Goal::Below(GOAL_MILLIS));
    if there {
        report.figure("kubectl get pods, the same cluster and moment, median", other, "ms", Goal::None);
        report.figure("sagong's time in kubectl's", own / other, "times", Goal::Below(0.5));
    }
    Ok(())
}
