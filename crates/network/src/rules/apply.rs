//! Handing rules to the kernel through `nft -f -`: one call, one transaction, all or nothing.

use super::compile;
use super::model::{Node, Ruleset, ServicePort};
use crate::NetworkError;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The rules of one instance and what the kernel is known to have of them.
#[derive(Debug)]
pub(crate) struct Rules {
    node: Node,
    /// None: unknown, after a start or a failure. The next transaction replaces the table.
    applied: Option<Ruleset>,
    /// The last ones asked for: `applied` without what only lingers.
    last: Option<Ruleset>,
}

impl Rules {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, applied: None, last: None }
    }

    /// Makes the table if there is none. One of an earlier run is left as it is, so that services go on
    /// until the first [`Rules::apply`].
    pub(crate) async fn prepare(&mut self) -> Result<(), NetworkError> {
        let gateway = crate::pod::bridge::gateway(self.node.node_cidr);
        super::foreign::admit(&self.node.instance, gateway).await?;
        let table = self.node.table();
        if nft(&["-t", "list", "table", "ip", &table], "").await.is_ok() {
            return Ok(());
        }
        self.apply(&[]).await
    }

    /// Brings the kernel to these services. Returns once the kernel has them.
    pub(crate) async fn apply(&mut self, services: &[ServicePort]) -> Result<(), NetworkError> {
        let exact = compile::compile(&self.node, services);
        if self.applied.is_some() && self.last.as_ref() == Some(&exact) {
            return Ok(());
        }
        let mut wanted = exact.clone();
        if let Some(last) = &self.last {
            compile::linger(last, &mut wanted);
        }
        let changed = match self.applied.take() {
            Some(applied) => {
                let text = compile::diff(&applied, &wanted);
                text.is_empty() || nft(&["-f", "-"], &text).await.is_ok()
            }
            None => false,
        };
        if !changed {
            // Nothing is known of the table, or somebody else changed it: make it anew.
            replace(&wanted).await?;
        }
        self.applied = Some(wanted);
        self.last = Some(exact);
        Ok(())
    }
}

/// Makes the table anew. Clients whom services remembered are remembered on, if that can be.
async fn replace(wanted: &Ruleset) -> Result<(), NetworkError> {
    let text = compile::replace(wanted);
    let memory = if wanted.memories.is_empty() {
        String::new()
    } else {
        compile::remember(wanted, &remembered(&wanted.node.table()).await)
    };
    if !memory.is_empty() && nft(&["-f", "-"], &format!("{text}{memory}")).await.is_ok() {
        return Ok(());
    }
    nft(&["-f", "-"], &text).await.map(drop)
}

/// The clients in a table's sets, and for how many seconds each will be there. Empty if there is no table.
async fn remembered(table: &str) -> BTreeMap<String, Vec<(Ipv4Addr, u32)>> {
    let listed = nft(&["-j", "list", "sets", "table", "ip", table], "").await.unwrap_or_default();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let sets = objects.map(|object| &object["set"]);
    let client = |element: &serde_json::Value| {
        let address = element["elem"]["val"].as_str()?.parse().ok()?;
        Some((address, u32::try_from(element["elem"]["expires"].as_u64()?).ok()?))
    };
    let clients =
        |set: &serde_json::Value| set["elem"].as_array().into_iter().flatten().filter_map(client).collect();
    sets.filter_map(|set| Some((set["name"].as_str()?.to_owned(), clients(set)))).collect()
}

/// Removes an instance's table and its rules in other tables. No error if there are none.
pub(crate) async fn destroy(instance: &str) -> Result<(), NetworkError> {
    super::foreign::dismiss(instance).await?;
    nft(&["-f", "-"], &compile::remove(instance)).await.map(drop)
}

/// Runs nft with arguments and standard input, and gives its standard output.
pub(crate) async fn nft(arguments: &[&str], input: &str) -> Result<String, NetworkError> {
    let failed =
        |message: String| NetworkError::Failed { step: "running", object: "nft".to_owned(), message };
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NetworkError::NoNft,
            _ => failed(error.to_string()),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ends before it read everything, its own message says more than "broken pipe".
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let line = message.lines().next().unwrap_or("no message").trim().to_owned();
    tracing::debug!(%message, input, "nft refused");
    Err(failed(line))
}

/// nft is in `sbin`, which is not on everybody's PATH.
fn program() -> &'static str {
    ["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap_or("nft")
}
