//! `explain`: fields and what they are for, from the server's OpenAPI.

use crate::context::{Context, out};
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::{list, text};
use serde_json::Value;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    flag("recursive", Takes::Bool, "false", "All fields below"),
    flag("api-version", Takes::Text, "", "Another version of the type"),
    flag("output", Takes::Text, "plaintext", "plaintext"),
]];

/// Runs it.
///
/// # Errors
/// There is no such type or field.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let path = match flags.args.as_slice() {
        [] => {
            return fail(format!(
                "You must specify the type of resource to explain. Use \"{} api-resources\" for a complete list of supported resources.\n",
                context.name
            ));
        }
        [path] => path.trim_end_matches('.').to_owned(),
        _ => return fail("We accept only this format: explain RESOURCE"),
    };
    if path.starts_with('.') {
        return fail("invalid jsonpath syntax, first node must be field node");
    }
    let output = flags.text("output");
    if !matches!(output, "plaintext" | "plaintext-openapiv2") {
        return fail(format!("unrecognized format: {output}"));
    }
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    let resource = parts.next().unwrap_or_default();
    let mut fields: Vec<&str> = parts.collect();
    let mut mapping =
        context.resource(resource).await.map_err(|error| crate::failure::Failure::Verbatim(error.text()))?;
    // `deployments.apps.spec`: the group belongs to the type.
    let group: Vec<&str> = mapping.group.split('.').collect();
    if fields.starts_with(&group) {
        fields.drain(..group.len());
    }
    let wanted = flags.text("api-version");
    if !wanted.is_empty() {
        let (group, version) = wanted.split_once('/').unwrap_or(("", wanted));
        (mapping.group, mapping.version) = (group.to_owned(), version.to_owned());
    }
    let document = match context.client().await?.get(&format!("/openapi/v3{}", mapping.root()), &[]).await {
        Err(error) if error.is_not_found() => {
            return fail(format!(
                "couldn't find resource for \"{}/{}, Resource={}\"",
                mapping.group, mapping.version, mapping.plural
            ));
        }
        other => other?,
    };
    let schemas = &document["components"]["schemas"];
    let is = |schema: &&Value| {
        list(schema, "/x-kubernetes-group-version-kind").iter().any(|gvk| {
            text(gvk, "/group") == mapping.group
                && text(gvk, "/version") == mapping.version
                && text(gvk, "/kind") == mapping.kind
        })
    };
    let Some(root) = schemas.as_object().into_iter().flatten().map(|(_, schema)| schema).find(is) else {
        return fail(format!(
            "GVR ({}/{}, Resource={}) not found in OpenAPI schema",
            mapping.group, mapping.version, mapping.plural
        ));
    };
    let mut schema = root.clone();
    let mut field_text = None;
    for (index, field) in fields.iter().enumerate() {
        let inner = resolve(schemas, &schema);
        let property = inner["properties"][*field].clone();
        if property.is_null() {
            out(&header(&mapping));
            return fail(format!("field \"{field}\" does not exist"));
        }
        if index + 1 == fields.len() {
            field_text = Some((
                *field,
                type_of(schemas, &property),
                property["description"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        schema = element(schemas, &property);
    }
    let mut page = header(&mapping);
    let shown = resolve(schemas, &schema);
    let own = shown["description"].as_str().unwrap_or_default();
    if let Some((field, type_, _)) = &field_text {
        let values = enumeration(&shown).map_or("\n\n".to_owned(), |values| format!("ENUM:\n{values}\n"));
        page.push_str(&format!("FIELD: {field} <{type_}>\n{values}"));
    }
    let description = match &field_text {
        Some((_, _, text)) if !text.is_empty() && own.is_empty() => text.clone(),
        Some((_, _, text)) if !text.is_empty() && *text != own => format!("{text}\n{own}"),
        _ => own.to_owned(),
    };
    page.push_str("DESCRIPTION:\n");
    page.push_str(&wrap(if description.is_empty() { "<empty>" } else { &description }, 4));
    page.push_str("    \n");
    if shown["properties"].is_object() {
        page.push_str("FIELDS:\n");
        properties(schemas, &shown, 2, flags.on("recursive"), &mut page);
    }
    page.push('\n');
    out(&page);
    Ok(())
}

fn header(mapping: &crate::mapping::Mapping) -> String {
    let group =
        if mapping.group.is_empty() { String::new() } else { format!("GROUP:      {}\n", mapping.group) };
    format!("{group}KIND:       {}\nVERSION:    {}\n\n", mapping.kind, mapping.version)
}

fn enumeration(schema: &Value) -> Option<String> {
    let values = schema["enum"].as_array()?;
    Some(
        values
            .iter()
            .map(|value| format!("    {}\n", crate::printers::go_template::go_value(value)))
            .collect(),
    )
}

/// The same in one line below a field; of more than four only the first.
fn enumerated(schema: &Value, gap: &str) -> String {
    const MOST: usize = 4;
    let Some(values) = schema["enum"].as_array() else { return String::new() };
    let shown = |value: &Value| match value.as_str() {
        Some("") => "\"\"".to_owned(),
        _ => crate::printers::go_template::go_value(value),
    };
    let mut words: Vec<String> = values.iter().take(MOST).map(shown).collect();
    if values.len() > MOST {
        words.push("....".into());
    }
    format!("{gap}enum: {}\n", words.join(", "))
}

/// Behind `$ref` and `allOf`.
fn resolve(schemas: &Value, schema: &Value) -> Value {
    let target = text(schema, "/$ref");
    let target = if target.is_empty() { text(schema, "/allOf/0/$ref") } else { target };
    match target.rsplit('/').next().filter(|name| !name.is_empty()) {
        Some(name) => schemas[name].clone(),
        None => schema.clone(),
    }
}

/// What is in a list or map, or the schema itself.
fn element(schemas: &Value, schema: &Value) -> Value {
    let inner = resolve(schemas, schema);
    if inner["items"].is_object() {
        return element(schemas, &inner["items"]);
    }
    if inner["additionalProperties"].is_object() {
        return element(schemas, &inner["additionalProperties"]);
    }
    inner
}

fn type_of(schemas: &Value, schema: &Value) -> String {
    let target = text(schema, "/$ref");
    let target = if target.is_empty() { text(schema, "/allOf/0/$ref") } else { target };
    if let Some(name) = target.rsplit('/').next().filter(|name| !name.is_empty()) {
        let inner = &schemas[name];
        if inner["properties"].is_object() || inner["type"].is_null() || inner["type"] == "object" {
            return name.rsplit('.').next().unwrap_or_default().to_owned();
        }
        if name.ends_with("Time") {
            return "string".into();
        }
        if name.ends_with("Quantity") || name.ends_with("IntOrString") || name.ends_with("Time") {
            return name.rsplit('.').next().unwrap_or_default().to_owned();
        }
        return text(inner, "/type").to_owned();
    }
    if schema["items"].is_object() {
        return format!("[]{}", type_of(schemas, &schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map[string]{}", type_of(schemas, &schema["additionalProperties"]));
    }
    match text(schema, "/type") {
        "" => "Object".into(),
        "object" => "Object".into(),
        other => other.to_owned(),
    }
}

fn properties(schemas: &Value, schema: &Value, indent: usize, recursive: bool, page: &mut String) {
    let required: Vec<&str> = list(schema, "/required").iter().filter_map(Value::as_str).collect();
    let gap = " ".repeat(indent);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let must = if required.contains(&name.as_str()) { " -required-" } else { "" };
        page.push_str(&format!("{gap}{name}\t<{}>{must}\n", type_of(schemas, property)));
        let resolved = resolve(schemas, property);
        if recursive {
            page.push_str(&enumerated(&resolved, &gap));
            let inner = element(schemas, property);
            if inner["properties"].is_object() && indent < 40 {
                properties(schemas, &inner, indent + 2, recursive, page);
            }
            continue;
        }
        page.push_str(&enumerated(&resolved, &gap));
        let description = property["description"]
            .as_str()
            .or(resolved["description"].as_str())
            .unwrap_or("<no description>");
        page.push_str(&wrap(description, indent + 2));
        page.push('\n');
    }
}

/// Lines of at most eighty letters. Spaces at the beginning of a paragraph stay.
fn wrap(text: &str, indent: usize) -> String {
    let mut out = String::new();
    for paragraph in text.split('\n') {
        let (mut line, mut begins) = (String::new(), true);
        for word in paragraph.split(' ') {
            if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > 80 {
                out.push_str(&format!("{}{}\n", " ".repeat(indent), line.trim_end()));
                line.clear();
                begins = true;
            }
            if !std::mem::take(&mut begins) {
                line.push(' ');
            }
            line.push_str(word);
        }
        out.push_str(&format!("{}{line}\n", " ".repeat(indent)));
    }
    out
}
