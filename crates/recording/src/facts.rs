//! Frames that are JSON: their form, and the way from and to what the sensor knows.
//!
//! Text of the kernel need not be UTF-8: each byte is written as the code point of the same number.

use abi::record::ARGS_MAX;
use event::{
    containers::{ContainerFacts, Mount, PodFacts},
    state::{Host, Seed, Start},
    users::{User, Users},
};
use serde::{Deserialize, Serialize};

use crate::kinds::Kinds;

/// Where and by what a recording was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Head {
    /// Version of the program.
    pub version: String,
    /// Name of the host.
    pub hostname: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Unix time of the zero of the boot clock, in nanoseconds.
    pub boot_ns: u64,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
    /// Whether records carry working directory and environment.
    pub complete: bool,
    /// Kinds of records.
    pub kinds: Kinds,
}

impl Head {
    /// What fields know about the host.
    pub fn host(&self) -> Host {
        Host { hostname: self.hostname.as_str().into(), boot_ns: self.boot_ns, utc_offset_s: self.utc_offset_s }
    }
}

/// What there is to say at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct End {
    /// Records in the recording.
    pub records: u64,
    /// Records that are missing because they could not be written fast enough.
    pub unwritten: u64,
    /// Events that the kernel or the sensor lost, by cause.
    pub lost: Vec<(String, u64)>,
}

pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap_or(b'?')).collect()
}

/// A process of the start-up scan.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessForm {
    tgid: u32,
    /// Boot clock in ticks, as /proc has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ticks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<u64>,
    ppid: u32,
    comm: String,
    argv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<String>,
    exepath: String,
    cwd: String,
    cgroup_path: String,
    cgroup: u64,
    vpid: u32,
    sid: u32,
    pgid: u32,
    vpgid: u32,
}

impl From<&Seed> for ProcessForm {
    fn from(seed: &Seed) -> Self {
        let (ticks, start) = match seed.start {
            Start::Ticks(ticks) => (Some(ticks), None),
            Start::Exact(ns) => (None, Some(ns)),
        };
        Self {
            tgid: seed.tgid,
            ticks,
            start,
            ppid: seed.ppid,
            comm: latin1(&seed.comm),
            argv: latin1(&seed.argv),
            env: seed.env.as_deref().map(latin1),
            exepath: latin1(&seed.exepath),
            cwd: latin1(&seed.cwd),
            cgroup_path: latin1(&seed.cgroup_path),
            cgroup: seed.cgroup,
            vpid: seed.vpid,
            sid: seed.sid,
            pgid: seed.pgid,
            vpgid: seed.vpgid,
        }
    }
}

