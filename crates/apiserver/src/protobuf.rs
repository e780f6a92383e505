//! Protobuf bodies as JSON.
//!
//! kubectl 1.33 and client-go send built-in kinds as protobuf by default (and accept JSON in answer), so
//! bodies must be understood in it. There is no other use of it here: everything is turned into the JSON the
//! object would have been sent as. The field numbers and types are in `schema.txt`, derived by
//! `protobuf-schema.py` from the types of Kubernetes v1.33.

mod schema;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schema::{Field, Message, Scalar, Schema, Type};
use serde_json::{Map, Value, json};
use wire::{Reader, Token};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may be nested.
const DEPTH: usize = 64;

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// It does not begin as Kubernetes' protobuf bodies do.
    #[error("provided data does not appear to be a protobuf message, expected prefix k8s")]
    NoMagic,
    /// A message ends too early or is malformed.
    #[error("proto: {0}: malformed")]
    Malformed(String),
    /// Messages are nested too deeply.
    #[error("proto: nested too deeply")]
    TooDeep,
    /// No such kind is known in protobuf.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// As the body says.
        api_version: String,
        /// As the body says.
        kind: String,
    },
}

/// The object in a protobuf body, as JSON.
pub(crate) fn to_json(body: &[u8]) -> Result<Bytes, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let schema = Schema::get();
    let envelope = message(schema, schema.envelope(), envelope, DEPTH)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let type_meta = &envelope["typeMeta"];
    let (api_version, kind) = (text(&type_meta["apiVersion"]), text(&type_meta["kind"]));
    let raw = STANDARD.decode(text(&envelope["raw"])).unwrap_or_default();
    let Some(root) = schema.root(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = message(schema, root, &raw, DEPTH)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object.to_string().into())
}

/// One message as a JSON object.
fn message(schema: &Schema, message: &Message, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    read_into(&mut object, schema, message, bytes, depth)?;
    Ok(Value::Object(object))
}

fn read_into(
    object: &mut Map<String, Value>,
    schema: &Schema,
    message: &Message,
    bytes: &[u8],
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth == 0 {
        return Err(ProtobufError::TooDeep);
    }
    let malformed = || ProtobufError::Malformed(message.name.clone());
    let mut reader = Reader::new(bytes);
    while let Some((number, token)) = reader.next().map_err(|_| malformed())? {
        let Some(field) = message.fields.get(&number) else { continue };
        if field.inline {
            let (Type::Message(name), Token::Bytes(inner)) = (&field.type_, token) else {
                return Err(malformed());
            };
            let inner_message = schema.message(name).ok_or_else(malformed)?;
            read_into(object, schema, inner_message, inner, depth - 1)?;
            continue;
        }
        take(object, schema, field, token, depth)?.ok_or_else(malformed)?;
    }
    Ok(())
}

/// Puts a field into the object. None: the token does not fit the field's type.
fn take(
    object: &mut Map<String, Value>,
    schema: &Schema,
    field: &Field,
    token: Token<'_>,
    depth: usize,
) -> Result<Option<()>, ProtobufError> {
    if field.map {
        let Token::Bytes(entry) = token else { return Ok(None) };
        let Some((key, value)) = map_entry(entry) else { return Ok(None) };
        let value = value.unwrap_or_else(|| Token::zero(&field.type_));
        let Some(value) = one(schema, &field.type_, value, depth)? else { return Ok(None) };
        let map = object.entry(&field.name).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(map) = map {
            map.insert(key, value);
        }
    } else if field.list {
        let Some(value) = one(schema, &field.type_, token, depth)? else { return Ok(None) };
        let list = object.entry(&field.name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
        }
    } else {
        let Some(value) = one(schema, &field.type_, token, depth)? else { return Ok(None) };
        // Fields that are no pointers are always on the wire; there a zero is what JSON leaves out.
        let zero = matches!(&value, Value::Null)
            || !field.optional && matches!(&field.type_, Type::Scalar(_)) && is_zero(&value);
        if !zero {
            object.insert(field.name.clone(), value);
        }
    }
    Ok(Some(()))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(flag) => !flag,
        _ => false,
    }
}

/// Key and value of an entry of a map. The value may be left out when it is zero.
fn map_entry(entry: &[u8]) -> Option<(String, Option<Token<'_>>)> {
    let mut reader = Reader::new(entry);
    let (mut key, mut value) = (String::new(), None);
    while let Some((number, token)) = reader.next().ok()? {
        match (number, token) {
            (1, Token::Bytes(bytes)) => key = String::from_utf8(bytes.to_vec()).ok()?,
            (2, token) => value = Some(token),
            _ => {}
        }
    }
    Some((key, value))
}

/// One value. None: the token does not fit the type.
fn one(
    schema: &Schema,
    type_: &Type,
    token: Token<'_>,
    depth: usize,
) -> Result<Option<Value>, ProtobufError> {
    Ok(match (type_, token) {
        (Type::Scalar(Scalar::String), Token::Bytes(bytes)) => {
            std::str::from_utf8(bytes).ok().map(|s| json!(s))
        }
        (Type::Scalar(Scalar::Bytes), Token::Bytes(bytes)) => Some(json!(STANDARD.encode(bytes))),
        (Type::Scalar(Scalar::Integer), Token::Number(number)) => Some(json!(number.cast_signed())),
        (Type::Scalar(Scalar::Boolean), Token::Number(number)) => Some(json!(number != 0)),
        (Type::Scalar(Scalar::Double), Token::Fixed(bits)) => Some(json!(f64::from_bits(bits))),
        (Type::Message(name), Token::Bytes(bytes)) => match schema.message(name) {
            Some(inner) => Some(message(schema, inner, bytes, depth - 1)?),
            None => special(schema, name, bytes, depth)?,
        },
        _ => None,
    })
}

/// The messages whose JSON is not an object of their fields.
fn special(schema: &Schema, name: &str, bytes: &[u8], depth: usize) -> Result<Option<Value>, ProtobufError> {
    let Some(parts) = schema.special(name) else { return Ok(None) };
    let parts = message(schema, parts, bytes, depth)?;
    let integer = |name: &str| parts[name].as_i64().unwrap_or(0);
    let embedded = || {
        let raw = STANDARD.decode(parts["raw"].as_str().unwrap_or_default()).unwrap_or_default();
        serde_json::from_slice(&raw).unwrap_or(Value::Null)
    };
    Ok(Some(match name {
        "Time" | "MicroTime" if bytes.is_empty() => Value::Null,
        "Time" => time(integer("seconds"), 0, "%Y-%m-%dT%H:%M:%SZ"),
        "MicroTime" => time(integer("seconds"), integer("nanos"), "%Y-%m-%dT%H:%M:%S.%6fZ"),
        "Quantity" => parts.get("string").cloned().unwrap_or_else(|| json!("0")),
        "IntOrString" if integer("type") == 0 => json!(integer("intVal")),
        "IntOrString" => json!(parts["strVal"].as_str().unwrap_or_default()),
        "Duration" => json!(format!("{}ns", integer("duration"))),
        "Strings" => parts.get("items").cloned().unwrap_or_else(|| json!([])),
        _ => embedded(),
    }))
}

fn time(seconds: i64, nanos: i64, format: &str) -> Value {
    let nanos = i32::try_from(nanos).unwrap_or(0);
    jiff::Timestamp::new(seconds, nanos).map_or(Value::Null, |time| json!(time.strftime(format).to_string()))
}

#[cfg(test)]
mod tests;
