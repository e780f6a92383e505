//! Which objects a command line means: `-f`, `TYPE NAME…`, `TYPE/NAME…`, `-l`, `--all`.

mod targets;

use crate::client::JSON;
use crate::commands::kustomize;
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::manifest;
use crate::mapping::Mapping;
use http::Method;
use serde_json::Value;
use targets::{Targets, mappings, targets};

/// Flags that name files.
pub(crate) const FILES: [Flag; 3] = [
    short("filename", 'f', Takes::List, "[]", "Files, directories, URLs or - for standard input"),
    short("kustomize", 'k', Takes::Text, "", "A kustomization directory"),
    short("recursive", 'R', Takes::Bool, "false", "Also the directories in a directory"),
];

/// `-l`.
pub(crate) const SELECTOR: Flag =
    short("selector", 'l', Takes::Text, "", "Label selector: '=', '==', '!=', 'in', 'notin'");

/// `--field-selector`.
pub(crate) const FIELD_SELECTOR: Flag =
    flag("field-selector", Takes::Text, "", "Field selector: '=', '==', '!='");

/// `--all`.
pub(crate) const ALL: Flag = flag("all", Takes::Bool, "false", "All objects of the types, in the namespace");

/// `-A`.
pub(crate) const ALL_NAMESPACES: Flag =
    short("all-namespaces", 'A', Takes::Bool, "false", "In all namespaces");

/// One object, or a list or table of them.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) mapping: Mapping,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What a file says or the server has; null if it was not read.
    pub(crate) object: Value,
    /// The file; empty for objects named on the command line.
    pub(crate) source: String,
}

impl Info {
    /// The path of the object.
    pub(crate) fn path(&self) -> String {
        self.mapping.object(&self.namespace, &self.name)
    }
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    pub(crate) args: Vec<String>,
    pub(crate) filenames: Vec<String>,
    pub(crate) recursive: bool,
    pub(crate) selector: Option<String>,
    pub(crate) field_selector: Option<String>,
    pub(crate) all: bool,
    pub(crate) all_namespaces: bool,
    /// A type without names means all of its objects.
    pub(crate) empty_selector: bool,
    /// The objects of files are read from the server.
    pub(crate) latest: bool,
    /// Names are looked up on the server.
    pub(crate) fetch: bool,
    /// Objects of files are checked for their type first.
    pub(crate) validate: bool,
    pub(crate) accept: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) subresource: String,
    /// Lists become their items.
    pub(crate) flatten: bool,
    pub(crate) chunk: i64,
    /// Files are required.
    pub(crate) files_only: bool,
    /// The objects of files stay as they are there: `--local`.
    pub(crate) local: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) infos: Vec<Info>,
    pub(crate) failures: Vec<Failure>,
    /// Exactly one object was asked for.
    pub(crate) single: bool,
}

impl Found {
    /// The objects, if nothing failed.
    ///
    /// # Errors
    /// Something failed.
    pub(crate) fn all(self) -> Outcome<Vec<Info>> {
        Failure::aggregate(self.failures)?;
        Ok(self.infos)
    }
}

impl Builder {
    /// As flags and arguments say.
    pub(crate) fn new(context: &Context, args: &[String]) -> Self {
        let flags = &context.flags;
        let some =
            |name: &str| flags.given(name).then(|| flags.text(name).to_owned()).filter(|t| !t.is_empty());
        Self {
            args: args.to_vec(),
            filenames: flags.list("filename"),
            recursive: flags.on("recursive"),
            selector: some("selector"),
            field_selector: some("field-selector"),
            all: flags.on("all"),
            all_namespaces: flags.on("all-namespaces"),
            empty_selector: false,
            latest: false,
            fetch: true,
            validate: false,
            accept: JSON.into(),
            query: Vec::new(),
            subresource: flags.text("subresource").to_owned(),
            flatten: true,
            chunk: 500,
            files_only: false,
            local: flags.on("local"),
        }
    }

