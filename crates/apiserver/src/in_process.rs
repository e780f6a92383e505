//! Clients in the same process: the router called directly, without TCP or TLS.

use crate::authn::User;
use crate::body::Body;
use crate::router::{self, Peer};
use crate::state::Core;
use futures::future::BoxFuture;
use http::{Request, Response};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The router as a `tower` service that asks as one user.
#[derive(Clone)]
pub(crate) struct InProcess {
    pub(crate) core: Arc<Core>,
    pub(crate) user: Arc<User>,
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (core, peer) = (self.core.clone(), Peer::InProcess(self.user.clone()));
        Box::pin(async move { Ok(router::handle(core, peer, request).await) })
    }
}
