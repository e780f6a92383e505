//! Sessions with the containers of this node's pods: commands, attaching, connections to ports.

use crate::kubelet::Kubelet;
use sagong_runtime::{
    Connection, Container, ContainerState, Runtime, RuntimeError, Sandbox, Session, SessionOptions,
};

/// Why there is no session. Worded as upstream's kubelet words it.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No container of this name runs.
    #[error("container not found ({0:?})")]
    ContainerNotFound(String),
    /// The pod does not run here.
    #[error("pod not found ({0:?})")]
    PodNotFound(String),
    /// The runtime could not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl Kubelet {
    /// Whether a session with a container would find it running.
    ///
    /// # Errors
    /// If the runtime does not say.
    pub async fn runs(&self, uid: &str, container: &str) -> Result<bool, StreamError> {
        match running(self.runtime.as_ref(), uid, container).await {
            Ok(_) => Ok(true),
            Err(StreamError::ContainerNotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs a command in a container of the pod with this uid, as `kubectl exec` does.
    ///
    /// # Errors
    /// If the container does not run, or the command cannot be run in it.
    pub async fn exec(
        &self,
        uid: &str,
        container: &str,
        command: &[String],
        options: SessionOptions,
    ) -> Result<Session, StreamError> {
        let found = running(self.runtime.as_ref(), uid, container).await?;
        Ok(self.runtime.exec_session(&found.id, command, options).await?)
    }

    /// Takes part in the streams of a container of the pod with this uid, as `kubectl attach` does.
    ///
    /// # Errors
    /// If the container does not run.
    pub async fn attach(
        &self,
        uid: &str,
        container: &str,
        options: SessionOptions,
    ) -> Result<Session, StreamError> {
        let found = running(self.runtime.as_ref(), uid, container).await?;
        let session = self.runtime.attach(&found.id, options).await;
        // It may have ended in between: its streams are gone then.
        if session.is_err() && running(self.runtime.as_ref(), uid, container).await.is_err() {
            return Err(StreamError::ContainerNotFound(container.to_owned()));
        }
        Ok(session?)
    }

    /// Whether the pod with this uid has a network to connect into. `name` is for the error only.
    ///
    /// # Errors
    /// [`StreamError::PodNotFound`] when it does not run.
    pub async fn find_pod(&self, uid: &str, name: &str) -> Result<(), StreamError> {
        sandbox(self.runtime.as_ref(), uid, name).await.map(drop)
    }

    /// Connects to a port inside of the pod with this uid, as `kubectl port-forward` does.
    ///
    /// # Errors
    /// If the pod does not run, or nothing listens there.
    pub async fn connect(
        &self,
        uid: &str,
        name: &str,
        port: u16,
    ) -> Result<Box<dyn Connection>, StreamError> {
        let found = sandbox(self.runtime.as_ref(), uid, name).await?;
        Ok(self.runtime.connect(&found.id, port).await?)
    }
}

/// The newest sandbox of a pod.
async fn sandbox(runtime: &dyn Runtime, uid: &str, name: &str) -> Result<Sandbox, StreamError> {
    let all = runtime.list_sandboxes().await?;
    let own = all.into_iter().filter(|sandbox| sandbox.config.uid == uid && sandbox.ready);
    own.max_by_key(|sandbox| sandbox.config.attempt).ok_or_else(|| StreamError::PodNotFound(name.to_owned()))
}

/// The newest container of a name that runs.
async fn running(runtime: &dyn Runtime, uid: &str, name: &str) -> Result<Container, StreamError> {
    let missing = || StreamError::ContainerNotFound(name.to_owned());
    let sandbox = match sandbox(runtime, uid, name).await {
        Err(StreamError::PodNotFound(_)) => return Err(missing()),
        found => found?,
    };
    let all = runtime.list_containers().await?;
    let own = all.into_iter().filter(|container| {
        container.sandbox_id == sandbox.id
            && container.config.name == name
            && matches!(container.state, ContainerState::Running { .. })
    });
    own.max_by_key(|container| container.config.attempt).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use crate::fakes::World;
    use async_trait::async_trait;
    use sagong_runtime::{Connection, RuntimeError, Session, SessionOptions, Streams};

    fn none<T>() -> Result<T, RuntimeError> {
        Err(RuntimeError::NotFound("a session".into()))
    }

    #[async_trait]
    impl Streams for World {
        async fn exec_session(
            &self,
            _: &str,
            _: &[String],
            _: SessionOptions,
        ) -> Result<Session, RuntimeError> {
            none()
        }

        async fn attach(&self, _: &str, _: SessionOptions) -> Result<Session, RuntimeError> {
            none()
        }

        async fn connect(&self, _: &str, _: u16) -> Result<Box<dyn Connection>, RuntimeError> {
            none()
        }
    }

    #[tokio::test]
    async fn what_does_not_run_is_not_found() {
        let world = World::new();
        let error = super::running(world.as_ref(), "uid", "main").await.unwrap_err();
        assert_eq!(error.to_string(), "container not found (\"main\")");
        let error = super::sandbox(world.as_ref(), "uid", "p_default").await.unwrap_err();
        assert_eq!(error.to_string(), "pod not found (\"p_default\")");
    }
}
