//! Objects from files, directories, URLs and standard input.

use crate::failure::{Failure, Outcome, fail, io_text, quote};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files larger than this are refused: no object can be that large.
const LIMIT: u64 = 64 << 20;

/// One document of a source.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The object.
    pub(crate) object: Value,
    /// The file's name, `STDIN`, or the URL.
    pub(crate) source: String,
}

/// Reads everything that `-f` names, in order. The flag says whether there was exactly one plain file.
///
/// # Errors
/// A path does not exist, cannot be read, or holds no objects.
pub(crate) async fn read(filenames: &[String], recursive: bool) -> Outcome<Vec<Document>> {
    let mut all = Vec::new();
    for name in filenames {
        if name == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().take(LIMIT).read_to_end(&mut bytes)?;
            all.extend(documents(&bytes, "STDIN")?);
        } else if name.starts_with("http://") || name.starts_with("https://") {
            all.extend(documents(&download(name).await?, name)?);
        } else {
            for path in expand(name, recursive)? {
                let source = path.to_string_lossy().into_owned();
                all.extend(documents(&read_file(&path)?, &source)?);
            }
        }
    }
    Ok(all)
}

fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    let error =
        |error: std::io::Error| Failure::Message(format!("open {}: {}", path.display(), io_text(&error)));
    let length = std::fs::metadata(path).map_err(error)?.len();
    if length > LIMIT {
        return fail(format!(
            "{} is {} MiB large: no object can be that large",
            path.display(),
            length >> 20
        ));
    }
    std::fs::read(path).map_err(error)
}

async fn download(url: &str) -> Outcome<Vec<u8>> {
    let unreachable = |error: String| Failure::Message(format!("unable to read URL {}: {error}", quote(url)));
    let uri: http::Uri = url.parse().map_err(|error| {
        Failure::Message(format!("the URL passed to filename {} is not valid: {error}", quote(url)))
    })?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let root =
        format!("{}://{}", uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |a| a.as_str()));
    let config =
        kube::Config::new(root.parse().map_err(|e: http::uri::InvalidUri| unreachable(e.to_string()))?);
    let client = kube::Client::try_from(config).map_err(|error| unreachable(error.to_string()))?;
    let request = http::Request::get(path)
        .body(kube::client::Body::from(Vec::new()))
        .map_err(|error| unreachable(error.to_string()))?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let response =
        client.send(request).await.map_err(|error| crate::client::Client::unreached(&host, &error))?;
    if !response.status().is_success() {
        let status = response.status();
        return fail(format!(
            "unable to read URL {}, server reported {status}, status code={}",
            quote(url),
            status.as_u16()
        ));
    }
    Ok(crate::client::collect(response).await?.to_vec())
}

/// The files a path stands for.
fn expand(name: &str, recursive: bool) -> Outcome<Vec<PathBuf>> {
    let path = Path::new(name);
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let mut files = Vec::new();
            walk(path, recursive, &mut files)?;
            if files.is_empty() {
                return fail(format!(
                    "error reading [{name}]: recognized file extensions are [.json .yaml .yml]"
                ));
            }
            Ok(files)
        }
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let found = glob(name);
            if found.is_empty() {
                return fail(format!("the path {} does not exist", quote(name)));
            }
            Ok(found)
        }
        Err(error) => fail(format!("the path {} cannot be accessed: {}", quote(name), io_text(&error))),
    }
}

/// Matches `*` and `?` in the last part of a path.
fn glob(name: &str) -> Vec<PathBuf> {
    let path = Path::new(name);
    let Some(pattern) = path.file_name().and_then(|n| n.to_str()).filter(|n| n.contains(['*', '?'])) else {
        return Vec::new();
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let entries = std::fs::read_dir(parent.unwrap_or(Path::new(".")));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let matching = names.filter(|n| matches(pattern.as_bytes(), n.as_encoded_bytes()));
    let mut found: Vec<PathBuf> =
        matching.map(|n| parent.map_or_else(|| PathBuf::from(&n), |p| p.join(&n))).collect();
    found.sort();
    found
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => matches(&pattern[1..], text) || !text.is_empty() && matches(pattern, &text[1..]),
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &text[1..]),
        (Some(p), Some(t)) if p == t => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn walk(directory: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Outcome {
    // `./a.yaml` is called `a.yaml`.
    let clean = |path: PathBuf| path.components().collect::<PathBuf>();
    let clean = |path: PathBuf| clean(path.strip_prefix(".").map(Path::to_owned).unwrap_or(path));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory)?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|e| clean(e.path()))
        .collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                walk(&entry, recursive, files)?;
            }
        } else if entry.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml") {
            files.push(entry);
        }
    }
    Ok(())
}

