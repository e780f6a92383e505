//! Namespaces, config maps, secrets and service accounts.

use super::{Writer, date, events};
use crate::context::Context;
use crate::failure::Outcome;
use crate::object::{self, list, text};
use base64::Engine;
use serde_json::Value;

/// Describes a namespace.
pub(super) async fn namespace(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.field(0, "Name", object::name(object));
    writer.labels("Labels", &object::labels(object));
    writer.annotations("Annotations", &object::strings(object, "/metadata/annotations"));
    writer.field(0, "Status", text(object, "/status/phase"));
    let conditions = list(object, "/status/conditions");
    if !conditions.is_empty() {
        writer.line(0, "Conditions:");
        writer.line(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
        writer.line(1, "----\t------\t------------------\t------\t-------");
        for c in conditions {
            writer.line(
                1,
                &format!(
                    "{}\t{}\t{}\t{}\t{}",
                    text(c, "/type"),
                    text(c, "/status"),
                    date(text(c, "/lastTransitionTime")),
                    text(c, "/reason"),
                    text(c, "/message")
                ),
            );
        }
    }
    // A server without these kinds is told nothing of.
    for (kind, none) in [("resourcequotas", "No resource quota."), ("limitranges", "No LimitRange resource.")]
    {
        let path = format!("/api/v1/namespaces/{}/{kind}", object::name(object));
        if let Ok(found) = context.client().await?.get(&path, &[]).await {
            writer.line(0, "");
            if list(&found, "/items").is_empty() {
                writer.line(0, none);
            }
            list(&found, "/items").iter().for_each(|one| writer.field(0, "Name", object::name(one)));
        }
    }
    Ok(())
}

/// Describes a config map.
pub(super) async fn config_map(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    writer.line(0, "\nData\n====");
    for (key, value) in object::strings(object, "/data") {
        writer.line(0, &format!("{key}:\n----"));
        writer.line(0, &format!("{value}\n"));
    }
    writer.line(0, "\nBinaryData\n====");
    for (key, value) in object::strings(object, "/binaryData") {
        writer.line(0, &format!("{key}: {} bytes", decoded(&value)));
    }
    writer.line(0, "");
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

fn decoded(value: &str) -> usize {
    base64::engine::general_purpose::STANDARD.decode(value).map_or(0, |bytes| bytes.len())
}

/// Describes a secret.
pub(super) fn secret(object: &Value, writer: &mut Writer) {
    writer.head(object);
    writer.line(0, &format!("\nType:\t{}", text(object, "/type")));
    writer.line(0, "\nData\n====");
    for (key, value) in object::strings(object, "/data") {
        writer.field(0, &key, format!("{} bytes", decoded(&value)));
    }
}

/// Describes a service account.
pub(super) async fn service_account(context: &Context, object: &Value, writer: &mut Writer) -> Outcome {
    writer.head(object);
    for (title, field) in [("Image pull secrets", "/imagePullSecrets"), ("Mountable secrets", "/secrets")] {
        names(writer, title, list(object, field).iter().map(|s| text(s, "/name").to_owned()).collect());
    }
    names(writer, "Tokens", Vec::new());
    writer.events(events(context, object, true).await?.as_deref());
    Ok(())
}

fn names(writer: &mut Writer, title: &str, names: Vec<String>) {
    let width = "Image pull secrets:".len();
    let mut prefix = format!("{title}:");
    prefix.extend(std::iter::repeat_n(' ', width - prefix.len()));
    if names.is_empty() {
        writer.line(0, &format!("{prefix}\t<none>"));
    }
    for name in names {
        writer.line(0, &format!("{prefix}\t{name}"));
        prefix = " ".repeat(width);
    }
}
