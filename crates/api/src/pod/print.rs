//! Cells that tables of pods and of what makes pods share.

use k8s_openapi::api::core::v1::PodSpec;
use std::collections::BTreeMap;

/// What an empty cell shows.
pub const NONE: &str = "<none>";

/// The CONTAINERS and IMAGES cells: names and images of the containers, with commas.
pub fn container_cells(spec: Option<&PodSpec>) -> (String, String) {
    let containers = spec.map_or(&[][..], |spec| &spec.containers);
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
    (names.join(","), images.join(","))
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}
