//! Flags that every command has.

use crate::flags::{Flag, Takes, flag, short};

/// Them.
pub(crate) const GLOBAL: [Flag; 29] = [
    flag("as", Takes::Text, "", "User to act as"),
    flag("as-group", Takes::Array, "[]", "Groups to act as"),
    flag("as-uid", Takes::Text, "", "UID to act as"),
    flag("cache-dir", Takes::Text, "", "Unused: nothing is cached"),
    flag("certificate-authority", Takes::Text, "", "File of the certificate authority"),
    flag("client-certificate", Takes::Text, "", "File of the client's certificate"),
    flag("client-key", Takes::Text, "", "File of the client's key"),
    flag("cluster", Takes::Text, "", "Cluster of the kubeconfig"),
    flag("context", Takes::Text, "", "Context of the kubeconfig"),
    flag("disable-compression", Takes::Bool, "false", "Ask for answers that are not compressed"),
    flag("insecure-skip-tls-verify", Takes::Bool, "false", "Do not check the server's certificate"),
    flag("kubeconfig", Takes::Text, "", "Kubeconfig file"),
    flag("log-flush-frequency", Takes::Span, "5s", "Unused"),
    flag("match-server-version", Takes::Bool, "false", "Refuse a server of another version"),
    short("namespace", 'n', Takes::Text, "", "Namespace"),
    flag("password", Takes::Text, "", "Password for basic authentication"),
    flag("profile", Takes::Text, "none", "Unused"),
    flag("profile-output", Takes::Text, "profile.pprof", "Unused"),
    flag("request-timeout", Takes::Text, "0", "How long to wait for an answer, 0 for ever"),
    short("server", 's', Takes::Text, "", "Address of the API server"),
    flag("tls-server-name", Takes::Text, "", "Name to expect in the server's certificate"),
    flag("token", Takes::Text, "", "Bearer token"),
    flag("user", Takes::Text, "", "User of the kubeconfig"),
    flag("username", Takes::Text, "", "Name for basic authentication"),
    short("v", 'v', Takes::Number, "0", "How much to log"),
    flag("vmodule", Takes::Text, "", "Unused"),
    flag("warnings-as-errors", Takes::Bool, "false", "Fail on warnings of the server"),
    flag("add-dir-header", Takes::Bool, "false", "Unused"),
    flag("logtostderr", Takes::Bool, "true", "Unused"),
];
