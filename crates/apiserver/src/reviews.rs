//! Questions about users: `kubectl auth can-i`, `kubectl auth whoami`. Nothing of them is stored.

use crate::answer;
use crate::authn::User;
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::failure::{Failure, Outcome};
use crate::negotiate::{self, Shape};
use crate::rest::input;
use crate::state::Core;
use crate::tokens;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use serde::de::DeserializeOwned;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    SelfSubject,
    Token,
    SelfAccess,
    SelfRules,
    Access,
}

/// Every kind of question: group, plural, kind.
pub(crate) const ALL: [(Review, &str, &str, &str); 5] = [
    (Review::SelfSubject, "authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    (Review::Token, "authentication.k8s.io", "tokenreviews", "TokenReview"),
    (Review::SelfAccess, "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    (Review::SelfRules, "authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    (Review::Access, "authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
];

fn info(user: &User) -> UserInfo {
    let extra = user.extra.clone();
    UserInfo {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: Some(user.groups.clone()),
        extra: (!extra.is_empty()).then_some(extra),
    }
}

fn access(
    user: &User,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> SubjectAccessReviewStatus {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let attributes = match (resource, path) {
        (Some(r), _) => Attributes {
            verb: text(&r.verb),
            group: text(&r.group),
            resource: text(&r.resource),
            subresource: text(&r.subresource),
            namespace: text(&r.namespace),
            name: text(&r.name),
            path: None,
        },
        (None, Some(p)) => {
            Attributes { verb: text(&p.verb), path: Some(text(&p.path)), ..Attributes::default() }
        }
        (None, None) => Attributes::default(),
    };
    SubjectAccessReviewStatus { allowed: authz::is_allowed(user, &attributes), ..Default::default() }
}

impl Review {
    /// The question asked at this path.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let found = ALL.iter().find(|(_, g, p, _)| version == "v1" && *g == group && *p == plural);
        found.map(|(review, ..)| *review)
    }

    /// Answers with the question and its status.
    pub(crate) async fn answer(
        self,
        core: &Core,
        user: &User,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Outcome<Response<Body>> {
        // They are in no store, and have no metadata that a table could show.
        negotiate::negotiate_among(headers, |shape| shape == Shape::Object)?;
        match self {
            Self::SelfSubject => {
                let mut review: SelfSubjectReview = read(headers, body)?;
                review.status = Some(SelfSubjectReviewStatus { user_info: Some(info(user)) });
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
            Self::Token => {
                let mut review: TokenReview = read(headers, body)?;
                review.status = Some(token_status(core, &review.spec).await?);
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
            Self::SelfAccess => {
                let mut review: SelfSubjectAccessReview = read(headers, body)?;
                let spec = &review.spec;
                review.status = Some(access(
                    user,
                    spec.resource_attributes.as_ref(),
                    spec.non_resource_attributes.as_ref(),
                ));
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
            Self::SelfRules => {
                let mut review: SelfSubjectRulesReview = read(headers, body)?;
                review.status = Some(rules(user));
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
            Self::Access => {
                let mut review: SubjectAccessReview = read(headers, body)?;
                let spec = &review.spec;
                let subject = User {
                    name: spec.user.clone().unwrap_or_default(),
                    groups: spec.groups.clone().unwrap_or_default(),
                    ..User::default()
                };
                review.status = Some(access(
                    &subject,
                    spec.resource_attributes.as_ref(),
                    spec.non_resource_attributes.as_ref(),
                ));
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
        }
    }
}

/// Whose a token is, and for which of the audiences the question names it is valid.
async fn token_status(core: &Core, spec: &TokenReviewSpec) -> Outcome<TokenReviewStatus> {
    let token = spec.token.as_deref().unwrap_or_default();
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let asked = spec.audiences.as_deref().unwrap_or_default();
    Ok(match tokens::authenticate(core, token, asked).await {
        Ok(found) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(info(&found.user)),
            audiences: Some(found.audiences),
            error: None,
        },
        Err(refusal) => {
            TokenReviewStatus { error: Some(refusal.to_string()), ..TokenReviewStatus::default() }
        }
    })
}

/// What `kubectl auth can-i --list` shows.
fn rules(user: &User) -> SubjectRulesReviewStatus {
    let all = || Some(vec!["*".to_owned()]);
    let everything = authz::is_allowed(user, &Attributes { verb: "*".into(), ..Attributes::default() });
    let own = ResourceRule {
        api_groups: Some(vec!["authorization.k8s.io".into(), "authentication.k8s.io".into()]),
        resources: Some(vec![
            "selfsubjectaccessreviews".into(),
            "selfsubjectrulesreviews".into(),
            "selfsubjectreviews".into(),
        ]),
        verbs: vec!["create".into()],
        resource_names: None,
    };
    let mut status = SubjectRulesReviewStatus { resource_rules: vec![own], ..Default::default() };
    if everything {
        let rule = ResourceRule {
            api_groups: all(),
            resources: all(),
            verbs: vec!["*".into()],
            resource_names: None,
        };
        status.resource_rules.insert(0, rule);
        status.non_resource_rules.push(NonResourceRule { non_resource_urls: all(), verbs: vec!["*".into()] });
    }
    status
}

fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Outcome<T> {
    let json = input::to_json(headers, body)?;
    serde_json::from_slice(&json)
        .map_err(|error| Failure::bad_request(format!("reading the review: {error}")))
}
