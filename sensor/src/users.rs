//! Names of users and groups of this host, from /etc/passwd and /etc/group.

use std::{fs, time::SystemTime};

use event::users::{User, Users};

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
        let mut users = Users::default();
        for fields in lines(&fs::read(PASSWD).unwrap_or_default()) {
            if let [name, _, uid, _, _, home, shell] = fields[..]
                && let Some(uid) = number(uid)
            {
                users.insert_user(uid, User { name: name.into(), home: home.into(), shell: shell.into() });
            }
        }
        for fields in lines(&fs::read(GROUP).unwrap_or_default()) {
            if let [name, _, gid, _] = fields[..]
                && let Some(gid) = number(gid)
            {
                users.insert_group(gid, name);
            }
        }
        (accounts, users)
    }

    /// Whether the files have changed since they were read.
    pub fn stale(&self) -> bool {
        [PASSWD, GROUP].map(modified) != self.changed
    }
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
}
