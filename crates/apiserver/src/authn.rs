//! Who is asking: client certificates and bearer tokens.

use crate::body::BoxError;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Someone who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// E.g. `kubernetes-admin`, `system:kube-scheduler`.
    pub name: String,
    /// Unique over time, where there is such a thing.
    pub uid: String,
    /// E.g. `system:masters`.
    pub groups: Vec<String>,
    /// Anything more that is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group of everyone who could be identified.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// The groups of the service accounts of a namespace.
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

impl User {
    /// A user in these groups and in `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// A user who may do everything.
    pub fn admin(name: &str) -> Self {
        Self::new(name, &[MASTERS])
    }

    /// From a client certificate that TLS has verified: the common name is the user, organisations are groups.
    pub(crate) fn from_certificate(der: &[u8]) -> Result<Self, BoxError> {
        let (_, certificate) = X509Certificate::from_der(der)?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().ok_or("the client certificate has no common name")?;
        let mut groups = Vec::new();
        for organization in subject.iter_organization() {
            groups.push(organization.as_str()?.to_owned());
        }
        groups.push(AUTHENTICATED.to_owned());
        Ok(Self { name: name.as_str()?.to_owned(), groups, ..Self::default() })
    }
}

/// The bearer tokens that are known, by digest: comparing digests takes the same time whatever is given.
#[derive(Default)]
pub(crate) struct Tokens(Vec<([u8; 32], Arc<User>)>);

fn hashed(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

impl Tokens {
    pub(crate) fn new(tokens: Vec<(String, User)>) -> Self {
        let known = tokens.into_iter().filter(|(token, _)| !token.is_empty());
        Self(known.map(|(token, user)| (hashed(&token), Arc::new(user))).collect())
    }

    /// The user whose token this is.
    pub(crate) fn find(&self, token: &str) -> Option<Arc<User>> {
        let given = hashed(token);
        let mut found = None;
        for (known, user) in &self.0 {
            let differing = known.iter().zip(&given).fold(0u8, |bits, (a, b)| bits | (a ^ b));
            if differing == 0 {
                found = Some(user.clone());
            }
        }
        found
    }
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_user_and_no_other_does() {
        let tokens =
            Tokens::new(vec![("secret".into(), User::admin("a")), (String::new(), User::admin("nobody"))]);
        assert_eq!(tokens.find("secret").map(|u| u.name.clone()), Some("a".into()));
        assert_eq!(tokens.find("secre"), None);
        assert_eq!(tokens.find(""), None);
    }
}
