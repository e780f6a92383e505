//! Services to nftables text. Pure.
//!
//! The shape is that of upstream's nftables mode (KEP-3866): verdict maps from destination to a chain per
//! service port, so that a packet costs two lookups however many services there are. Unlike there, one chain
//! picks the endpoint and translates, and what must be masqueraded is looked up by address
//! afterwards instead of being marked: packet marks are shared with everybody else on the host.

use super::model::{Node, Ruleset, ServicePort};
use crate::dns::listener::PORT as NAMES;
use crate::pod::bridge::Sources;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Destination (address, protocol, port) to service chain.
const SERVICES: &str = "services";
/// Protocol and port on any local address to service chain.
const NODE_PORTS: &str = "node-ports";
/// Destinations of services without endpoints.
const REFUSED: &str = "refused";
/// Node ports of services without endpoints.
const REFUSED_NODE_PORTS: &str = "refused-node-ports";
/// Endpoints paired with themselves: a pod that reached itself through a service.
const HAIRPIN: &str = "hairpin";
/// Endpoints outside this node's pod CIDR, which would not answer through this node by themselves.
const ELSEWHERE: &str = "elsewhere";

/// The maps and sets, with their types.
const SETS: [(&str, &str, &str); 6] = [
    ("map", SERVICES, "type ipv4_addr . inet_proto . inet_service : verdict"),
    ("map", NODE_PORTS, "type inet_proto . inet_service : verdict"),
    ("set", REFUSED, "type ipv4_addr . inet_proto . inet_service"),
    ("set", REFUSED_NODE_PORTS, "type inet_proto . inet_service"),
    ("set", HAIRPIN, "type ipv4_addr . ipv4_addr"),
    ("set", ELSEWHERE, "type ipv4_addr . inet_proto . inet_service"),
];

/// The rules for these services.
pub(crate) fn compile(node: &Node, services: &[ServicePort]) -> Ruleset {
    let sets = SETS.iter().map(|(_, name, _)| (*name, BTreeMap::new())).collect();
    let (memories, chains) = (BTreeMap::new(), BTreeMap::new());
    let mut rules = Ruleset { node: node.clone(), memories, chains, sets };
    for service in services {
        add_service(&mut rules, service);
    }
    rules
}

fn add_service(rules: &mut Ruleset, service: &ServicePort) {
    let protocol = service.protocol.word();
    let port = service.port;
    let inside = add_chain(rules, "svc", service, &service.endpoints);
    let (destinations, _) = maps(inside.as_ref());
    insert(rules, destinations, format!("{} . {protocol} . {port}", service.cluster_ip), inside.clone());
    if service.external_ips.is_empty() && service.node_port.is_none() {
        return;
    }
    let outside = if service.external_endpoints == service.endpoints {
        inside
    } else {
        add_chain(rules, "ext", service, &service.external_endpoints)
    };
    let (destinations, node_ports) = maps(outside.as_ref());
    for address in &service.external_ips {
        insert(rules, destinations, format!("{address} . {protocol} . {port}"), outside.clone());
    }
    if let Some(node_port) = service.node_port {
        insert(rules, node_ports, format!("{protocol} . {node_port}"), outside);
    }
}

/// Where destinations with and without endpoints go.
fn maps(verdict: Option<&String>) -> (&'static str, &'static str) {
    if verdict.is_some() { (SERVICES, NODE_PORTS) } else { (REFUSED, REFUSED_NODE_PORTS) }
}

