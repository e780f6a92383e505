//! `create configmap` and `create secret …`: what comes from literals and files.

use super::{GENERATOR, generated, one_name};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag};
use crate::printers::{PRINT, json};
use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

const APPEND_HASH: Flag =
    flag("append-hash", Takes::Bool, "false", "Append a hash of the content to the name");

/// Flags of `create configmap` and `create secret generic`.
pub(crate) const DATA_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("from-literal", Takes::Array, "[]", "KEY=VALUE"),
        flag("from-file", Takes::Array, "[]", "KEY=FILE, FILE or a directory"),
        flag("from-env-file", Takes::Array, "[]", "A file of KEY=VALUE lines"),
        APPEND_HASH,
        flag("type", Takes::Text, "", "Type of the secret"),
    ],
];

/// `create configmap`.
///
/// # Errors
/// As all generators; a file cannot be read or a key is wrong.
pub(crate) async fn config_map(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let entries = entries(context, "ConfigMap", &name)?;
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in entries {
        match String::from_utf8(bytes) {
            Ok(text) => data.insert(key, text.into()),
            Err(bytes) => {
                binary.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes()).into())
            }
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "creationTimestamp": null}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if !binary.is_empty() {
        object["binaryData"] = binary.into();
    }
    append_hash(context, &mut object);
    generated(context, object, "configmap: ").await
}

/// `create secret generic`.
///
/// # Errors
/// As all generators; a file cannot be read or a key is wrong.
pub(crate) async fn secret(context: &Context) -> Outcome {
    let name = one_name(context)?;
    let entries = entries(context, "Secret", &name)?;
    make_secret(context, &name, context.flags.text("type"), entries).await
}

async fn make_secret(context: &Context, name: &str, kind: &str, entries: Vec<(String, Vec<u8>)>) -> Outcome {
    let mut data = Map::new();
    for (key, bytes) in entries {
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
    }
    let mut object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "creationTimestamp": null}});
    if !data.is_empty() {
        object["data"] = data.into();
    }
    if !kind.is_empty() {
        object["type"] = kind.into();
    }
    append_hash(context, &mut object);
    generated(context, object, "secret ").await
}

/// Flags of `create secret docker-registry`.
pub(crate) const DOCKER_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        APPEND_HASH,
        flag("docker-server", Takes::Text, "https://index.docker.io/v1/", "The registry"),
        flag("docker-username", Takes::Text, "", "User of the registry"),
        flag("docker-password", Takes::Text, "", "Password of the user"),
        flag("docker-email", Takes::Text, "", "Address of the user"),
        flag("from-file", Takes::Array, "[]", "A docker configuration, [KEY=]FILE"),
    ],
];

/// `create secret docker-registry`.
///
/// # Errors
/// As all generators; a file cannot be read.
pub(crate) async fn docker_registry(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let text = |flag: &str| flags.text(flag).to_owned();
    let (server, user, password) = (text("docker-server"), text("docker-username"), text("docker-password"));
    let mut entries = Vec::new();
    if flags.list("from-file").is_empty() {
        if server.is_empty() || user.is_empty() || password.is_empty() {
            return fail(
                "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
            );
        }
        let field = |name: &str, value: &str| {
            if value.is_empty() { String::new() } else { format!("{}:{},", quoted(name), quoted(value)) }
        };
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        // Built as text: registries read it, but its bytes are to be those that Go's encoder gives.
        let config = format!(
            "{{\"auths\":{{{}:{{{}{}{}\"auth\":{}}}}}}}",
            quoted(&server),
            field("username", &user),
            field("password", &password),
            field("email", flags.text("docker-email")),
            quoted(&auth)
        );
        entries.push((".dockerconfigjson".to_owned(), config.into_bytes()));
    } else {
        for source in flags.list("from-file") {
            from_file(&source, &mut entries)?;
        }
    }
    make_secret(context, &name, "kubernetes.io/dockerconfigjson", entries).await
}

fn quoted(text: &str) -> String {
    json::compact(&text.into())
}

/// Flags of `create secret tls`.
pub(crate) const TLS_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        APPEND_HASH,
        flag("cert", Takes::Text, "", "File of the certificate"),
        flag("key", Takes::Text, "", "File of its key"),
    ],
];

/// `create secret tls`.
///
/// # Errors
/// As all generators; a file cannot be read or holds no certificate or key.
pub(crate) async fn tls(context: &Context) -> Outcome {
    let flags = &context.flags;
    let name = one_name(context)?;
    let (cert, key) = (flags.text("cert"), flags.text("key"));
    if cert.is_empty() || key.is_empty() {
        return fail("key and cert must be specified");
    }
    let read = |path: &str| {
        std::fs::read(path).map_err(|error| {
            let why = crate::failure::io_text(&error);
            Failure::Message(format!("Cannot read file {path}, open {path}: {why}"))
        })
    };
    let (cert, key) = (read(cert)?, read(key)?);
    check_pair(&cert, &key)?;
    let entries = vec![("tls.crt".to_owned(), cert), ("tls.key".to_owned(), key)];
    make_secret(context, &name, "kubernetes.io/tls", entries).await
}

/// The kinds of the blocks in a PEM file.
fn blocks(pem: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(pem);
    let begin = |line: &str| {
        let kind = line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
        Some(kind.to_owned())
    };
    text.lines().filter_map(begin).collect()
}

