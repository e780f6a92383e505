//! Kubeconfig files: which ones, how they add up, and what flags override.

use crate::failure::{Failure, Outcome, fail, io_text};
use crate::flags::Parsed;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All files as one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kubeconfig {
    /// Clusters by name.
    pub(crate) clusters: BTreeMap<String, Value>,
    /// Contexts by name.
    pub(crate) contexts: BTreeMap<String, Value>,
    /// Users by name.
    pub(crate) users: BTreeMap<String, Value>,
    /// `current-context`.
    pub(crate) current: String,
    /// `preferences` and what else there is.
    pub(crate) preferences: Value,
    /// Which file each entry came from, `clusters/NAME` and so on.
    pub(crate) origins: BTreeMap<String, PathBuf>,
}

/// The files that are read, in order, and whether they were named by a flag.
pub(crate) fn files(flags: &Parsed) -> (Vec<PathBuf>, bool) {
    let explicit = flags.text("kubeconfig");
    if !explicit.is_empty() {
        return (vec![explicit.into()], true);
    }
    match std::env::var("KUBECONFIG") {
        Ok(list) if !list.is_empty() => {
            let mut files: Vec<PathBuf> = Vec::new();
            for file in list.split(':').filter(|file| !file.is_empty()).map(PathBuf::from) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
            (files, false)
        }
        _ => (vec![home().join(".kube/config")], false),
    }
}

/// `$HOME`.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

fn unloadable(file: &Path, why: &str) -> String {
    format!("error loading config file \"{}\": {why}", file.display())
}

