//! Who a container runs as, looked up in the files of its own root.

use crate::{ContainerConfig, Identity};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Finds the user and groups of a container.
///
/// # Errors
/// A name is in neither file, or a number is out of range.
pub(crate) fn identity_of(container: &ContainerConfig) -> io::Result<Identity> {
    let passwd = read_inside(&container.root, "etc/passwd")?;
    let group = read_inside(&container.root, "etc/group")?;
    resolve(container, &passwd, &group).map_err(io::Error::other)
}

/// A file of the root, followed as the container would follow it; empty if it is missing.
fn read_inside(root: &Path, path: &str) -> io::Result<String> {
    // Such files are small; what is more is not one.
    const MOST: u64 = 1 << 20;
    let root = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
            Err(error) => return Err(error.into()),
        };
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn resolve(container: &ContainerConfig, passwd: &str, group: &str) -> Result<Identity, String> {
    let security = &container.security;
    let (user, image_group) = match security.run_as_user {
        Some(uid) => (number(uid)?.to_string(), None),
        None => match container.image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group).filter(|group| !group.is_empty())),
            None => (container.image_user.clone(), None),
        },
    };
    let user = if user.is_empty() { "0" } else { &user };
    let entry = entries(passwd).find(|fields| fields.first() == Some(&user) || fields.get(2) == Some(&user));
    let uid = match (user.parse::<u32>(), &entry) {
        (Ok(uid), _) => uid,
        (_, Some(fields)) => field(fields, 2).ok_or_else(|| format!("user {user:?} has no valid number"))?,
        _ => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };
    let gid = match (security.run_as_group, image_group) {
        (Some(gid), _) => number(gid)?,
        (None, Some(group_name)) => group_number(group_name, group)?,
        (None, None) => entry.as_ref().and_then(|fields| field(fields, 3)).unwrap_or_default(),
    };
    // The first one, too: else giving it up would be a way around files that are closed to it.
    let mut groups = vec![gid];
    let merges = !security.only_given_groups;
    if let Some(name) = entry.as_ref().and_then(|fields| fields.first()).filter(|_| merges) {
        let member =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == *name));
        groups.extend(entries(group).filter(member).filter_map(|fields| field(&fields, 2)));
    }
    for gid in &security.supplemental_groups {
        groups.push(number(*gid)?);
    }
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups })
}

fn group_number(name: &str, group: &str) -> Result<u32, String> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    entries(group)
        .find(|fields| fields.first() == Some(&name))
        .and_then(|fields| field(&fields, 2))
        .ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| line.split(':').collect())
}

fn field(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

fn number(id: i64) -> Result<u32, String> {
    u32::try_from(id).map_err(|_| format!("{id} is not a user or group id"))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::container;
    use super::*;
    use rstest::rstest;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1001:,,,:/home/node:/bin/bash\n";
    const GROUP: &str = "root:x:0:\nnode:x:1001:\naudio:x:29:node,other\nvideo:x:44:other\n";

    #[rstest]
    #[case("", None, None, 0, 0, &[0])]
    #[case("node", None, None, 1000, 1001, &[29, 1001])]
    #[case("1000", None, None, 1000, 1001, &[29, 1001])]
    #[case("node:video", None, None, 1000, 44, &[29, 44])]
    #[case("7:8", None, None, 7, 8, &[8])]
    #[case("node", Some(5), None, 5, 0, &[0])]
    #[case("node", Some(1000), Some(9), 1000, 9, &[9, 29])]
    fn users_are_found_as_upstream_does(
        #[case] image_user: &str,
        #[case] run_as_user: Option<i64>,
        #[case] run_as_group: Option<i64>,
        #[case] uid: u32,
        #[case] gid: u32,
        #[case] groups: &[u32],
    ) {
        let mut container = container();
        container.image_user = image_user.to_owned();
        container.security.run_as_user = run_as_user;
        container.security.run_as_group = run_as_group;
        let found = resolve(&container, PASSWD, GROUP).expect("found");
        assert_eq!(found, Identity { uid, gid, groups: groups.to_vec() });
    }

    #[test]
    fn groups_of_the_image_can_be_left_out() {
        let mut container = container();
        container.image_user = "node".into();
        container.security.supplemental_groups = vec![7];
        container.security.only_given_groups = true;
        let found = resolve(&container, PASSWD, GROUP).expect("found");
        assert_eq!(found, Identity { uid: 1000, gid: 1001, groups: vec![7, 1001] });
    }

    #[rstest]
    #[case("nobody-here", None)]
    #[case("node:no-group", None)]
    #[case("", Some(-1))]
    fn unknown_users_are_errors(#[case] image_user: &str, #[case] run_as_user: Option<i64>) {
        let mut container = container();
        container.image_user = image_user.to_owned();
        container.security.run_as_user = run_as_user;
        assert!(resolve(&container, PASSWD, GROUP).is_err());
    }
}
