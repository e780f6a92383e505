//! Builds the chapter's app (examples/kubia/native) as a static executable, for the demo to pack into images.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "../../examples/kubia/native/kubia.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("kubia");
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"))
        .args(["--edition=2024", "--target", &target, "-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", source, "-o"])
        .arg(&output)
        .status()
        .expect("running rustc");
    assert!(status.success(), "building {source} failed");
}
