//! The commands: their names, their flags, and how a command line finds one.

mod apply;
mod config;
mod cp;
mod create;
mod delete;
mod describe;
mod edit;
mod events;
mod exec;
mod explain;
mod expose;
mod get;
mod label;
mod logs;
mod misc;
mod patch;
mod port_forward;
mod replace;
mod rolling_update;
mod rollout;
mod scale;
mod server;
mod set;
mod wait;
mod watch_rollout;

use crate::context::Context;
use crate::failure::{Failure, Outcome, quote};
use crate::flags::{self, Flag};
use crate::global::GLOBAL;
use std::future::Future;
use std::pin::Pin;

/// What running a command gives.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A command, or a group of them.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// One line on what it does.
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [&'static [Flag]],
    pub(crate) commands: &'static [Command],
    pub(crate) run: Option<for<'a> fn(&'a Context) -> Running<'a>>,
}

macro_rules! command {
    ($name:literal, $about:literal, $module:ident) => {
        Command {
            name: $name,
            aliases: &[],
            about: $about,
            flags: &$module::FLAGS,
            commands: &[],
            run: Some(|context| Box::pin($module::run(context))),
        }
    };
}

macro_rules! inner {
    ($name:literal, $aliases:expr, $about:literal, $flags:expr, $run:path) => {
        Command {
            name: $name,
            aliases: $aliases,
            about: $about,
            flags: $flags,
            commands: &[],
            run: Some(|context| Box::pin($run(context))),
        }
    };
}

const CREATE: &[Command] = &[
    inner!(
        "configmap",
        &["cm"],
        "Create a config map from literals, files or directories",
        &create::DATA_FLAGS,
        create::config_map
    ),
    inner!(
        "deployment",
        &["deploy"],
        "Create a deployment with the specified name",
        &create::DEPLOYMENT_FLAGS,
        create::deployment
    ),
    inner!(
        "namespace",
        &["ns"],
        "Create a namespace with the specified name",
        &create::PLAIN_FLAGS,
        create::namespace
    ),
    Command {
        name: "secret",
        aliases: &[],
        about: "Create a secret",
        flags: &[],
        commands: CREATE_SECRET,
        run: None,
    },
    Command {
        name: "service",
        aliases: &["svc"],
        about: "Create a service",
        flags: &[],
        commands: CREATE_SERVICE,
        run: None,
    },
    inner!(
        "serviceaccount",
        &["sa"],
        "Create a service account with the specified name",
        &create::PLAIN_FLAGS,
        create::service_account
    ),
];

const CREATE_SECRET: &[Command] = &[inner!(
    "generic",
    &[],
    "Create a secret from literals, files or directories",
    &create::DATA_FLAGS,
    create::secret
)];

const CREATE_SERVICE: &[Command] = &[
    inner!("clusterip", &[], "Create a ClusterIP service", &create::SERVICE_FLAGS, create::cluster_ip),
    inner!(
        "externalname",
        &[],
        "Create an ExternalName service",
        &create::SERVICE_FLAGS,
        create::external_name
    ),
    inner!(
        "loadbalancer",
        &[],
        "Create a LoadBalancer service",
        &create::SERVICE_FLAGS,
        create::load_balancer
    ),
    inner!("nodeport", &[], "Create a NodePort service", &create::SERVICE_FLAGS, create::node_port),
];

const SET: &[Command] = &[
    inner!("env", &[], "Update environment variables on a pod template", &set::ENV_FLAGS, set::env),
    inner!("image", &[], "Update the image of a pod template", &set::FLAGS, set::image),
    inner!(
        "resources",
        &[],
        "Update resource requests/limits on objects with pod templates",
        &set::RESOURCE_FLAGS,
        set::resources
    ),
    inner!("selector", &[], "Set the selector on a resource", &set::FLAGS, set::selector),
    inner!(
        "serviceaccount",
        &["sa"],
        "Update the service account of a resource",
        &set::FLAGS,
        set::service_account
    ),
];

const APPLY: &[Command] = &[inner!(
    "view-last-applied",
    &[],
    "View the latest last-applied-configuration annotations of a resource/object",
    &apply::VIEW_FLAGS,
    apply::view
)];

