//! Values for tests.

use crate::{ContainerConfig, Resources, Security};
use std::collections::BTreeMap;

/// A container that asks for nothing.
pub(crate) fn container() -> ContainerConfig {
    ContainerConfig {
        name: "main".to_owned(),
        attempt: 0,
        image_id: String::new(),
        root: "/".into(),
        args: vec!["program".to_owned()],
        env: Vec::new(),
        working_dir: String::new(),
        image_user: String::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        log_path: "0.log".into(),
        annotations: BTreeMap::new(),
    }
}