/// The chain that chooses one of these endpoints, and how to go there; None without endpoints.
fn add_chain(
    rules: &mut Ruleset,
    prefix: &str,
    service: &ServicePort,
    endpoints: &[SocketAddrV4],
) -> Option<String> {
    if endpoints.is_empty() {
        return None;
    }
    let protocol = service.protocol.word();
    for endpoint in endpoints {
        let ip = endpoint.ip();
        if rules.node.node_cidr.contains(ip) {
            insert(rules, HAIRPIN, format!("{ip} . {ip}"), None);
        } else {
            insert(rules, ELSEWHERE, format!("{ip} . {protocol} . {}", endpoint.port()), None);
        }
    }
    let chain = format!("{prefix}-{}-{protocol}-{}", service.cluster_ip, service.port);
    let translated = match service.affinity {
        None => translation(service, endpoints),
        Some(seconds) => {
            let memories: Vec<String> = endpoints
                .iter()
                .map(|endpoint| format!("{chain}-{endpoint}-{seconds}s").replace(':', "-"))
                .collect();
            let rules_of_chain = remembering(service, endpoints, &memories);
            rules.memories.extend(memories.into_iter().map(|memory| (memory, seconds)));
            rules_of_chain
        }
    };
    rules.chains.insert(chain.clone(), translated);
    Some(format!("goto {chain}"))
}

fn insert(rules: &mut Ruleset, set: &'static str, key: String, value: Option<String>) {
    // The first service to claim a destination keeps it, as upstream.
    rules.sets.entry(set).or_default().entry(key).or_insert(value);
}

/// Services with more endpoints than this choose by one lookup instead of by one comparison per endpoint.
const MOST_RULES: usize = 128;

/// The rules that send a new connection to one of the endpoints.
///
/// Of n endpoints the first is taken with probability 1/n, the next of the rest with 1/(n-1), and so on, the
/// last without a condition. One rule with a map would be shorter, but the elements of a replaced rule's map end
/// with the transaction, and a packet that is in the old rule at that moment would find nothing and be refused.
fn translation(service: &ServicePort, endpoints: &[SocketAddrV4]) -> Vec<String> {
    let protocol = service.protocol.word();
    let comment = comment(&service.name);
    let count = endpoints.len();
    if count > MOST_RULES {
        let choice = |(index, endpoint): (usize, &SocketAddrV4)| {
            format!("{index} : {} . {}", endpoint.ip(), endpoint.port())
        };
        let choices: Vec<String> = endpoints.iter().enumerate().map(choice).collect();
        let choices = choices.join(", ");
        let choose = format!("numgen random mod {count} map {{ {choices} }}");
        return vec![format!("meta l4proto {protocol} dnat ip to {choose} {comment}")];
    }
    let rule = |(index, endpoint): (usize, &SocketAddrV4)| {
        let choose = choose(count - index);
        format!("meta l4proto {protocol} {choose}dnat ip to {endpoint} {comment}")
    };
    endpoints.iter().enumerate().map(rule).collect()
}

/// One of so many that are left.
fn choose(left: usize) -> String {
    if left == 1 { String::new() } else { format!("numgen random mod {left} 0 ") }
}

/// The same for a service that remembers its clients (`sessionAffinity`): first the rules for those an endpoint
/// remembers, one set each, then the choice. Every new connection makes the endpoint remember for the whole time.
/// Where a set is full the rule is passed over; whoever is left at the end is served without being remembered.
fn remembering(service: &ServicePort, endpoints: &[SocketAddrV4], memories: &[String]) -> Vec<String> {
    let protocol = service.protocol.word();
    let comment = comment(&service.name);
    let remember =
        |memory: &str, endpoint| format!("update @{memory} {{ ip saddr }} dnat ip to {endpoint} {comment}");
    let known = endpoints.iter().zip(memories).map(|(endpoint, memory)| {
        format!("meta l4proto {protocol} ip saddr @{memory} {}", remember(memory, endpoint))
    });
    let fresh = endpoints.iter().zip(memories).enumerate().map(|(index, (endpoint, memory))| {
        format!("meta l4proto {protocol} {}{}", choose(endpoints.len() - index), remember(memory, endpoint))
    });
    known.chain(fresh).chain(translation(service, endpoints)).collect()
}

/// nft allows 128 bytes in a comment; names come from the API, but quotes must not end up here in any case.
fn comment(name: &str) -> String {
    let safe: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-./:_".contains(*c)).take(120).collect();
    format!("comment \"{safe}\"")
}

/// Adds to `new` what masquerades connections to endpoints of `old`: packets that chose one of them before the
/// transaction look it up after it. To be left out of the transaction after that.
pub(crate) fn linger(old: &Ruleset, new: &mut Ruleset) {
    for set in [HAIRPIN, ELSEWHERE] {
        let before = old.sets.get(set).cloned().unwrap_or_default();
        new.sets.entry(set).or_default().extend(before);
    }
}

