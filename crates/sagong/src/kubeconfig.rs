//! The context `sagong` in the user's kubeconfig, put there and taken away as kind and minikube do.

use crate::data_dir::{DataDir, write_private};
use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Name of the extension that tells which data directory an entry belongs to.
const EXTENSION: &str = "sagong.dev/data-dir";

/// A kubeconfig of a user.
pub(crate) struct UserFile {
    path: PathBuf,
    /// Whose it is, when that is not the user we run as.
    owner: Option<(Uid, Gid)>,
}

impl UserFile {
    /// The file that kubectl writes for whoever typed the command: the first of `$KUBECONFIG`, or `~/.kube/config`. Under
    /// sudo that is the caller's, not root's. None without a home.
    pub(crate) fn find() -> Option<Self> {
        if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
            let path = std::env::split_paths(&list).find(|path| !path.as_os_str().is_empty())?;
            return Some(Self { path, owner: None });
        }
        if let Some(caller) = sudo_caller() {
            return Some(Self {
                path: caller.dir.join(".kube/config"),
                owner: Some((caller.uid, caller.gid)),
            });
        }
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        Some(Self { path: home.join(".kube/config"), owner: None })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Merges the cluster's own kubeconfig into it: see [`merge`].
    pub(crate) fn add(&self, data: &DataDir) -> Result<String> {
        let name = merge(&self.path, data)?;
        self.hand_over()?;
        Ok(name)
    }

    /// Takes this cluster's entries out of it. No error if there are none.
    pub(crate) fn remove(&self, data: &DataDir) -> Result<()> {
        remove(&self.path, data)?;
        self.hand_over()
    }

    /// What root wrote for the caller of sudo is the caller's.
    fn hand_over(&self) -> Result<()> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        let directory = self.path.parent().into_iter().map(Path::to_path_buf);
        for path in directory.chain([self.path.clone()]).filter(|path| path.exists()) {
            nix::unistd::chown(&path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to its user", path.display()))?;
        }
        Ok(())
    }
}

fn sudo_caller() -> Option<User> {
    let uid: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
    User::from_uid(Uid::from_raw(uid)).ok()?.filter(|user| !user.uid.is_root())
}

/// Merges the cluster's own kubeconfig into `file` and makes its context the current one. All else in the
/// file is kept. Returns the context's name: `sagong`, or `sagong-<instance>` while another cluster of
/// Sagong has that name.
fn merge(file: &Path, data: &DataDir) -> Result<String> {
    let own = read(&data.kubeconfig())?.context("the cluster has no kubeconfig")?;
    let old = read(file)?.unwrap_or_else(|| json!({ "apiVersion": "v1", "kind": "Config" }));
    let directory = data.path().display().to_string();
    let name = context_name(&old, &directory, &data.instance());
    let new = merged(old, &own, &name, &directory)?;
    write(file, &new)?;
    Ok(name)
}

/// Takes this cluster's entries out of `file`. No error if there are none.
fn remove(file: &Path, data: &DataDir) -> Result<()> {
    let Some(old) = read(file)? else { return Ok(()) };
    let new = without(old.clone(), &data.path().display().to_string());
    if new == old { Ok(()) } else { write(file, &new) }
}

fn read(file: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let value: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("cannot understand {}; it is left as it is", file.display()))?;
    if !value.is_object() {
        bail!("{} is not a kubeconfig; it is left as it is", file.display());
    }
    Ok(Some(value))
}

fn write(file: &Path, value: &Value) -> Result<()> {
    // Through a link, as editors do: the link stays, its target is replaced.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    write_private(&file, serde_saphyr::to_string(value).context("cannot write YAML")?.as_bytes())
}

fn entries<'a>(config: &'a Value, list: &str) -> &'a [Value] {
    config.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The data directory an entry of `clusters` came from, if it came from us.
fn origin(cluster: &Value) -> Option<&str> {
    entries(cluster.get("cluster")?, "extensions")
        .iter()
        .find(|extension| extension["name"] == EXTENSION)?
        .get("extension")?
        .as_str()
}

