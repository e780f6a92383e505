//! What `-v` shows: requests and answers on standard error, in the form of kubectl's log lines.
//!
//! 6: a line for each answer; 7: headers of requests; 8: bodies, shortened; 9: longer, and as a command for curl; 10:
//! whole. Credentials are never shown.

use crate::failure::quote;
use http::{HeaderMap, Method, StatusCode, header};
use std::time::Duration;

/// How much is shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    level: i64,
}

impl Trace {
    /// By the number behind `-v`.
    pub(crate) fn new(level: i64) -> Self {
        Self { level }
    }

    /// Whether anything is shown.
    pub(crate) fn on(self) -> bool {
        self.level >= 6
    }

    fn line(self, place: &str, text: &str) {
        eprint!("{}", logged('I', place, text));
    }

    /// A note of level 6.
    pub(crate) fn note(self, place: &str, text: &str) {
        if self.on() {
            self.line(place, text);
        }
    }

    /// A request that is about to be sent.
    pub(crate) fn request(self, method: &Method, url: &str, headers: &HeaderMap, body: &[u8]) {
        if self.level >= 8 {
            self.body("Request Body", body);
        }
        if self.level >= 9 {
            let options: String =
                pairs(headers).map(|(name, value)| format!("-H \"{name}: {value}\" ")).collect();
            self.line(
                "client.rs:1",
                &format!("\"Request\" curlCommand=<\n\tcurl -v -X{method}  {options}'{url}'\n >"),
            );
        } else if self.level >= 7 {
            let shown = shown(headers);
            let text = format!(
                "\"Request\" verb={} url={} headers=<\n{shown} >",
                quote(method.as_str()),
                quote(url)
            );
            self.line("client.rs:1", &text);
        }
    }

    /// An answer, as far as it has come.
    pub(crate) fn response(
        self,
        method: &Method,
        url: &str,
        status: StatusCode,
        headers: &HeaderMap,
        took: Duration,
    ) {
        if self.level < 6 {
            return;
        }
        let which = match self.level {
            7 | 8 => String::new(),
            _ => format!(" verb={} url={}", quote(method.as_str()), quote(url)),
        };
        let headers =
            if self.level >= 8 { format!(" headers=<\n{} >", shown(headers)) } else { String::new() };
        let status = quote(&status.to_string());
        self.line(
            "client.rs:2",
            &format!("\"Response\"{which} status={status}{headers} milliseconds={}", took.as_millis()),
        );
    }

    /// What was sent or has come.
    pub(crate) fn body(self, which: &str, bytes: &[u8]) {
        let limit = match self.level {
            ..8 => return,
            8 => 1024,
            9 => 10240,
            _ => usize::MAX,
        };
        let text = String::from_utf8_lossy(bytes);
        let shown: String = text.chars().take(limit).collect();
        let left = text.len() - shown.len();
        let more = if left > 0 { format!(" [truncated {left} chars]") } else { String::new() };
        self.line("client.rs:3", &format!("\"{which}\" body={}", quote(&format!("{shown}{more}"))));
    }
}

/// A line of kubectl's log, of a level (`I`, `W`, `E`).
pub(crate) fn logged(level: char, place: &str, text: &str) -> String {
    let now = jiff::Zoned::now().strftime("%m%d %H:%M:%S%.6f").to_string();
    format!("{level}{now} {:7} {place}] {text}\n", std::process::id())
}

/// Names as they are usually written, and values without secrets.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    headers.iter().map(|(name, value)| {
        let title = |part: &str| {
            let mut letters = part.chars();
            letters
                .next()
                .map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
        };
        let shown = name.as_str().split('-').map(title).collect::<Vec<_>>().join("-");
        let value = if *name == header::AUTHORIZATION || *name == header::COOKIE {
            "<masked>".to_owned()
        } else {
            value.to_str().unwrap_or("<binary>").to_owned()
        };
        (shown, value)
    })
}

fn shown(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = pairs(headers).map(|(name, value)| format!("\t{name}: {value}\n")).collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn credentials_are_not_shown() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
        headers.insert("user-agent", HeaderValue::from_static("me"));
        assert_eq!(shown(&headers), "\tAuthorization: <masked>\n\tUser-Agent: me\n");
    }
}
