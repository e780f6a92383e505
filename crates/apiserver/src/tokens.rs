//! Tokens of service accounts: JSON Web Tokens signed with ES256. `bound`: what they end with.

mod bound;

use crate::answer;
use crate::authn::{self, AUTHENTICATED, User};
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::input;
use crate::state::Core;
use crate::wire::Stored;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bound::Bound;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use sagong_api::error::ApiError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who issues the tokens, and whom they are for unless the request says otherwise.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How long a token lives unless the request says otherwise, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// The shortest life that may be asked for, in seconds.
const MIN_SECONDS: i64 = 600;
/// The longest, in seconds.
const MAX_SECONDS: i64 = 1 << 32;

/// Signs and verifies tokens.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    /// The node the token ends with, or the one of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    /// The pod the token ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    /// The secret the token ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

impl Signer {
    /// From an ECDSA P-256 key in PKCS#8 DER.
    pub(crate) fn new(pkcs8: &[u8]) -> Result<Self, ring::error::KeyRejected> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)?;
        Ok(Self { key, random })
    }

    fn sign(&self, claims: &Claims) -> Result<String, ring::error::Unspecified> {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"ES256","typ":"JWT"}"#);
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{header}.{payload}");
        let signature = self.key.sign(&self.random, signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this server signed and that is valid at `now`.
    fn verify(&self, token: &str, now: Timestamp) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, payload) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let now = now.as_second();
        (claims.iss == ISSUER && claims.nbf <= now && now < claims.exp).then_some(claims)
    }
}

/// Who a token stands for, and for which of the audiences that were asked about.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) user: Arc<User>,
    /// Never empty.
    pub(crate) audiences: Vec<String>,
}

/// Why a token stands for nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is none of ours, or not valid any more.
    #[error("invalid bearer token")]
    Invalid,
    /// It is meant for somebody else.
    #[error("[invalid bearer token, token audiences {own:?} is invalid for the target audiences {asked:?}]")]
    Audience { own: Vec<String>, asked: Vec<String> },
}

/// The user a token stands for, if it is valid for one of these audiences (`TokenReviewSpec.audiences`; without any,
/// for this server) and what it is bound to still exists.
pub(crate) async fn authenticate(
    core: &Core,
    token: &str,
    audiences: &[String],
) -> Result<Authenticated, Refusal> {
    let own = [ISSUER.to_owned()];
    let asked = if audiences.is_empty() { &own } else { audiences };
    // Tokens that name no audience are for this server.
    if let Some(user) = core.tokens.find(token) {
        return Ok(Authenticated { user, audiences: overlap(&own, asked)? });
    }
    let now = Timestamp::now();
    let claims = core.signer.as_ref().and_then(|signer| signer.verify(token, now));
    let claims = claims.ok_or(Refusal::Invalid)?;
    let audiences = overlap(&claims.aud, asked)?;
    match bound::holds(core, &claims.kubernetes, now).await {
        Ok(true) => Ok(Authenticated { user: Arc::new(user(&claims)), audiences }),
        _ => Err(Refusal::Invalid),
    }
}

/// The audiences of a token that were asked about.
fn overlap(own: &[String], asked: &[String]) -> Result<Vec<String>, Refusal> {
    let both: Vec<String> = asked.iter().filter(|audience| own.contains(audience)).cloned().collect();
    if both.is_empty() {
        return Err(Refusal::Audience { own: own.to_vec(), asked: asked.to_vec() });
    }
    Ok(both)
}

fn user(claims: &Claims) -> User {
    let Private { namespace, serviceaccount: account, pod, node, .. } = &claims.kubernetes;
    let mut extra = BTreeMap::from([(extra_key("credential-id"), vec![format!("JTI={}", claims.jti)])]);
    for (what, reference) in [("pod", pod), ("node", node)] {
        let Some(reference) = reference else { continue };
        extra.insert(extra_key(&format!("{what}-name")), vec![reference.name.clone()]);
        if !reference.uid.is_empty() {
            extra.insert(extra_key(&format!("{what}-uid")), vec![reference.uid.clone()]);
        }
    }
    let mut groups = authn::service_account_groups(namespace);
    groups.push(AUTHENTICATED.into());
    User { name: claims.sub.clone(), uid: account.uid.clone(), groups, extra }
}

