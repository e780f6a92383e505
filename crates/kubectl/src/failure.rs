//! What a command fails with, and how it is worded: the one place of `Error from server (…)` and its kin.

use serde_json::Value;

/// Why a command stopped.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A sentence; printed after `error: `.
    Message(String),
    /// Text printed as it is.
    Verbatim(String),
    /// The API server's Status object.
    Status(Box<Value>),
    /// Several of them, a line each.
    Many(Vec<Failure>),
    /// Nothing to print; the exit code.
    Exit(u8),
    /// A sentence, below the command's help.
    WithHelp(String),
    /// The command's help is all there is to say; no failure to the shell.
    HelpOnly,
    /// A failure with an exit code of its own.
    Code(u8, Box<Failure>),
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failure that says `text`, returned as an error.
pub(crate) fn fail<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Failure::Message(text.into()))
}

impl Failure {
    /// Several failures as one; none if there are none.
    pub(crate) fn aggregate(mut all: Vec<Failure>) -> Outcome {
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(Failure::Many(all)),
        }
    }

    /// The `reason` of a Status.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Failure::Status(status) => status["reason"].as_str().unwrap_or_default(),
            Failure::Many(all) if all.len() == 1 => all[0].reason(),
            _ => "",
        }
    }

    /// Whether the object is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Exit(code) | Failure::Code(code, _) => *code,
            _ => 1,
        }
    }

    /// What to try next, with `PROGRAM` for this one; None where the sentence says it all.
    pub(crate) fn next(&self) -> Option<&'static str> {
        match self {
            Failure::Verbatim(text) if text.starts_with("The connection to the server") => {
                Some("PROGRAM status tells whether the cluster runs, PROGRAM up starts it")
            }
            Failure::Verbatim(text) if text.starts_with("Unable to connect to the server") => {
                Some("PROGRAM config view --minify tells which server and credentials are in use")
            }
            Failure::Status(_) if self.reason() == "Unauthorized" => {
                Some("PROGRAM config view --minify tells whose credentials are in use")
            }
            Failure::Status(_) if self.reason() == "Forbidden" => {
                Some("PROGRAM auth whoami tells who you are, PROGRAM auth can-i --list what you may do")
            }
            Failure::Message(text) if text.ends_with("control characters are not allowed") => {
                Some("this is a binary file: -f takes objects in YAML or JSON")
            }
            Failure::Code(_, inner) => inner.next(),
            _ => None,
        }
    }

    /// The bare text, without any prefix.
    pub(crate) fn text(&self) -> String {
        match self {
            Failure::Message(text) | Failure::Verbatim(text) => text.clone(),
            Failure::Status(status) => status["message"].as_str().unwrap_or("unknown").to_owned(),
            Failure::Many(all) => {
                let mut texts: Vec<String> = all.iter().map(Failure::text).collect();
                texts.dedup();
                if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
            }
            Failure::WithHelp(text) => text.clone(),
            Failure::Exit(_) | Failure::HelpOnly => String::new(),
            Failure::Code(_, inner) => inner.text(),
        }
    }

    /// `error when creating "FILE": …`: says which source the object came from.
    pub(crate) fn with_source(self, verb: &str, source: &str) -> Self {
        if source.is_empty() {
            return self;
        }
        let text = format!("error when {verb} {}: {}", quote(source), self.text());
        match self {
            Failure::Status(mut status) => {
                status["message"] = text.into();
                Failure::Status(status)
            }
            _ => Failure::Message(text),
        }
    }

    /// What goes to standard error, with its newline; empty for nothing.
    pub(crate) fn shown(&self) -> String {
        let mut text = match self {
            Failure::Exit(_) | Failure::HelpOnly => return String::new(),
            Failure::Code(_, inner) => return inner.shown(),
            Failure::Many(all) if all.len() == 1 => return all[0].shown(),
            Failure::Many(all) => all.iter().map(|one| format!("{}\n", one.among_others())).collect(),
            Failure::Status(status) if status["reason"] == "Invalid" => invalid(status),
            other => other.line(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// The line of one failure of several: sentences stand there without `error: `.
    fn among_others(&self) -> String {
        match self {
            Failure::Message(text) => text.clone(),
            other => other.line(),
        }
    }

    fn line(&self) -> String {
        match self {
            Failure::Message(text) if text.starts_with("error: ") => text.clone(),
            Failure::Message(text) => format!("error: {text}"),
            Failure::Verbatim(text) => text.clone(),
            Failure::Status(status) => {
                let message = status["message"].as_str().unwrap_or("unknown");
                match status["reason"].as_str().unwrap_or_default() {
                    "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
                    "" => format!("Error from server: {message}"),
                    reason => format!("Error from server ({reason}): {message}"),
                }
            }
            Failure::Many(_) => format!("error: {}", self.text()),
            Failure::WithHelp(text) => format!("error: {text}"),
            Failure::Exit(_) | Failure::HelpOnly => String::new(),
            Failure::Code(_, inner) => inner.line(),
        }
    }
}

/// `The Deployment "kubia" is invalid: …`, each cause once.
fn invalid(status: &Value) -> String {
    let details = &status["details"];
    let message = status["message"].as_str().unwrap_or_default();
    if details.is_null() {
        return if message.is_empty() {
            "The request is invalid".into()
        } else {
            format!("The request is invalid: {message}")
        };
    }
    let field = |name: &str| details[name].as_str().unwrap_or_default();
    let mut causes: Vec<String> = Vec::new();
    for cause in details["causes"].as_array().into_iter().flatten() {
        let (field, message) =
            (cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap_or_default());
        let text = format!("{field}: {message}");
        if !causes.contains(&text) {
            causes.push(text);
        }
    }
    let mut text = "The request is invalid".to_owned();
    if !field("kind").is_empty() || !field("name").is_empty() {
        text = format!("The {} {} is invalid", field("kind"), quote(field("name")));
    } else if causes.is_empty() && !message.is_empty() {
        text = format!("{text}: {message}");
    }
    match causes.len() {
        0 => text,
        1 => format!("{text}: {}", causes[0]),
        _ => format!("{text}: \n{}", causes.iter().map(|c| format!("* {c}\n")).collect::<String>()),
    }
}

/// A Go-quoted string, as `%q` prints it.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Message(io_text(&error))
    }
}

/// An IO error in Go's words.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "is a directory".into(),
        _ => error.to_string(),
    }
}
