//! What every command has at hand: its flags, the client, the namespace, its output.

use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::kubeconfig::Kubeconfig;
use crate::mapping::{Mapper, Mapping};
use std::io::Write;
use tokio::sync::OnceCell;

/// The surroundings of one invocation.
pub(crate) struct Context {
    /// `kubectl` or `sagong`.
    pub(crate) name: String,
    /// `kubectl get`.
    pub(crate) command: String,
    /// Flags and arguments.
    pub(crate) flags: Parsed,
    /// Finds resources.
    pub(crate) mapper: Mapper,
    config: OnceCell<Kubeconfig>,
    client: OnceCell<Client>,
}

impl Context {
    /// For one command line.
    pub(crate) fn new(name: &str, command: &str, flags: Parsed) -> Self {
        Self {
            name: name.into(),
            command: command.into(),
            flags,
            mapper: Mapper::default(),
            config: OnceCell::new(),
            client: OnceCell::new(),
        }
    }

    /// The kubeconfig.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn config(&self) -> Outcome<&Kubeconfig> {
        self.config
            .get_or_try_init(|| async {
                let trace = crate::trace::Trace::new(self.flags.number("v"));
                for file in crate::kubeconfig::files(&self.flags).0.iter().filter(|file| file.exists()) {
                    trace.note("kubeconfig.rs:1", &format!("Config loaded from file:  {}", file.display()));
                }
                Kubeconfig::load(&self.flags)
            })
            .await
    }

    /// The API server.
    ///
    /// # Errors
    /// The kubeconfig is broken.
    pub(crate) async fn client(&self) -> Outcome<&Client> {
        let config = self.config().await?;
        self.client.get_or_try_init(|| Client::new(config, &self.flags)).await
    }

    /// How many warnings the server gave to whatever was asked of it.
    pub(crate) fn warnings(&self) -> usize {
        self.client.get().map_or(0, Client::warnings)
    }

    /// The namespace and whether a flag gave it.
    ///
    /// # Errors
    /// The kubeconfig is broken.
    pub(crate) async fn namespace(&self) -> Outcome<(String, bool)> {
        self.config().await?.namespace(&self.flags)
    }

    /// See [`Mapper::resource`].
    ///
    /// # Errors
    /// There is no such resource.
    pub(crate) async fn resource(&self, typed: &str) -> Outcome<Mapping> {
        self.mapper.resource(self.client().await?, typed).await
    }

    /// A failure that points to the command's help.
    pub(crate) fn usage(&self, text: &str) -> Failure {
        Failure::Verbatim(format!("error: {text}\nSee '{} -h' for help and examples", self.command))
    }

    /// `text` on standard error.
    pub(crate) fn err(&self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Writes to standard output. A reader that has gone ends the program, quietly.
pub(crate) fn out(text: &str) {
    out_bytes(text.as_bytes());
}

/// The same for bytes.
pub(crate) fn out_bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(141);
    }
}
