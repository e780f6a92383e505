//! A whole API server for a test: a real store in a directory of its own, real certificates, a real port.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use sagong_apiserver::authn::User;
use sagong_apiserver::pki::Pki;
use sagong_apiserver::{ApiServer, Config};
use sagong_store::{EmbeddedStore, Options};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub struct Server {
    pub api: ApiServer,
    pub pki: Pki,
    pub address: SocketAddr,
    pub dir: TempDir,
    shutdown: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub async fn api(dir: &std::path::Path, pki: &Pki, store: Options) -> ApiServer {
    let store = EmbeddedStore::open_with(&dir.join("store.redb"), store).unwrap();
    let config = Config {
        store: Arc::new(store),
        kinds: sagong_api::kinds::registry(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
        node_ports: 30000..=32767,
        tokens: vec![
            (pki.admin_token.clone(), User::admin("token-admin")),
            ("jane".into(), User::new("jane", &[])),
        ],
        token_key: Some(pki.token_key().unwrap()),
    };
    ApiServer::new(config).await.unwrap()
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(store: Options) -> Self {
        let dir = TempDir::new().unwrap();
        let pki = Pki::open(dir.path(), &[], &[]).unwrap();
        let api = api(dir.path(), &pki, store).await;
        let listener = tokio::net::TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        api.bootstrap("192.0.2.1".parse().unwrap(), address.port()).await.unwrap();
        let shutdown = CancellationToken::new();
        let (served, tls, stop) = (api.clone(), pki.server_config().unwrap(), shutdown.clone());
        tokio::spawn(async move { served.serve(vec![listener], tls, stop).await });
        std::fs::write(dir.path().join("kubeconfig"), pki.admin_kubeconfig(&format!("https://{address}")))
            .unwrap();
        let server = Self { api, pki, address, dir, shutdown };
        // What the controllers do in each namespace; pods run as it.
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        let account = serde_json::json!({"metadata": {"name": "default"}});
        assert_eq!(server.json("POST", accounts, &account).await.0, 201);
        server
    }

    pub fn client(&self) -> kube::Client {
        self.api.client(User::admin("test"))
    }

    /// A client with a connection of its own, as its kubeconfig says but for what `change` changes.
    pub async fn https(&self, change: impl FnOnce(&mut kube::Config)) -> kube::Client {
        let text = std::fs::read_to_string(self.kubeconfig()).unwrap();
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        change(&mut config);
        kube::Client::try_from(config).unwrap()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Runs kubectl against the server.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.dir.path()).args(args);
        let stdin = stdin.to_owned();
        tokio::task::spawn_blocking(move || run(command, &stdin)).await.unwrap()
    }

    /// The same, and it must succeed; gives what it printed.
    pub async fn ok(&self, args: &[&str], stdin: &str) -> String {
        let ran = self.kubectl(args, stdin).await;
        assert!(ran.success, "kubectl {args:?} failed:\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// The same, and it must fail; gives what it complained.
    pub async fn fails(&self, args: &[&str], stdin: &str) -> String {
        let ran = self.kubectl(args, stdin).await;
        assert!(!ran.success, "kubectl {args:?} should have failed:\n{}\n{}", ran.out, ran.err);
        ran.err
    }

    /// A request over the in-process transport; gives code, headers, body.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> (u16, http::HeaderMap, String) {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body.into())).unwrap();
        let response = self.client().send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn json(&self, method: &str, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (code, _, text) = self.request(method, path, &[("content-type", content_type)], body).await;
        (code, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }
}

pub struct Ran {
    pub success: bool,
    pub out: String,
    pub err: String,
}

fn run(mut command: Command, stdin: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether kubectl can be run; says so loudly when not, and fails where it must be there.
pub fn has_kubectl() -> bool {
    let found =
        Command::new("kubectl").args(["version", "--client"]).output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: kubectl not found");
        assert!(std::env::var("CI").is_err_and(|_| true), "kubectl is needed in CI");
    }
    found
}

pub fn deployment(name: &str) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      name: {name}
      labels: {{app: {name}}}
    spec:
      containers:
      - image: luksa/kubia:v1
        name: nodejs
"#
    )
}

pub fn pod(name: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "luksa/kubia:v1"}]},
    })
}

pub fn config_map(name: &str) -> serde_json::Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}