    /// Finds them.
    ///
    /// # Errors
    /// The command line contradicts itself, names no type that exists, or a file cannot be read. What the
    /// server refuses of single objects is in [`Found::failures`].
    pub(crate) async fn run(mut self, context: &Context) -> Outcome<Found> {
        if context.flags.given("kustomize") && !context.flags.text("kustomize").is_empty() {
            if !self.filenames.is_empty() {
                return fail("only one of -f or -k can be specified");
            }
            return Err(kustomize::missing(
                context.flags.text("kustomize"),
                "render with kustomize and pipe its output to -f -",
            ));
        }
        if self.local && self.filenames.is_empty() {
            return fail(
                "you must specify resources by --filename when --local is set.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'",
            );
        }
        let mut errors = Vec::new();
        if self.all && self.selector.is_some() {
            errors.push(Failure::Message(format!(
                "found non-empty label selector {} with previously set 'all' parameter. ",
                quote(self.selector.as_deref().unwrap_or_default())
            )));
        }
        if self.all && self.field_selector.is_some() {
            errors.push(Failure::Message(format!(
                "found non-empty field selector {} with previously set 'all' parameter. ",
                quote(self.field_selector.as_deref().unwrap_or_default())
            )));
        }
        let targets = match targets(context, &self.args).await {
            Ok(targets) => targets,
            Err(error) => {
                errors.push(error);
                Targets::default()
            }
        };
        Failure::aggregate(errors)?;
        if self.empty_selector
            && self.args.len() == 1
            && targets.tuples.is_empty()
            && self.filenames.is_empty()
            && self.selector.is_none()
        {
            self.selector = Some(String::new());
        }
        if self.all {
            self.selector = Some(String::new());
        }
        if !self.filenames.is_empty() {
            return self.by_paths(context, &targets).await;
        }
        if self.selector.is_some() || self.field_selector.is_some() {
            return self.by_selector(context, &targets).await;
        }
        if !targets.tuples.is_empty() {
            return self.by_tuple(context, targets).await;
        }
        if !targets.names.is_empty() {
            return self.by_name(context, &targets).await;
        }
        if !targets.resources.is_empty() {
            for resource in &targets.resources {
                context.resource(resource).await?;
            }
            return fail("resource(s) were provided, but no name was specified");
        }
        if self.files_only {
            return fail("must specify one of -f and -k");
        }
        Err(missing())
    }

    async fn by_paths(&self, context: &Context, targets: &Targets) -> Outcome<Found> {
        if !targets.resources.is_empty() {
            return fail(
                "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
            );
        }
        if !targets.names.is_empty() {
            return fail("name cannot be provided when a path is specified");
        }
        if !targets.tuples.is_empty() {
            return fail("resource/name arguments cannot be provided when a path is specified");
        }
        let plain = self.filenames.len() == 1
            && self.filenames[0] != "-"
            && !std::path::Path::new(&self.filenames[0]).is_dir();
        let mut found = Found { single: plain, ..Found::default() };
        let (namespace, explicit) = context.namespace().await?;
        for document in manifest::read(&self.filenames, self.recursive).await? {
            if let Err(error) = manifest::check_type(&document, self.validate) {
                found.failures.push(error);
                continue;
            }
            for object in unlist(document.object.clone()) {
                match self.info_of(context, object, &document.source, &namespace, explicit).await {
                    Ok(info) => found.infos.push(info),
                    Err(error) => found.failures.push(error),
                }
            }
        }
        if found.infos.len() != 1 {
            found.single = false;
        }
        if let Some(selector) = self.selector.as_deref().filter(|s| !s.is_empty()) {
            let parsed = sagong_api::selector::Selector::parse(selector).map_err(|error| {
                Failure::Message(format!("the provided selector {} is not valid: {error}", quote(selector)))
            })?;
            found.infos.retain(|info| parsed.matches(&crate::object::labels(&info.object)));
        }
        Ok(found)
    }

