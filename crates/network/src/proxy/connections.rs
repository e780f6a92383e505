//! How many TCP connections a pod serves, read from `/proc/net/tcp` of its own network namespace.

use std::collections::BTreeSet;

/// States of `include/net/tcp_states.h` in which a client may still lose something.
const COUNTED: [u8; 6] = [
    0x01, // ESTABLISHED, those that wait to be accepted included
    0x03, // SYN_RECV: being opened
    0x04, // FIN_WAIT1: our last bytes are not acknowledged yet
    0x08, // CLOSE_WAIT: the client has sent everything and waits for the answer
    0x09, // LAST_ACK: as FIN_WAIT1
    0x0b, // CLOSING: as FIN_WAIT1
];
const LISTEN: u8 = 0x0a;

/// Counts connections to ports on which the namespace listens. `tables` are the contents of `tcp` and `tcp6`.
/// Lines that are not understood are skipped.
pub(crate) fn count(tables: &[String]) -> usize {
    let sockets: Vec<(u16, u8)> = tables.iter().flat_map(|table| table.lines()).filter_map(socket).collect();
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|(_, state)| *state == LISTEN).map(|(port, _)| *port).collect();
    sockets.iter().filter(|(port, state)| listening.contains(port) && COUNTED.contains(state)).count()
}

/// Local port and state in one line: `0: 00000000:1F90 00000000:0000 0A …`.
fn socket(line: &str) -> Option<(u16, u8)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    Some((u16::from_str_radix(port, 16).ok()?, u8::from_str_radix(state, 16).ok()?))
}

/// Reads the tables of the calling thread's namespace.
pub(crate) fn read() -> std::io::Result<Vec<String>> {
    let mut tables = vec![std::fs::read_to_string("/proc/thread-self/net/tcp")?];
    // Missing where IPv6 is off.
    tables.extend(std::fs::read_to_string("/proc/thread-self/net/tcp6"));
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0500F40A:1F90 0100F40A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0500F40A:1F90 0100F40A:D432 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   3: 0500F40A:1F90 0100F40A:D433 03 00000000:00000000 01:00000000 00000000     0        0 0 1 0
   4: 0500F40A:9C40 0A00600A:0050 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
   5: garbage
";

    #[test]
    fn established_and_half_open_connections_to_listening_ports_count() {
        assert_eq!(count(&[TABLE.to_owned()]), 2);
    }

    #[test]
    fn an_ipv6_listener_serves_ipv4_connections_too() {
        let listener =
            "   0: 00000000000000000000000000000000:9C40 00000000000000000000000000000000:0000 0A\n";
        assert_eq!(count(&[TABLE.to_owned(), listener.to_owned()]), 3);
    }

    #[test]
    fn nothing_counts_where_nothing_listens() {
        assert_eq!(count(&[String::new()]), 0);
    }
}
