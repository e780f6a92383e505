//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::Ipv4Net;
use sagong_kubelet::MOST_PODS;
use std::path::PathBuf;
use std::time::Duration;

/// Prefix length of the smallest network a cluster takes: a gateway and a dozen pods or services.
const SMALLEST_NETWORK: u8 = 28;

/// Kubernetes Deployments on one machine, in one binary.
#[derive(Parser)]
#[command(
    name = "sagong",
    version,
    about,
    disable_help_subcommand = true,
    after_help = "Every kubectl command works as well: sagong get pods, sagong kubectl get pods, or a link named kubectl."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start the cluster, or go on with the one that was started before
    Up(Up),
    /// Stop the cluster and everything that runs in it; its objects are kept
    Down(Down),
    /// Run the controllers alone, against any Kubernetes API server, until interrupted
    Controllers(Controllers),
    /// Tell whether the cluster runs, and how it does
    Status(Status),
    /// Roll a Deployment from v1 to v2 and back under load, on a cluster of its own
    Demo(Demo),
    /// Images on this machine
    Image(Image),
    /// Serve LoadBalancer services of a cluster started with --no-load-balancer, until interrupted
    Tunnel(DataDirectory),
}

#[derive(Args, Clone)]
pub(crate) struct DataDirectory {
    /// Directory of the cluster's state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sagong", env = "SAGONG_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Args, Clone)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) data: DataDirectory,
    /// Return as soon as the node is Ready; the cluster goes on in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Port of the API server
    #[arg(long, default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Addresses of pods
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16", value_parser = network)]
    pub(crate) pod_cidr: Ipv4Net,
    /// Addresses of services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12", value_parser = network)]
    pub(crate) service_cidr: Ipv4Net,
    /// Most pods this machine takes
    #[arg(long, value_name = "N", default_value_t = MOST_PODS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) max_pods: u32,
    /// Leave LoadBalancer services <pending>; `sagong tunnel` serves them
    #[arg(long)]
    pub(crate) no_load_balancer: bool,
    /// Leave ~/.kube/config alone
    #[arg(long)]
    pub(crate) no_kubeconfig: bool,
    /// Nodes whose pods are only simulated, called simulated-0 and so on; see docs/simulated-nodes.md
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) simulated_nodes: u32,
    /// How long simulated pods take to become ready, e.g. 500ms, 5s
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) simulated_ready_delay: Duration,
    /// Leave the place of the controllers to others, e.g. `sagong controllers` or upstream's
    #[arg(long)]
    pub(crate) without_controllers: bool,
    /// Leave the place of the scheduler to another
    #[arg(long)]
    pub(crate) without_scheduler: bool,
    /// Set by `up -d` for the process it leaves in the background
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// A network with room for more than the cluster's own addresses.
fn network(text: &str) -> Result<Ipv4Net, String> {
    let network: Ipv4Net = text.parse().map_err(|_| "not a network like 10.244.0.0/16".to_owned())?;
    if network.prefix_len() > SMALLEST_NETWORK {
        return Err(format!("too few addresses; use a /{SMALLEST_NETWORK} or larger"));
    }
    Ok(network)
}

fn duration(text: &str) -> Result<Duration, String> {
    sagong_kubelet::duration(text).ok_or_else(|| "expected a duration such as 500ms, 5s, 2m or 1h".to_owned())
}

#[derive(Args)]
pub(crate) struct Controllers {
    /// How to reach the API server [default: where kubectl finds it]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) data: DataDirectory,
    /// Also delete the directory: objects, images, keys
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) data: DataDirectory,
    /// Format
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
}

#[derive(Args)]
pub(crate) struct Demo {
    /// Directory of the demo's own cluster; deleted at the end [default: one under the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Requests per second, half of them each on a connection of its own, half on connections kept alive
    #[arg(long, default_value_t = 600)]
    pub(crate) rate: u32,
    /// Format of the last line
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// One JSON object
    Json,
}

#[derive(Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Load the images of a `docker save` archive or an OCI layout
    Load {
        #[command(flatten)]
        data: DataDirectory,
        /// Archive (compressed or not) or directory of an OCI layout
        file: PathBuf,
    },
    /// Make an image of a directory that is to be its root
    Import {
        #[command(flatten)]
        data: DataDirectory,
        /// The directory; an OCI layout is loaded as one
        directory: PathBuf,
        /// Name of the image, e.g. luksa/kubia:v1 [default: the directory's name]
        name: Option<String>,
        /// Command the image runs; once per word
        #[arg(long, value_name = "WORD")]
        entrypoint: Vec<String>,
        /// Default arguments; once per word
        #[arg(long, value_name = "WORD")]
        cmd: Vec<String>,
        /// Environment; once per variable
        #[arg(long, value_name = "NAME=VALUE")]
        env: Vec<String>,
        /// Working directory
        #[arg(long, value_name = "DIR", default_value = "")]
        workdir: String,
        /// User
        #[arg(long, default_value = "")]
        user: String,
    },
    /// Fetch an image from its registry
    Pull {
        #[command(flatten)]
        data: DataDirectory,
        /// Name of the image
        name: String,
    },
    /// List images
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        data: DataDirectory,
    },
    /// Remove images
    #[command(visible_alias = "rm")]
    Remove {
        #[command(flatten)]
        data: DataDirectory,
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_room_for_pods_is_refused() {
        assert_eq!(network("10.9.0.0/28").map(|network| network.prefix_len()), Ok(28));
        assert_eq!(network("10.9.0.0/31").unwrap_err(), "too few addresses; use a /28 or larger");
        assert_eq!(network("fd00::/64").unwrap_err(), "not a network like 10.244.0.0/16");
    }
}
