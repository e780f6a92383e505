//! Tokens of service accounts: JSON Web Tokens signed with ES256.

use crate::answer;
use crate::authn::{AUTHENTICATED, User};
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::input;
use crate::state::Core;
use crate::wire::Stored;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use sagong_api::error::ApiError;
use sagong_api::kind::Object;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who issues the tokens, and whom they are for unless the request says otherwise.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
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
    /// The node of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    /// The pod the token ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
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
        let valid = claims.iss == ISSUER && claims.nbf <= now && now < claims.exp;
        (valid && claims.aud.iter().any(|audience| audience == ISSUER)).then_some(claims)
    }
}

/// The user a service account token stands for, if it is valid and the account still exists.
pub(crate) async fn authenticate(core: &Core, token: &str) -> Option<Arc<User>> {
    let claims = core.signer.as_ref()?.verify(token, Timestamp::now())?;
    let Private { namespace, serviceaccount: account, pod, node } = &claims.kubernetes;
    find(core, "serviceaccounts", namespace, account).await.ok()??;
    if let Some(pod) = pod {
        // With the pod ends what it was given.
        find(core, "pods", namespace, pod).await.ok()??;
    }
    let mut extra = BTreeMap::from([(extra_key("credential-id"), vec![format!("JTI={}", claims.jti)])]);
    for (what, reference) in [("pod", pod), ("node", node)] {
        let Some(reference) = reference else { continue };
        extra.insert(extra_key(&format!("{what}-name")), vec![reference.name.clone()]);
        if !reference.uid.is_empty() {
            extra.insert(extra_key(&format!("{what}-uid")), vec![reference.uid.clone()]);
        }
    }
    Some(Arc::new(User {
        name: claims.sub.clone(),
        uid: account.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.into(),
        ],
        extra,
    }))
}

fn extra_key(name: &str) -> String {
    format!("authentication.kubernetes.io/{name}")
}

/// The object a token names, if it is still the one that was meant.
async fn find(
    core: &Core,
    plural: &str,
    namespace: &str,
    named: &Reference,
) -> Outcome<Option<Box<dyn Object>>> {
    let resource = core.resources.core(plural)?;
    let Some(entry) = core.store.get(&resource.key(Some(namespace), &named.name)).await? else {
        return Ok(None);
    };
    let object = resource.decode_stored(&Stored::from(&entry))?;
    Ok(Some(object).filter(|object| object.metadata().uid.as_deref() == Some(named.uid.as_str())))
}

/// The pod a token is to be bound to, and the node it is on.
async fn bound(
    core: &Core,
    namespace: &str,
    request: &TokenRequest,
) -> Outcome<(Option<Reference>, Option<Reference>)> {
    let Some(wanted) = &request.spec.bound_object_ref else { return Ok((None, None)) };
    let (kind, version) = (wanted.kind.as_deref(), wanted.api_version.as_deref());
    if (kind, version) != (Some("Pod"), Some("v1")) {
        let detail = format!("cannot bind token to object of type {}", kind.unwrap_or_default());
        return Err(Failure::bad_request(detail));
    }
    let pods = core.resources.core("pods")?;
    let name = wanted.name.clone().unwrap_or_default();
    let entry = core.store.get(&pods.key(Some(namespace), &name)).await?;
    let entry = entry.ok_or_else(|| pods.not_found(&name))?;
    let object = pods.decode_stored(&Stored::from(&entry))?;
    let uid = object.metadata().uid.clone().unwrap_or_default();
    if let Some(given) = wanted.uid.as_deref().filter(|given| !given.is_empty() && *given != uid) {
        let detail = format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(pods.conflict(&name, detail).into());
    }
    let spec = object.as_any().downcast_ref::<Pod>().and_then(|pod| pod.spec.as_ref());
    let account = spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    let asked = request.metadata.name.clone().unwrap_or_default();
    if account != asked {
        let detail = format!(
            "cannot bind token for serviceaccount {asked:?} to pod running with different serviceaccount name."
        );
        return Err(Failure::bad_request(detail));
    }
    let node =
        spec.and_then(|spec| spec.node_name.clone()).map(|name| Reference { name, uid: String::new() });
    Ok((Some(Reference { name, uid }), node))
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
    let (pod, node) = bound(&context.core, &namespace, &request).await?;
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
