//! Getting pods' packets past other people's rules.
//!
//! Docker and some firewalls set the policy of `ip filter FORWARD` to drop, and firewalls (ufw) that of `INPUT`. What
//! another table accepts does not help against that, so rules go into those chains themselves (or into Docker's
//! chain made for this), each with a comment that names the instance, by which they are found and removed again.

use super::apply::nft;
use super::model::table;
use crate::NetworkError;
use crate::pod::veth;
use std::net::Ipv4Addr;

/// Lets packets from and to pods pass, and those from pods to the host under the gateway's address (the API
/// server, the name server), where somebody drops what is not allowed. No error if nobody does.
pub(crate) async fn admit(instance: &str, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    let (pods, comment) = (format!("\"{}*\"", veth::prefix(instance)), table(instance));
    let mut text = String::new();
    let (forward, input) = tokio::join!(find_chain("FORWARD"), find_chain("INPUT"));
    for (chain, sides) in [
        (forward, vec![format!("iifname {pods}"), format!("oifname {pods}")]),
        (input, vec![format!("iifname {pods} ip daddr {gateway}")]),
    ] {
        let Some(chain) = chain else { continue };
        if !handles(&list(&chain).await, &comment).is_empty() {
            continue;
        }
        tracing::info!(chain, "packets are dropped by another program's policy: letting those of pods pass");
        let rule =
            |side| format!("insert rule ip filter {chain} {side} counter accept comment \"{comment}\"\n");
        text.extend(sides.into_iter().map(rule));
    }
    if text.is_empty() { Ok(()) } else { nft(&["-f", "-"], &text).await.map(drop) }
}

/// Removes what [`admit`] added. No error if there is nothing.
pub(crate) async fn dismiss(instance: &str) -> Result<(), NetworkError> {
    for chain in ["DOCKER-USER", "FORWARD", "INPUT"] {
        let found = handles(&list(chain).await, &table(instance));
        let text: String =
            found.iter().map(|handle| format!("delete rule ip filter {chain} handle {handle}\n")).collect();
        if !text.is_empty() {
            nft(&["-f", "-"], &text).await?;
        }
    }
    Ok(())
}

/// The chain to put rules into for what is restricted in `hook`; None if nothing is.
async fn find_chain(hook: &str) -> Option<String> {
    if !list(hook).await.contains("policy drop") {
        return None;
    }
    let docker = hook == "FORWARD" && !list("DOCKER-USER").await.is_empty();
    Some(if docker { "DOCKER-USER" } else { hook }.to_owned())
}

/// A chain with its rules' handles; empty if there is none.
async fn list(chain: &str) -> String {
    nft(&["-a", "list", "chain", "ip", "filter", chain], "").await.unwrap_or_default()
}

/// Handles of the rules with this comment.
fn handles(listing: &str, comment: &str) -> Vec<u64> {
    let comment = format!("comment \"{comment}\"");
    let ours = listing.lines().filter(|line| line.contains(&comment));
    ours.filter_map(|line| line.rsplit_once("# handle ")?.1.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_with_our_comment_are_ours() {
        let listing = "\
table ip filter {
\tchain FORWARD { # handle 1
\t\ttype filter hook forward priority filter; policy drop;
\t\tiifname \"sga1b2c3*\" counter packets 0 bytes 0 accept comment \"sagong-a1b2c3\" # handle 7
\t\tiifname \"docker0\" counter packets 0 bytes 0 accept # handle 3
\t\toifname \"sgffffff*\" counter packets 0 bytes 0 accept comment \"sagong-ffffff\" # handle 9
\t}
}";
        assert_eq!(handles(listing, "sagong-a1b2c3"), [7]);
    }
}