const ROLLOUT: &[Command] = &[
    inner!("history", &[], "View rollout history", &rollout::HISTORY_FLAGS, rollout::history),
    inner!("pause", &[], "Mark the provided resource as paused", &rollout::FLAGS, rollout::pause),
    inner!("restart", &[], "Restart a resource", &rollout::FLAGS, rollout::restart),
    inner!("resume", &[], "Resume a paused resource", &rollout::FLAGS, rollout::resume),
    inner!("status", &[], "Show the status of the rollout", &rollout::STATUS_FLAGS, rollout::status),
    inner!("undo", &[], "Undo a previous rollout", &rollout::UNDO_FLAGS, rollout::undo),
    inner!("watch", &[], "Watch one rollout, live", &watch_rollout::FLAGS, watch_rollout::run),
];

const AUTH: &[Command] = &[
    inner!("can-i", &[], "Check whether an action is allowed", &server::CAN_I_FLAGS, server::can_i),
    inner!("whoami", &[], "Check self subject attributes", &server::WHOAMI_FLAGS, server::whoami),
];

const CONFIG: &[Command] = &[
    inner!("current-context", &[], "Display the current-context", &config::NONE, config::current_context),
    inner!(
        "delete-cluster",
        &[],
        "Delete the specified cluster from the kubeconfig",
        &config::NONE,
        config::delete_cluster
    ),
    inner!(
        "delete-context",
        &[],
        "Delete the specified context from the kubeconfig",
        &config::NONE,
        config::delete_context
    ),
    inner!(
        "delete-user",
        &[],
        "Delete the specified user from the kubeconfig",
        &config::NONE,
        config::delete_user
    ),
    inner!(
        "get-clusters",
        &[],
        "Display clusters defined in the kubeconfig",
        &config::NONE,
        config::get_clusters
    ),
    inner!(
        "get-contexts",
        &[],
        "Describe one or many contexts",
        &config::CONTEXTS_FLAGS,
        config::get_contexts
    ),
    inner!("get-users", &[], "Display users defined in the kubeconfig", &config::NONE, config::get_users),
    inner!(
        "rename-context",
        &[],
        "Rename a context from the kubeconfig file",
        &config::NONE,
        config::rename_context
    ),
    inner!("set", &[], "Set an individual value in a kubeconfig file", &config::NONE, config::set_property),
    inner!("set-cluster", &[], "Set a cluster entry in kubeconfig", &config::SET_FLAGS, config::set_cluster),
    inner!(
        "set-context",
        &[],
        "Set a context entry in kubeconfig",
        &config::SET_CONTEXT_FLAGS,
        config::set_context
    ),
    inner!(
        "set-credentials",
        &[],
        "Set a user entry in kubeconfig",
        &config::SET_FLAGS,
        config::set_credentials
    ),
    inner!(
        "unset",
        &[],
        "Unset an individual value in a kubeconfig file",
        &config::NONE,
        config::set_property
    ),
    inner!(
        "use-context",
        &["use"],
        "Set the current-context in a kubeconfig file",
        &config::NONE,
        config::use_context
    ),
    inner!(
        "view",
        &[],
        "Display merged kubeconfig settings or a specified kubeconfig file",
        &config::VIEW_FLAGS,
        config::view
    ),
];

const PLUGIN: &[Command] = &[inner!(
    "list",
    &[],
    "List all visible plugin executables on a user's PATH",
    &misc::NONE,
    misc::plugins
)];

const TOP: &[Command] = &[
    inner!("node", &["nodes", "no"], "Display resource (CPU/memory) usage of nodes", &misc::NONE, misc::top),
    inner!("pod", &["pods", "po"], "Display resource (CPU/memory) usage of pods", &misc::NONE, misc::top),
];

const fn group(name: &'static str, about: &'static str, commands: &'static [Command]) -> Command {
    Command { name, aliases: &[], about, flags: &[], commands, run: None }
}

