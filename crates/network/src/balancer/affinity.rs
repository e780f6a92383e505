//! Which pod a client was sent to last, for services with `sessionAffinity: ClientIP`. Pure: the time is an
//! argument.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Clients remembered before those whose time is over are looked for.
const MANY: usize = 10_000;

/// The memory of one service port.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// None: clients are not remembered.
    timeout: Option<Duration>,
    clients: HashMap<IpAddr, (SocketAddr, Instant)>,
}

impl Affinity {
    /// For how long clients are remembered from now on.
    pub(crate) fn set(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
        if timeout.is_none() {
            self.clients = HashMap::new();
        }
    }

    /// The pod a client was sent to, if that was not too long ago.
    pub(crate) fn get(&self, client: IpAddr, now: Instant) -> Option<SocketAddr> {
        let timeout = self.timeout?;
        let (pod, since) = self.clients.get(&client)?;
        (now.saturating_duration_since(*since) < timeout).then_some(*pod)
    }

    /// Remembers that a client was sent to a pod.
    pub(crate) fn put(&mut self, client: IpAddr, pod: SocketAddr, now: Instant) {
        let Some(timeout) = self.timeout else { return };
        if self.clients.len() >= MANY {
            self.clients.retain(|_, (_, since)| now.saturating_duration_since(*since) < timeout);
        }
        self.clients.insert(client, (pod, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_remembered_from_its_last_visit_on() {
        let (client, pod) = ("127.0.0.1".parse().unwrap(), "10.244.0.5:80".parse().unwrap());
        let (mut affinity, now) = (Affinity::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        affinity.put(client, pod, now);
        assert_eq!(affinity.get(client, now), None);
        affinity.set(Some(Duration::from_secs(10)));
        affinity.put(client, pod, now);
        affinity.put(client, pod, after(8));
        assert_eq!(affinity.get(client, after(17)), Some(pod));
        assert_eq!(affinity.get(client, after(18)), None);
        assert_eq!(affinity.get("127.0.0.2".parse().unwrap(), now), None);
        affinity.set(None);
        assert_eq!(affinity.get(client, now), None);
    }
}
