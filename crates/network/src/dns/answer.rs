//! Messages: what a query asks, and an answer as it goes over the wire. Pure.

use super::question::{self, Subject};
use super::zone::{self, Found, Known, Zone};
use hickory_proto::op::emit_message_parts;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;

/// Bytes we take and send over UDP (the DNS flag day of 2020), if the client does not say less.
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// What a client without EDNS takes (RFC 1035, 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;
/// An EDNS record without options.
const EDNS_LENGTH: u16 = 11;
/// Names that stand for names that stand for names.
const LONGEST_CHAIN: usize = 8;

/// What is to be done about a query.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// Send this.
    Answer(Box<Message>),
    /// Ask other servers.
    Forward,
    /// The records so far, and the name other servers have to be asked about to complete them.
    Complete(Vec<Record>, Name),
}

/// Reads a query. One that makes no sense is answered by the error. What is no query at all is not answered: two
/// servers would go on answering each other.
pub(crate) fn read(bytes: &[u8]) -> Result<Box<Message>, Option<Box<Message>>> {
    match Message::from_vec(bytes) {
        Ok(message) if message.metadata.message_type == MessageType::Query => Ok(Box::new(message)),
        Ok(_) => Err(None),
        Err(error) => {
            tracing::debug!(%error, "query that makes no sense");
            // The identifier, if there is one, and whether it is a query at all.
            match bytes {
                [a, b, flags, ..] if flags & 0x80 == 0 => {
                    let id = u16::from_be_bytes([*a, *b]);
                    let refused = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                    Err(Some(Box::new(refused)))
                }
                _ => Err(None),
            }
        }
    }
}

/// The one question of a query; the error says why it is not dealt with.
pub(crate) fn question(query: &Message) -> Result<&Query, ResponseCode> {
    if query.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [question] = query.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    if query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return Err(ResponseCode::Refused);
    }
    Ok(question)
}

/// Whether a question is the cluster's to answer, as far as its name tells.
pub(crate) fn is_ours(zone: &Zone, question: &Query) -> bool {
    question.query_class() == DNSClass::IN && question::subject(question.name(), &zone.domain).is_some()
}

/// Judges a question from what is known. `turn` rotates the answers, so that clients who take the first one
/// spread; `serial` is the time in seconds.
pub(crate) fn judge(zone: &Zone, known: Known<'_>, query: &Message, turn: usize, serial: u32) -> Judgement {
    let asked = match question(query) {
        Ok(asked) => asked,
        Err(code) => return Judgement::Answer(reply(query, code).into()),
    };
    if asked.query_class() != DNSClass::IN {
        return Judgement::Forward;
    }
    let mut chain = Vec::new();
    let mut name = asked.name().clone();
    loop {
        let Some(subject) = question::subject(&name, &zone.domain) else {
            return if chain.is_empty() { Judgement::Forward } else { Judgement::Complete(chain, name) };
        };
        match zone.find(known, &subject, &name, asked.query_type()) {
            Found::Elsewhere if chain.is_empty() => return Judgement::Forward,
            Found::Elsewhere => return Judgement::Complete(chain, name),
            Found::Alias(target) => {
                chain.push(zone::alias(&name, &target));
                if asked.query_type() == RecordType::CNAME {
                    return Judgement::Answer(ours(query, ResponseCode::NoError, chain).into());
                }
                if chain.len() >= LONGEST_CHAIN {
                    return Judgement::Answer(reply(query, ResponseCode::ServFail).into());
                }
                name = target;
            }
            Found::NoName => {
                return Judgement::Answer(negative(zone, query, &subject, true, chain, serial).into());
            }
            Found::Records { answers, .. } if answers.is_empty() => {
                return Judgement::Answer(negative(zone, query, &subject, false, chain, serial).into());
            }
            Found::Records { mut answers, additionals } => {
                let middle = turn % answers.len();
                answers.rotate_left(middle);
                chain.extend(answers);
                let mut message = ours(query, ResponseCode::NoError, chain);
                message.additionals = additionals;
                return Judgement::Answer(message.into());
            }
        }
    }
}

fn negative(
    zone: &Zone,
    query: &Message,
    subject: &Subject,
    missing: bool,
    answers: Vec<Record>,
    serial: u32,
) -> Message {
    let code = if missing { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let mut message = ours(query, code, answers);
    message.add_authority(zone.authority(subject, serial));
    message
}

fn ours(query: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut message = reply(query, code);
    message.metadata.authoritative = true;
    message.answers = answers;
    message
}

/// An answer without records.
pub(crate) fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.checking_disabled = query.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.queries = query.queries.clone();
    message.edns = query.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    message
}

/// What another server said, as an answer to this query; behind the records that led to its question.
pub(crate) fn relay(query: &Message, chain: Vec<Record>, theirs: Message) -> Message {
    let mut message = reply(query, theirs.metadata.response_code);
    message.metadata.authentic_data = theirs.metadata.authentic_data && chain.is_empty();
    message.answers = chain;
    message.answers.extend(theirs.answers);
    message.authorities = theirs.authorities;
    message.additionals = theirs.additionals;
    message
}

/// How many bytes of an answer a client takes over UDP.
pub(crate) fn udp_limit(query: &Message) -> u16 {
    let offered = query.edns.as_ref().map_or(PLAIN_PAYLOAD, |edns| edns.max_payload());
    offered.clamp(PLAIN_PAYLOAD, UDP_PAYLOAD)
}

/// The bytes of an answer. What does not fit is left out: first what nobody asked for, then answers, of which
/// as many are kept as fit, and the client is told to ask again over TCP. None if it cannot be written at all.
pub(crate) fn write(mut message: Message, limit: u16) -> Option<Vec<u8>> {
    let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= usize::from(limit));
    if let Some(bytes) = fits(&message) {
        return Some(bytes);
    }
    message.additionals.clear();
    if let Some(bytes) = fits(&message) {
        return Some(bytes);
    }
    message.authorities.clear();
    message.metadata.truncation = true;
    let count = most_answers(&message, limit.saturating_sub(EDNS_LENGTH))?;
    message.answers.truncate(count);
    fits(&message)
}

/// How many answers fit into so many bytes.
fn most_answers(message: &Message, limit: u16) -> Option<usize> {
    let mut buffer = Vec::new();
    let mut encoder = BinEncoder::new(&mut buffer);
    encoder.set_max_size(limit);
    let none = || std::iter::empty::<&Record>();
    let written = emit_message_parts(
        &message.metadata,
        &mut message.queries.iter(),
        &mut message.answers.iter(),
        &mut none(),
        &mut none(),
        None,
        None,
        &mut encoder,
    );
    written.ok().map(|header| usize::from(header.counts.answers))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
