//! Cluster DNS: names of services and pods from what the proxies know, everything else from the host's resolvers.
//!
//! Listens on the gateway's address, on a port of its own, and stands behind the service `kube-system/kube-dns`
//! like any other endpoint: port 53 of the host is never taken, and the service rules bring pods here.

pub(crate) mod answer;
pub(crate) mod cache;
pub(crate) mod clients;
pub(crate) mod listener;
pub(crate) mod question;
pub(crate) mod service;
pub(crate) mod upstream;
pub(crate) mod zone;

use crate::proxy::Proxy;
use answer::Judgement;
use cache::{Cache, Question};
use futures::FutureExt;
use futures::future::Shared;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, oneshot};
use upstream::Upstreams;
use zone::{Known, Zone};

/// Domain of the cluster, as every upstream installation has it.
pub(crate) const DOMAIN: &str = "cluster.local.";
/// Address of the cluster's name server: the tenth of the service CIDR, as upstream's installers choose it. None if
/// the CIDR is too small to have one.
pub(crate) fn address(service_cidr: Ipv4Net) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(service_cidr.network()).saturating_add(10));
    (service_cidr.contains(&address) && address != service_cidr.broadcast()).then_some(address)
}

/// Questions asked of other servers at a time.
const MOST_QUESTIONS: usize = 500;
/// How long a question about the cluster waits for the first lists after a start.
const FIRST_LISTS: Duration = Duration::from_secs(3);

/// What another server said; None if none did.
type Told = Option<Arc<Message>>;
type Flight = Shared<oneshot::Receiver<Told>>;

/// The name server, without its sockets.
pub(crate) struct Dns {
    zone: Zone,
    upstreams: Arc<Upstreams>,
    cache: Arc<Mutex<Cache>>,
    /// Questions that are being asked: whoever asks the same waits for the same answer. A resolver of the host
    /// that asks us what we are asking it waits for itself, once, until the time is over.
    flights: Arc<Mutex<HashMap<Question, Flight>>>,
    allowed: Arc<Semaphore>,
    turn: AtomicUsize,
}

/// What to do with a query.
pub(crate) enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Say nothing.
    Nothing,
    /// It takes longer: see [`Dns::finish`].
    Wait(Box<Message>, Option<Judgement>),
}

impl Dns {
    pub(crate) fn new(zone: Zone, upstreams: Upstreams) -> Self {
        Self {
            zone,
            upstreams: Arc::new(upstreams),
            cache: Arc::default(),
            flights: Arc::default(),
            allowed: Arc::new(Semaphore::new(MOST_QUESTIONS)),
            turn: AtomicUsize::new(0),
        }
    }

    /// Answers at once what can be. `stream`: the client came over TCP and takes any length.
    pub(crate) fn begin(&self, proxy: &Proxy, bytes: &[u8], stream: bool) -> Step {
        let query = match answer::read(bytes) {
            Ok(query) => query,
            Err(Some(error)) => return send(*error, u16::MAX),
            Err(None) => return Step::Nothing,
        };
        let limit = limit(&query, stream);
        let unknown = answer::question(&query).is_ok_and(|asked| answer::is_ours(&self.zone, asked))
            && !proxy.is_listed();
        let judgement = if unknown { None } else { Some(self.judge(proxy, &query)) };
        match judgement {
            Some(Judgement::Answer(message)) => send(*message, limit),
            Some(Judgement::Forward) => match self.remembered(&query, None) {
                Some(theirs) => send(answer::relay(&query, Vec::new(), theirs), limit),
                None => Step::Wait(query, Some(Judgement::Forward)),
            },
            longer => Step::Wait(query, longer),
        }
    }

    /// Answers what needs others, or what could not be judged yet because nothing was known; None if nothing can
    /// be said. Then silence is best: who hears nothing asks again in time, while a failure makes the C library go
    /// through its attempts at once and then through the rest of the search path.
    pub(crate) async fn finish(
        &self,
        proxy: &Proxy,
        query: Message,
        judgement: Option<Judgement>,
        stream: bool,
    ) -> Option<Vec<u8>> {
        let judgement = match judgement {
            Some(known) => known,
            None if proxy.listed_within(FIRST_LISTS).await => self.judge(proxy, &query),
            None => return None,
        };
        let message = match judgement {
            Judgement::Answer(message) => *message,
            Judgement::Forward => self.forward(&query, Vec::new(), None).await,
            Judgement::Complete(chain, name) => self.forward(&query, chain, Some(name)).await,
        };
        let limit = limit(&query, stream);
        answer::write(message, limit)
    }

    fn judge(&self, proxy: &Proxy, query: &Message) -> Judgement {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let serial = now.as_secs() as u32;
        proxy.look(|observed, withdrawals| {
            answer::judge(&self.zone, Known { observed, withdrawals }, query, turn, serial)
        })
    }

    fn remembered(&self, query: &Message, name: Option<&Name>) -> Option<Message> {
        let (_, key) = ask(query, name)?;
        self.cache.lock().get(&key, Instant::now())
    }

    /// Asks others about `name`, or about what the query asks.
    async fn forward(
        &self,
        query: &Message,
        chain: Vec<hickory_proto::rr::Record>,
        name: Option<Name>,
    ) -> Message {
        let told = match self.remembered(query, name.as_ref()) {
            Some(theirs) => Some(Arc::new(theirs)),
            None => self.told(query, name.as_ref()).await,
        };
        match told {
            Some(theirs) => answer::relay(query, chain, Arc::unwrap_or_clone(theirs)),
            None => answer::reply(query, ResponseCode::ServFail),
        }
    }

    async fn told(&self, query: &Message, name: Option<&Name>) -> Told {
        let (asked, key) = ask(query, name)?;
        let flight = {
            let mut flights = self.flights.lock();
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let permit = self.allowed.clone().try_acquire_owned().ok()?;
                    let (tell, told) = oneshot::channel();
                    let flight = told.shared();
                    flights.insert(key.clone(), flight.clone());
                    let (upstreams, cache, flights) =
                        (self.upstreams.clone(), self.cache.clone(), self.flights.clone());
                    tokio::spawn(async move {
                        let said = upstreams.ask(&asked, key.edns, key.checking_disabled).await;
                        if let Some(said) = &said {
                            cache.lock().put(key.clone(), said, Instant::now());
                        }
                        flights.lock().remove(&key);
                        // Nobody may be waiting any more.
                        let _ = tell.send(said.map(Arc::new));
                        drop(permit);
                    });
                    flight
                }
            }
        };
        flight.await.ok().flatten()
    }
}

/// The question to ask others, and by what it is remembered.
fn ask(query: &Message, name: Option<&Name>) -> Option<(Query, Question)> {
    let mut asked = query.queries.first()?.clone();
    if let Some(name) = name {
        asked.set_name(name.clone());
    }
    let key = Question {
        name: asked.name().to_lowercase().to_ascii(),
        kind: asked.query_type().into(),
        class: asked.query_class().into(),
        edns: query.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
        checking_disabled: query.metadata.checking_disabled,
    };
    Some((asked, key))
}

fn limit(query: &Message, stream: bool) -> u16 {
    if stream { u16::MAX } else { answer::udp_limit(query) }
}

fn send(message: Message, limit: u16) -> Step {
    answer::write(message, limit).map_or(Step::Nothing, Step::Send)
}

#[cfg(test)]
#[path = "dns/start_tests.rs"]
mod tests;
