//! What only a real connection shows: TLS, identity, compression, HTTP/2.

#![allow(clippy::unwrap_used)]

mod support;

use kube::{Client, Config};
use support::{Server, config_map};

fn without_certificate(config: &mut Config) {
    config.auth_info = kube::config::AuthInfo::default();
}

async fn get(client: &Client, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn only_health_and_version_are_open_to_strangers() {
    let server = Server::start().await;
    let stranger = server.https(without_certificate).await;
    for path in ["/livez", "/readyz", "/healthz", "/version", "/readyz?verbose"] {
        assert_eq!(get(&stranger, path).await.0, 200, "{path}");
    }
    for path in ["/api", "/apis", "/openapi/v3", "/api/v1/pods", "/"] {
        let (code, body) = get(&stranger, path).await;
        assert_eq!(code, 401, "{path}: {body}");
    }
    let admin = server.https(|_| {}).await;
    assert_eq!(get(&admin, "/api/v1/pods").await.0, 200);
}

#[tokio::test]
async fn tokens_identify_and_the_unprivileged_are_told_what_they_may_not() {
    let server = Server::start().await;
    let with_token = |token: String| {
        move |config: &mut Config| {
            config.auth_info = kube::config::AuthInfo { token: Some(token.into()), ..Default::default() };
        }
    };
    let admin = server.https(with_token(server.pki.admin_token.clone())).await;
    assert_eq!(get(&admin, "/api/v1/pods").await.0, 200);
    let wrong = server.https(with_token("wrong".into())).await;
    for path in ["/api/v1/pods", "/version", "/livez"] {
        assert_eq!(get(&wrong, path).await.0, 401, "{path}");
    }
    let jane = server.https(with_token("jane".into())).await;
    let (code, body) = get(&jane, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(get(&jane, "/api").await.0, 200);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_let_in() {
    let server = Server::start().await;
    let other = tempfile::TempDir::new().unwrap();
    let stranger = sagong_apiserver::pki::Pki::open(other.path(), &[], &[]).unwrap();
    let mixed = sagong_apiserver::pki::kubeconfig(
        &format!("https://{}", server.address),
        &server.pki.ca_pem,
        &stranger.admin_pem,
        &stranger.admin_key_pem,
    );
    std::fs::write(server.kubeconfig(), mixed).unwrap();
    let client = server.https(|_| {}).await;
    let request = http::Request::get("/api/v1/pods").body(kube::client::Body::empty()).unwrap();
    assert!(client.send(request).await.is_err());
}

#[tokio::test]
async fn large_lists_arrive_whole_through_compression() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for index in 0..40 {
        let mut map = config_map(&format!("m{index}"));
        map["data"]["big"] = serde_json::json!("x".repeat(10_000));
        assert_eq!(server.json("POST", path, &map).await.0, 201);
    }
    let admin = server.https(|_| {}).await;
    let (code, body) = get(&admin, path).await;
    let list: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(40)));
}

#[test]
fn certificates_are_kept_and_made_anew_when_names_change() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::TempDir::new().unwrap();
    let open = |names: &[String]| sagong_apiserver::pki::Pki::open(dir.path(), names, &[]).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("pki").join(name)).unwrap();
    let first = open(&[]);
    let serving = read("apiserver.crt");
    let again = open(&[]);
    assert_eq!(
        (first.ca_pem.clone(), first.admin_pem, first.admin_token),
        (again.ca_pem, again.admin_pem, again.admin_token)
    );
    assert_eq!(read("apiserver.crt"), serving);
    let renamed = open(&["box.example".into()]);
    assert_eq!(renamed.ca_pem, first.ca_pem);
    assert_ne!(read("apiserver.crt"), serving);
    for key in ["ca.key", "apiserver.key", "admin.key", "admin.token", "sa.key"] {
        let mode = std::fs::metadata(dir.path().join("pki").join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn certificates_name_the_key_that_signed_them_as_strict_clients_ask() {
    use x509_parser::{extensions::ParsedExtension, pem::parse_x509_pem};
    let dir = tempfile::TempDir::new().unwrap();
    sagong_apiserver::pki::Pki::open(dir.path(), &[], &[]).unwrap();
    let key_ids = |name: &str| {
        let pem = std::fs::read(dir.path().join("pki").join(name)).unwrap();
        let (_, pem) = parse_x509_pem(&pem).unwrap();
        let (mut own, mut issuer) = (None, None);
        for extension in pem.parse_x509().unwrap().extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    issuer = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        (own, issuer)
    };
    let (authority, _) = key_ids("ca.crt");
    assert!(authority.is_some());
    for leaf in ["apiserver.crt", "admin.crt"] {
        assert_eq!(key_ids(leaf).1, authority, "{leaf}");
    }
}
