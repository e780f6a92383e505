//! What the printer columns of the kinds have in common.

use crate::duration;
use crate::kind::Column;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::Value;

/// The NAME column.
pub const NAME: Column = Column {
    name: "Name",
    type_: "string",
    format: "name",
    description: "The name of the object, unique within its namespace.",
    priority: 0,
};

/// The AGE column.
pub const AGE: Column = string("Age", "How long ago the object was created.");

/// A column of strings that is always shown.
pub const fn string(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "string", format: "", description, priority: 0 }
}

/// A column of integers that is always shown.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "integer", format: "", description, priority: 0 }
}

/// The column, shown only with `-o wide`.
pub const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

/// The cell under [`NAME`].
pub fn name(meta: &ObjectMeta) -> Value {
    meta.name.clone().unwrap_or_default().into()
}

/// The cell under [`AGE`].
pub fn age(meta: &ObjectMeta, now: Timestamp) -> Value {
    duration::age(meta.creation_timestamp.as_ref(), now).into()
}

/// How long ago a time with microseconds was.
pub fn micro_age(time: Option<&MicroTime>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".to_owned(), |time| duration::human_duration(time.0, now))
}

/// `a,b,c + 2 more...`: the first three of a list; `empty` when there is none.
pub fn first_three(items: &[String], empty: &str) -> String {
    const SHOWN: usize = 3;
    match items {
        [] => empty.to_owned(),
        few if few.len() <= SHOWN => few.join(","),
        many => format!("{} + {} more...", many[..SHOWN].join(","), many.len() - SHOWN),
    }
}
