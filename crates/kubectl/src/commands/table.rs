//! Every command, with its flags and what runs it.

use super::create::{self, data, ingress, policy, rbac, service, token, workload};
use super::{
    Command, certificate, cluster_info, config, drain, edit, exec, label, last_applied, misc, rolling_update,
    rollout, scale, server, set, set_subject, watch_rollout,
};

macro_rules! command {
    ($name:literal, $about:literal, $module:ident) => {
        Command {
            name: $name,
            aliases: &[],
            about: $about,
            flags: &super::$module::FLAGS,
            commands: &[],
            run: Some(|context| Box::pin(super::$module::run(context))),
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
    inner!("clusterrole", &[], "Create a cluster role", &rbac::CLUSTER_ROLE_FLAGS, rbac::cluster_role),
    inner!(
        "clusterrolebinding",
        &[],
        "Create a cluster role binding for a particular cluster role",
        &rbac::BINDING_FLAGS,
        rbac::cluster_role_binding
    ),
    inner!(
        "configmap",
        &["cm"],
        "Create a config map from a local file, directory or literal value",
        &data::DATA_FLAGS,
        data::config_map
    ),
    inner!(
        "cronjob",
        &["cj"],
        "Create a cron job with the specified name",
        &workload::CRON_JOB_FLAGS,
        workload::cron_job
    ),
    inner!(
        "deployment",
        &["deploy"],
        "Create a deployment with the specified name",
        &workload::DEPLOYMENT_FLAGS,
        workload::deployment
    ),
    inner!("ingress", &["ing"], "Create an ingress with the specified name", &ingress::FLAGS, ingress::run),
    inner!("job", &[], "Create a job with the specified name", &workload::JOB_FLAGS, workload::job),
    inner!(
        "namespace",
        &["ns"],
        "Create a namespace with the specified name",
        &create::PLAIN_FLAGS,
        create::namespace
    ),
    inner!(
        "poddisruptionbudget",
        &["pdb"],
        "Create a pod disruption budget with the specified name",
        &policy::BUDGET_FLAGS,
        policy::budget
    ),
    inner!(
        "priorityclass",
        &["pc"],
        "Create a priority class with the specified name",
        &policy::PRIORITY_FLAGS,
        policy::priority_class
    ),
    inner!(
        "quota",
        &["resourcequota"],
        "Create a quota with the specified name",
        &policy::QUOTA_FLAGS,
        policy::quota
    ),
    inner!("role", &[], "Create a role with single rule", &rbac::ROLE_FLAGS, rbac::role),
    inner!(
        "rolebinding",
        &[],
        "Create a role binding for a particular role or cluster role",
        &rbac::BINDING_FLAGS,
        rbac::role_binding
    ),
    group("secret", "Create a secret using a specified subcommand", CREATE_SECRET),
    Command {
        aliases: &["svc"],
        ..group("service", "Create a service using a specified subcommand", CREATE_SERVICE)
    },
    inner!(
        "serviceaccount",
        &["sa"],
        "Create a service account with the specified name",
        &create::PLAIN_FLAGS,
        create::service_account
    ),
    inner!("token", &[], "Request a service account token", &token::FLAGS, token::run),
];

const CREATE_SECRET: &[Command] = &[
    inner!(
        "docker-registry",
        &[],
        "Create a secret for use with a Docker registry",
        &data::DOCKER_FLAGS,
        data::docker_registry
    ),
    inner!(
        "generic",
        &[],
        "Create a secret from a local file, directory, or literal value",
        &data::DATA_FLAGS,
        data::secret
    ),
    inner!("tls", &[], "Create a TLS secret", &data::TLS_FLAGS, data::tls),
];

const CREATE_SERVICE: &[Command] = &[
    inner!("clusterip", &[], "Create a ClusterIP service", &service::SERVICE_FLAGS, service::cluster_ip),
    inner!(
        "externalname",
        &[],
        "Create an ExternalName service",
        &service::SERVICE_FLAGS,
        service::external_name
    ),
    inner!(
        "loadbalancer",
        &[],
        "Create a LoadBalancer service",
        &service::SERVICE_FLAGS,
        service::load_balancer
    ),
    inner!("nodeport", &[], "Create a NodePort service", &service::SERVICE_FLAGS, service::node_port),
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
        "subject",
        &[],
        "Update the user, group, or service account in a role binding or cluster role binding",
        &set_subject::FLAGS,
        set_subject::run
    ),
    inner!(
        "serviceaccount",
        &["sa"],
        "Update the service account of a resource",
        &set::FLAGS,
        set::service_account
    ),
];

const APPLY: &[Command] = &[
    inner!(
        "edit-last-applied",
        &[],
        "Edit latest last-applied-configuration annotations of a resource/object",
        &last_applied::EDIT_FLAGS,
        last_applied::edit
    ),
    inner!(
        "set-last-applied",
        &[],
        "Set the last-applied-configuration annotation on a live object to match the contents of a file",
        &last_applied::SET_FLAGS,
        last_applied::set
    ),
    inner!(
        "view-last-applied",
        &[],
        "View the latest last-applied-configuration annotations of a resource/object",
        &last_applied::VIEW_FLAGS,
        last_applied::view
    ),
];

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
        config::entry::delete_cluster
    ),
    inner!(
        "delete-context",
        &[],
        "Delete the specified context from the kubeconfig",
        &config::NONE,
        config::entry::delete_context
    ),
    inner!(
        "delete-user",
        &[],
        "Delete the specified user from the kubeconfig",
        &config::NONE,
        config::entry::delete_user
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
        config::entry::rename_context
    ),
    inner!(
        "set",
        &[],
        "Set an individual value in a kubeconfig file",
        &config::property::SET_FLAGS,
        config::property::set
    ),
    inner!(
        "set-cluster",
        &[],
        "Set a cluster entry in kubeconfig",
        &config::entry::CLUSTER_FLAGS,
        config::entry::set_cluster
    ),
    inner!(
        "set-context",
        &[],
        "Set a context entry in kubeconfig",
        &config::entry::CONTEXT_FLAGS,
        config::entry::set_context
    ),
    inner!(
        "set-credentials",
        &[],
        "Set a user entry in kubeconfig",
        &config::entry::USER_FLAGS,
        config::entry::set_credentials
    ),
    inner!(
        "unset",
        &[],
        "Unset an individual value in a kubeconfig file",
        &config::NONE,
        config::property::unset
    ),
    inner!(
        "use-context",
        &["use"],
        "Set the current-context in a kubeconfig file",
        &config::NONE,
        config::entry::use_context
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
    &misc::PLUGIN_FLAGS,
    misc::plugins
)];

