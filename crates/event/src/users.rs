//! Names of users and groups, as the sensor reads them from the host and from containers.

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

/// How often a container's tables are asked for: who asks first may be gone before they are read.
const TRIES: u8 = 4;

/// Most containers whose tables are kept.
const CONTAINERS: usize = 4096;

/// The tables of containers, by their full ids; bounded, and given up with the container.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerUsers(HashMap<Box<str>, (u8, Option<Users>)>);

impl ContainerUsers {
    /// Whether the tables of a container should be read; counts as asking for them.
    pub fn wanted(&mut self, full_id: &str) -> bool {
        if let Some((tries, users)) = self.0.get_mut(full_id) {
            let wanted = users.is_none() && *tries < TRIES;
            *tries = tries.saturating_add(1);
            return wanted;
        }
        if self.0.len() >= CONTAINERS
            && let Some(any) = self.0.keys().next().cloned()
        {
            self.0.remove(&any);
        }
        self.0.insert(full_id.into(), (1, None));
        true
    }

    /// Brings the tables of a container.
    pub fn set(&mut self, full_id: &str, users: Users) {
        if let Some((_, known)) = self.0.get_mut(full_id) {
            *known = Some(users);
        }
    }

    /// The tables of a container, when they were read.
    pub fn get(&self, full_id: &str) -> Option<&Users> {
        self.0.get(full_id)?.1.as_ref()
    }

    /// Forgets a container.
    pub fn forget(&mut self, full_id: &str) {
        self.0.remove(full_id);
    }
}

/// The user and group tables of the host, or of a container.
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