fn check_pair(cert: &[u8], key: &[u8]) -> Outcome {
    let (certs, keys) = (blocks(cert), blocks(key));
    let is_key = |kind: &String| kind == "PRIVATE KEY" || kind.ends_with(" PRIVATE KEY");
    if !certs.iter().any(|kind| kind == "CERTIFICATE") {
        return match certs.as_slice() {
            [] => fail("tls: failed to find any PEM data in certificate input"),
            [kind] if is_key(kind) => fail(
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
            kinds => fail(format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
                kinds.join(" ")
            )),
        };
    }
    if keys.iter().any(is_key) {
        return Ok(());
    }
    match keys.as_slice() {
        [] => fail("tls: failed to find any PEM data in key input"),
        [kind] if kind == "CERTIFICATE" => {
            fail("tls: found a certificate rather than a key in the PEM for the private key")
        }
        kinds => fail(format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            kinds.join(" ")
        )),
    }
}

/// Puts a hash of the content behind the name, if `--append-hash` says so.
fn append_hash(context: &Context, object: &mut Value) {
    if context.flags.on("append-hash") {
        let name = format!("{}-{}", crate::object::name(object), content_hash(object));
        object["metadata"]["name"] = name.into();
    }
}

/// Ten letters of the SHA-256 of what is in it, without vowels and digits that could make words.
fn content_hash(object: &Value) -> String {
    let data = object.get("data").cloned().unwrap_or_else(|| json!({}));
    let mut hashed = json!({"kind": object["kind"], "name": object["metadata"]["name"], "data": data});
    if object["kind"] == "Secret" {
        hashed["type"] = object.get("type").cloned().unwrap_or_else(|| "".into());
    }
    if object["binaryData"].is_object() {
        hashed["binaryData"] = object["binaryData"].clone();
        if object["data"].is_null() {
            hashed["data"] = json!({});
        }
    }
    let digest = Sha256::digest(json::compact(&hashed).as_bytes());
    let hex = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect::<String>();
    hex.chars()
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect()
}

fn entries(context: &Context, kind: &str, name: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
    let flags = &context.flags;
    let (literals, files, envs) =
        (flags.list("from-literal"), flags.list("from-file"), flags.list("from-env-file"));
    if !envs.is_empty() && (!files.is_empty() || !literals.is_empty()) {
        return fail("from-env-file cannot be combined with from-file or from-literal");
    }
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for source in &literals {
        let Some((key, value)) = source.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return fail(format!("invalid literal source {source}, expected key=value"));
        };
        let value = value.trim_matches(['"', '\'']);
        all.push((key.into(), value.as_bytes().to_vec()));
    }
    for source in &files {
        from_file(source, &mut all)?;
    }
    for source in &envs {
        let bytes = read(source)?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (line.to_owned(), std::env::var(line).unwrap_or_default()),
            };
            check_variable(&key)?;
            all.push((key, value.into_bytes()));
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in &all {
        let errors = sagong_api::name::config_map_key(key);
        if !errors.is_empty() {
            return fail(if kind == "Secret" {
                format!("{} is not valid key name for a Secret {}", quote(key), errors.join(";"))
            } else {
                format!("{} is not a valid key name for a ConfigMap: {}", quote(key), errors.join(","))
            });
        }
        if seen.contains(&key.as_str()) {
            return fail(if kind == "Secret" {
                format!("cannot add key {key}, another key by that name already exists")
            } else {
                format!(
                    "cannot add key {}, another key by that name already exists in Data for ConfigMap {}",
                    quote(key),
                    quote(name)
                )
            });
        }
        seen.push(key);
    }
    Ok(all)
}

/// Whether it can name a variable of an environment, in a wide sense.
///
/// # Errors
/// It cannot.
pub(crate) fn check_variable(name: &str) -> Outcome {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '-' | '.' | '_');
    if name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Ok(());
    }
    fail(format!(
        "{} is not a valid key name: a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')",
        quote(name)
    ))
}

fn from_file(source: &str, all: &mut Vec<(String, Vec<u8>)>) -> Outcome {
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key), path),
        None => (None, source),
    };
    if key == Some("") {
        return fail(format!("key name for file path {path} missing"));
    }
    if let Some(key) = key.filter(|_| path.is_empty()) {
        return fail(format!("file path for key name {key} missing"));
    }
    if path.contains('=') {
        return fail("key names or file paths cannot contain '='");
    }
    if Path::new(path).is_dir() {
        if key.is_some() {
            return fail("cannot give a key name for a directory path");
        }
        let mut files: Vec<_> = std::fs::read_dir(path)?.flatten().filter(|e| e.path().is_file()).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            all.push((file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path())?));
        }
        return Ok(());
    }
    let base = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    all.push((key.map_or(base, str::to_owned), read(path)?));
    Ok(())
}

fn read(path: &str) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::Message(format!("error reading {path}: {}", crate::failure::io_text(&error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}), "m4h6ctkgb2")]
    #[case(json!({"kind": "ConfigMap", "metadata": {"name": "s"}}), "fg5ffk4mhb")]
    #[case(json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}}), "7fd2tm89d8")]
    #[case(json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}, "type": "foo"}), "76gkfd766k")]
    #[case(json!({"kind": "Secret", "metadata": {"name": "s"}}), "6cmg28h685")]
    fn hashes_of_content_are_kubectls(#[case] object: Value, #[case] expected: &str) {
        assert_eq!(content_hash(&object), expected);
    }
}