/// Commands that make the table anew with everything in it, in one transaction.
pub(crate) fn replace(rules: &Ruleset) -> String {
    let table = rules.node.table();
    // `add` first, because deleting a table that is not there is an error.
    let mut text = format!("add table ip {table}\ndelete table ip {table}\nadd table ip {table}\n");
    for (kind, name, declaration) in SETS {
        let _ = writeln!(text, "add {kind} ip {table} {name} {{ {declaration} ; }}");
    }
    base(&mut text, &rules.node);
    changes(&mut text, &compile(&rules.node, &[]), rules);
    text
}

/// Commands that make the sets of a table made anew remember clients again: by set, address and seconds left.
pub(crate) fn remember(rules: &Ruleset, remembered: &BTreeMap<String, Vec<(Ipv4Addr, u32)>>) -> String {
    let mut text = String::new();
    for (memory, seconds) in &rules.memories {
        let clients = remembered.get(memory).into_iter().flatten().filter(|(_, left)| *left > 0);
        let clients = clients
            .map(|(client, left)| format!("{client} timeout {seconds}s expires {}s", left.min(seconds)));
        elements(&mut text, "add", &rules.node.table(), memory, clients.collect());
    }
    text
}

/// Commands that lead from one ruleset to another of the same node; empty if they are the same.
pub(crate) fn diff(old: &Ruleset, new: &Ruleset) -> String {
    let mut text = String::new();
    changes(&mut text, old, new);
    text
}

/// Commands that remove an instance's table; no error if there is none.
pub(crate) fn remove(instance: &str) -> String {
    let table = super::model::table(instance);
    format!("add table ip {table}\ndelete table ip {table}\n")
}

/// The order matters: what remembers before the rules that ask it, chains before the elements that point to them, and the other way round for deletion.
fn changes(text: &mut String, old: &Ruleset, new: &Ruleset) {
    let table = new.node.table();
    for (memory, seconds) in new.memories.iter().filter(|(memory, _)| !old.memories.contains_key(*memory)) {
        let kind = format!("type ipv4_addr ; size 65535 ; flags dynamic,timeout ; timeout {seconds}s ;");
        let _ = writeln!(text, "add set ip {table} {memory} {{ {kind} }}");
    }
    for (chain, rules) in &new.chains {
        match old.chains.get(chain) {
            Some(before) if before == rules => continue,
            Some(_) => drop(writeln!(text, "flush chain ip {table} {chain}")),
            None => drop(writeln!(text, "add chain ip {table} {chain}")),
        }
        for rule in rules {
            let _ = writeln!(text, "add rule ip {table} {chain} {rule}");
        }
    }
    let none = BTreeMap::new();
    let pairs = || SETS.iter().map(|(_, set, _)| (set, old.sets.get(set), new.sets.get(set)));
    for (set, before, after) in pairs() {
        let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
        let gone =
            before.iter().filter(|(key, value)| after.get(*key) != Some(value)).map(|(key, _)| key.clone());
        elements(text, "delete", &table, set, gone.collect());
    }
    for (set, before, after) in pairs() {
        let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
        let fresh = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(
            |(key, value)| match value {
                Some(value) => format!("{key} : {value}"),
                None => key.clone(),
            },
        );
        elements(text, "add", &table, set, fresh.collect());
    }
    for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
        let _ = writeln!(text, "flush chain ip {table} {chain}\ndelete chain ip {table} {chain}");
    }
    for memory in old.memories.keys().filter(|memory| !new.memories.contains_key(*memory)) {
        let _ = writeln!(text, "delete set ip {table} {memory}");
    }
}

fn elements(text: &mut String, verb: &str, table: &str, set: &str, list: Vec<String>) {
    if !list.is_empty() {
        let _ = writeln!(text, "{verb} element ip {table} {set} {{ {} }}", list.join(", "));
    }
}

