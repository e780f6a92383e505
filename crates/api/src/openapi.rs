//! OpenAPI documents, built from the schemas of the types.

use crate::kind::ServedKind;
use serde_json::Value;

/// `/openapi/v3`: where the document of each group-version is.
pub fn v3_index(_kinds: &[Box<dyn ServedKind>]) -> Value {
    todo!()
}

/// `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`: the document of `v1`, `apps/v1`. None: not served.
pub fn v3(_group_version: &str, _kinds: &[Box<dyn ServedKind>]) -> Option<Value> {
    todo!()
}

/// `/openapi/v2`: the one Swagger 2.0 document.
pub fn v2(_kinds: &[Box<dyn ServedKind>]) -> Value {
    todo!()
}