/// The objects of a text; lists are left as they are.
///
/// # Errors
/// It is neither YAML nor JSON, or holds something that is no object.
pub(crate) fn documents(bytes: &[u8], source: &str) -> Outcome<Vec<Document>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return fail(binary(source));
    };
    // As YAML has it: but for white space, no controls.
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')) {
        return fail(binary(source));
    }
    let mut found = Vec::new();
    if text.trim_start().starts_with('{') && !text.lines().any(|line| line.trim_end() == "---") {
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let value = value.map_err(|error| {
                let why = if error.is_eof() { "unexpected EOF".into() } else { format!("json: {error}") };
                Failure::Message(format!("error parsing {source}: {why}"))
            })?;
            found.push(Document { object: value, source: source.into() });
        }
        return Ok(found);
    }
    for part in split(text) {
        if part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let object = parse(&part).map_err(|error| {
            Failure::Message(format!("error parsing {source}: error converting YAML to JSON: yaml: {error}"))
        })?;
        if !object.is_null() {
            found.push(Document { object, source: source.into() });
        }
    }
    Ok(found)
}

/// YAML as a JSON tree.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    // Of a key that is there twice the last counts, as for kubectl.
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options::<Value>(text, options)
        .map_err(|error| yaml_complaint(&error.to_string()))
}

/// The first line of what the reader of YAML says, without its heading.
pub(crate) fn yaml_complaint(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn binary(source: &str) -> String {
    format!("error parsing {source}: error converting YAML to JSON: yaml: control characters are not allowed")
}

/// Documents end at lines that start with `---`.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        if line.starts_with("---") && line[3..].trim_start_matches([' ', '\t']).starts_with(['\n', '\r', '#'])
            || line.trim_end() == "---"
        {
            parts.push(String::new());
            continue;
        }
        if let Some(last) = parts.last_mut() {
            last.push_str(line);
        }
    }
    parts
}

/// What validation says first of all: whether the object says what it is.
///
/// # Errors
/// `apiVersion` or `kind` is missing.
pub(crate) fn check_type(document: &Document, validate: bool) -> Outcome {
    let object = &document.object;
    let missing = |field: &str| object[field].as_str().is_none_or(str::is_empty);
    let source = quote(&document.source);
    if validate {
        let mut absent = Vec::new();
        if !object.is_object() {
            return fail(format!(
                "error validating {source}: error validating data: invalid object to validate; if you choose to ignore these errors, turn validation off with --validate=false"
            ));
        }
        if missing("apiVersion") {
            absent.push("apiVersion not set");
        }
        if missing("kind") {
            absent.push("kind not set");
        }
        if !absent.is_empty() {
            let text =
                if absent.len() == 1 { absent[0].to_owned() } else { format!("[{}]", absent.join(", ")) };
            return fail(format!(
                "error validating {source}: error validating data: {text}; if you choose to ignore these errors, turn validation off with --validate=false"
            ));
        }
    }
    if missing("kind") {
        return fail(format!("unable to decode {source}: Object 'Kind' is missing in '{object}'"));
    }
    if missing("apiVersion") {
        return fail(format!("unable to decode {source}: Object 'apiVersion' is missing in '{object}'"));
    }
    if !matches!(object["metadata"], Value::Object(_) | Value::Null) {
        return fail(format!("unable to decode {source}: metadata is not an object in '{object}'"));
    }
    // `name: n` is a truth value in YAML.
    for field in ["name", "namespace", "generateName"] {
        let kind = match &object["metadata"][field] {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::Object(_) => "object",
            Value::Array(_) => "array",
            Value::Null | Value::String(_) => continue,
        };
        return fail(format!(
            "unable to decode {source}: json: cannot unmarshal {kind} into Go struct field ObjectMeta.metadata.{field} of type string"
        ));
    }
    Ok(())
}
