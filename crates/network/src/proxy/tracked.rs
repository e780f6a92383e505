//! What the kernel's connection tracking knows: connections still on their way to a pod, and UDP flows to forget.
//!
//! A SYN that was translated before a pod was withdrawn may wait in a queue of the kernel for milliseconds on a
//! busy machine. The pod has no socket for it yet, but the kernel already tracks it, as "SYN sent". Asked by
//! ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`), filtered by the pod's address in the kernel where it can
//! (5.8 and later).

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Header of a netlink message, and of a netfilter message in it.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED: u16 = 0x5;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`, `…_NEW` and `…_DELETE`.
const GET: u16 = 0x101;
const NEW: u16 = 0x100;
const DELETE: u16 = 0x102;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `CTA_…`
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOCOL_INFO: u16 = 4;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const IP_V4_SOURCE: u16 = 1;
const IP_V4_DESTINATION: u16 = 2;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
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
    let socket = open()?;
    let mut count = 0;
    dump(&socket, &by_answerer(address), |connection| count += usize::from(waits(connection, address)))?;
    Ok(count)
}

/// Forgets the UDP flows that are `stale`, given where they were sent and who answers them, in the calling
/// thread's network namespace, and tells how many. One that cannot be forgotten does not keep the others; its
/// error is told in the end. Blocks as [`on_their_way`] does.
pub(crate) fn forget_udp(stale: impl Fn(SocketAddrV4, SocketAddrV4) -> bool) -> io::Result<usize> {
    let socket = open()?;
    let mut found = Vec::new();
    dump(&socket, &[], |flow| {
        let original =
            find(flow, &[TUPLE_ORIGINAL]).filter(|_| udp(flow).is_some_and(|(to, by)| stale(to, by)));
        found.extend(original.map(<[u8]>::to_vec));
    })?;
    let mut failed = None;
    for original in &found {
        failed = forget(&socket, original).err().or(failed);
    }
    failed.map_or(Ok(found.len()), Err)
}

fn forget(socket: &Socket, original: &[u8]) -> io::Result<()> {
    let body = attribute(TUPLE_ORIGINAL | NESTED, original);
    socket.send_to(&message(DELETE, ACKNOWLEDGED, &body), &SocketAddr::new(0, 0), 0)?;
    let (buffer, _) = socket.recv_from_full()?;
    match read(&buffer, |_| ()) {
        // It ended by itself meanwhile.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
        answered => answered.map(drop),
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    Ok(socket)
}

/// Shows every tracked connection that the kernel finds for a filter.
fn dump(socket: &Socket, filter: &[u8], mut show: impl FnMut(&[u8])) -> io::Result<()> {
    socket.send_to(&message(GET, DUMP, filter), &SocketAddr::new(0, 0), 0)?;
    loop {
        let (buffer, _) = socket.recv_from_full()?;
        if read(&buffer, &mut show)? {
            return Ok(());
        }
    }
}

/// Finds everything whose answers come from `address`.
fn by_answerer(address: Ipv4Addr) -> Vec<u8> {
    let source = attribute(IP_V4_SOURCE, &address.octets());
    let mut body = attribute(TUPLE_REPLY | NESTED, &attribute(TUPLE_IP | NESTED, &source));
    body.extend(attribute(FILTER | NESTED, &attribute(FILTER_REPLY_FLAGS, &BY_SOURCE.to_ne_bytes())));
    body
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + FAMILY_HEADER + attributes.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([1u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat());
    message.extend([nix::libc::AF_INET as u8, 0, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Reads messages, shows the connections in them, and tells whether this was the last one. What is not understood
/// ends the reading of its message, not more.
fn read(mut bytes: &[u8], mut show: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut done = false;
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let Some(body) = bytes.get(HEADER..length) else { break };
        match kind {
            DONE => done = true,
            ERROR => {
                let code = body.first_chunk().map(|code| i32::from_ne_bytes(*code)).unwrap_or_default();
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                }
                // Zero acknowledges.
                done = true;
            }
            NEW => show(body.get(FAMILY_HEADER..).unwrap_or_default()),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(done)
}

/// Where a UDP flow was sent, and who answers it; None for other protocols.
fn udp(flow: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let number = find(flow, &[TUPLE_ORIGINAL, TUPLE_PROTOCOL, PROTOCOL_NUMBER])?;
    let end = |tuple, ip, port| {
        let octets: [u8; 4] = find(flow, &[tuple, TUPLE_IP, ip])?.try_into().ok()?;
        let port = find(flow, &[tuple, TUPLE_PROTOCOL, port])?.try_into().ok()?;
        Some(SocketAddrV4::new(octets.into(), u16::from_be_bytes(port)))
    };
    let sent = end(TUPLE_ORIGINAL, IP_V4_DESTINATION, PROTOCOL_DESTINATION)?;
    let answered = end(TUPLE_REPLY, IP_V4_SOURCE, PROTOCOL_SOURCE)?;
    (number == [nix::libc::IPPROTO_UDP as u8]).then_some((sent, answered))
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

    fn piece(kind: u16, body: &[u8]) -> Vec<u8> {
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
        piece(NEW, &body)
    }

    #[test]
    fn only_unanswered_connections_to_the_pod_count() {
        let other = Ipv4Addr::new(10, 244, 0, 6);
        let all = [
            connection(POD, SYN_SENT),
            connection(POD, 3),
            connection(other, SYN_SENT),
            piece(DONE, &[0; 4]),
        ];
        let mut count = 0;
        assert!(read(&all.concat(), |connection| count += usize::from(waits(connection, POD))).unwrap());
        assert_eq!(count, 1);
    }

    #[test]
    fn an_error_of_the_kernel_is_told() {
        let refused = piece(ERROR, &(-1i32).to_ne_bytes());
        assert_eq!(read(&refused, |_| ()).unwrap_err().raw_os_error(), Some(1));
        assert!(read(&piece(ERROR, &[0; 4]), |_| ()).unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            kind in prop_oneof![Just(NEW), Just(ERROR), Just(DONE), any::<u16>()],
            body in proptest::collection::vec(any::<u8>(), 0..64), tail in proptest::collection::vec(any::<u8>(), 0..40)
        ) {
            let _ = read(&[piece(kind, &body), tail].concat(), |shown| {
                let _ = (waits(shown, POD), udp(shown));
            });
        }
    }
}