/// All of them.
pub(crate) const COMMANDS: &[Command] = &[
    inner!("annotate", &[], "Update the annotations on a resource", &label::ANNOTATE_FLAGS, label::annotate),
    Command {
        commands: APPLY,
        ..command!("apply", "Apply a configuration to a resource by file name or stdin", apply)
    },
    inner!(
        "api-resources",
        &[],
        "Print the supported API resources on the server",
        &server::RESOURCES_FLAGS,
        server::resources
    ),
    inner!(
        "api-versions",
        &[],
        "Print the supported API versions on the server, in the form of \"group/version\"",
        &server::NONE,
        server::versions
    ),
    inner!("attach", &[], "Attach to a running container", &exec::ATTACH_FLAGS, exec::attach),
    group("auth", "Inspect authorization", AUTH),
    inner!(
        "autoscale",
        &[],
        "Auto-scale a deployment, replica set, stateful set, or replication controller",
        &scale::AUTOSCALE_FLAGS,
        scale::autoscale
    ),
    inner!(
        "cluster-info",
        &["clusterinfo"],
        "Display cluster information",
        &server::NONE,
        server::cluster_info
    ),
    inner!(
        "completion",
        &[],
        "Output shell completion code for the specified shell (bash, zsh, fish, or powershell)",
        &misc::NONE,
        misc::completion
    ),
    group("config", "Modify kubeconfig files", CONFIG),
    inner!("cordon", &[], "Mark node as unschedulable", &scale::CORDON_FLAGS, scale::cordon),
    command!("cp", "Copy files and directories to and from containers", cp),
    Command { commands: CREATE, ..command!("create", "Create a resource from a file or from stdin", create) },
    command!(
        "delete",
        "Delete resources by file names, stdin, resources and names, or by resources and label selector",
        delete
    ),
    command!("describe", "Show details of a specific resource or group of resources", describe),
    inner!(
        "diff",
        &[],
        "Diff the live version against a would-be applied version",
        &edit::DIFF_FLAGS,
        edit::diff
    ),
    command!("edit", "Edit a resource on the server", edit),
    command!("events", "List events", events),
    command!("exec", "Execute a command in a container", exec),
    command!("explain", "Get documentation for a resource", explain),
    command!(
        "expose",
        "Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service",
        expose
    ),
    command!("get", "Display one or many resources", get),
    command!("label", "Update the labels on a resource", label),
    command!("logs", "Print the logs for a container in a pod", logs),
    inner!("options", &[], "Print the list of flags inherited by all commands", &misc::NONE, misc::options),
    command!("patch", "Update fields of a resource", patch),
    group("plugin", "Provides utilities for interacting with plugins", PLUGIN),
    command!("port-forward", "Forward one or more local ports to a pod", port_forward),
    command!("replace", "Replace a resource by file name or stdin", replace),
    inner!(
        "rolling-update",
        &[],
        "Retired: replace a controller's pods step by step, from here",
        &rolling_update::FLAGS,
        rolling_update::run
    ),
    group("rollout", "Manage the rollout of a resource", ROLLOUT),
    inner!("run", &[], "Run a particular image on the cluster", &create::RUN_FLAGS, create::run_pod),
    command!("scale", "Set a new size for a deployment, replica set, or replication controller", scale),
    group("set", "Set specific features on objects", SET),
    group("top", "Display resource (CPU/memory) usage", TOP),
    inner!("uncordon", &[], "Mark node as schedulable", &scale::CORDON_FLAGS, scale::uncordon),
    inner!(
        "version",
        &[],
        "Print the client and server version information",
        &server::VERSION_FLAGS,
        server::version
    ),
    command!("wait", "Wait for a specific condition on one or many resources", wait),
];

/// Runs a command line.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) async fn run(args: Vec<String>, name: &str) -> Outcome {
    let (command, path, rest) = find(&args, name)?;
    let mut sets: Vec<&[Flag]> = command.flags.to_vec();
    sets.push(&GLOBAL);
    let parsed = match flags::parse(&sets, &rest) {
        Ok(parsed) => parsed,
        Err(Failure::Exit(flags::HELP)) => {
            help(command, &path, false);
            return Ok(());
        }
        Err(Failure::Message(text)) => {
            return Err(Failure::Verbatim(format!("error: {text}\nSee '{path} --help' for usage.")));
        }
        Err(other) => return Err(other),
    };
    let context = Context::new(name, &path, parsed);
    if context.flags.given("record") {
        context.err("Flag --record has been deprecated, --record will be removed in the future\n");
    }
    match command.run {
        Some(run) => run(&context).await,
        None if command.name == ROOT.name => {
            help(command, &path, false);
            Ok(())
        }
        None if context.flags.args.is_empty() => {
            help(command, &path, true);
            Err(Failure::Exit(1))
        }
        None => Err(context.usage(&format!("unknown command {}", quote(&context.flags.args.join(" "))))),
    }
}

const ROOT: Command = Command {
    name: "kubectl",
    aliases: &[],
    about: "kubectl controls the Kubernetes cluster manager.",
    flags: &[],
    commands: COMMANDS,
    run: None,
};

