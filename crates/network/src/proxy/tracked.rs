//! Connections still on their way to a pod, as the kernel's connection tracking knows them.
//!
//! A SYN that was translated before a pod was withdrawn may wait in a queue of the kernel for milliseconds on a
//! busy machine. The pod has no socket for it yet, but the kernel already tracks it, as "SYN sent". Asked by
//! ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`), filtered by the pod's address in the kernel where it can
//! (5.8 and later).

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use std::net::Ipv4Addr;

/// Header of a netlink message, and of a netfilter message in it.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`, and `…_NEW`.
const GET: u16 = 0x101;
const NEW: u16 = 0x100;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `CTA_…`
const TUPLE_REPLY: u16 = 2;
const PROTOCOL_INFO: u16 = 4;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const IP_V4_SOURCE: u16 = 1;
const PROTOCOL_INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_FLAG(CTA_IP_SRC)`.
const BY_SOURCE: u32 = 1;
const NESTED: u16 = 0x8000;
/// `TCP_CONNTRACK_SYN_SENT`: no answer seen yet.
const SYN_SENT: u8 = 1;

/// Counts TCP connections to `address` that were sent and not answered, in the calling thread's network
/// namespace. Blocks for as long as the kernel needs to look through its table.
pub(crate) fn on_their_way(address: Ipv4Addr) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&request(address), &SocketAddr::new(0, 0), 0)?;
    let mut count = 0;
    loop {
        let (buffer, _) = socket.recv_from_full()?;
        let answer = read(&buffer, address)?;
        count += answer.count;
        if answer.done {
            return Ok(count);
        }
    }
}

/// Asks for everything whose answers come from `address`.
fn request(address: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![nix::libc::AF_INET as u8, 0, 0, 0];
    let source = attribute(IP_V4_SOURCE, &address.octets());
    body.extend(attribute(TUPLE_REPLY | NESTED, &attribute(TUPLE_IP | NESTED, &source)));
    body.extend(attribute(FILTER | NESTED, &attribute(FILTER_REPLY_FLAGS, &BY_SOURCE.to_ne_bytes())));
    let length = (HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GET.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat());
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What one piece of the kernel's answer says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    count: usize,
    done: bool,
}

/// Reads messages; what is not understood ends the reading of its message, not more.
fn read(mut bytes: &[u8], address: Ipv4Addr) -> io::Result<Answer> {
    let mut answer = Answer::default();
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            DONE => answer.done = true,
            ERROR => {
                let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code)).unwrap_or_default();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            NEW => answer.count += usize::from(waits(body.get(FAMILY_HEADER..).unwrap_or_default(), address)),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answer)
}

/// Whether a tracked connection is one to `address` without an answer. Older kernels do not filter.
fn waits(connection: &[u8], address: Ipv4Addr) -> bool {
    let source = find(connection, &[TUPLE_REPLY, TUPLE_IP, IP_V4_SOURCE]);
    let state = find(connection, &[PROTOCOL_INFO, PROTOCOL_INFO_TCP, TCP_STATE]);
    source == Some(&address.octets()[..]) && state == Some(&[SYN_SENT][..])
}

/// Value of the attribute at the end of a path of nested ones.
fn find<'a>(mut bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    let (wanted, rest) = path.split_first()?;
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        if kind == *wanted {
            return if rest.is_empty() { Some(value) } else { find(value, rest) };
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn connection(source: Ipv4Addr, state: u8) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        let reply = attribute(TUPLE_IP | NESTED, &attribute(IP_V4_SOURCE, &source.octets()));
        body.extend(attribute(1 | NESTED, &[0; 8]));
        body.extend(attribute(TUPLE_REPLY | NESTED, &reply));
        let tcp = attribute(PROTOCOL_INFO_TCP | NESTED, &attribute(TCP_STATE, &[state]));
        body.extend(attribute(PROTOCOL_INFO | NESTED, &tcp));
        message(NEW, &body)
    }

    #[test]
    fn only_unanswered_connections_to_the_pod_count() {
        let other = Ipv4Addr::new(10, 244, 0, 6);
        let all = [
            connection(POD, SYN_SENT),
            connection(POD, 3),
            connection(other, SYN_SENT),
            message(DONE, &[0; 4]),
        ];
        assert_eq!(read(&all.concat(), POD).unwrap(), Answer { count: 1, done: true });
    }

    #[test]
    fn an_error_of_the_kernel_is_told() {
        let refused = message(ERROR, &(-1i32).to_ne_bytes());
        assert_eq!(read(&refused, POD).unwrap_err().raw_os_error(), Some(1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            kind in prop_oneof![Just(NEW), Just(ERROR), Just(DONE), any::<u16>()],
            body in proptest::collection::vec(any::<u8>(), 0..64), tail in proptest::collection::vec(any::<u8>(), 0..40)
        ) {
            let _ = read(&[message(kind, &body), tail].concat(), POD);
        }
    }
}
