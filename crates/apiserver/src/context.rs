//! A request to a resource, parsed and authorised.

use crate::failure::{Failure, Outcome};
use crate::negotiate::{self, Wanted};
use crate::query::Query;
use crate::resources::Resource;
use crate::rest::apply::managers::Manager;
use crate::rest::modify::Change;
use crate::state::Core;
use crate::table::Include;
use bytes::Bytes;
use http::HeaderMap;
use sagong_api::field;
use sagong_api::kind::Part;
use std::sync::Arc;

/// Everything a verb needs to know.
pub(crate) struct Context {
    pub(crate) core: Arc<Core>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Context {
    /// The representation asked for.
    pub(crate) fn wanted(&self) -> Outcome<Wanted> {
        Ok(negotiate::negotiate(&self.headers)?)
    }

    /// How much of the object the rows of a table carry.
    pub(crate) fn include(&self) -> Outcome<Include> {
        Ok(Include::parse(self.query.get("includeObject"))?)
    }

    /// The object's name; the router gives one to every verb on a single object.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    /// The store key of the object.
    pub(crate) fn key(&self) -> String {
        self.resource.key(self.namespace.as_deref(), self.name())
    }

    /// `dryRun=All`; any other value is invalid.
    pub(crate) fn dry_run(&self, options: &str, from_body: Option<&[String]>) -> Outcome<bool> {
        let given: Vec<&str> = match from_body {
            Some(values) if !values.is_empty() => values.iter().map(String::as_str).collect(),
            _ => self.query.all("dryRun").filter(|v| !v.is_empty()).collect(),
        };
        if let Some(wrong) = given.iter().find(|v| **v != "All") {
            let errors = vec![field::not_supported(&field::Path::new("dryRun"), wrong, &["All"])];
            let kind = format!("{options}.meta.k8s.io");
            return Err(sagong_api::error::ApiError::Invalid { kind, name: String::new(), errors }.into());
        }
        Ok(!given.is_empty())
    }

    /// Who owns the fields this request changes: `fieldManager`, or else the beginning of the user agent.
    pub(crate) fn manager(&self, subresource: &str) -> Manager {
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        let agent = agent.split(['/', ' ']).next().unwrap_or_default();
        let name = self.query.get("fieldManager").unwrap_or(agent).to_owned();
        Manager { name, subresource: subresource.to_owned() }
    }

    /// How this request changes an object.
    pub(crate) fn change(&self, part: Part, dry_run: bool) -> Change {
        let subresource = if part == Part::Status { "status" } else { "" };
        Change { part, manager: Some(self.manager(subresource)), dry_run }
    }

    /// A numeric parameter.
    pub(crate) fn number(&self, name: &str) -> Outcome<Option<i64>> {
        self.query.number(name).map_err(Failure::bad_request)
    }
}
