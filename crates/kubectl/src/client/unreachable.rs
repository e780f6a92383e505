//! Why a server was not reached, in the words that kubectl has for it, or in one sentence that tells what to do.

/// Of the error with all below it. `host` is `NAME:PORT`.
pub(super) fn reworded(text: &str, host: &str) -> String {
    const VERIFY: &str = "tls: failed to verify certificate: x509:";
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") || text.contains("BadSignature") {
        return format!("{VERIFY} certificate signed by unknown authority");
    }
    if text.contains("certificate not valid for name") {
        return format!("{VERIFY} {}", other_names(text));
    }
    if text.contains("received fatal alert") {
        // What the server did not like is this side's certificate.
        let alert = text.rsplit("received fatal alert: ").next().unwrap_or_default();
        return format!("remote error: tls: {}", spaced(alert));
    }
    if text.contains("Expired") || text.contains("certificate expired") || text.contains("NotValidYet") {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        return format!("{VERIFY} certificate has expired or is not yet valid: current time {now}");
    }
    if text.contains("dns error") || text.contains("lookup") {
        return format!("dial tcp: lookup {name}: no such host");
    }
    if text.contains("invalid HTTP version") {
        return format!("{host} does not speak plain HTTP: try https://{host}");
    }
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return format!("http: server gave HTTP response to HTTPS client: try http://{host}");
    }
    let plain = text.strip_prefix("ServiceError: ").unwrap_or(text);
    plain.strip_prefix("client error (Connect): ").unwrap_or(plain).to_owned()
}

/// `CertificateExpired` as Go's TLS names that alert, `expired certificate`.
fn spaced(alert: &str) -> String {
    let name: String = alert.chars().take_while(|c| c.is_alphanumeric()).collect();
    let known = match name.as_str() {
        "BadCertificate" => "bad certificate",
        "CertificateExpired" => "expired certificate",
        "CertificateRevoked" => "revoked certificate",
        "CertificateUnknown" => "unknown certificate",
        "UnknownCa" | "UnknownCA" => "unknown certificate authority",
        "UnsupportedCertificate" => "unsupported certificate",
        _ => "",
    };
    if !known.is_empty() {
        return known.into();
    }
    let mut words = String::new();
    for c in alert.chars().take_while(|c| c.is_alphanumeric()) {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

/// For which names a certificate is, and for which not.
fn other_names(text: &str) -> String {
    let wanted = text.split("not valid for name \"").nth(1).and_then(|rest| rest.split('"').next());
    let wanted = wanted.unwrap_or_default();
    let is_address = wanted.parse::<std::net::IpAddr>().is_ok();
    let known: Vec<&str> = if is_address {
        let each = text.split("IpAddress(").skip(1);
        each.filter_map(|rest| rest.split(')').next()).collect()
    } else {
        let each = text.split("DnsName(\"").skip(1);
        each.filter_map(|rest| rest.split('"').next()).collect()
    };
    match known.as_slice() {
        [] if is_address => {
            format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
        }
        [] => format!("certificate is not valid for any names, but wanted to match {wanted}"),
        known => format!("certificate is valid for {}, not {wanted}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "ServiceError: client error (Connect): invalid peer certificate: UnknownIssuer",
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    )]
    #[case(
        "invalid peer certificate: certificate not valid for name \"foo\"; certificate is only valid for IpAddress(10.0.0.1), DnsName(\"a\") or DnsName(\"b\")",
        "tls: failed to verify certificate: x509: certificate is valid for a, b, not foo"
    )]
    #[case(
        "invalid peer certificate: certificate not valid for name \"1.2.3.4\"; certificate is only valid for IpAddress(10.0.0.1), DnsName(\"a\")",
        "tls: failed to verify certificate: x509: certificate is valid for 10.0.0.1, not 1.2.3.4"
    )]
    #[case(
        "ServiceError: client error (SendRequest): received fatal alert: CertificateExpired",
        "remote error: tls: expired certificate"
    )]
    #[case(
        "client error (Connect): dns error: failed to lookup address information",
        "dial tcp: lookup h: no such host"
    )]
    #[case(
        "client error (SendRequest): invalid HTTP version parsed",
        "h:1 does not speak plain HTTP: try https://h:1"
    )]
    #[case("ServiceError: client error (Connect): something else", "something else")]
    fn failures_to_connect_are_told_in_kubectls_words(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(reworded(text, "h:1"), expected);
    }
}
