//! `port-forward`: local ports that lead to a pod.

use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list, number, text};
use crate::{pod_target, remote};
use futures::future::select_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    pod_target::POD_TIMEOUT,
    flag(
        "address",
        Takes::List,
        "[localhost]",
        "Addresses to listen on, by comma: localhost or IP addresses",
    ),
]];

/// How long a pod may be silent after the local side said its last word. A stream over WebSockets cannot be closed
/// on one side only.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A local port, 0 for any, and the pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

/// An address to listen on; of those that stand for `localhost` one suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    any: bool,
    ip: IpAddr,
}

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for; no port can be listened on; the pod is gone.
pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.flags.args;
    if args.len() < 2 {
        return Err(context.usage("TYPE/NAME and list of ports are required for port-forward"));
    }
    let patience = pod_target::timeout(context)?;
    let info = pod_target::object(context, &args[..1], "forward ports of").await?;
    let pod = pod_target::pod(context, &info, patience).await?;
    let specs = resolved(&args[1..], &info.object, &pod).map_err(Failure::Message)?;
    let phase = text(&pod, "/status/phase");
    if phase != "Running" {
        return fail(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let given = context.flags.list("address");
    if given.is_empty() && context.flags.given("address")
        || given.iter().all(String::is_empty) && !given.is_empty()
    {
        return fail("you must specify at least 1 address");
    }
    let addresses = addresses(&given).map_err(Failure::Message)?;
    let ports = specs.iter().map(|spec| parse(spec)).collect::<Result<Vec<_>, _>>();
    let ports = ports.map_err(Failure::Message)?;
    let mut listeners = Vec::new();
    for wanted in &ports {
        match listen(&addresses, *wanted).await {
            Ok(opened) => listeners.extend(opened),
            Err(why) => context.err(&format!("Unable to listen on port {}: {why}\n", wanted.local)),
        }
    }
    if listeners.is_empty() {
        let all: Vec<String> = ports.iter().map(|p| format!("{{{} {}}}", p.local, p.remote)).collect();
        return fail(format!("unable to listen on any of the requested ports: [{}]", all.join(" ")));
    }
    let pods = remote::pods(context, object::namespace(&pod)).await?;
    let forwards =
        listeners.into_iter().map(|(listener, ports)| Box::pin(serve(context, &pods, &pod, listener, ports)));
    tokio::select! {
        (outcome, ..) = select_all(forwards) => outcome,
        outcome = lost(context, &pod) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// `LOCAL:REMOTE` with names of ports as numbers, and a service's ports as its pod's.
fn resolved(specs: &[String], object: &Value, pod: &Value) -> Result<Vec<String>, String> {
    let service = object["kind"] == "Service";
    let mut all = Vec::new();
    for spec in specs {
        let (mut local, remote) = match spec.split(':').collect::<Vec<_>>().as_slice() {
            [local, remote] => ((*local).to_owned(), (*remote).to_owned()),
            [first, ..] => ((*first).to_owned(), (*first).to_owned()),
            [] => continue,
        };
        let target = if service {
            let port = match remote.parse::<i64>() {
                Ok(port) => port,
                Err(_) => {
                    let port = service_port(object, &remote)?;
                    if local == remote {
                        local = port.to_string();
                    }
                    port
                }
            };
            only_udp(list(object, "/spec/ports"), "/port", port, &remote)?;
            target_port(object, pod, port)?.to_string()
        } else {
            let ports: Vec<Value> =
                list(pod, "/spec/containers").iter().flat_map(|c| list(c, "/ports").to_vec()).collect();
            let port = match remote.parse::<i64>() {
                Ok(port) => port,
                Err(_) => container_port(pod, &remote)?,
            };
            only_udp(&ports, "/containerPort", port, &remote)?;
            // A number stays as it was typed, for the words about a wrong one.
            if remote.parse::<i64>().is_ok() { remote.clone() } else { port.to_string() }
        };
        all.push(if local == remote && !service || local == target {
            target
        } else {
            format!("{local}:{target}")
        });
    }
    Ok(all)
}

fn only_udp(ports: &[Value], field: &str, port: i64, typed: &str) -> Result<(), String> {
    let protocols: Vec<&str> = ports
        .iter()
        .filter(|entry| number(entry, field) == port)
        .map(|entry| entry["protocol"].as_str().unwrap_or("TCP"))
        .collect();
    if protocols.contains(&"UDP") && !protocols.contains(&"TCP") {
        return Err(format!("UDP protocol is not supported for {typed}"));
    }
    Ok(())
}

fn service_port(service: &Value, name: &str) -> Result<i64, String> {
    let port = list(service, "/spec/ports").iter().find(|port| port["name"] == name);
    port.map(|port| number(port, "/port"))
        .ok_or_else(|| format!("Service '{}' does not have a named port '{name}'", object::name(service)))
}

fn container_port(pod: &Value, name: &str) -> Result<i64, String> {
    let mut ports = list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports"));
    ports
        .find(|port| port["name"] == name)
        .map(|port| number(port, "/containerPort"))
        .ok_or_else(|| format!("Pod '{}' does not have a named port '{name}'", object::name(pod)))
}

/// Where a service's port leads in a pod.
fn target_port(service: &Value, pod: &Value, port: i64) -> Result<i64, String> {
    let Some(entry) = list(service, "/spec/ports").iter().find(|entry| number(entry, "/port") == port) else {
        return Err(format!("Service {} does not have a service port {port}", object::name(service)));
    };
    if text(service, "/spec/clusterIP") == "None" {
        return Ok(port);
    }
    match &entry["targetPort"] {
        Value::Number(target) => Ok(target.as_i64().filter(|target| *target != 0).unwrap_or(port)),
        Value::String(name) => container_port(pod, name),
        _ => Ok(port),
    }
}

fn parse(spec: &str) -> Result<Ports, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (local, remote) = match parts.as_slice() {
        [one] => (*one, *one),
        ["", remote] => ("0", *remote),
        [local, remote] => (*local, *remote),
        _ => return Err(format!("invalid port format '{spec}'")),
    };
    let port = |which: &str, typed: &str| {
        typed.parse::<u16>().map_err(|_| {
            let digits = !typed.is_empty() && typed.chars().all(|c| c.is_ascii_digit());
            let why = if digits { "value out of range" } else { "invalid syntax" };
            format!("error parsing {which} port '{typed}': strconv.ParseUint: parsing \"{typed}\": {why}")
        })
    };
    let ports = Ports { local: port("local", local)?, remote: port("remote", remote)? };
    if ports.remote == 0 {
        return Err("remote port must be > 0".into());
    }
    Ok(ports)
}

fn addresses(given: &[String]) -> Result<Vec<Address>, String> {
    let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let localhost = localhost.map(|ip| Address { any: true, ip });
    if given.is_empty() {
        return Ok(localhost.to_vec());
    }
    let mut all: Vec<Address> = Vec::new();
    for typed in given {
        let found = match typed.as_str() {
            "localhost" => localhost.to_vec(),
            other => match other.parse() {
                Ok(ip) => vec![Address { any: false, ip }],
                Err(_) => return Err(format!("{other} is not a valid IP")),
            },
        };
        for address in found {
            all.retain(|known| known.ip != address.ip || !known.any);
            if !all.iter().any(|known| known.ip == address.ip) {
                all.push(address);
            }
        }
    }
    all.sort_by_key(|address| address.ip.to_string());
    Ok(all)
}

/// Listens on a port of every address, and says so.
async fn listen(addresses: &[Address], mut ports: Ports) -> Result<Vec<(TcpListener, Ports)>, String> {
    let mut opened = Vec::new();
    let mut errors = Vec::new();
    let mut failed: Vec<bool> = Vec::new();
    for address in addresses {
        match TcpListener::bind(SocketAddr::new(address.ip, ports.local)).await {
            Ok(listener) => {
                let bound = listener.local_addr().map_err(|error| error.to_string())?;
                ports.local = bound.port();
                out(&format!("Forwarding from {bound} -> {}\n", ports.remote));
                opened.push((address.any, listener, ports));
            }
            Err(error) => {
                let family = if address.ip.is_ipv4() { "tcp4" } else { "tcp6" };
                let at = SocketAddr::new(address.ip, ports.local);
                let why = error.to_string();
                let why = why.split(" (os error").next().unwrap_or_default().to_lowercase();
                errors.push(format!("unable to create listener: Error listen {family} {at}: bind: {why}"));
                failed.push(address.any);
            }
        }
    }
    for any in [false, true] {
        if failed.contains(&any) && !opened.iter().any(|(of, ..)| *of == any) {
            return Err(format!(
                "Listeners failed to create with the following errors: [{}]",
                errors.join(" ")
            ));
        }
    }
    Ok(opened.into_iter().map(|(_, listener, ports)| (listener, ports)).collect())
}

/// Takes connections for ever. One that fails is told and ends alone.
async fn serve(
    context: &Context,
    pods: &Api<Pod>,
    pod: &Value,
    listener: TcpListener,
    ports: Ports,
) -> Outcome {
    let mut connections = futures::stream::FuturesUnordered::new();
    loop {
        use futures::StreamExt;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    out(&format!("Handling connection for {}\n", ports.local));
                    connections.push(forward(pods, object::name(pod), stream, ports.remote));
                }
                // Out of descriptors, say: those that are open go on.
                Err(error) => {
                    context.err(&format!("error accepting connection on port {}: {error}\n", ports.local));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.next(), if !connections.is_empty() => {
                if let Err(why) = ended {
                    context.err(&format!(
                        "an error occurred forwarding {} -> {}: {why}\n", ports.local, ports.remote
                    ));
                }
            }
        }
    }
}

/// Passes one connection on until both sides are done.
async fn forward(pods: &Api<Pod>, pod: &str, mut local: TcpStream, port: u16) -> Result<(), String> {
    let mut forwarder = match pods.portforward(pod, &[port]).await {
        Ok(forwarder) => forwarder,
        Err(kube::Error::Api(status)) => return Err(status.message.clone()),
        Err(error) => return Err(error.to_string()),
    };
    let (Some(stream), Some(errors)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
        return Err("the server opened no stream".into());
    };
    // Small pieces, back and forth: waiting to join them would only cost time.
    let _ = local.set_nodelay(true);
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let (mut from_local, mut to_local) = local.split();
    let passed = Cell::new(0_u64);
    let up = async {
        tokio::io::copy(&mut from_local, &mut to_pod).await?;
        Ok::<(), std::io::Error>(())
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_pod.read(&mut buffer).await? {
                0 => return to_local.shutdown().await,
                n => to_local.write_all(&buffer[..n]).await?,
            }
            passed.set(passed.get() + 1);
        }
    };
    let copying = async {
        tokio::pin!(down);
        tokio::select! {
            ended = &mut down => return ended,
            ended = up => ended?,
        }
        loop {
            let before = passed.get();
            tokio::select! {
                ended = &mut down => return ended,
                () = tokio::time::sleep(LAST_WORDS) => if passed.get() == before {
                    return Ok(());
                },
            }
        }
    };
    let copied = copying.await;
    // What went wrong in the pod comes before the stream ends.
    let why = tokio::time::timeout(Duration::from_millis(200), errors).await;
    if let Ok(Some(why)) = why {
        return Err(why);
    }
    match copied {
        // A side that goes away in the middle is how many connections end.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// Waits until the pod is gone, has ended or is another of the same name.
async fn lost(context: &Context, pod: &Value) -> Outcome {
    let over = |now: &Value| {
        matches!(text(now, "/status/phase"), "Succeeded" | "Failed")
            || now["metadata"]["uid"] != pod["metadata"]["uid"]
    };
    loop {
        match pod_target::until(context, object::namespace(pod), object::name(pod), None, over).await {
            Ok(_) => return fail("lost connection to pod"),
            Err(error) if error.is_not_found() => return fail("lost connection to pod"),
            // Who may use pods need not be allowed to read them.
            Err(error) if error.reason() == "Forbidden" => return std::future::pending().await,
            // Gone while it was watched, or no answer: the next look tells which.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("8080", Ok((8080, 8080)))]
    #[case("8080:80", Ok((8080, 80)))]
    #[case(":80", Ok((0, 80)))]
    #[case("0:80", Ok((0, 80)))]
    #[case("1:2:3", Err("invalid port format '1:2:3'"))]
    #[case("80:0", Err("remote port must be > 0"))]
    #[case("x:80", Err("error parsing local port 'x': strconv.ParseUint: parsing \"x\": invalid syntax"))]
    #[case(
        "1:99999",
        Err("error parsing remote port '99999': strconv.ParseUint: parsing \"99999\": value out of range")
    )]
    fn ports_are_read_as_kubectl_reads_them(
        #[case] typed: &str,
        #[case] expected: Result<(u16, u16), &'static str>,
    ) {
        let expected = expected.map(|(local, remote)| Ports { local, remote }).map_err(str::to_owned);
        assert_eq!(parse(typed), expected);
    }

    fn pod() -> Value {
        json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"ports": [
            {"name": "web", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}
        ]}]}})
    }

    #[rstest]
    #[case("8080", Ok("8080"))]
    #[case("web", Ok("8080"))]
    #[case("80:web", Ok("80:8080"))]
    #[case(":web", Ok(":8080"))]
    #[case("nosuch", Err("Pod 'p' does not have a named port 'nosuch'"))]
    #[case("53", Err("UDP protocol is not supported for 53"))]
    fn a_pods_ports_have_names(#[case] typed: &str, #[case] expected: Result<&str, &str>) {
        let found = resolved(&[typed.to_owned()], &pod(), &pod()).map(|mut all| all.remove(0));
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[rstest]
    #[case("80", Ok("80:8080"))]
    #[case("8080:80", Ok("8080"))]
    #[case("http", Ok("80:8080"))]
    #[case("1:81", Ok("1:81"))]
    #[case("82", Err("Service s does not have a service port 82"))]
    #[case("ftp", Err("Service 's' does not have a named port 'ftp'"))]
    fn a_services_ports_lead_to_its_pods(#[case] typed: &str, #[case] expected: Result<&str, &str>) {
        let service = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": "web"}, {"port": 81},
        ]}});
        let found = resolved(&[typed.to_owned()], &service, &pod()).map(|mut all| all.remove(0));
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn localhost_is_two_addresses_of_which_one_suffices() {
        let all = addresses(&["localhost".into(), "10.0.0.1".into()]).unwrap_or_default();
        let shown: Vec<(String, bool)> = all.iter().map(|a| (a.ip.to_string(), a.any)).collect();
        let expected = [("10.0.0.1", false), ("127.0.0.1", true), ("::1", true)];
        assert_eq!(shown, expected.map(|(ip, any)| (ip.to_owned(), any)));
        assert_eq!(addresses(&["nosuch".into()]), Err("nosuch is not a valid IP".into()));
    }
}
