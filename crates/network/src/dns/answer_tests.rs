use super::super::zone::tests::{observed, zone};
use super::*;
use crate::proxy::withdrawal::Withdrawals;
use proptest::prelude::*;

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

fn judged(query: &Message) -> Judgement {
    let (observed, withdrawals) = (observed(), Withdrawals::default());
    judge(&zone(), Known { observed: &observed, withdrawals: &withdrawals }, query, 0, 1_700_000_000)
}

fn answered(name: &str, kind: RecordType) -> Message {
    match judged(&query(name, kind)) {
        Judgement::Answer(message) => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_repeats_the_question_as_it_was_spelled() {
    let message = answered("KuBiA.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(message.queries[0].name().to_ascii(), "KuBiA.ns.svc.cluster.local.");
    assert_eq!(message.answers[0].name.to_ascii(), "KuBiA.ns.svc.cluster.local.");
    assert!(message.metadata.authoritative && message.metadata.recursion_available);
    assert!(message.metadata.recursion_desired);
}

#[test]
fn a_name_that_is_missing_and_one_without_records_are_told_apart() {
    let missing = answered("nobody.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let empty = answered("kubia.ns.svc.cluster.local.", RecordType::AAAA);
    assert_eq!(empty.metadata.response_code, ResponseCode::NoError);
    for message in [missing, empty] {
        assert!(message.answers.is_empty());
        let authority = &message.authorities[0];
        assert_eq!((authority.name.to_ascii().as_str(), authority.ttl), ("cluster.local.", 5));
        assert_eq!(authority.record_type(), RecordType::SOA);
    }
}

#[test]
fn other_names_are_asked_of_others() {
    assert!(matches!(judged(&query("example.com.", RecordType::A)), Judgement::Forward));
    assert!(matches!(judged(&query("4.3.2.1.in-addr.arpa.", RecordType::PTR)), Judgement::Forward));
}

#[test]
fn another_name_inside_is_followed_here_and_one_outside_by_others() {
    let inside = answered("near.ns.svc.cluster.local.", RecordType::A);
    let kinds: Vec<RecordType> = inside.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    match judged(&query("ext.ns.svc.cluster.local.", RecordType::A)) {
        Judgement::Complete(chain, name) => {
            assert_eq!((chain.len(), name.to_ascii().as_str()), (1, "www.example.com."));
        }
        other => panic!("{other:?}"),
    }
    let only = answered("ext.ns.svc.cluster.local.", RecordType::CNAME);
    assert_eq!(only.answers.len(), 1);
}

#[test]
fn names_that_lead_in_a_circle_end() {
    let message = answered("loop.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn answers_take_turns_at_being_first() {
    let (observed, withdrawals) = (observed(), Withdrawals::default());
    let known = Known { observed: &observed, withdrawals: &withdrawals };
    let first = |turn| match judge(&zone(), known, &query("db.ns.svc.cluster.local.", RecordType::A), turn, 1)
    {
        Judgement::Answer(message) => message.answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!([first(0), first(1), first(2)], ["10.244.0.5", "10.244.0.6", "10.244.0.5"]);
}

#[test]
fn what_is_no_simple_question_is_refused_by_its_proper_code() {
    let code = |query: &Message| match judged(query) {
        Judgement::Answer(message) => message.metadata.response_code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&query("cluster.local.", RecordType::AXFR)), ResponseCode::Refused);
    assert_eq!(code(&Message::query()), ResponseCode::FormErr);
    let mut status = query("kubia.ns.svc.cluster.local.", RecordType::A);
    status.metadata.op_code = OpCode::Status;
    assert_eq!(code(&status), ResponseCode::NotImp);
    let mut newer = query("kubia.ns.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    assert_eq!(code(&newer), ResponseCode::BADVERS);
}

#[test]
fn an_answer_is_not_answered() {
    let answer = query("kubia.ns.svc.cluster.local.", RecordType::A).into_response();
    assert!(matches!(read(&answer.to_vec().unwrap()), Err(None)));
}

/// An answer with so many addresses.
fn long(count: u32) -> Message {
    let mut message = reply(&query("db.ns.svc.cluster.local.", RecordType::A), ResponseCode::NoError);
    let name = message.queries[0].name().clone();
    let data = |number: u32| hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A(number.into()));
    message.answers = (0..count).map(|number| Record::from_rdata(name.clone(), 5, data(number))).collect();
    message
}

#[test]
fn an_answer_too_long_for_a_datagram_keeps_what_fits_and_says_so() {
    let whole = Message::from_vec(&write(long(28), 512).unwrap()).unwrap();
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (28, false));
    let bytes = write(long(100), 512).unwrap();
    let cut = Message::from_vec(&bytes).unwrap();
    assert!(bytes.len() <= 512 && cut.metadata.truncation);
    assert!((20..=29).contains(&cut.answers.len()), "{}", cut.answers.len());
    let more = Message::from_vec(&write(long(200), 1232).unwrap()).unwrap();
    assert!((70..=75).contains(&more.answers.len()), "{}", more.answers.len());
    let stream = Message::from_vec(&write(long(1000), u16::MAX).unwrap()).unwrap();
    assert_eq!(stream.answers.len(), 1000);
    assert!(write(long(10_000), u16::MAX).unwrap().len() <= usize::from(u16::MAX));
}

#[test]
fn a_client_that_takes_more_gets_more() {
    let mut asked = query("db.ns.svc.cluster.local.", RecordType::A);
    assert_eq!(udp_limit(&asked), 512);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    assert_eq!(udp_limit(&asked), 1232);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_answered_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(query) = read(&bytes)
            && let Judgement::Answer(message) = judged(&query)
        {
            let _ = write(*message, udp_limit(&query));
        }
    }
}
