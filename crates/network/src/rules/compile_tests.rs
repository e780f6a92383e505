use super::*;
use crate::rules::model::Protocol;

fn node() -> Node {
    Node {
        instance: "a1b2c3".into(),
        node_cidr: "10.244.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
    }
}

fn service(endpoints: &[&str]) -> ServicePort {
    ServicePort {
        name: "default/kubia:http".into(),
        protocol: Protocol::Tcp,
        cluster_ip: "10.96.0.10".parse().unwrap(),
        port: 80,
        node_port: Some(30080),
        external_ips: vec!["192.0.2.7".parse().unwrap()],
        endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
        external_endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(),
        affinity: None,
    }
}

fn step(old: &[ServicePort], new: &[ServicePort]) -> String {
    diff(&compile(&node(), old), &compile(&node(), new))
}

#[test]
fn a_new_service_adds_its_chain_then_its_elements() {
    let text = step(&[], &[service(&["10.244.0.5:8080", "10.244.0.6:8080"])]);
    assert_eq!(
        text,
        "\
add chain ip sagong-a1b2c3 svc-10.96.0.10-tcp-80
add rule ip sagong-a1b2c3 svc-10.96.0.10-tcp-80 meta l4proto tcp numgen random mod 2 0 \
dnat ip to 10.244.0.5:8080 comment \"default/kubia:http\"
add rule ip sagong-a1b2c3 svc-10.96.0.10-tcp-80 meta l4proto tcp \
dnat ip to 10.244.0.6:8080 comment \"default/kubia:http\"
add element ip sagong-a1b2c3 services { 10.96.0.10 . tcp . 80 : goto svc-10.96.0.10-tcp-80, \
192.0.2.7 . tcp . 80 : goto svc-10.96.0.10-tcp-80 }
add element ip sagong-a1b2c3 node-ports { tcp . 30080 : goto svc-10.96.0.10-tcp-80 }
add element ip sagong-a1b2c3 hairpin { 10.244.0.5 . 10.244.0.5, 10.244.0.6 . 10.244.0.6 }
"
    );
}

#[test]
fn an_endpoint_that_leaves_changes_only_its_chain_and_its_hairpin() {
    let text = step(&[service(&["10.244.0.5:8080", "10.244.0.6:8080"])], &[service(&["10.244.0.6:8080"])]);
    assert_eq!(
        text,
        "\
flush chain ip sagong-a1b2c3 svc-10.96.0.10-tcp-80
add rule ip sagong-a1b2c3 svc-10.96.0.10-tcp-80 meta l4proto tcp dnat ip to 10.244.0.6:8080 comment \"default/kubia:http\"
delete element ip sagong-a1b2c3 hairpin { 10.244.0.5 . 10.244.0.5 }
"
    );
}

#[test]
fn the_last_endpoint_that_leaves_makes_the_service_refuse() {
    let text = step(&[service(&["10.244.0.5:8080"])], &[service(&[])]);
    assert_eq!(
        text,
        "\
delete element ip sagong-a1b2c3 services { 10.96.0.10 . tcp . 80, 192.0.2.7 . tcp . 80 }
delete element ip sagong-a1b2c3 node-ports { tcp . 30080 }
delete element ip sagong-a1b2c3 hairpin { 10.244.0.5 . 10.244.0.5 }
add element ip sagong-a1b2c3 refused { 10.96.0.10 . tcp . 80, 192.0.2.7 . tcp . 80 }
add element ip sagong-a1b2c3 refused-node-ports { tcp . 30080 }
flush chain ip sagong-a1b2c3 svc-10.96.0.10-tcp-80
delete chain ip sagong-a1b2c3 svc-10.96.0.10-tcp-80
"
    );
}

#[test]
fn nothing_changes_when_nothing_changed() {
    let services = [service(&["10.244.0.5:8080"])];
    assert_eq!(step(&services, &services), "");
}

