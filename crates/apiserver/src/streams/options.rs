//! What is asked for: which container, which streams, which ports.

use super::StreamOptions;
use crate::failure::{Failure, Outcome};
use crate::query::Query;

/// Most ports at once over `v4.channel.k8s.io`, whose channels are numbered by a byte.
const MOST_PORTS: usize = 127;

/// Which streams are wanted.
pub(super) fn streams(query: &Query) -> Outcome<StreamOptions> {
    let tty = query.flag("tty");
    let options = StreamOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // With a terminal there is one stream for both.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !options.stdin && !options.stdout && !options.stderr {
        return Err(Failure::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(options)
}

/// What to run.
pub(super) fn command(query: &Query) -> Outcome<Vec<String>> {
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Failure::bad_request("you must specify at least 1 command for the container"));
    }
    Ok(command)
}

/// The ports of a port-forward over channels.
pub(super) fn ports(query: &Query) -> Outcome<Vec<u16>> {
    let texts = query.all("ports").flat_map(|value| value.split(','));
    let ports: Result<Vec<u16>, String> = texts.map(port).collect();
    match ports {
        Ok(ports) if ports.is_empty() => Err(Failure::bad_request("query parameter \"port\" is required")),
        Ok(ports) if ports.len() > MOST_PORTS => {
            Err(Failure::bad_request(format!("at most {MOST_PORTS} ports can be forwarded at once")))
        }
        ports => ports.map_err(Failure::bad_request),
    }
}

/// A port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("unable to parse {text:?} as a port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn said<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
        outcome.map_or_else(|failure| failure.0.message.unwrap_or_default(), |value| format!("{value:?}"))
    }

    #[rstest]
    #[case("stdout=true&stderr=1", StreamOptions { stdout: true, stderr: true, ..Default::default() })]
    #[case("stdin=true&stdout=true&stderr=true&tty=true",
        StreamOptions { stdin: true, stdout: true, tty: true, ..Default::default() })]
    fn a_terminal_has_no_errors_of_its_own(#[case] query: &str, #[case] expected: StreamOptions) {
        assert_eq!(streams(&Query::parse(Some(query))).ok(), Some(expected));
    }

    #[rstest]
    #[case("", "you must specify at least 1 of stdin, stdout, stderr")]
    #[case("stdout=false&stdin=0", "you must specify at least 1 of stdin, stdout, stderr")]
    fn a_stream_has_to_be_asked_for(#[case] query: &str, #[case] message: &str) {
        assert_eq!(said(streams(&Query::parse(Some(query)))), message);
    }

    #[test]
    fn a_command_keeps_its_order_and_its_empty_words() {
        let query = Query::parse(Some("command=sh&stdin=true&command=&command=a%20b"));
        assert_eq!(command(&query).ok(), Some(vec!["sh".to_owned(), String::new(), "a b".to_owned()]));
    }

    #[rstest]
    #[case("ports=80", "[80]")]
    #[case("ports=80,443&ports=8080", "[80, 443, 8080]")]
    #[case("", "query parameter \"port\" is required")]
    #[case("ports=0", "port \"0\" must be > 0")]
    #[case("ports=65536", "unable to parse \"65536\" as a port")]
    fn ports_are_numbers(#[case] query: &str, #[case] expected: &str) {
        assert_eq!(said(ports(&Query::parse(Some(query)))), expected);
    }
}
