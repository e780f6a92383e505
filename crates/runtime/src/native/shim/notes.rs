//! What libcontainer notes while it works. Of an error inside of the container only the outermost layer reaches the
//! shim; what really happened is in these notes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Name of the file in the container's directory; standard error of the shim.
pub(crate) const FILE: &str = "shim.log";

/// Longest note that becomes part of a message for users.
const LONGEST: usize = 512;

/// Writes errors to the shim's standard error as it is now: in the container it becomes the container's.
pub(super) fn keep() {
    if let Ok(output) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3) {
        let _ = tracing::subscriber::set_global_default(Notes { output: output.into() });
    }
}

/// A message with the first note, which is the innermost one; they follow each other outwards.
pub(super) fn explain(message: String, directory: &Path) -> String {
    let notes = std::fs::read_to_string(directory.join(FILE)).unwrap_or_default();
    // What the launcher says needs no explanation.
    match notes.lines().next().filter(|_| !message.starts_with("exec")) {
        Some(note) => format!("{message}: {}", note.chars().take(LONGEST).collect::<String>()),
        None => message,
    }
}

struct Notes {
    output: std::fs::File,
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}", line.message, line.fields).replace('\n', " ");
        let _ = (&self.output).write_all(format!("{}\n", text.trim_end()).as_bytes());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
