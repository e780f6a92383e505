//! Talking rtnetlink: a connection in this or another network namespace, and the few requests we make.

use crate::NetworkError;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, State};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

/// How many times to look whether a link carries packets, a millisecond apart.
const CARRIER_CHECKS: usize = 1000;

/// A rtnetlink connection bound to one network namespace.
pub(crate) struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// A connection in the network namespace of the calling thread. Must be called within a tokio runtime.
    pub(crate) fn here() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// A connection in the network namespace pinned at `netns`.
    pub(crate) async fn inside(netns: &Path) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        super::within(netns, move || {
            let _entered = runtime.enter();
            Self::here()
        })
        .await?
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Index of the link with this name; None if there is none.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| message.header.index)),
            Err(error) if code(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(failed("looking up link", name, &error)),
        }
    }

    /// Like [`Netlink::index`], but the link must be there.
    pub(crate) async fn expect(&self, name: &str) -> Result<u32, NetworkError> {
        self.index(name).await?.ok_or_else(|| NetworkError::Failed {
            step: "looking up link",
            object: name.to_owned(),
            message: "it is gone".to_owned(),
        })
    }

    /// Index and name of every link.
    pub(crate) async fn links(&self) -> Result<Vec<(u32, String)>, NetworkError> {
        let all: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("listing", "links", &error))?;
        Ok(all.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect())
    }

    pub(crate) async fn up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let done = self.handle.link().change(message).execute().await;
        done.map_err(|error| failed("setting up link", index, &error))
    }

    /// Waits until a link that is up on both ends really carries packets. The kernel activates the end that
    /// came up first a little later; a packet sent before is lost, and a SYN repeated only after a second.
    pub(crate) async fn carries(&self, index: u32) -> Result<(), NetworkError> {
        for _ in 0..CARRIER_CHECKS {
            // From Linux 6.8 on, asking is enough to make the kernel do it.
            let mut found = std::pin::pin!(self.handle.link().get().match_index(index).execute());
            let link = found.try_next().await.map_err(|error| failed("looking up link", index, &error))?;
            let up = LinkAttribute::OperState(State::Up);
            if link.is_some_and(|link| link.attributes.contains(&up)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // A second is longer than the kernel puts it off; better a pod with a slow start than none.
        tracing::warn!(index, "link is up and does not carry packets yet");
        Ok(())
    }

    /// Deletes a link; no error if there is none.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if code(&error) != Some(nix::libc::ENODEV) => {
                Err(failed("deleting link", name, &error))
            }
            _ => Ok(()),
        }
    }

    /// Gives a link an address without the route to its network that usually comes with it.
    pub(crate) async fn address(&self, index: u32, address: Ipv4Net) -> Result<(), NetworkError> {
        let request = self.handle.address().add(index, IpAddr::V4(address.addr()), address.prefix_len());
        let mut request = request.replace();
        let flags = AddressFlags::Noprefixroute | AddressFlags::Permanent;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.execute().await.map_err(|error| failed("adding address", address, &error))
    }

    /// IPv4 addresses with their prefix, and the index of the link they are on.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, Ipv4Net)>, NetworkError> {
        let all: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("listing", "addresses", &error))?;
        let net = |message: &rtnetlink::packet_route::address::AddressMessage| {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            })?;
            Some((message.header.index, Ipv4Net::new(local, message.header.prefix_len).ok()?))
        };
        Ok(all.iter().filter_map(net).collect())
    }

    pub(crate) async fn route(&self, route: RouteMessage, object: Ipv4Net) -> Result<(), NetworkError> {
        let done = self.handle.route().add(route).replace().execute().await;
        done.map_err(|error| failed("adding route", object, &error))
    }

    /// Deletes a route; no error if there is none.
    pub(crate) async fn delete_route(
        &self,
        route: RouteMessage,
        object: Ipv4Net,
    ) -> Result<(), NetworkError> {
        match self.handle.route().del(route).execute().await {
            Err(error) if code(&error) != Some(nix::libc::ESRCH) => {
                Err(failed("deleting route", object, &error))
            }
            _ => Ok(()),
        }
    }

    /// IPv4 routes of the main table.
    pub(crate) async fn routes(&self) -> Result<Vec<RouteMessage>, NetworkError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(|error| failed("listing", "routes", &error))?;
        Ok(all.into_iter().filter(|route| route.header.table == 254).collect())
    }

    /// Fixes the hardware address behind an address, so that nobody has to ask for it.
    pub(crate) async fn neighbour(
        &self,
        index: u32,
        address: Ipv4Addr,
        hardware: [u8; 6],
    ) -> Result<(), NetworkError> {
        let request = self.handle.neighbours().add(index, IpAddr::V4(address));
        let done = request.link_layer_address(&hardware).replace().execute().await;
        done.map_err(|error| failed("adding neighbour", address, &error))
    }
}

/// A route straight to `destination` over a link.
pub(crate) fn direct(destination: Ipv4Net, link: u32) -> RouteMessageBuilder<Ipv4Addr> {
    to(destination).output_interface(link).scope(RouteScope::Link)
}

/// A route by which packets to `destination` are refused.
pub(crate) fn unreachable(destination: Ipv4Net) -> RouteMessage {
    to(destination).kind(RouteType::Unreachable).build()
}

/// The default route.
pub(crate) fn default_via(gateway: Ipv4Addr, link: u32) -> RouteMessage {
    to(Ipv4Net::default()).gateway(gateway).output_interface(link).build()
}

fn to(destination: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new();
    builder.destination_prefix(destination.network(), destination.prefix_len())
}

/// Name of a link as the kernel tells it.
pub(crate) fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// The errno in an error, if the kernel gave one.
pub(crate) fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

/// An error with the kernel's words instead of netlink's.
pub(crate) fn failed(step: &'static str, object: impl ToString, error: &rtnetlink::Error) -> NetworkError {
    let message = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    };
    NetworkError::Failed { step, object: object.to_string(), message }
}
