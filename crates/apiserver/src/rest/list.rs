//! GET of a collection.

use crate::answer::{self, ListMeta};
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::get::parse_version;
use crate::rest::selection::Selection;
use crate::wire::Stored;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_store::{Entry, Page};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many entries are looked at in one go when a selector filters a limited list.
const STRIDE: usize = 1000;

/// Where a limited list goes on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The revision of the first page, which all pages tell: a watch from it misses nothing.
    rv: u64,
    /// The last key of the page before.
    start: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a token; one that leads outside the collection is refused.
    fn decode(token: &str, prefix: &str) -> Outcome<Self> {
        let invalid = |detail: &str| Failure::bad_request(format!("continue key is not valid: {detail}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| invalid(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
        if !token.start.starts_with(prefix) {
            return Err(invalid("it is for another collection"));
        }
        Ok(token)
    }
}

/// Answers with the objects of the collection that are selected, in key order.
pub(crate) async fn list(context: &Context) -> Outcome<Response<Body>> {
    let selection = Selection::parse(&context.query, &context.resource)?;
    let current = context.core.store.revision();
    check_versions(context, current)?;
    let wanted = context.wanted()?;
    let prefix = selection.prefix(&context.resource, context.namespace.as_deref());
    let limit = usize::try_from(context.number("limit")?.unwrap_or(0)).unwrap_or(0);
    let from = match context.query.get("continue") {
        Some(token) => Some(Continue::decode(token, &prefix)?),
        None => None,
    };
    let after = from.as_ref().map(|c| c.start.as_str());
    let page = collect(context, &selection, &prefix, after, limit).await?;
    let revision = from.as_ref().map_or(page.revision, |c| c.rv);
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if let Some(last) = page.entries.last().filter(|_| page.remaining > 0) {
        let start = last.key.to_string();
        meta.continue_token = Some(Continue { v: "meta.k8s.io/v1".into(), rv: revision, start }.encode());
        // How many of the rest a selector would let through is not known.
        meta.remaining = selection.is_everything().then_some(page.remaining);
    }
    // Unpacked one after the other.
    let (items, size) = (page.entries.iter().map(Stored::from), page.entries.iter().map(wire_size).sum());
    answer::list(wanted, context.include()?, &context.resource, &meta, size, items)
}

/// About what an object takes in a list: with its resource version and a comma.
fn wire_size(entry: &Arc<Entry>) -> usize {
    entry.size() + 48
}

/// Gathers a page of selected entries.
async fn collect(
    context: &Context,
    selection: &Selection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Outcome<Page> {
    let store = &context.core.store;
    if selection.is_everything() {
        return Ok(store.list(prefix, after, limit).await?);
    }
    let selected = |entry: &Arc<Entry>| selection.matches(&context.resource, entry);
    if limit == 0 {
        let mut page = store.list(prefix, after, 0).await?;
        page.entries.retain(selected);
        return Ok(page);
    }
    let mut found: Vec<Arc<Entry>> = Vec::new();
    let mut revision = None;
    let mut after = after.map(str::to_owned);
    loop {
        let page = store.list(prefix, after.as_deref(), STRIDE).await?;
        let revision = *revision.get_or_insert(page.revision);
        after = page.entries.last().map(|e| e.key.to_string()).or(after);
        for entry in page.entries {
            if selected(&entry) {
                found.push(entry);
            }
        }
        if found.len() > limit || page.remaining == 0 {
            let remaining = found.len().saturating_sub(limit);
            found.truncate(limit);
            return Ok(Page { entries: found, revision, remaining });
        }
    }
}

/// Checks `resourceVersion`, `resourceVersionMatch` and `continue` against each other and the present.
fn check_versions(context: &Context, current: u64) -> Outcome<()> {
    let query = &context.query;
    let version = parse_version(query.get("resourceVersion"))?;
    let forbid = |detail: &str| -> Failure {
        let errors = vec![field::forbidden(&field::Path::new("resourceVersionMatch"), detail)];
        ApiError::Invalid { kind: "ListOptions.meta.k8s.io".into(), name: String::new(), errors }.into()
    };
    let matching = query.get("resourceVersionMatch");
    if matching.is_some() && version.is_none() {
        return Err(forbid("resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if query.get("continue").is_some() {
        if matching.is_some() {
            return Err(forbid("resourceVersionMatch is forbidden when continue is provided"));
        }
        if version.is_some_and(|v| v != 0) {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
    }
    match (version, matching) {
        (Some(asked), _) if asked > current => Err(Failure::future_version(asked, current)),
        (Some(0), Some("Exact")) => {
            Err(forbid("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        (Some(asked), Some("Exact")) if asked < current => {
            Err(ApiError::Expired("The resourceVersion for the provided list is too old.".into()).into())
        }
        (_, None | Some("Exact" | "NotOlderThan")) => Ok(()),
        (_, Some(other)) => {
            let path = field::Path::new("resourceVersionMatch");
            let errors = vec![field::not_supported(&path, other, &["Exact", "NotOlderThan", ""])];
            Err(ApiError::Invalid { kind: "ListOptions.meta.k8s.io".into(), name: String::new(), errors }
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_is_read_back_and_refused_for_another_collection() {
        let token = Continue { v: "meta.k8s.io/v1".into(), rv: 9, start: "/pods/a/x".into() };
        assert_eq!(Continue::decode(&token.encode(), "/pods/a/").unwrap(), token);
        assert!(Continue::decode(&token.encode(), "/pods/b/").is_err());
        assert!(Continue::decode("garbage!", "/pods/").is_err());
    }
}