fn context_name(config: &Value, directory: &str, instance: &str) -> String {
    let taken = entries(config, "clusters").iter().any(|cluster| {
        cluster["name"] == "sagong"
            && origin(cluster).is_some_and(|other| other != directory && Path::new(other).exists())
    });
    if taken { format!("sagong-{instance}") } else { "sagong".into() }
}

fn merged(config: Value, own: &Value, name: &str, directory: &str) -> Result<Value> {
    let mut config = without(config, directory);
    let mut cluster = own["clusters"][0]["cluster"].clone();
    let user = &own["users"][0]["user"];
    if !cluster.is_object() || !user.is_object() {
        bail!("the cluster's own kubeconfig lacks its cluster or user");
    }
    cluster["extensions"] = json!([{ "name": EXTENSION, "extension": directory }]);
    let fields = config.as_object_mut().context("not a kubeconfig")?;
    put(fields, "clusters", json!({ "name": name, "cluster": cluster }));
    put(fields, "users", json!({ "name": name, "user": user }));
    put(fields, "contexts", json!({ "name": name, "context": { "cluster": name, "user": name } }));
    fields.insert("current-context".into(), json!(name));
    Ok(config)
}

/// Adds an entry to a list, in the place of one with the same name.
fn put(config: &mut Map<String, Value>, list: &str, entry: Value) {
    let slot = config.entry(list).or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]); // null, as an empty list is often written
    }
    if let Some(items) = slot.as_array_mut() {
        items.retain(|item| item["name"] != entry["name"]);
        items.push(entry);
    }
}

fn without(mut config: Value, directory: &str) -> Value {
    let ours: Vec<Value> = entries(&config, "clusters")
        .iter()
        .filter(|cluster| origin(cluster) == Some(directory))
        .map(|cluster| cluster["name"].clone())
        .collect();
    let Some(fields) = config.as_object_mut() else { return config };
    for list in ["clusters", "users", "contexts"] {
        if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !ours.contains(&item["name"]));
        }
    }
    if fields.get("current-context").is_some_and(|current| ours.contains(current)) {
        fields.insert("current-context".into(), json!(""));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Value {
        json!({
            "clusters": [{ "name": "sagong", "cluster": { "server": "https://127.0.0.1:6443" } }],
            "users": [{ "name": "sagong", "user": { "token": "t" } }],
        })
    }

    fn theirs() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "preferences": { "colors": true }, "current-context": "work",
            "clusters": [{ "name": "work", "cluster": { "server": "https://example.org" } }],
            "users": [{ "name": "work", "user": {} }],
            "contexts": [{ "name": "work", "context": { "cluster": "work", "user": "work", "namespace": "x" } }],
        })
    }

    #[test]
    fn what_is_there_is_kept_and_comes_back_when_ours_is_removed() {
        let with = merged(theirs(), &own(), "sagong", "/data").unwrap();
        assert_eq!(with["current-context"], "sagong");
        assert_eq!(with["contexts"].as_array().unwrap().len(), 2);
        assert_eq!(with["preferences"]["colors"], true);
        let mut without = without(with, "/data");
        without["current-context"] = json!("work");
        assert_eq!(without, theirs());
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let once = merged(theirs(), &own(), "sagong", "/data").unwrap();
        assert_eq!(merged(once.clone(), &own(), "sagong", "/data").unwrap(), once);
    }

    #[test]
    fn lists_written_as_null_are_taken_as_empty() {
        let config = json!({ "clusters": null, "users": null, "contexts": null });
        assert_eq!(merged(config, &own(), "sagong", "/data").unwrap()["clusters"][0]["name"], "sagong");
    }

    #[test]
    fn a_second_cluster_takes_another_name_while_the_first_exists() {
        let first = tempfile::tempdir().unwrap();
        let directory = first.path().display().to_string();
        let config = merged(theirs(), &own(), "sagong", &directory).unwrap();
        assert_eq!(context_name(&config, "/other", "abc123"), "sagong-abc123");
        assert_eq!(context_name(&config, &directory, "abc123"), "sagong");
        drop(first);
        assert_eq!(context_name(&config, "/other", "abc123"), "sagong");
    }
}