fn extra_key(name: &str) -> String {
    format!("authentication.kubernetes.io/{name}")
}

/// POST of `/serviceaccounts/NAME/token`: issues a token.
pub(crate) async fn request(context: &Context) -> Outcome<Response<Body>> {
    let json = input::to_json(&context.headers, &context.body)?;
    let mut request = read(&json)?;
    let entry = context.core.store.get(&context.key()).await?;
    let entry = entry.ok_or_else(|| context.resource.not_found(context.name()))?;
    let account = context.resource.decode_stored(&Stored::from(&entry))?;
    let seconds = request.spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    check_seconds(context.name(), seconds)?;
    let signer = context.core.signer.as_ref();
    let signer = signer.ok_or_else(|| ApiError::Unavailable("no key to sign tokens with".into()))?;
    let now = Timestamp::now();
    let namespace = context.namespace.clone().unwrap_or_default();
    if request.spec.audiences.is_empty() {
        request.spec.audiences = vec![ISSUER.into()];
    }
    request.metadata.name = Some(context.name().into());
    let Bound { pod, secret, node } = Bound::of(&context.core, &namespace, &request).await?;
    let claims = Claims {
        aud: request.spec.audiences.clone(),
        exp: now.as_second() + seconds,
        iat: now.as_second(),
        iss: ISSUER.into(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{namespace}:{}", context.name()),
        kubernetes: Private {
            namespace: namespace.clone(),
            node,
            pod,
            secret,
            serviceaccount: Reference {
                name: context.name().into(),
                uid: account.metadata().uid.clone().unwrap_or_default(),
            },
        },
    };
    let token = signer.sign(&claims).map_err(|_| Failure::internal("signing the token failed"))?;
    request.metadata.namespace = Some(namespace);
    request.metadata.creation_timestamp = Some(Time(now));
    request.spec.expiration_seconds = Some(seconds);
    let expires = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    request.status = Some(TokenRequestStatus { token, expiration_timestamp: Time(expires) });
    Ok(answer::json_value(StatusCode::CREATED, &request))
}

/// Reads a request. Its status is ours to give; clients send an empty one, which is not a valid status.
fn read(json: &[u8]) -> Outcome<TokenRequest> {
    input::check_type(json, "authentication.k8s.io/v1", "TokenRequest")?;
    let read = serde_json::from_slice::<serde_json::Value>(json).and_then(|mut value| {
        value.as_object_mut().map(|object| object.remove("status"));
        serde_json::from_value(value)
    });
    read.map_err(|error| Failure::bad_request(format!("TokenRequest cannot be read: {error}")))
}

fn check_seconds(name: &str, seconds: i64) -> Outcome<()> {
    let detail = match seconds {
        s if s < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let path = sagong_api::field::Path::new("spec.expirationSeconds");
    let errors = vec![sagong_api::field::invalid(&path, seconds, detail)];
    Err(ApiError::Invalid { kind: "TokenRequest.authentication.k8s.io".into(), name: name.into(), errors }
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let key =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Signer::new(key.as_ref()).unwrap()
    }

    fn claims(exp: i64) -> Claims {
        let account = Reference { name: "builder".into(), uid: "u".into() };
        Claims {
            aud: vec![ISSUER.into()],
            exp,
            iat: 100,
            iss: ISSUER.into(),
            jti: "j".into(),
            kubernetes: Private {
                namespace: "default".into(),
                node: None,
                pod: None,
                secret: None,
                serviceaccount: account,
            },
            nbf: 100,
            sub: "system:serviceaccount:default:builder".into(),
        }
    }

    #[test]
    fn a_token_is_valid_until_it_expires_and_only_as_it_was_signed() {
        let (signer, at) = (signer(), |second| Timestamp::from_second(second).unwrap());
        let token = signer.sign(&claims(200)).unwrap();
        assert!(signer.verify(&token, at(150)).is_some());
        assert!(signer.verify(&token, at(200)).is_none(), "expired");
        assert!(signer.verify(&token, at(50)).is_none(), "not yet valid");
        assert!(self::signer().verify(&token, at(150)).is_none(), "another key");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims(999)).unwrap());
        let forged = format!("{}.{forged}.{signature}", head.split_once('.').unwrap().0);
        assert!(signer.verify(&forged, at(150)).is_none(), "changed claims");
    }
}