    async fn info_of(
        &self,
        context: &Context,
        mut object: Value,
        source: &str,
        namespace: &str,
        explicit: bool,
    ) -> Outcome<Info> {
        let text = |object: &Value, pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (version, kind) = (text(&object, "/apiVersion"), text(&object, "/kind"));
        let (name, own) = (text(&object, "/metadata/name"), text(&object, "/metadata/namespace"));
        let mapping = context.mapper.kind(context.client().await?, &version, &kind).await.map_err(|error| {
            match error {
                Failure::Message(text) if text.starts_with("no matches") => Failure::Message(format!(
                    "resource mapping not found for name: {} namespace: {} from {}: {text}\nensure CRDs are installed first",
                    quote(&name), quote(&own), quote(source)
                )),
                other => other,
            }
        })?;
        let mut info = Info { mapping, namespace: own, name, object: Value::Null, source: source.into() };
        if !info.mapping.namespaced {
            info.namespace.clear();
        } else if info.namespace.is_empty() {
            info.namespace = namespace.into();
            if object["metadata"].is_object() && !self.local {
                object["metadata"]["namespace"] = namespace.into();
            }
        } else if explicit && info.namespace != namespace {
            return fail(format!(
                "the namespace from the provided object {} does not match the namespace {}. You must pass '--namespace={}' to perform this operation.",
                quote(&info.namespace),
                quote(namespace),
                info.namespace
            ));
        }
        info.object = object;
        if self.latest && !self.local && !info.name.is_empty() {
            let query: Vec<(&str, &str)> = self.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let bytes =
                context.client().await?.bytes(Method::GET, &info.path(), &query, None, &self.accept).await?;
            info.object = serde_json::from_slice(&bytes).unwrap_or_default();
        }
        Ok(info)
    }

    async fn by_selector(&self, context: &Context, targets: &Targets) -> Outcome<Found> {
        if !targets.names.is_empty() {
            return fail("name cannot be provided when a selector is specified");
        }
        if !targets.tuples.is_empty() {
            return fail("selectors and the all flag cannot be used when passing resource/name arguments");
        }
        if targets.resources.is_empty() {
            return fail("at least one resource must be specified to use a selector");
        }
        if !self.subresource.is_empty() {
            return fail("subresource cannot be used when bulk resources are specified");
        }
        let mut found = Found::default();
        let namespace = if self.all_namespaces { String::new() } else { context.namespace().await?.0 };
        let mappings = mappings(context, &targets.resources).await?;
        let lists = mappings.iter().map(|mapping| self.list(context, mapping, &namespace));
        for result in futures::future::join_all(lists).await {
            match result {
                Ok(infos) => found.infos.extend(infos),
                Err(error) => found.failures.push(error),
            }
        }
        Ok(found)
    }

    /// The objects of one type, as lists or tables, chunk by chunk; or one by one.
    async fn list(&self, context: &Context, mapping: &Mapping, namespace: &str) -> Outcome<Vec<Info>> {
        let client = context.client().await?;
        let limit = self.chunk.to_string();
        let mut after = String::new();
        let mut infos = Vec::new();
        loop {
            let mut query: Vec<(&str, &str)> =
                self.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            for (key, value) in [
                ("labelSelector", self.selector.as_deref().unwrap_or_default()),
                ("fieldSelector", self.field_selector.as_deref().unwrap_or_default()),
                ("limit", if self.chunk > 0 { limit.as_str() } else { "" }),
                ("continue", after.as_str()),
            ] {
                if !value.is_empty() {
                    query.push((key, value));
                }
            }
            let answer =
                client.bytes(Method::GET, &mapping.collection(namespace), &query, None, &self.accept).await;
            let bytes = answer.map_err(|error| self.explained(error, mapping))?;
            let object: Value = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::Message(format!("the server's answer is no JSON: {error}")))?;
            after = object["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let namespace = if mapping.namespaced { namespace } else { "" };
            let whole = |object| Info {
                mapping: mapping.clone(),
                namespace: namespace.to_owned(),
                name: String::new(),
                object,
                source: String::new(),
            };
            if self.flatten && object["kind"] != "Table" {
                for item in unlist(object) {
                    let mut info = whole(item);
                    info.name = crate::object::name(&info.object).to_owned();
                    info.namespace = crate::object::namespace(&info.object).to_owned();
                    infos.push(info);
                }
            } else {
                infos.push(whole(object));
            }
            if after.is_empty() {
                return Ok(infos);
            }
        }
    }

