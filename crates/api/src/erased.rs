//! Typed kinds ([`Kind`]) behind the face the API server sees ([`ServedKind`]).

use crate::decode;
use crate::field::Errors;
use crate::kind::{
    Column, DecodeError, FieldIssue, Identity, Kind, Object, Part, Scale, ServedKind, Subresources,
};
use crate::name::NameRule;
use jiff::Timestamp;
use serde_json::Value;

/// The kind, erased. Its methods panic when given an object of another kind: that is a bug of the caller.
pub fn serve<K: Kind>(kind: K) -> Box<dyn ServedKind> {
    Box::new(Erased(kind))
}

struct Erased<K>(K);

impl<K: Kind> Erased<K> {
    fn typed<'a>(&self, object: &'a dyn Object) -> &'a K::Object {
        match object.as_any().downcast_ref() {
            Some(typed) => typed,
            None => self.wrong_kind(),
        }
    }

    fn typed_mut<'a>(&self, object: &'a mut dyn Object) -> &'a mut K::Object {
        match object.as_any_mut().downcast_mut() {
            Some(typed) => typed,
            None => self.wrong_kind(),
        }
    }

    fn wrong_kind(&self) -> ! {
        unreachable!("an object of another kind was given to {}", self.0.identity().qualified_kind())
    }
}

impl<K: Kind> ServedKind for Erased<K> {
    fn identity(&self) -> Identity {
        self.0.identity()
    }
    fn subresources(&self) -> Subresources {
        self.0.subresources()
    }
    fn name_rule(&self) -> NameRule {
        self.0.name_rule()
    }
    fn decode(&self, json: &[u8]) -> Result<(Box<dyn Object>, Vec<FieldIssue>), DecodeError> {
        let root = <K::Object as schemars::JsonSchema>::schema_name();
        let (object, issues) = decode::decode_root::<K::Object>(json, Some(&root))?;
        Ok((Box::new(object), issues))
    }
    fn decode_tree(&self, json: &Value) -> Result<(Box<dyn Object>, Vec<FieldIssue>), DecodeError> {
        let root = <K::Object as schemars::JsonSchema>::schema_name();
        let (object, issues) = decode::decode_tree::<K::Object>(json, &root)?;
        Ok((Box::new(object), issues))
    }
    fn decode_stored(&self, json: &[u8]) -> Result<Box<dyn Object>, DecodeError> {
        Ok(Box::new(decode::decode_stored::<K::Object>(json)?))
    }
    fn schema(&self) -> Value {
        schemars::SchemaGenerator::default().into_root_schema_for::<K::Object>().to_value()
    }
    fn default(&self, object: &mut dyn Object) {
        self.0.default(self.typed_mut(object));
    }
    fn prepare_create(&self, object: &mut dyn Object) {
        self.0.prepare_create(self.typed_mut(object));
    }
    fn prepare_update(&self, new: &mut dyn Object, old: &dyn Object, part: Part) {
        self.0.prepare_update(self.typed_mut(new), self.typed(old), part);
    }
    fn spec_changed(&self, new: &dyn Object, old: &dyn Object) -> bool {
        self.0.spec_changed(self.typed(new), self.typed(old))
    }
    fn validate_create(&self, object: &dyn Object) -> Errors {
        self.0.validate_create(self.typed(object))
    }
    fn validate_update(&self, new: &dyn Object, old: &dyn Object, part: Part) -> Errors {
        self.0.validate_update(self.typed(new), self.typed(old), part)
    }
    fn warnings(&self, object: &dyn Object) -> Vec<String> {
        self.0.warnings(self.typed(object))
    }
    fn columns(&self) -> &'static [Column] {
        self.0.columns()
    }
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        self.0.cells(self.typed(object), now)
    }
    fn selectable_fields(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        self.0.selectable_fields(self.typed(object))
    }
    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        self.0.scale(self.typed(object))
    }
    fn set_replicas(&self, object: &mut dyn Object, replicas: i32) {
        self.0.set_replicas(self.typed_mut(object), replicas);
    }
    fn deletion_grace_period(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        self.0.deletion_grace_period(self.typed(object), requested)
    }
}
