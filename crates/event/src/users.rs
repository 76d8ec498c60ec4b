//! Names of users and groups, as the sensor reads them from the host.

use hashbrown::HashMap;

/// What stands for a name that nobody knows.
pub const UNKNOWN: &[u8] = b"<NA>";

/// One entry of the user table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: Box<[u8]>,
    /// Home directory.
    pub home: Box<[u8]>,
    /// Login shell.
    pub shell: Box<[u8]>,
}

/// The user and group tables of the host.
#[derive(Debug, Clone, Default)]
pub struct Users {
    users: HashMap<u32, User>,
    groups: HashMap<u32, Box<[u8]>>,
}

impl Users {
    /// Sets the user with this id.
    pub fn insert_user(&mut self, uid: u32, user: User) {
        self.users.insert(uid, user);
    }

    /// Sets the name of the group with this id.
    pub fn insert_group(&mut self, gid: u32, name: impl Into<Box<[u8]>>) {
        self.groups.insert(gid, name.into());
    }

    /// Every user, by id.
    pub fn users(&self) -> impl Iterator<Item = (u32, &User)> {
        self.users.iter().map(|(uid, user)| (*uid, user))
    }

    /// The name of every group, by id.
    pub fn groups(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.groups.iter().map(|(gid, name)| (*gid, &**name))
    }

    /// The user with this id, when the tables name it.
    pub fn user(&self, uid: u32) -> Option<&User> {
        self.users.get(&uid)
    }

    /// Name of a user: `root` for 0 even without a table, [`UNKNOWN`] for others that are not in it.
    pub fn user_name(&self, uid: u32) -> &[u8] {
        self.user(uid).map_or_else(|| fallback(uid), |user| &user.name)
    }

    /// Name of a group; as [`Users::user_name`].
    pub fn group_name(&self, gid: u32) -> &[u8] {
        self.groups.get(&gid).map(|name| &**name).unwrap_or_else(|| fallback(gid))
    }
}

fn fallback(id: u32) -> &'static [u8] {
    if id == 0 { b"root" } else { UNKNOWN }
}
