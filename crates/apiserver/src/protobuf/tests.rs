use super::schema::{Field, Message, Scalar, Schema, Type};
use super::{MAGIC, ProtobufError, to_json};
use serde_json::{Value, json};

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut type_meta = Vec::new();
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = MAGIC.to_vec();
    bytes(&mut out, 1, &type_meta);
    bytes(&mut out, 2, raw);
    out
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(&to_json(body).unwrap()).unwrap()
}

/// A message with every field set, to a depth.
fn everything(schema: &Schema, message: &Message, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, field) in &message.fields {
        let mut value = Vec::new();
        one(schema, &mut value, if field.map { 2 } else { *id }, field, depth);
        if field.map {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, b"key");
            entry.extend(value);
            bytes(&mut out, *id, &entry);
        } else {
            out.extend(value);
        }
    }
    out
}

fn one(schema: &Schema, out: &mut Vec<u8>, id: u32, field: &Field, depth: usize) {
    match &field.type_ {
        Type::Scalar(Scalar::String | Scalar::Bytes) => bytes(out, id, b"text"),
        Type::Scalar(Scalar::Integer | Scalar::Boolean) => number(out, id, 1),
        Type::Scalar(Scalar::Double) => {
            varint(out, u64::from(id) << 3 | 1);
            out.extend(1.5f64.to_le_bytes());
        }
        Type::Message(name) if depth > 0 => match schema.message(name) {
            Some(inner) => bytes(out, id, &everything(schema, inner, depth - 1)),
            None => {
                let mut inner = Vec::new();
                match name.as_str() {
                    "Quantity" | "Strings" => bytes(&mut inner, 1, b"1"),
                    "RawExtension" | "FieldsV1" => bytes(&mut inner, 1, b"{}"),
                    _ => number(&mut inner, 1, 0),
                }
                bytes(out, id, &inner);
            }
        },
        Type::Message(_) => {}
    }
}

#[test]
fn every_field_of_every_served_kind_lands_where_its_json_has_it() {
    let schema = Schema::get();
    for kind in sagong_api::kinds::registry() {
        let id = kind.identity();
        let root = schema.root(&id.api_version(), id.kind).expect(id.kind);
        let body = body(&id.api_version(), id.kind, &everything(schema, root, 12));
        let json = to_json(&body).unwrap();
        match kind.decode(&json) {
            Ok((_, issues)) => assert_eq!(issues, [], "{}", id.kind),
            Err(error) => panic!("{}: {error}", id.kind),
        }
    }
}

#[test]
fn zeros_are_kept_only_where_they_mean_something() {
    let mut spec = Vec::new();
    number(&mut spec, 1, 0); // replicas, a pointer
    number(&mut spec, 5, 0); // minReadySeconds, none
    let mut deployment = Vec::new();
    bytes(&mut deployment, 2, &spec);
    let object = read(&body("apps/v1", "Deployment", &deployment));
    assert_eq!(object, json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0}}));
}

#[test]
fn values_with_a_json_form_of_their_own_get_it() {
    let mut time = Vec::new();
    number(&mut time, 1, 1_700_000_000);
    number(&mut time, 2, 123_456_000);
    let mut spec = Vec::new();
    bytes(&mut spec, 3, &time);
    let mut lease = Vec::new();
    bytes(&mut lease, 2, &spec);
    let object = read(&body("coordination.k8s.io/v1", "Lease", &lease));
    assert_eq!(object["spec"]["acquireTime"], "2023-11-14T22:13:20.123456Z");

    let mut entry = Vec::new();
    bytes(&mut entry, 1, b"password");
    bytes(&mut entry, 2, b"\x00\x01");
    let mut secret = Vec::new();
    bytes(&mut secret, 2, &entry);
    assert_eq!(read(&body("v1", "Secret", &secret))["data"], json!({"password": "AAE="}));
}

#[rstest::rstest]
#[case::no_magic(b"{}".to_vec(), ProtobufError::NoMagic)]
#[case::cut_short([MAGIC, &[0x0a, 0x7f]].concat(), ProtobufError::Malformed("Unknown".into()))]
#[case::unknown_kind(
    body("v1", "Widget", b""),
    ProtobufError::UnknownKind { api_version: "v1".into(), kind: "Widget".into() }
)]
#[case::wrong_type(body("v1", "Pod", &[0x08, 0x01]), ProtobufError::Malformed("core/v1.Pod".into()))]
fn what_is_no_message_is_refused(#[case] body: Vec<u8>, #[case] error: ProtobufError) {
    assert_eq!(to_json(&body).unwrap_err(), error);
}