    /// A refused list says what was asked.
    fn explained(&self, error: Failure, mapping: &Mapping) -> Failure {
        match error {
            Failure::Status(mut status)
                if status["reason"] == "BadRequest" || status["reason"] == "NotFound" =>
            {
                let resource = format!("{}/{}, Resource={}", mapping.group, mapping.version, mapping.plural);
                let labels = self.selector.as_deref().unwrap_or_default();
                let fields = self.field_selector.as_deref().unwrap_or_default();
                let message = status["message"].as_str().unwrap_or_default();
                let text = if labels.is_empty() && fields.is_empty() {
                    format!("Unable to list {}: {message}", quote(&resource))
                } else {
                    format!(
                        "Unable to find {} that match label selector {}, field selector {}: {message}",
                        quote(&resource),
                        quote(labels),
                        quote(fields)
                    )
                };
                status["message"] = text.into();
                Failure::Status(status)
            }
            other => other,
        }
    }

    async fn by_tuple(&self, context: &Context, targets: Targets) -> Outcome<Found> {
        if !targets.resources.is_empty() {
            return fail("you may not specify individual resources and bulk resources in the same call");
        }
        let mut found = Found { single: targets.tuples.len() == 1, ..Found::default() };
        let mut all = Vec::new();
        for (resource, name) in &targets.tuples {
            all.push((context.resource(resource).await?, name.clone()));
        }
        for (mapping, name) in all {
            self.one(context, mapping, name, &mut found).await?;
        }
        Ok(found)
    }

    async fn by_name(&self, context: &Context, targets: &Targets) -> Outcome<Found> {
        if targets.resources.is_empty() {
            return fail("you must provide a resource and a resource name together");
        }
        if targets.resources.len() > 1 {
            return fail("you must specify only one resource");
        }
        let mapping = context.resource(&targets.resources[0]).await?;
        let mut found = Found { single: targets.names.len() == 1, ..Found::default() };
        for name in &targets.names {
            self.one(context, mapping.clone(), name.clone(), &mut found).await?;
        }
        Ok(found)
    }

    async fn one(&self, context: &Context, mapping: Mapping, name: String, found: &mut Found) -> Outcome {
        if mapping.namespaced && self.all_namespaces {
            return fail("a resource cannot be retrieved by name across all namespaces");
        }
        let namespace = if mapping.namespaced { context.namespace().await?.0 } else { String::new() };
        let mut info = Info { mapping, namespace, name, object: Value::Null, source: String::new() };
        if self.fetch {
            let mut path = info.path();
            if !self.subresource.is_empty() {
                path = format!("{path}/{}", self.subresource);
            }
            let query: Vec<(&str, &str)> = self.query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            match context.client().await?.bytes(Method::GET, &path, &query, None, &self.accept).await {
                Ok(bytes) => {
                    info.object = serde_json::from_slice(&bytes).map_err(|error| {
                        Failure::Message(format!("the server's answer is no JSON: {error}"))
                    })?;
                }
                Err(error @ Failure::Status(_)) => {
                    found.failures.push(error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        found.infos.push(info);
        Ok(())
    }
}

/// Nothing says what is meant.
pub(crate) fn missing() -> Failure {
    Failure::Message(MISSING.into())
}

const MISSING: &str = "You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>'";

/// The items of a list, each saying what it is; anything else as it is.
pub(crate) fn unlist(mut object: Value) -> Vec<Value> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let Some(item_kind) = kind.strip_suffix("List") else { return vec![object] };
    if !object["items"].is_array() && !object["items"].is_null() {
        return vec![object];
    }
    let version = object["apiVersion"].clone();
    let items = match object["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for mut item in items {
        if item["kind"].as_str().is_none_or(str::is_empty) && item.is_object() && !item_kind.is_empty() {
            item["kind"] = item_kind.into();
            item["apiVersion"] = version.clone();
        }
        all.extend(unlist(item));
    }
    all
}
