//! The arrows between our crates are those of the map in ARCHITECTURE.md, and no others.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Who may know whom. `sagong`, the binary, sees everything.
const MAP: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("network", &["api"]),
    ("image", &[]),
    ("runtime", &["image"]),
    ("kubelet", &["api", "runtime", "image", "network"]),
    ("scheduler", &["api"]),
    ("controllers", &["api"]),
    ("apiserver", &["api", "store"]),
    ("kubectl", &["api"]),
    ("simulation", &["api", "controllers", "scheduler", "kubelet"]),
];

/// Dependencies between our crates, read from the manifests; those of tests do not count.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ours = |name: &str| name.strip_prefix("sagong-").map(str::to_owned);
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| {
            let name = ours(package["name"].as_str().unwrap())?;
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
            Some((name, normal.filter_map(|dependency| ours(dependency["name"].as_str().unwrap())).collect()))
        })
        .collect()
}

#[test]
fn no_crate_imports_against_the_map() {
    let map: BTreeMap<&str, &[&str]> = MAP.iter().copied().collect();
    for (krate, dependencies) in
        arrows().into_iter().filter(|(krate, _)| !matches!(krate.as_str(), "tests" | "bench"))
    {
        let allowed = map.get(krate.as_str()).unwrap_or_else(|| panic!("crate {krate} is not in the map"));
        for dependency in dependencies {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{krate} imports {dependency}, which the map does not allow"
            );
        }
    }
}

#[test]
fn every_crate_of_the_map_is_named_in_architecture_md() {
    let text = std::fs::read_to_string("../ARCHITECTURE.md").unwrap();
    for (krate, _) in MAP {
        assert!(text.contains(&format!("crates/{krate}")), "ARCHITECTURE.md does not name crates/{krate}");
    }
}
