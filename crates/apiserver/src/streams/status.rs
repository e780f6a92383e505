//! How a session ended, as its error channel tells it.

use bytes::Bytes;
use serde_json::{Value, json};

/// What is said on the error channel at the end.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    status: Value,
}

impl Verdict {
    /// All went well.
    pub(super) fn success() -> Self {
        Self { status: json!({"metadata": {}, "status": "Success"}) }
    }

    /// A command ended with this code.
    pub(super) fn exit(command: &[String], code: i32) -> Self {
        if code == 0 {
            return Self::success();
        }
        let command = command.join(" ");
        let reason = format!("error executing command [{command}], exit code {code}");
        Self {
            status: json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: {reason}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
        }
    }

    /// It could not be done.
    pub(super) fn internal(message: &str) -> Self {
        Self {
            status: json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }

    /// In a version of the protocol, from 1 to 5; None where silence says that all went well.
    pub(super) fn said(&self, version: u8) -> Option<Bytes> {
        if version >= 4 { Some(self.json()) } else { self.text() }
    }

    /// From version 4 on: a `Status`.
    fn json(&self) -> Bytes {
        Bytes::from(self.status.to_string())
    }

    /// Before: only what went wrong, in words.
    fn text(&self) -> Option<Bytes> {
        let message = self.status["message"].as_str()?;
        Some(Bytes::copy_from_slice(message.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_clients_can_read() {
        let verdict = Verdict::exit(&["sh".into(), "-c".into(), "exit 3".into()], 3);
        let status: Value = serde_json::from_slice(&verdict.json()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(
            verdict.text().unwrap(),
            "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3"
        );
    }

    #[test]
    fn success_says_nothing_in_words() {
        assert_eq!(Verdict::exit(&[], 0), Verdict::success());
        assert_eq!(Verdict::success().text(), None);
    }
}