/// The command that the words name, its path, and the arguments without its words.
fn find(args: &[String], name: &str) -> Outcome<(&'static Command, String, Vec<String>)> {
    const ROOT_COMMAND: &Command = &ROOT;
    let mut command = ROOT_COMMAND;
    let mut path = name.to_owned();
    let mut rest = args.to_vec();
    while !command.commands.is_empty() {
        let Some(at) = word(&rest) else { break };
        let typed = rest[at].clone();
        // What Kubernetes never had, or no longer has, is not there for who asks for kubectl.
        let foreign =
            name == "kubectl" && (typed == "rolling-update" || path == "kubectl rollout" && typed == "watch");
        let known = command.commands.iter().find(|c| c.name == typed || c.aliases.contains(&typed.as_str()));
        let known = known.filter(|_| !foreign);
        let Some(found) = known else {
            if command.run.is_some() {
                break;
            }
            if path == name {
                return Err(unknown(&typed, name));
            }
            break;
        };
        rest.remove(at);
        path = format!("{path} {}", found.name);
        command = found;
    }
    Ok((command, path, rest))
}

/// Where the first argument is that is no flag, nor the value of a global one.
fn word(args: &[String]) -> Option<usize> {
    let mut skip = false;
    for (index, arg) in args.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if arg == "--" {
            return None;
        }
        if !arg.starts_with('-') || arg == "-" {
            return Some(index);
        }
        if arg.contains('=') {
            continue;
        }
        let name = arg.trim_start_matches('-');
        let global = GLOBAL.iter().find(|flag| {
            if arg.starts_with("--") {
                flag.name == name
            } else {
                name.len() == 1 && name.starts_with(flag.short)
            }
        });
        skip = global.is_some_and(|flag| flag.takes != flags::Takes::Bool);
    }
    None
}

fn unknown(typed: &str, name: &str) -> Failure {
    let mut text = format!("error: unknown command {} for {}", quote(typed), quote(name));
    // In the order in which kubectl's help names them.
    const ORDER: [&str; 46] = [
        "create",
        "expose",
        "run",
        "set",
        "explain",
        "get",
        "edit",
        "delete",
        "rollout",
        "scale",
        "autoscale",
        "certificate",
        "cluster-info",
        "top",
        "cordon",
        "uncordon",
        "drain",
        "taint",
        "describe",
        "logs",
        "attach",
        "exec",
        "port-forward",
        "proxy",
        "cp",
        "auth",
        "debug",
        "events",
        "diff",
        "apply",
        "patch",
        "replace",
        "wait",
        "kustomize",
        "label",
        "annotate",
        "completion",
        "api-resources",
        "api-versions",
        "config",
        "plugin",
        "version",
        "options",
        "alpha",
        "help",
        "rolling-update",
    ];
    let near: Vec<&str> = ORDER
        .into_iter()
        .filter(|known| COMMANDS.iter().any(|command| command.name == *known))
        .filter(|known| name != "kubectl" || *known != "rolling-update")
        .filter(|known: &&str| distance(typed, known) <= 2 || known.starts_with(&typed.to_lowercase()))
        .collect();
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        near.iter().for_each(|known| text.push_str(&format!("\t{known}\n")));
    }
    Failure::Verbatim(text)
}

/// How many letters two words differ by.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

fn help(command: &Command, path: &str, complain: bool) {
    let mut text = format!("{}\n", command.about);
    if !command.commands.is_empty() {
        text.push_str("\nAvailable Commands:\n");
        for inner in command.commands {
            text.push_str(&format!("  {:<16}{}\n", inner.name, inner.about));
        }
    }
    let flags: Vec<&Flag> = command.flags.iter().flat_map(|flags| flags.iter()).collect();
    if !flags.is_empty() {
        text.push_str("\nOptions:\n");
        for flag in flags {
            let letter = if flag.short == ' ' { "    ".to_owned() } else { format!("-{}, ", flag.short) };
            let default = if flag.default.is_empty() { "''" } else { flag.default };
            text.push_str(&format!("    {letter}--{}={default}:\n\t{}\n\n", flag.name, flag.help));
        }
    }
    let what = if command.commands.is_empty() { "[flags] [options]" } else { "[command]" };
    text.push_str(&format!("\nUsage:\n  {path} {what}\n\nUse \"{} options\" for a list of global command-line options (applies to all commands).\n", path.split(' ').next().unwrap_or("kubectl")));
    if complain {
        eprint!("{text}");
    } else {
        crate::context::out(&text);
    }
}
