//! Names of users and groups of this host, from /etc/passwd and /etc/group.

use std::{fs, io::Read, time::SystemTime};

use event::users::{User, Users};
use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The tables as they were read, with the times by which a change is noticed.
pub struct Accounts {
    changed: [Option<SystemTime>; 2],
}

impl Accounts {
    /// Reads the files; what can't be read is empty, and ids stay without names.
    pub fn read() -> (Self, Users) {
        // Before reading, so that a change meanwhile is noticed the next time.
        let accounts = Self { changed: [PASSWD, GROUP].map(modified) };
        let users = parse(&fs::read(PASSWD).unwrap_or_default(), &fs::read(GROUP).unwrap_or_default());
        (accounts, users)
    }

    /// Whether the files have changed since they were read.
    pub fn stale(&self) -> bool {
        [PASSWD, GROUP].map(modified) != self.changed
    }
}

/// Most bytes of a container's file that are read.
const CONTAINER_FILE: u64 = 1 << 20;

/// The tables in the root directory of a process; `None` when it has no table of users, or is gone.
///
/// What lies there is the container's choice: no link leads out of its root, and a pipe or device is not read.
pub fn of_container(pid: u32) -> Option<Users> {
    let root = fs::File::open(format!("/proc/{pid}/root")).ok()?;
    let file = |path: &str| -> Option<Vec<u8>> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = fs::File::from(fcntl::openat2(&root, path, how).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(CONTAINER_FILE).read_to_end(&mut text).ok()?;
        Some(text)
    };
    Some(parse(&file(PASSWD)?, &file(GROUP).unwrap_or_default()))
}

fn parse(passwd: &[u8], group: &[u8]) -> Users {
    let mut users = Users::default();
    for fields in lines(passwd) {
        if let [name, _, uid, _, _, home, shell] = fields[..]
            && let Some(uid) = number(uid)
        {
            users.insert_user(uid, User { name: name.into(), home: home.into(), shell: shell.into() });
        }
    }
    for fields in lines(group) {
        if let [name, _, gid, _] = fields[..]
            && let Some(gid) = number(gid)
        {
            users.insert_group(gid, name);
        }
    }
    users
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn modified(path: &str) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name() {
        assert_eq!(Accounts::read().1.user_name(0), b"root");
    }

    #[test]
    fn the_tables_of_a_process_are_those_of_its_root() {
        // Ours is the host's, which has a root.
        let users = of_container(std::process::id()).expect("a table of users");
        assert!(users.user(0).is_some());
    }
}
