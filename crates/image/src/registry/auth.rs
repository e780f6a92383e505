//! Who we are to a registry: nobody until it asks, then basic authentication or a token, as its challenge says
//! (RFC 7235; the distribution project's token specification).

use super::{Refusal, RegistryError, limited, patiently};
use crate::Credentials;
use http_auth::parser::ChallengeParser;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

/// Longest answer of a token server, in bytes.
const TOKEN_LIMIT: u64 = 1 << 20;

/// What requests carry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    None,
    Basic(Credentials),
    Bearer(String),
}

impl Authorization {
    pub(super) fn apply(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic(user) => request.basic_auth(&user.username, Some(&user.password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Answers challenges, and keeps the answer for the next request.
pub(super) struct Authorizer {
    repository: String,
    /// The registry is spoken to in TLS: credentials must not leave it.
    is_secure: bool,
    credentials: Option<Credentials>,
    current: Mutex<Authorization>,
}

impl Authorizer {
    pub(super) fn new(repository: &str, is_secure: bool, credentials: Option<Credentials>) -> Self {
        let repository = repository.to_owned();
        Self { repository, is_secure, credentials, current: Mutex::new(Authorization::None) }
    }

    /// What to send with the next request.
    pub(super) async fn current(&self) -> Authorization {
        self.current.lock().await.clone()
    }

    /// The error for somebody who is not let in.
    pub(super) fn denied(&self, said: String) -> RegistryError {
        let given = match self.credentials {
            Some(_) => "the credentials given were refused",
            None => "no credentials were given",
        };
        RegistryError::Denied { given, said }
    }

    /// What to send after a refusal of `used`.
    pub(super) async fn answer(
        &self,
        http: &Client,
        refusal: &Refusal,
        used: &Authorization,
    ) -> Result<Authorization, RegistryError> {
        let mut current = self.current.lock().await;
        if *current != *used {
            return Ok(current.clone()); // another request has asked meanwhile
        }
        let headers = refusal.headers.get_all(WWW_AUTHENTICATE);
        let challenges = headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenges);
        // A token says less about us than a password.
        let chosen = challenges.max_by_key(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let answer = match (chosen, &self.credentials) {
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                Authorization::Bearer(self.token(http, &realm, service, scope).await?)
            }
            (Some(Challenge::Basic), Some(user)) => Authorization::Basic(user.clone()),
            _ => return Err(self.denied(refusal.said.clone())),
        };
        *current = answer.clone();
        Ok(answer)
    }

    async fn token(
        &self,
        http: &Client,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<String, RegistryError> {
        let nonsense = |why: String| RegistryError::Nonsense(format!("token server {realm:?}: {why}"));
        let mut url = Url::parse(realm).map_err(|error| nonsense(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(nonsense("its address is neither http nor https".into()));
        }
        if self.is_secure && url.scheme() != "https" && self.credentials.is_some() {
            return Err(nonsense("the credentials would be sent to it in the clear".into()));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let user = self.credentials.clone().map_or(Authorization::None, Authorization::Basic);
        match patiently(|| user.apply(http.get(url.clone()))).await? {
            Ok(response) => {
                let body = limited(response, TOKEN_LIMIT).await?;
                let grant: Grant =
                    serde_json::from_slice(&body).map_err(|error| nonsense(error.to_string()))?;
                let token = grant.token.or(grant.access_token).filter(|token| !token.is_empty());
                token.ok_or_else(|| nonsense("its answer has no token".into()))
            }
            Err(refusal) if matches!(refusal.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(self.denied(refusal.said))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// What a token server answers.
#[derive(Deserialize)]
struct Grant {
    token: Option<String>,
    access_token: Option<String>,
}

/// The challenges of one header that are understood.
fn challenges(header: &str) -> Vec<Challenge> {
    let understood = |challenge: http_auth::ChallengeRef<'_>| {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        match challenge.scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            }),
            _ => None,
        }
    };
    ChallengeParser::new(header).map_while(Result::ok).filter_map(understood).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
        Challenge::Bearer { realm: realm.into(), service, scope }
    }

    #[rstest]
    #[case("Basic realm=\"x\"", vec![Challenge::Basic])]
    #[case(
        "Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:a/b:pull,push\"",
        vec![bearer("https://a/token", Some("s"), Some("repository:a/b:pull,push"))]
    )]
    #[case("bearer REALM=\"r\"", vec![bearer("r", None, None)])]
    #[case("Bearer service=\"s\"", vec![])]
    #[case("Negotiate, Basic realm=\"x\"", vec![Challenge::Basic])]
    #[case("Basic realm=\"x\", Bearer realm=\"r\"", vec![Challenge::Basic, bearer("r", None, None)])]
    #[case("===", vec![])]
    fn challenges_are_read(#[case] header: &str, #[case] expected: Vec<Challenge>) {
        assert_eq!(challenges(header), expected);
    }

    #[tokio::test]
    async fn a_password_is_not_sent_in_the_clear_for_a_registry_in_tls() {
        let credentials = Credentials { username: "user".into(), password: "s3cret".into() };
        let auth = Authorizer::new("kubia", true, Some(credentials));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let error = auth.token(&Client::new(), "http://192.0.2.1/token", None, None).await.unwrap_err();
        assert!(error.to_string().contains("in the clear"), "{error}");
    }
}
