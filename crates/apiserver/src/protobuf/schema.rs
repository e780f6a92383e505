//! Which fields messages have, read once from `schema.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;

/// A type without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Integer,
    Boolean,
    Bytes,
    Double,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar(Scalar),
    /// By full name, `core/v1.Pod`; without a slash for those with a JSON form of their own.
    Message(String),
}

/// A field of a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// As in JSON.
    pub(super) name: String,
    pub(super) type_: Type,
    pub(super) list: bool,
    pub(super) map: bool,
    /// Whether a zero differs from nothing.
    pub(super) optional: bool,
    /// Whether the fields of the message belong to the one around it.
    pub(super) inline: bool,
}

/// A message.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) name: String,
    pub(super) fields: HashMap<u32, Field>,
}

/// All messages.
pub(super) struct Schema {
    messages: HashMap<String, Message>,
    envelope: Message,
    specials: HashMap<String, Message>,
}

/// The envelope of every body (`runtime.Unknown`).
const ENVELOPE: &str = "1 typeMeta TypeMeta\n2 raw y\n3 contentEncoding s\n4 contentType s";
/// The messages that are not objects in JSON.
const SPECIALS: [(&str, &str); 9] = [
    ("Time", "1 seconds i\n2 nanos i"),
    ("MicroTime", "1 seconds i\n2 nanos i"),
    ("Quantity", "1 string s"),
    ("IntOrString", "1 type i\n2 intVal i\n3 strVal s"),
    ("Duration", "1 duration i"),
    ("Strings", "1 items *s"),
    ("RawExtension", "1 raw y"),
    ("FieldsV1", "1 raw y"),
    ("TypeMeta", "1 apiVersion s\n2 kind s"),
];

impl Schema {
    pub(super) fn get() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| Self::parse(include_str!("schema.txt")))
    }

    fn parse(text: &str) -> Self {
        let mut messages: HashMap<String, Message> = HashMap::new();
        let mut name = String::new();
        for line in text.lines() {
            if !line.contains(' ') {
                name = line.to_owned();
                messages.insert(name.clone(), Message { name: name.clone(), fields: HashMap::new() });
            } else if let (Some((number, field)), Some(message)) =
                (field(line, &name), messages.get_mut(&name))
            {
                message.fields.insert(number, field);
            }
        }
        let small = |name: &str, text: &str| Message {
            name: name.to_owned(),
            fields: text.lines().filter_map(|line| field(line, "")).collect(),
        };
        let mut specials: HashMap<String, Message> =
            SPECIALS.iter().map(|(name, text)| ((*name).to_owned(), small(name, text))).collect();
        messages.extend(specials.remove_entry("TypeMeta"));
        Self { messages, envelope: small("Unknown", ENVELOPE), specials }
    }

    pub(super) fn envelope(&self) -> &Message {
        &self.envelope
    }

    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    pub(super) fn special(&self, name: &str) -> Option<&Message> {
        self.specials.get(name)
    }

    /// The message of a kind: `apps/v1` `Deployment`. Options are the same in every version.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<&Message> {
        if kind == "DeleteOptions" {
            return self.message("meta/v1.DeleteOptions");
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        let package = group.split('.').next().unwrap_or(group);
        self.message(&format!("{package}/{version}.{kind}"))
    }
}

/// Reads `NUMBER NAME TYPE`; names without a package are of the message's.
fn field(line: &str, message: &str) -> Option<(u32, Field)> {
    let mut parts = line.split(' ');
    let (number, name, shown) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let (shown, inline) = shown.strip_suffix('>').map_or((shown, false), |s| (s, true));
    let (shown, optional) = shown.strip_suffix('?').map_or((shown, false), |s| (s, true));
    let (shown, list) = shown.strip_prefix('*').map_or((shown, false), |s| (s, true));
    let (shown, map) = shown.strip_prefix('%').map_or((shown, false), |s| (s, true));
    let special = SPECIALS.iter().any(|(name, _)| *name == shown);
    let package = message.split('.').next().unwrap_or_default();
    let type_ = match shown {
        "s" => Type::Scalar(Scalar::String),
        "i" => Type::Scalar(Scalar::Integer),
        "b" => Type::Scalar(Scalar::Boolean),
        "y" => Type::Scalar(Scalar::Bytes),
        "d" => Type::Scalar(Scalar::Double),
        other if special || other.contains('/') => Type::Message(other.to_owned()),
        other => Type::Message(format!("{package}.{other}")),
    };
    Some((number, Field { name: name.to_owned(), type_, list, map, optional, inline }))
}
