//! Who we are to which registry, as docker's configuration files say it. Pure, but for [`Keyring::of_machine`].

use crate::{Credentials, Image, ImageError, Images, Progress};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a key of docker's hub is, whatever it is written as.
const HUB: &str = "index.docker.io";

/// Credentials by the beginning of the images' names that they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: BTreeMap<String, Vec<Credentials>>,
}

/// `config.json` of docker, and the data of a secret of the type `kubernetes.io/dockerconfigjson`.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// One registry's entry.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Entry {
    fn credentials(self) -> Option<Credentials> {
        let Entry { username, password, auth } = self;
        if auth.is_empty() {
            return (!username.is_empty()).then_some(Credentials { username, password });
        }
        let plain = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (username, password) = plain.split_once(':')?;
        let password = password.trim_end_matches('\0');
        Some(Credentials { username: username.into(), password: password.into() })
    }
}

impl Keyring {
    /// What this machine's own files say: `config.json` in one of these directories, or in root's `.docker`.
    pub fn of_machine(directories: &[&Path]) -> Self {
        let mut keyring = Keyring::default();
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
        for directory in directories.iter().map(|path| path.to_path_buf()).chain(home) {
            if let Ok(bytes) = std::fs::read(directory.join("config.json")) {
                keyring.add_config(&bytes);
            }
        }
        keyring
    }

    /// Adds what is in a `config.json`. What is not one adds nothing.
    pub fn add_config(&mut self, bytes: &[u8]) {
        if let Ok(config) = serde_json::from_slice::<Config>(bytes) {
            self.add(config.auths);
        }
    }

    /// Adds what is in a `.dockercfg`, the form before `config.json`. What is not one adds nothing.
    pub fn add_dockercfg(&mut self, bytes: &[u8]) {
        if let Ok(entries) = serde_json::from_slice(bytes) {
            self.add(entries);
        }
    }

    /// Adds all that another one has, to be tried later.
    pub fn extend(&mut self, other: Keyring) {
        for (key, credentials) in other.keys {
            self.keys.entry(key).or_default().extend(credentials);
        }
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>) {
        for (place, entry) in entries {
            if let Some(credentials) = entry.credentials() {
                self.keys.entry(key(&place)).or_default().push(credentials);
            }
        }
    }

    /// What to try for an image, named in full: what is for the longest beginning of its name first.
    pub fn lookup(&self, image: &str) -> Vec<Credentials> {
        let name = image.split('@').next().unwrap_or_default();
        let fitting = self.keys.iter().rev().filter(|(key, _)| fits(key, name));
        let found: Vec<Credentials> = fitting.flat_map(|(_, credentials)| credentials.clone()).collect();
        if found.is_empty() && name.starts_with("docker.io/") {
            return self.keys.get(HUB).cloned().unwrap_or_default();
        }
        found
    }
}

/// Fetches an image as whoever is let in first; as nobody if there are no credentials.
///
/// # Errors
/// Those of the last attempt.
pub async fn pull_as_any(
    images: &dyn Images,
    name: &str,
    credentials: Vec<Credentials>,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let mut all = credentials.into_iter();
    let mut result = images.pull(name, all.next(), progress).await;
    for credentials in all {
        if result.is_ok() {
            break;
        }
        result = images.pull(name, Some(credentials), progress).await;
    }
    result
}

