//! From a request to a stream: which pod, which protocol, and everything that can be refused before.

use super::channels::Protocol;
use super::forward_spdy::Connect;
use super::idle::Idle;
use super::status::Verdict;
use super::upgrade::{Agreed, Asked};
use super::{Connection, Session, StreamError, StreamOptions, StreamSource};
use super::{exec_channels, exec_spdy, forward_channels, forward_spdy, options, tunnel, websocket};
use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::pods::container;
use crate::wire::Stored;
use futures::FutureExt;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use sagong_api::error::ApiError;
use std::sync::Arc;

/// SPDY within a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Port-forwarding over SPDY.
const FORWARD: &str = "portforward.k8s.io";

/// Whether a subresource of this resource is a stream. To open one is to create it, also with GET.
pub(crate) fn is_stream(group: &str, resource: &str, subresource: Option<&str>) -> bool {
    group.is_empty() && resource == "pods" && matches!(subresource, Some("exec" | "attach" | "portforward"))
}

/// What a request is about, found and in order.
struct Wanted {
    source: Arc<dyn StreamSource>,
    pod: Arc<Pod>,
    stopping: tokio_util::sync::CancellationToken,
    upgrade: OnUpgrade,
}

/// Agrees on a protocol and goes on in it, in the background, once the answer is sent.
pub(crate) async fn answer(
    context: &Context,
    subresource: &str,
    upgrade: Option<OnUpgrade>,
) -> Outcome<Response<Body>> {
    let entry = context.core.store.get(&context.key()).await?;
    let entry = entry.ok_or_else(|| context.resource.not_found(context.name()))?;
    let object = context.resource.decode_stored(&Stored::from(&entry))?;
    let pod: &Pod =
        object.as_any().downcast_ref().ok_or_else(|| Failure::internal("a stored pod is not one"))?;
    let name = context.name();
    let program = match subresource {
        "portforward" => None,
        "exec" => Some(Program::read(context, pod, Some(options::command(&context.query)?))?),
        _ => Some(Program::read(context, pod, None)?),
    };
    if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default().is_empty() {
        return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let asked = Asked::of(&context.headers)?;
    let source = context.core.streams.get().cloned();
    let source = source.ok_or_else(|| ApiError::Unavailable("no node serves streams yet".into()))?;
    // Only HTTP/1.1 can be upgraded, and only on a connection.
    let upgrade = upgrade.ok_or_else(|| Failure::bad_request("Upgrade request required"))?;
    let stopping = context.core.stopping.clone();
    let wanted = Wanted { source, pod: Arc::new(pod.clone()), stopping, upgrade };
    match program {
        Some(program) => wanted.run(asked, program).await,
        None => wanted.forward(asked, context).await,
    }
}

/// A session that is asked for.
struct Program {
    container: String,
    /// None: the container's own.
    command: Option<Vec<String>>,
    options: StreamOptions,
}

impl Program {
    fn read(context: &Context, pod: &Pod, command: Option<Vec<String>>) -> Outcome<Self> {
        let container = container::choose(pod, context.query.get("container"))?;
        Ok(Self { container, command, options: options::streams(&context.query)? })
    }

    /// Fails when the container does not run, in the words of upstream's kubelet.
    async fn find(&self, source: &dyn StreamSource, pod: &Pod) -> Result<(), StreamError> {
        let container = &self.container;
        if source.runs(pod, container).await? {
            return Ok(());
        }
        let meta = &pod.metadata;
        let (name, namespace) = (meta.name.as_deref(), meta.namespace.as_deref());
        let full_name = format!("{}_{}", name.unwrap_or_default(), namespace.unwrap_or_default());
        Err(StreamError(match self.command {
            Some(_) => format!("container not found ({container:?})"),
            None => format!("container {container} not found in pod {full_name}"),
        }))
    }

    async fn begin(&self, source: Arc<dyn StreamSource>, pod: Arc<Pod>) -> Result<Session, Verdict> {
        // Clients of WebSocket are told within the stream, as by upstream's server.
        let found = self.find(source.as_ref(), &pod).await;
        found.map_err(|error| Verdict::internal(&format!("unable to upgrade connection: {error}")))?;
        match &self.command {
            Some(command) => {
                let session = source.exec(&pod, &self.container, command, self.options).await;
                let words = "error executing command in container";
                session.map_err(|error| Verdict::internal(&format!("{words}: {error}")))
            }
            None => {
                let session = source.attach(&pod, &self.container, self.options).await;
                session.map_err(|error| Verdict::internal(&format!("error attaching to container: {error}")))
            }
        }
    }
}

impl Wanted {
    async fn run(self, asked: Asked, program: Program) -> Outcome<Response<Body>> {
        let Self { source, pod, stopping, upgrade } = self;
        let command = program.command.clone().unwrap_or_default();
        let verdict = move |code| Verdict::exit(&command, code);
        let options = program.options;
        if matches!(asked, Asked::WebSocket { .. }) {
            let agreed = match asked.agree(&CHANNELS) {
                Ok(agreed) => agreed,
                Err(refusal) => return Ok(*refusal),
            };
            let Some(protocol) = Protocol::named(&agreed.protocol) else { return Err(unknown(&agreed)) };
            tokio::spawn(async move {
                if let Some(socket) = taken_over(websocket::accept(upgrade).await) {
                    let begin = async { program.begin(source, pod).await };
                    exec_channels::serve(socket, protocol, options, begin, verdict, stopping).await;
                }
            });
            return Ok(agreed.response);
        }
        // Clients of SPDY are told before the stream begins.
        if let Err(error) = program.find(source.as_ref(), &pod).await {
            return Ok(plain(&error));
        }
        let agreed = match asked.agree(&exec_spdy::PROTOCOLS.map(|(name, _)| name)) {
            Ok(agreed) => agreed,
            Err(refusal) => return Ok(*refusal),
        };
        let known = exec_spdy::PROTOCOLS.iter().find(|(name, _)| *name == agreed.protocol);
        let Some((_, version)) = known.copied() else { return Err(unknown(&agreed)) };
        tokio::spawn(async move {
            if let Some(io) = taken_over(upgrade.await) {
                let begin = async { program.begin(source, pod).await };
                exec_spdy::serve(TokioIo::new(io), version, options, begin, verdict, stopping).await;
            }
        });
        Ok(agreed.response)
    }

    async fn forward(self, asked: Asked, context: &Context) -> Outcome<Response<Body>> {
        let Self { source, pod, stopping, upgrade } = self;
        if let Err(error) = source.find_pod(&pod).await {
            return Ok(plain(&error));
        }
        let connect = connect(source, pod);
        let spdy = matches!(asked, Asked::Spdy { .. });
        let agreed = match asked.agree(if spdy { &[FORWARD] } else { &FORWARDS }) {
            Ok(agreed) => agreed,
            Err(refusal) => return Ok(*refusal),
        };
        if spdy {
            tokio::spawn(async move {
                if let Some(io) = taken_over(upgrade.await) {
                    forward_spdy::serve(TokioIo::new(io), connect, stopping).await;
                }
            });
        } else if agreed.protocol == TUNNEL {
            tokio::spawn(async move {
                if let Some(socket) = taken_over(websocket::accept(upgrade).await) {
                    let io = tunnel::tunnel(socket, Idle::new());
                    forward_spdy::serve(io, connect, stopping).await;
                }
            });
        } else {
            let Some(protocol) = Protocol::named(&agreed.protocol) else { return Err(unknown(&agreed)) };
            let ports = options::ports(&context.query)?;
            tokio::spawn(async move {
                if let Some(socket) = taken_over(websocket::accept(upgrade).await) {
                    forward_channels::serve(socket, protocol, ports, connect, stopping).await;
                }
            });
        }
        Ok(agreed.response)
    }
}

/// What sessions speak over WebSocket.
const CHANNELS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

/// What port-forwards speak over WebSocket.
const FORWARDS: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

fn connect(source: Arc<dyn StreamSource>, pod: Arc<Pod>) -> Connect {
    Arc::new(move |port| {
        let (source, pod) = (source.clone(), pod.clone());
        async move {
            let connected: Result<Box<dyn Connection>, StreamError> = source.connect(&pod, port).await;
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            connected.map_err(|StreamError(reason)| {
                StreamError(format!("error forwarding port {port} to pod {name}, uid {uid}: {reason}"))
            })
        }
        .boxed()
    })
}

fn taken_over<T>(upgraded: Result<T, hyper::Error>) -> Option<T> {
    upgraded.inspect_err(|error| tracing::debug!(%error, "a connection was not upgraded")).ok()
}

/// A refusal in plain text, as upstream's kubelet gives it.
fn plain(error: &StreamError) -> Response<Body> {
    answer::raw(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", format!("{error}\n"))
}

fn unknown(agreed: &Agreed) -> Failure {
    Failure::internal(format!("no protocol {:?}", agreed.protocol))
}