/// Chains hooked into the kernel, the same for any services.
fn base(text: &mut String, node: &Node) {
    let Node { instance, node_cidr, pod_cidr, service_cidr } = node;
    let table = node.table();
    let pods = format!("\"{}*\"", crate::pod::veth::prefix(instance));
    let gateway: Ipv4Addr = crate::pod::bridge::gateway(*node_cidr);
    let Sources { loopback, translated } = crate::pod::bridge::sources(*node_cidr);
    let mut chain = |name: &str, hook: &str, rules: &[String]| {
        let hook = if hook.is_empty() { String::new() } else { format!(" {{ type {hook} ; }}") };
        let _ = writeln!(text, "add chain ip {table} {name}{hook}");
        for rule in rules {
            let _ = writeln!(text, "add rule ip {table} {name} {rule}");
        }
    };
    chain(
        "refuse",
        "",
        &["meta l4proto tcp reject with tcp reset".into(), "reject with icmp type port-unreachable".into()],
    );
    chain(
        "translate",
        "",
        &[
            format!("ip daddr . meta l4proto . th dport vmap @{SERVICES}"),
            format!("fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS}"),
        ],
    );
    // route_localnet, needed for node ports on 127.0.0.1, must not open the host's loopback to pods. Before
    // conntrack, replies to such connections still carry the gateway's address and pass.
    let mut guard = vec![format!("iifname {pods} ip daddr 127.0.0.0/8 drop")];
    // The name server asks others on behalf of its clients; it must not for whoever can send packets here. The
    // same on the way to a name server of the user's own.
    let strangers = format!("iifname != {pods} iifname != \"lo\" ip daddr");
    guard.push(format!("{strangers} {gateway} meta l4proto {{ tcp, udp }} th dport {NAMES} drop"));
    guard.extend(crate::dns::address(*service_cidr).map(|names| format!("{strangers} {names} drop")));
    chain("guard", "filter hook prerouting priority raw", &guard);
    // While the name server is away, between two runs, its port must not refuse: a resolver that is refused gives
    // up at once, one that hears nothing asks again. The error quotes the packet it is about behind its own eight
    // bytes: protocol at 8 + 9, destination port at 8 + 20 + 2.
    chain(
        "names-away",
        "filter hook output priority raw",
        &[format!(
            "ip saddr {gateway} icmp type destination-unreachable icmp code 3 @th,136,8 17 @th,240,16 {NAMES} drop"
        )],
    );
    let refuse = [
        format!("ct state new ip daddr . meta l4proto . th dport @{REFUSED} goto refuse"),
        format!(
            "ct state new fib daddr type local meta l4proto . th dport @{REFUSED_NODE_PORTS} goto refuse"
        ),
    ];
    chain("refuse-incoming", "filter hook prerouting priority -110", &refuse);
    chain("refuse-outgoing", "filter hook output priority -110", &refuse);
    chain("translate-incoming", "nat hook prerouting priority -100", &["jump translate".into()]);
    chain("translate-outgoing", "nat hook output priority -100", &["jump translate".into()]);
    // What still goes to a ClusterIP after translation has no such port. These are addresses of our own
    // cluster: nobody else is behind the route.
    let unknown = format!("ip daddr {service_cidr} goto refuse");
    chain("unknown-forward", "filter hook forward priority 0", std::slice::from_ref(&unknown));
    chain("unknown-outgoing", "filter hook output priority 0", std::slice::from_ref(&unknown));
    chain(
        "sources",
        "nat hook postrouting priority 100",
        &[
            format!("ip saddr . ip daddr @{HAIRPIN} snat to {gateway}"),
            format!("oifname {pods} ip saddr 127.0.0.0/8 snat to {loopback}"),
            format!("oifname {pods} ip saddr {gateway} ct status dnat snat to {translated}"),
            format!(
                "ct status dnat oifname != \"lo\" ip daddr . meta l4proto . th dport @{ELSEWHERE} masquerade"
            ),
            format!(
                "ip saddr {node_cidr} ip daddr != {pod_cidr} oifname != {pods} oifname != \"lo\" masquerade"
            ),
        ],
    );
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