/// The part of an address that counts: host and path, without a scheme and without the version of the API.
fn key(place: &str) -> String {
    let bare = place.split_once("://").map_or(place, |(_, rest)| rest);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = match path.split_once('/') {
        Some(("v1" | "v2", rest)) => rest,
        _ => path,
    };
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Whether a key is the beginning of an image's name; `*` and `?` stand for parts of one label of the host.
fn fits(key: &str, image: &str) -> bool {
    let split = |text: &str| match text.split_once('/') {
        Some((host, path)) => (host.to_owned(), path.to_owned()),
        None => (text.to_owned(), String::new()),
    };
    let ((key_host, key_path), (host, path)) = (split(key), split(image));
    let port = |host: &str| host.split_once(':').map(|(name, port)| (name.to_owned(), port.to_owned()));
    let (key_name, key_port) = port(&key_host).unwrap_or((key_host, String::new()));
    let (name, own_port) = port(&host).unwrap_or((host, String::new()));
    let (patterns, labels): (Vec<_>, Vec<_>) = (key_name.split('.').collect(), name.split('.').collect());
    key_port == own_port
        && path.starts_with(&key_path)
        && patterns.len() == labels.len()
        && patterns.iter().zip(&labels).all(|(pattern, label)| matches(pattern.as_bytes(), label.as_bytes()))
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        // Beginnings of the text, from none of it to all: labels are short.
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| matches(rest, &text[taken..])),
        ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([wanted, rest @ ..], [found, tail @ ..]) => wanted == found && matches(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A keyring in which each key's user is the key itself.
    fn keyring(keys: &[&str]) -> Keyring {
        let auths: BTreeMap<_, _> =
            keys.iter().map(|key| (*key, serde_json::json!({"username": key, "password": "p"}))).collect();
        let mut keyring = Keyring::default();
        keyring.add_config(serde_json::json!({"auths": auths}).to_string().as_bytes());
        keyring
    }

    #[rstest]
    #[case::host("quay.io/a/b:v1", &["quay.io"], &["quay.io"])]
    #[case::other_host("quay.io/a/b:v1", &["ghcr.io"], &[])]
    #[case::address("quay.io/a/b:v1", &["https://quay.io/v2/"], &["https://quay.io/v2/"])]
    #[case::longest_first("quay.io/a/b:v1", &["quay.io", "quay.io/a", "quay.io/c"], &["quay.io/a", "quay.io"])]
    #[case::port("localhost:5000/a:v1", &["localhost", "localhost:5000"], &["localhost:5000"])]
    #[case::glob("eu.gcr.io/a/b:v1", &["*.gcr.io", "gcr.io", "*.io"], &["*.gcr.io"])]
    #[case::part_of_a_label("eu1.gcr.io/a:v1", &["eu*.gcr.io", "us?.gcr.io"], &["eu*.gcr.io"])]
    #[case::hub("docker.io/library/nginx:1", &["https://index.docker.io/v1/"], &["https://index.docker.io/v1/"])]
    #[case::hub_by_name("docker.io/library/nginx:1", &["docker.io"], &["docker.io"])]
    #[case::not_hub("quay.io/library/nginx:1", &["https://index.docker.io/v1/"], &[])]
    #[case::digest("quay.io/a/b@sha256:00", &["quay.io/a"], &["quay.io/a"])]
    fn credentials_go_to_their_registry_only(
        #[case] image: &str,
        #[case] keys: &[&str],
        #[case] users: &[&str],
    ) {
        let found = keyring(keys).lookup(image);
        assert_eq!(found.iter().map(|it| it.username.as_str()).collect::<Vec<_>>(), users);
    }

    #[rstest]
    #[case::in_two_fields(r#"{"r.io": {"username": "user", "password": "pass"}}"#)]
    #[case::in_one(r#"{"r.io": {"auth": "dXNlcjpwYXNz"}}"#)]
    #[case::in_both(r#"{"r.io": {"username": "other", "password": "x", "auth": "dXNlcjpwYXNz"}}"#)]
    fn both_forms_of_an_entry_and_both_files_are_read(#[case] entries: &str) {
        let (mut new, mut old) = (Keyring::default(), Keyring::default());
        new.add_config(format!(r#"{{"auths": {entries}}}"#).as_bytes());
        old.add_dockercfg(entries.as_bytes());
        for keyring in [new, old] {
            let found = keyring.lookup("r.io/a:v1");
            assert_eq!(
                found.iter().map(|it| (it.username.as_str(), it.password.as_str())).collect::<Vec<_>>(),
                [("user", "pass")]
            );
        }
    }

    #[test]
    fn what_is_no_configuration_adds_nothing() {
        let mut keyring = Keyring::default();
        for bytes in ["", "{", "[]", r#"{"auths": {"r.io": {"auth": "%"}}}"#, r#"{"auths": {"r.io": {}}}"#] {
            keyring.add_config(bytes.as_bytes());
            keyring.add_dockercfg(bytes.as_bytes());
        }
        assert!(keyring.lookup("r.io/a:v1").is_empty());
    }

    #[test]
    fn the_machines_own_file_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let config = r#"{"auths": {"r.io": {"auth": "dXNlcjpwYXNz"}}}"#;
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let keyring = Keyring::of_machine(&[directory.path()]);
        assert_eq!(keyring.lookup("r.io/a:v1").first().unwrap().username, "user");
    }
}
