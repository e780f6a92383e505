//! Compiles the keeper, the small program that each shim becomes once its container runs, so that the library can
//! carry it. Where that does not work the library is built without: shims then stay what they are, only larger.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    for path in ["src/keeper", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for room in ["attach", "log", "stay"] {
        println!("cargo::rerun-if-changed=src/native/shim/{room}.rs");
    }
    let program = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("keeper");
    // Statically linked it needs least; not every system has what that takes.
    let ways = [vec!["-Ctarget-feature=+crt-static", "-Crelocation-model=static"], Vec::new()];
    let mut reasons = Vec::new();
    for flags in ways {
        match compile(&program, &flags) {
            Ok(()) => return,
            Err(reason) => reasons.push(reason),
        }
    }
    println!("cargo::warning=shims will be larger: the keeper cannot be compiled: {}", reasons.join("; "));
    std::fs::write(&program, "").expect("write to OUT_DIR");
}

fn compile(program: &PathBuf, flags: &[&str]) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("RUSTC").expect("set by cargo"));
    command
        .args(["--edition=2024", "--crate-name=sagong_keeper", "--crate-type=bin"])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ccodegen-units=1", "-Clto=fat"])
        .arg("--target")
        .arg(std::env::var_os("TARGET").expect("set by cargo"))
        .args(flags)
        .arg("-o")
        .arg(program)
        .arg("src/keeper/main.rs");
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("-Clinker=");
        flag.push(linker);
        command.arg(flag);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().find(|line| line.starts_with("error")).unwrap_or("no reason given").to_owned())
}
