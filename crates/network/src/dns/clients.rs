//! Who may ask the name server, and how many connections each has: pods and this machine may, whoever else can
//! reach its address may not. It asks others' servers on behalf of its clients, and must not for just anybody.

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the machine's addresses are believed before they are looked up again for somebody unknown.
const BELIEVED: Duration = Duration::from_secs(1);
/// Connections of one client at a time.
const MOST_SEATS: usize = 20;

/// The name server's clients.
pub(crate) struct Clients {
    /// Pods of the whole cluster.
    pods: Ipv4Net,
    own: Mutex<Own>,
    seats: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// This machine's addresses.
#[derive(Default)]
struct Own {
    addresses: BTreeSet<Ipv4Addr>,
    read: Option<Instant>,
}

impl Clients {
    pub(crate) fn new(pods: Ipv4Net) -> Self {
        Self { pods, own: Mutex::default(), seats: Arc::default() }
    }

    /// Whether a client is a pod or this machine.
    pub(crate) fn may_ask(&self, client: IpAddr) -> bool {
        self.may_ask_at(client, Instant::now(), || crate::local::addresses().unwrap_or_default())
    }

    fn may_ask_at(&self, client: IpAddr, now: Instant, read: impl FnOnce() -> BTreeSet<Ipv4Addr>) -> bool {
        let IpAddr::V4(client) = client else { return false };
        if client.is_loopback() || self.pods.contains(&client) {
            return true;
        }
        let mut own = self.own.lock();
        if !own.addresses.contains(&client)
            && own.read.is_none_or(|then| now.saturating_duration_since(then) >= BELIEVED)
        {
            *own = Own { addresses: read(), read: Some(now) };
        }
        own.addresses.contains(&client)
    }

    /// A place for a connection; None if the client has too many.
    pub(crate) fn seat(&self, client: IpAddr) -> Option<Seat> {
        let mut seats = self.seats.lock();
        let taken = seats.entry(client).or_default();
        if *taken == MOST_SEATS {
            return None;
        }
        *taken += 1;
        Some(Seat { seats: self.seats.clone(), client })
    }
}

/// A client's place, given back when dropped.
pub(crate) struct Seat {
    seats: Arc<Mutex<HashMap<IpAddr, usize>>>,
    client: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock();
        match seats.get_mut(&self.client) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(seats.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn clients() -> Clients {
        Clients::new("10.244.0.0/16".parse().unwrap())
    }

    #[rstest]
    #[case::pod("10.244.3.4", true)]
    #[case::loopback("127.0.0.1", true)]
    #[case::machine("192.0.2.1", true)]
    #[case::neighbour("192.0.2.2", false)]
    #[case::other_family("::1", false)]
    fn pods_and_the_machine_may_ask(#[case] client: &str, #[case] may: bool) {
        let own = || BTreeSet::from([Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(clients().may_ask_at(client.parse().unwrap(), Instant::now(), own), may);
    }

    #[test]
    fn an_address_the_machine_got_later_may_ask_soon() {
        let (clients, now) = (clients(), Instant::now());
        let later = Ipv4Addr::new(192, 0, 2, 1);
        let asks = |after, own: &[Ipv4Addr]| {
            clients.may_ask_at(later.into(), now + after, || own.iter().copied().collect())
        };
        assert!(!asks(Duration::ZERO, &[]));
        assert!(!asks(BELIEVED / 2, &[later]));
        assert!(asks(BELIEVED, &[later]));
    }

    #[test]
    fn a_client_has_so_many_seats_and_gets_them_back() {
        let clients = clients();
        let [one, other] = ["10.244.0.2", "10.244.0.3"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut seats: Vec<Seat> = (0..MOST_SEATS).map_while(|_| clients.seat(one)).collect();
        assert_eq!(seats.len(), MOST_SEATS);
        assert!(clients.seat(one).is_none() && clients.seat(other).is_some());
        seats.pop();
        assert!(clients.seat(one).is_some());
        drop(seats);
        assert!(clients.seats.lock().is_empty());
    }
}