#[test]
fn very_many_endpoints_are_chosen_by_one_lookup() {
    let many: Vec<String> = (0..200).map(|number| format!("10.244.0.{number}:80")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let rules = compile(&node(), &[service(&many)]);
    let chain = &rules.chains["svc-10.96.0.10-tcp-80"];
    assert_eq!(chain.len(), 1);
    assert!(chain[0].contains("numgen random mod 200 map { 0 : 10.244.0.0 . 80, 1 : 10.244.0.1 . 80,"));
}

#[test]
fn a_hairpin_lasts_one_transaction_longer_than_its_endpoint() {
    let before = compile(&node(), &[service(&["10.244.0.5:8080"])]);
    let mut after = compile(&node(), &[service(&["10.244.0.6:8080"])]);
    linger(&before, &mut after);
    let hairpins: Vec<&String> = after.sets[HAIRPIN].keys().collect();
    assert_eq!(hairpins, ["10.244.0.5 . 10.244.0.5", "10.244.0.6 . 10.244.0.6"]);
}

#[test]
fn an_endpoint_on_another_node_is_masqueraded() {
    let rules = compile(&node(), &[service(&["192.0.2.9:6443"])]);
    assert!(rules.sets[ELSEWHERE].contains_key("192.0.2.9 . tcp . 6443"));
    assert!(rules.sets[HAIRPIN].is_empty());
}

#[test]
fn a_name_cannot_break_out_of_its_comment() {
    let hostile = ServicePort { name: "a\" drop; \n".into(), ..service(&["10.244.0.5:1"]) };
    let rules = compile(&node(), &[hostile]);
    assert!(rules.chains.values().flatten().all(|rule| rule.ends_with("comment \"adrop\"")));
}

#[test]
fn replacing_starts_from_an_empty_table_in_the_same_transaction() {
    let text = replace(&compile(&node(), &[service(&["10.244.0.5:8080"])]));
    let lines: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        lines,
        ["add table ip sagong-a1b2c3", "delete table ip sagong-a1b2c3", "add table ip sagong-a1b2c3"]
    );
    assert!(text.contains("iifname \"sga1b2c3*\" ip daddr 127.0.0.0/8 drop"));
    assert!(text.contains("snat to 10.244.0.1"));
}

#[test]
fn a_service_with_affinity_asks_its_endpoints_memories_first() {
    let sticky = |endpoints: &[&str]| ServicePort { affinity: Some(60), ..service(endpoints) };
    let text = step(&[], &[sticky(&["10.244.0.5:8080", "10.244.0.6:8080"])]);
    let lines: Vec<&str> = text.lines().take(7).collect();
    let memory = |ip: &str| format!("svc-10.96.0.10-tcp-80-{ip}-8080-60s");
    let (five, six) = (memory("10.244.0.5"), memory("10.244.0.6"));
    let set = |memory: &str| {
        let kind = "type ipv4_addr ; size 65535 ; flags dynamic,timeout ; timeout 60s ;";
        format!("add set ip sagong-a1b2c3 {memory} {{ {kind} }}")
    };
    let rule = |condition: &str, memory: &str, ip: &str| {
        format!(
            "add rule ip sagong-a1b2c3 svc-10.96.0.10-tcp-80 meta l4proto tcp {condition}update @{memory} \
             {{ ip saddr }} dnat ip to {ip}:8080 comment \"default/kubia:http\""
        )
    };
    assert_eq!(lines[..2], [set(&five), set(&six)]);
    assert_eq!(lines[3], rule(&format!("ip saddr @{five} "), &five, "10.244.0.5"));
    assert_eq!(lines[5], rule("numgen random mod 2 0 ", &five, "10.244.0.5"));
    assert_eq!(lines[6], rule("", &six, "10.244.0.6"));

    let text = step(&[sticky(&["10.244.0.5:8080", "10.244.0.6:8080"])], &[sticky(&["10.244.0.6:8080"])]);
    assert!(!text.contains("add set") && text.ends_with(&format!("delete set ip sagong-a1b2c3 {five}\n")));
}

#[test]
fn connections_from_outside_go_to_endpoints_of_their_own_if_the_service_wants_that() {
    let mut local = service(&["10.244.0.5:8080", "10.244.9.9:8080"]);
    local.external_endpoints.truncate(1);
    let rules = compile(&node(), &[local.clone()]);
    assert_eq!(rules.chains["svc-10.96.0.10-tcp-80"].len(), 2);
    assert_eq!(rules.chains["ext-10.96.0.10-tcp-80"].len(), 1);
    let outside = Some("goto ext-10.96.0.10-tcp-80".to_owned());
    assert_eq!(rules.sets[SERVICES]["192.0.2.7 . tcp . 80"], outside);
    assert_eq!(rules.sets[NODE_PORTS]["tcp . 30080"], outside);
    local.external_endpoints.clear();
    let rules = compile(&node(), &[local]);
    assert!(rules.sets[REFUSED].contains_key("192.0.2.7 . tcp . 80"));
    assert!(rules.sets[REFUSED_NODE_PORTS].contains_key("tcp . 30080"));
    assert!(rules.sets[SERVICES].contains_key("10.96.0.10 . tcp . 80"));
}