impl From<ProcessForm> for Seed {
    fn from(form: ProcessForm) -> Self {
        let cut = |text: &str, limit: usize| {
            let mut bytes = bytes(text);
            bytes.truncate(limit);
            bytes
        };
        Self {
            tgid: form.tgid,
            start: form.start.map_or(Start::Ticks(form.ticks.unwrap_or_default()), Start::Exact),
            ppid: form.ppid,
            comm: cut(&form.comm, 16),
            argv: cut(&form.argv, ARGS_MAX),
            env: form.env.as_deref().map(|env| cut(env, ARGS_MAX)),
            exepath: cut(&form.exepath, ARGS_MAX),
            cwd: cut(&form.cwd, ARGS_MAX),
            cgroup_path: cut(&form.cgroup_path, ARGS_MAX),
            cgroup: form.cgroup,
            vpid: form.vpid,
            sid: form.sid,
            pgid: form.pgid,
            vpgid: form.vpgid,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CgroupForm {
    pub(crate) id: u64,
    path: String,
}

impl CgroupForm {
    pub(crate) fn new(id: u64, path: &[u8]) -> Self {
        Self { id, path: latin1(path) }
    }

    pub(crate) fn path(&self) -> Vec<u8> {
        bytes(&self.path)
    }
}

type Pairs = Vec<(Box<str>, Box<str>)>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerForm {
    pub(crate) id: Box<str>,
    name: Box<str>,
    runtime: Box<str>,
    image: Box<str>,
    image_id: Box<str>,
    repository: Box<str>,
    tag: Box<str>,
    digest: Box<str>,
    privileged: Option<bool>,
    host_pid: Option<bool>,
    host_network: Option<bool>,
    host_ipc: Option<bool>,
    mounts: Vec<MountForm>,
    labels: Pairs,
    ip: Box<str>,
    cni_json: Box<str>,
    pod: Option<PodForm>,
    sandbox: bool,
}

#[derive(Serialize, Deserialize)]
struct MountForm {
    source: Box<str>,
    dest: Box<str>,
    mode: Box<str>,
    writable: bool,
    propagation: Box<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodForm {
    name: Box<str>,
    namespace: Box<str>,
    uid: Box<str>,
    sandbox_id: Box<str>,
    labels: Pairs,
}

impl ContainerForm {
    pub(crate) fn new(id: &str, facts: &ContainerFacts) -> Self {
        let facts = facts.clone();
        Self {
            id: id.into(),
            name: facts.name,
            runtime: facts.runtime,
            image: facts.image,
            image_id: facts.image_id,
            repository: facts.repository,
            tag: facts.tag,
            digest: facts.digest,
            privileged: facts.privileged,
            host_pid: facts.host_pid,
            host_network: facts.host_network,
            host_ipc: facts.host_ipc,
            mounts: facts.mounts.into_iter().map(MountForm::from).collect(),
            labels: facts.labels,
            ip: facts.ip,
            cni_json: facts.cni_json,
            pod: facts.pod.map(PodForm::from),
            sandbox: facts.sandbox,
        }
    }

    pub(crate) fn facts(self) -> ContainerFacts {
        ContainerFacts {
            name: self.name,
            runtime: self.runtime,
            image: self.image,
            image_id: self.image_id,
            repository: self.repository,
            tag: self.tag,
            digest: self.digest,
            privileged: self.privileged,
            host_pid: self.host_pid,
            host_network: self.host_network,
            host_ipc: self.host_ipc,
            mounts: self.mounts.into_iter().map(Mount::from).collect(),
            labels: self.labels,
            ip: self.ip,
            cni_json: self.cni_json,
            pod: self.pod.map(PodFacts::from),
            sandbox: self.sandbox,
        }
    }
}

impl From<Mount> for MountForm {
    fn from(mount: Mount) -> Self {
        let Mount { source, dest, mode, writable, propagation } = mount;
        Self { source, dest, mode, writable, propagation }
    }
}

impl From<MountForm> for Mount {
    fn from(form: MountForm) -> Self {
        let MountForm { source, dest, mode, writable, propagation } = form;
        Self { source, dest, mode, writable, propagation }
    }
}

impl From<PodFacts> for PodForm {
    fn from(pod: PodFacts) -> Self {
        let PodFacts { name, namespace, uid, sandbox_id, labels } = pod;
        Self { name, namespace, uid, sandbox_id, labels }
    }
}

impl From<PodForm> for PodFacts {
    fn from(form: PodForm) -> Self {
        let PodForm { name, namespace, uid, sandbox_id, labels } = form;
        Self { name, namespace, uid, sandbox_id, labels }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct UsersForm {
    users: Vec<(u32, String, String, String)>,
    groups: Vec<(u32, String)>,
}

impl From<&Users> for UsersForm {
    fn from(users: &Users) -> Self {
        let user = |(uid, user): (u32, &User)| (uid, latin1(&user.name), latin1(&user.home), latin1(&user.shell));
        Self {
            users: users.users().map(user).collect(),
            groups: users.groups().map(|(gid, name)| (gid, latin1(name))).collect(),
        }
    }
}

impl From<UsersForm> for Users {
    fn from(form: UsersForm) -> Self {
        let mut users = Self::default();
        for (uid, name, home, shell) in form.users {
            let user = User { name: bytes(&name).into(), home: bytes(&home).into(), shell: bytes(&shell).into() };
            users.insert_user(uid, user);
        }
        for (gid, name) in form.groups {
            users.insert_group(gid, bytes(&name));
        }
        users
    }
}