impl Kubeconfig {
    /// Reads what [`files`] names.
    ///
    /// # Errors
    /// A file named by flag is missing; a file cannot be read or is no kubeconfig.
    pub(crate) fn load(flags: &Parsed) -> Outcome<Self> {
        let (files, explicit) = files(flags);
        let mut all = Self { preferences: json!({}), ..Self::default() };
        for file in &files {
            match std::fs::read(file) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => all.add(file, &text)?,
                    Err(_) => return fail(unloadable(file, "yaml: control characters are not allowed")),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return fail(format!("stat {}: {}", file.display(), io_text(&error)));
                }
                Err(error) => {
                    let action =
                        if error.kind() == std::io::ErrorKind::IsADirectory { "read" } else { "open" };
                    return fail(unloadable(
                        file,
                        &format!("{action} {}: {}", file.display(), io_text(&error)),
                    ));
                }
            }
        }
        Ok(all)
    }

    /// The same; a missing file is an empty one, also if a flag names it.
    ///
    /// # Errors
    /// A file cannot be read or is no kubeconfig.
    pub(crate) fn load_or_empty(flags: &Parsed) -> Outcome<Self> {
        let (files, _) = files(flags);
        if files.iter().any(|file| file.exists()) {
            Self::load(flags)
        } else {
            Ok(Self { preferences: json!({}), ..Self::default() })
        }
    }

    /// Reads one file only; an empty one if it is missing.
    ///
    /// # Errors
    /// The file is no kubeconfig.
    pub(crate) fn load_file(file: &Path) -> Outcome<Self> {
        let mut one = Self { preferences: json!({}), ..Self::default() };
        if let Ok(text) = std::fs::read_to_string(file) {
            one.add(file, &text)?;
        }
        Ok(one)
    }

    fn add(&mut self, file: &Path, text: &str) -> Outcome {
        let value: Value = if text.trim().is_empty() {
            json!({})
        } else {
            serde_saphyr::from_str(text).map_err(|error| {
                Failure::Message(unloadable(file, &crate::manifest::yaml_complaint(&error.to_string())))
            })?
        };
        if !value.is_object() && !value.is_null() {
            let kind = match value {
                Value::Array(_) => "array",
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
                _ => "string",
            };
            return fail(unloadable(
                file,
                &format!(
                    "couldn't get version/kind; json parse error: json: cannot unmarshal {kind} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
                ),
            ));
        }
        let lists = [
            ("clusters", "cluster", &mut self.clusters),
            ("contexts", "context", &mut self.contexts),
            ("users", "user", &mut self.users),
        ];
        for (list, inner, into) in lists {
            for entry in value[list].as_array().into_iter().flatten() {
                let name = entry["name"].as_str().unwrap_or_default().to_owned();
                if into.contains_key(&name) {
                    continue;
                }
                let entry = match &entry[inner] {
                    Value::Null => json!({}),
                    other => other.clone(),
                };
                self.origins.insert(format!("{list}/{name}"), file.to_owned());
                into.insert(name, entry);
            }
        }
        if self.current.is_empty() {
            self.current = value["current-context"].as_str().unwrap_or_default().to_owned();
        }
        if let Some(preferences) = value["preferences"].as_object()
            && !preferences.is_empty()
        {
            self.preferences = value["preferences"].clone();
        }
        Ok(())
    }

    /// The kubeconfig as an object, as `config view` shows it and files hold it.
    pub(crate) fn to_value(&self) -> Value {
        let list = |inner: &str, entries: &BTreeMap<String, Value>| -> Value {
            let entries = entries.iter().map(|(name, entry)| {
                let mut object = Map::new();
                object.insert("name".into(), name.clone().into());
                object.insert(inner.into(), entry.clone());
                Value::Object(object)
            });
            let all: Vec<Value> = entries.collect();
            if all.is_empty() { Value::Null } else { all.into() }
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": list("cluster", &self.clusters),
            "contexts": list("context", &self.contexts),
            "users": list("user", &self.users),
            "current-context": self.current,
            "preferences": self.preferences,
        })
    }

    /// The context in use.
    ///
    /// # Errors
    /// There is no context of the name given.
    pub(crate) fn context(&self, flags: &Parsed) -> Outcome<Option<&Value>> {
        let named = flags.text("context");
        let name = if named.is_empty() { &self.current } else { named };
        match self.contexts.get(name) {
            Some(context) => Ok(Some(context)),
            None if named.is_empty() && self.contexts.is_empty() => Ok(None),
            None if named.is_empty() => Ok(None),
            None => Err(Failure::Verbatim(format!(
                "Error in configuration: context was not found for specified context: {name}"
            ))),
        }
    }

    /// The namespace of flags and context, and whether a flag gave it.
    ///
    /// # Errors
    /// As [`Self::context`].
    pub(crate) fn namespace(&self, flags: &Parsed) -> Outcome<(String, bool)> {
        let given = flags.text("namespace");
        if !given.is_empty() {
            return Ok((given.to_owned(), true));
        }
        let context = self.context(flags)?;
        let namespace = context.and_then(|context| context["namespace"].as_str()).unwrap_or_default();
        if namespace.is_empty() && self.contexts.is_empty() {
            let file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
            if let Ok(namespace) = std::fs::read_to_string(file) {
                return Ok((namespace.trim().to_owned(), false));
            }
        }
        Ok((if namespace.is_empty() { "default" } else { namespace }.to_owned(), false))
    }

    /// The cluster and user that flags and context choose, with what flags override.
    ///
    /// # Errors
    /// A context, cluster or user that is named does not exist; files that are named cannot be read.
    pub(crate) fn chosen(&self, flags: &Parsed) -> Outcome<(Value, Value)> {
        let context = self.context(flags)?;
        let name = |flag: &str, field: &str| -> String {
            let given = flags.global(flag);
            if given.is_empty() {
                context.and_then(|context| context[field].as_str()).unwrap_or_default().to_owned()
            } else {
                given.to_owned()
            }
        };
        let (cluster_name, user_name) = (name("cluster", "cluster"), name("user", "user"));
        let find = |list: &str, what: &str, name: &str, from: &BTreeMap<String, Value>, must: bool| match from
            .get(name)
        {
            Some(entry) => Ok(self.with_paths(list, name, entry)),
            None if must && !name.is_empty() && what == "cluster" => {
                fail(format!("no server found for cluster \"{name}\""))
            }
            None if must && !name.is_empty() => fail(format!("{what} \"{name}\" does not exist")),
            None => Ok(json!({})),
        };
        let mut cluster =
            find("clusters", "cluster", &cluster_name, &self.clusters, !flags.global("cluster").is_empty())?;
        let mut user = find("users", "auth info", &user_name, &self.users, !flags.global("user").is_empty())?;
        override_cluster(&mut cluster, flags);
        override_user(&mut user, flags);
        Ok((cluster, user))
    }

    /// Paths in a kubeconfig are relative to it.
    fn with_paths(&self, list: &str, name: &str, entry: &Value) -> Value {
        let mut entry = entry.clone();
        let Some(directory) = self.origins.get(&format!("{list}/{name}")).and_then(|file| file.parent())
        else {
            return entry;
        };
        for field in ["certificate-authority", "client-certificate", "client-key", "tokenFile"] {
            if let Some(path) = entry[field].as_str()
                && !path.is_empty()
                && Path::new(path).is_relative()
            {
                entry[field] = directory.join(path).to_string_lossy().into_owned().into();
            }
        }
        entry
    }
}

fn override_cluster(cluster: &mut Value, flags: &Parsed) {
    let server = flags.text("server");
    if !server.is_empty() {
        let full = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        cluster["server"] = full.trim_end_matches('/').into();
    }
    if flags.given("certificate-authority") {
        cluster["certificate-authority"] = flags.text("certificate-authority").into();
        cluster["certificate-authority-data"] = Value::Null;
    }
    if flags.on("insecure-skip-tls-verify") {
        cluster["insecure-skip-tls-verify"] = true.into();
        cluster["certificate-authority"] = Value::Null;
        cluster["certificate-authority-data"] = Value::Null;
    }
    if flags.given("tls-server-name") {
        cluster["tls-server-name"] = flags.text("tls-server-name").into();
    }
}

fn override_user(user: &mut Value, flags: &Parsed) {
    for (flag, field) in [
        ("token", "token"),
        ("client-certificate", "client-certificate"),
        ("client-key", "client-key"),
        ("username", "username"),
        ("password", "password"),
        ("as", "as"),
    ] {
        if flags.given(flag) {
            user[field] = flags.text(flag).into();
            if matches!(flag, "client-certificate" | "client-key") {
                user[format!("{flag}-data")] = Value::Null;
            }
        }
    }
    if flags.given("as-group") {
        user["as-groups"] = flags.list("as-group").into();
    }
}
