use super::zone::tests::zone;
use super::*;
use crate::proxy::watch::Change;
use crate::rules::model::Node;
use hickory_proto::rr::RecordType;
use rstest::rstest;
use serde_json::json;

fn dns() -> Dns {
    Dns::new(zone(), Upstreams::new("/nonexistent".into(), Vec::new()))
}

fn proxy() -> Proxy {
    Proxy::new(Node {
        instance: "7e57a1".into(),
        node_cidr: "10.244.0.0/24".parse().unwrap(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
    })
}

fn query(name: &str) -> Vec<u8> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    query.to_vec().unwrap()
}

/// What a client hears; None if nothing.
async fn heard(dns: &Dns, proxy: &Proxy, name: &str, stream: bool) -> Option<Message> {
    let bytes = match dns.begin(proxy, &query(name), stream) {
        Step::Send(bytes) => Some(bytes),
        Step::Nothing => None,
        Step::Wait(query, judgement) => dns.finish(proxy, *query, judgement, stream).await,
    };
    bytes.map(|bytes| Message::from_vec(&bytes).unwrap())
}

fn services() -> Change {
    let service =
        json!({"metadata": {"name": "kubia", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.20"}});
    Change::Services(vec![serde_json::from_value(service).unwrap()])
}

/// Half of what there is to know is not enough to say that a name does not exist.
#[rstest]
#[case::nothing_known(Vec::new())]
#[case::only_services(vec![services()])]
#[case::only_slices(vec![Change::Slices(Vec::new())])]
#[tokio::test(start_paused = true)]
async fn before_both_lists_nothing_is_said_about_names_of_the_cluster(#[case] known: Vec<Change>) {
    let (dns, proxy) = (dns(), proxy());
    known.into_iter().for_each(|change| proxy.change(change));
    for name in ["kubia.ns.svc.cluster.local.", "db.ns.svc.cluster.local.", "20.0.96.10.in-addr.arpa."] {
        for stream in [false, true] {
            assert!(heard(&dns, &proxy, name, stream).await.is_none(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_comes_before_the_lists_is_answered_when_they_are_there() {
    let (dns, proxy) = (dns(), proxy());
    let lists = async {
        tokio::time::sleep(FIRST_LISTS / 2).await;
        proxy.change(services());
        proxy.change(Change::Slices(Vec::new()));
    };
    let (answer, ()) = tokio::join!(heard(&dns, &proxy, "kubia.ns.svc.cluster.local.", false), lists);
    assert_eq!(answer.unwrap().answers[0].data.to_string(), "10.96.0.20");
    let missing = heard(&dns, &proxy, "nobody.ns.svc.cluster.local.", false).await.unwrap();
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
}