const TOP: &[Command] = &[
    inner!(
        "node",
        &["nodes", "no"],
        "Display resource (CPU/memory) usage of nodes",
        &misc::TOP_NODE_FLAGS,
        misc::top
    ),
    inner!(
        "pod",
        &["pods", "po"],
        "Display resource (CPU/memory) usage of pods",
        &misc::TOP_POD_FLAGS,
        misc::top
    ),
];

const CERTIFICATE: &[Command] = &[
    inner!(
        "approve",
        &[],
        "Approve a certificate signing request",
        &certificate::FLAGS,
        certificate::approve
    ),
    inner!("deny", &[], "Deny a certificate signing request", &certificate::FLAGS, certificate::deny),
];

const CLUSTER_INFO: &[Command] = &[inner!(
    "dump",
    &[],
    "Dump relevant information for debugging and diagnosis",
    &cluster_info::DUMP_FLAGS,
    cluster_info::dump
)];

const fn group(name: &'static str, about: &'static str, commands: &'static [Command]) -> Command {
    Command { name, aliases: &[], about, flags: &[], commands, run: None }
}

/// All of them.
pub(crate) const COMMANDS: &[Command] = &[
    inner!("alpha", &[], "Commands for features in alpha", &misc::NONE, misc::alpha),
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
    group("certificate", "Modify certificate resources", CERTIFICATE),
    Command {
        commands: CLUSTER_INFO,
        aliases: &["clusterinfo"],
        ..command!("cluster-info", "Display cluster information", cluster_info)
    },
    inner!(
        "completion",
        &[],
        "Output shell completion code for the specified shell (bash, zsh, fish, or powershell)",
        &misc::NONE,
        misc::completion
    ),
    group("config", "Modify kubeconfig files", CONFIG),
    inner!("cordon", &[], "Mark node as unschedulable", &drain::CORDON_FLAGS, drain::cordon),
    command!("cp", "Copy files and directories to and from containers", cp),
    Command { commands: CREATE, ..command!("create", "Create a resource from a file or from stdin", create) },
    command!("debug", "Create debugging sessions for troubleshooting workloads and nodes", debug),
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
    command!("drain", "Drain node in preparation for maintenance", drain),
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
    inner!("help", &[], "Help about any command", &misc::NONE, misc::help),
    command!("kustomize", "Build a kustomization target from a directory or URL", kustomize),
    command!("label", "Update the labels on a resource", label),
    command!("logs", "Print the logs for a container in a pod", logs),
    inner!("options", &[], "Print the list of flags inherited by all commands", &misc::NONE, misc::options),
    command!("patch", "Update fields of a resource", patch),
    group("plugin", "Provides utilities for interacting with plugins", PLUGIN),
    command!("port-forward", "Forward one or more local ports to a pod", port_forward),
    command!("proxy", "Run a proxy to the Kubernetes API server", proxy),
    command!("replace", "Replace a resource by file name or stdin", replace),
    inner!(
        "rolling-update",
        &[],
        "Retired: replace a controller's pods step by step, from here",
        &rolling_update::FLAGS,
        rolling_update::run
    ),
    group("rollout", "Manage the rollout of a resource", ROLLOUT),
    command!("run", "Run a particular image on the cluster", run),
    command!("scale", "Set a new size for a deployment, replica set, or replication controller", scale),
    group("set", "Set specific features on objects", SET),
    command!("taint", "Update the taints on one or more nodes", taint),
    group("top", "Display resource (CPU/memory) usage", TOP),
    inner!("uncordon", &[], "Mark node as schedulable", &drain::CORDON_FLAGS, drain::uncordon),
    inner!(
        "version",
        &[],
        "Print the client and server version information",
        &server::VERSION_FLAGS,
        server::version
    ),
    command!("wait", "Wait for a specific condition on one or many resources", wait),
];
