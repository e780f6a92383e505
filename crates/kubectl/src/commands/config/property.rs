//! `config set` and `config unset`: one value of a kubeconfig, by its path.

use super::entry::{count, entries};
use super::file::{default_file, file_of, save};
use crate::context::{Context, out};
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::kubeconfig::Kubeconfig;
use base64::Engine;
use serde_json::{Value, json};

/// Flags of `set`.
pub(crate) const SET_FLAGS: [&[Flag]; 1] =
    [&[flag("set-raw-bytes", Takes::Bool, "false", "The value of a binary field is not in base64")]];

/// Fields of the entries of a list, each with what it holds.
fn fields(list: &str) -> &'static [(&'static str, Holds)] {
    match list {
        "clusters" => &[
            ("server", Holds::Text),
            ("tls-server-name", Holds::Text),
            ("insecure-skip-tls-verify", Holds::Flag),
            ("certificate-authority", Holds::Text),
            ("certificate-authority-data", Holds::Bytes),
            ("proxy-url", Holds::Text),
            ("disable-compression", Holds::Flag),
        ],
        "contexts" => &[("cluster", Holds::Text), ("user", Holds::Text), ("namespace", Holds::Text)],
        _ => &[
            ("client-certificate", Holds::Text),
            ("client-certificate-data", Holds::Bytes),
            ("client-key", Holds::Text),
            ("client-key-data", Holds::Bytes),
            ("token", Holds::Text),
            ("tokenFile", Holds::Text),
            ("username", Holds::Text),
            ("password", Holds::Text),
            // The names that upstream's own structs have for impersonation.
            ("act-as", Holds::Text),
            ("act-as-uid", Holds::Text),
        ],
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Text,
    Flag,
    Bytes,
}

/// `config set`.
///
/// # Errors
/// There is no such property, or it holds something else.
pub(crate) async fn set(context: &Context) -> Outcome {
    let args = count(context, 2)?;
    let (property, value) = (&args[0], &args[1]);
    let all = &Kubeconfig::load_or_empty(&context.flags)?;
    match property.split('.').collect::<Vec<_>>().as_slice() {
        ["current-context"] => {
            let file = default_file(context);
            let mut config = Kubeconfig::load_file(&file)?;
            config.current = value.clone();
            save(&file, &config)?;
        }
        ["apiVersion" | "kind"] => {}
        ["preferences", "colors"] => {
            let file = default_file(context);
            let mut config = Kubeconfig::load_file(&file)?;
            config.preferences = if boolean(value)? { json!({"colors": true}) } else { json!({}) };
            save(&file, &config)?;
        }
        [list @ ("clusters" | "contexts" | "users"), ..] => {
            let (name, field) = target(all, list, property);
            let Some(field) = field else {
                return fail("can't set a map to a value: a field of the entry must be named");
            };
            let Some((_, holds)) = fields(list).iter().find(|(known, _)| *known == field) else {
                return if field.contains('.') {
                    fail(format!("unable to parse one or more field values of {property}"))
                } else {
                    fail(format!("can't set a map to a value: {list} have no field {field}"))
                };
            };
            let value: Value = match holds {
                Holds::Text => value.clone().into(),
                Holds::Flag => boolean(value)?.into(),
                Holds::Bytes => bytes(value, context.flags.on("set-raw-bytes"))?.into(),
            };
            let file = file_of(context, all, &format!("{list}/{name}"));
            let mut config = Kubeconfig::load_file(&file)?;
            let entries = entries(&mut config, list);
            let entry = entries.entry(name).or_insert_with(|| json!({}));
            entry[written(&field)] = value;
            save(&file, &config)?;
        }
        [first, rest @ ..] => return unknown(property, first, rest),
        [] => {}
    }
    out(&format!("Property \"{property}\" set.\n"));
    Ok(())
}

/// What a field is called in files.
fn written(field: &str) -> &str {
    match field {
        "act-as" => "as",
        "act-as-uid" => "as-uid",
        other => other,
    }
}

fn unknown(property: &str, first: &str, rest: &[&str]) -> Outcome {
    if matches!(first, "current-context" | "apiVersion" | "kind" | "preferences") && !rest.is_empty() {
        return fail(format!("unable to parse one or more field values of {property}"));
    }
    fail(format!("unable to parse {property} after [] at api.Config"))
}

fn boolean(text: &str) -> Outcome<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => fail(format!("strconv.ParseBool: parsing {}: invalid syntax", crate::failure::quote(text))),
    }
}

fn bytes(text: &str, raw: bool) -> Outcome<String> {
    let engine = base64::engine::general_purpose::STANDARD;
    if raw {
        return Ok(engine.encode(text));
    }
    match engine.decode(text) {
        Ok(bytes) => Ok(engine.encode(bytes)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                _ => text.len(),
            };
            fail(format!("error decoding input value: illegal base64 data at input byte {at}"))
        }
    }
}

/// The entry and the field of a property. Names may hold dots if there is an entry of that name.
fn target(config: &Kubeconfig, list: &str, property: &str) -> (String, Option<String>) {
    let rest = property[list.len()..].trim_start_matches('.');
    let entries = match list {
        "contexts" => &config.contexts,
        "clusters" => &config.clusters,
        _ => &config.users,
    };
    let known = entries
        .keys()
        .filter(|name| rest == name.as_str() || rest.starts_with(&format!("{name}.")))
        .max_by_key(|name| name.len());
    let name = match known {
        Some(name) => name.clone(),
        None => rest.split('.').next().unwrap_or_default().to_owned(),
    };
    let field = rest[name.len()..].trim_start_matches('.');
    (name, (!field.is_empty()).then(|| field.to_owned()))
}

/// `config unset`.
///
/// # Errors
/// There is no such property.
pub(crate) async fn unset(context: &Context) -> Outcome {
    let property = &count(context, 1)?[0];
    let all = context.config().await?;
    match property.split('.').collect::<Vec<_>>().as_slice() {
        ["current-context"] => {
            // Wherever it is said first.
            let (files, _) = crate::kubeconfig::files(&context.flags);
            for file in files {
                let mut config = Kubeconfig::load_file(&file)?;
                if !config.current.is_empty() {
                    config.current.clear();
                    save(&file, &config)?;
                    break;
                }
            }
        }
        ["apiVersion" | "kind"] => {}
        ["preferences", ..] => {
            let file = default_file(context);
            let mut config = Kubeconfig::load_file(&file)?;
            config.preferences = json!({});
            save(&file, &config)?;
        }
        [list @ ("clusters" | "contexts" | "users")] => {
            let (files, _) = crate::kubeconfig::files(&context.flags);
            for file in files.iter().filter(|file| file.exists()) {
                let mut config = Kubeconfig::load_file(file)?;
                entries(&mut config, list).clear();
                save(file, &config)?;
            }
        }
        [list @ ("clusters" | "contexts" | "users"), ..] => {
            let (name, field) = target(all, list, property);
            let file = file_of(context, all, &format!("{list}/{name}"));
            let mut config = Kubeconfig::load_file(&file)?;
            let entries = entries(&mut config, list);
            match field {
                None => {
                    entries.remove(&name);
                }
                Some(field) => {
                    let Some(entry) = entries.get_mut(&name) else {
                        return fail(format!("current map key `{name}` is invalid"));
                    };
                    if let Some(map) = entry.as_object_mut() {
                        map.remove(written(&field));
                    }
                }
            }
            save(&file, &config)?;
        }
        [first, rest @ ..] => return unknown(property, first, rest),
        [] => {}
    }
    out(&format!("Property \"{property}\" unset.\n"));
    Ok(())
}
