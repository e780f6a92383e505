//! Tokens of service accounts: asked for once, kept until most of their life is over, then renewed.

use super::content::TokenWish;
use crate::clock::{between, later};
use crate::shared::Shared;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// How old a token may get, however long it lives, as upstream's kubelet has it.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// How soon a renewal that failed is tried again while the token is still good.
const RETRY: Duration = Duration::from_secs(10);

/// The tokens that are held, by the uid of the pod they are for.
#[derive(Default)]
pub(crate) struct Tokens {
    held: Mutex<HashMap<String, HashMap<TokenWish, Held>>>,
}

#[derive(Clone)]
struct Held {
    token: String,
    renew: Timestamp,
    expires: Timestamp,
}

impl Tokens {
    /// A token for a pod, and when it wants to be asked for again.
    ///
    /// # Errors
    /// Why none could be had, if there is no good one left.
    pub(super) async fn get(
        &self,
        shared: &Shared,
        pod: &Pod,
        wish: &TokenWish,
    ) -> Result<(String, Timestamp), String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let now = shared.clock.now();
        let held = self.held.lock().get(&uid).and_then(|of_pod| of_pod.get(wish)).cloned();
        if let Some(held) = held.as_ref().filter(|held| now < held.renew) {
            return Ok((held.token.clone(), held.renew));
        }
        match request(shared, pod, wish, now).await {
            Ok(fresh) => {
                let answer = (fresh.token.clone(), fresh.renew);
                self.held.lock().entry(uid).or_default().insert(wish.clone(), fresh);
                Ok(answer)
            }
            Err(error) => match held.filter(|held| now < held.expires) {
                Some(held) => {
                    tracing::warn!(error, "a service account token was not renewed");
                    Ok((held.token, later(now, RETRY)))
                }
                None => Err(error),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.held.lock().remove(uid);
    }
}

async fn request(shared: &Shared, pod: &Pod, wish: &TokenWish, now: Timestamp) -> Result<Held, String> {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let audiences = Some(wish.audience.clone()).filter(|audience| !audience.is_empty());
    let spec = TokenRequestSpec {
        audiences: audiences.into_iter().collect(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(wish.seconds),
    };
    let wanted = TokenRequest { spec, ..Default::default() };
    let answer = shared.cluster.request_token(namespace, account, &wanted).await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
    let expires = answer.expiration_timestamp.0;
    Ok(Held { token: answer.token, renew: renewal(now, expires), expires })
}

/// When a token issued at `now` is renewed: after four fifths of its life, at the latest after a day.
fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    later(now, (between(now, expires) * 4 / 5).min(OLDEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(600, 480)]
    #[case(3607, 2885)]
    #[case(1_000_000, 86_400)]
    fn a_token_is_renewed_long_before_it_expires(#[case] life: u64, #[case] renewed_after: u64) {
        let now = crate::clock::test_epoch();
        let renew = renewal(now, later(now, Duration::from_secs(life)));
        assert_eq!(between(now, renew).as_secs(), renewed_after);
    }
}
