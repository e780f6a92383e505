//! Answers of other servers, remembered for as long as they allow, half a minute at most (CoreDNS's default).
//! Pure: the time is an argument.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Answers remembered at most.
const CAPACITY: usize = 1000;
/// Longest time an answer is remembered.
const LONGEST: Duration = Duration::from_secs(30);

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// In lower case.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Whether the client speaks EDNS, and wants DNSSEC records.
    pub(crate) edns: Option<bool>,
    pub(crate) checking_disabled: bool,
}

/// Remembered answers, as bytes: they are many and rarely looked at.
#[derive(Debug, Default)]
pub(crate) struct Cache(HashMap<Question, Remembered>);

#[derive(Debug)]
struct Remembered {
    bytes: Box<[u8]>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// A remembered answer, its records' times to live counted down.
    pub(crate) fn get(&mut self, question: &Question, now: Instant) -> Option<Message> {
        let found = self.0.get(question)?;
        if found.until <= now {
            self.0.remove(question);
            return None;
        }
        let age = now.saturating_duration_since(found.since).as_secs().try_into().unwrap_or(u32::MAX);
        let mut message = Message::from_vec(&found.bytes).ok()?;
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(message)
    }

    /// Remembers an answer if it says for how long that makes sense.
    pub(crate) fn put(&mut self, question: Question, answer: &Message, now: Instant) {
        let Some(lifetime) = lifetime(answer) else { return };
        let Ok(bytes) = answer.to_vec() else { return };
        if self.0.len() >= CAPACITY {
            self.0.retain(|_, remembered| remembered.until > now);
        }
        if self.0.len() >= CAPACITY {
            // Any will do: all of them are gone within half a minute.
            let some: Vec<Question> = self.0.keys().take(CAPACITY / 10).cloned().collect();
            some.iter().for_each(|question| drop(self.0.remove(question)));
        }
        self.0.insert(question, Remembered { bytes: bytes.into(), since: now, until: now + lifetime });
    }
}

/// How long an answer holds: its shortest-lived record; for a negative one what the zone says (RFC 2308, 5).
fn lifetime(answer: &Message) -> Option<Duration> {
    if answer.metadata.truncation {
        return None;
    }
    let positive = answer.metadata.response_code == ResponseCode::NoError
        && answer.answers.iter().any(|record| record.record_type() != RecordType::CNAME);
    let all = answer.answers.iter().chain(&answer.authorities).map(|record| record.ttl);
    let seconds = if positive {
        all.min()?
    } else if matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        let zone = answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum),
            _ => None,
        })?;
        all.min()?.min(zone)
    } else {
        return None;
    };
    let lifetime = Duration::from_secs(seconds.into()).min(LONGEST);
    (!lifetime.is_zero()).then_some(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, Record};

    fn question(name: &str) -> Question {
        Question { name: name.into(), kind: 1, class: 1, edns: None, checking_disabled: false }
    }

    fn positive(ttl: u32) -> Message {
        let mut message = Message::response(7, OpCode::Query);
        let name = Name::from_ascii("example.com.").unwrap();
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A([192, 0, 2, 1].into()))));
        message
    }

    fn negative(ttl: u32, minimum: u32) -> Message {
        let mut message = Message::response(7, OpCode::Query);
        message.metadata.response_code = ResponseCode::NXDomain;
        let name = Name::from_ascii("com.").unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, minimum);
        message.add_authority(Record::from_rdata(name, ttl, RData::SOA(soa)));
        message
    }

    #[test]
    fn an_answer_is_remembered_while_it_holds_and_its_time_counts_down() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(question("a."), &positive(20), now);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(cache.get(&question("a."), later(19)).unwrap().answers[0].ttl, 1);
        assert!(cache.get(&question("b."), later(19)).is_none());
        assert!(cache.get(&question("a."), later(20)).is_none());
        assert!(cache.0.is_empty());
    }

    #[test]
    fn nothing_is_remembered_for_longer_than_half_a_minute() {
        assert_eq!(lifetime(&positive(86400)), Some(LONGEST));
        assert_eq!(lifetime(&positive(0)), None);
    }

    #[test]
    fn a_negative_answer_holds_as_long_as_its_zone_says() {
        assert_eq!(lifetime(&negative(900, 7)), Some(Duration::from_secs(7)));
        assert_eq!(lifetime(&negative(3, 900)), Some(Duration::from_secs(3)));
        let mut bare = negative(3, 3);
        bare.authorities.clear();
        assert_eq!(lifetime(&bare), None);
    }

    #[test]
    fn failures_and_cut_answers_are_not_remembered() {
        let mut failed = positive(20);
        failed.metadata.response_code = ResponseCode::ServFail;
        assert_eq!(lifetime(&failed), None);
        let mut cut = positive(20);
        cut.metadata.truncation = true;
        assert_eq!(lifetime(&cut), None);
    }

    #[test]
    fn it_does_not_grow_beyond_its_capacity() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..3 * CAPACITY {
            cache.put(question(&number.to_string()), &positive(20), now);
        }
        assert!(cache.0.len() <= CAPACITY);
        let last = question(&(3 * CAPACITY - 1).to_string());
        assert!(cache.get(&last, now).is_some());
    }
}
