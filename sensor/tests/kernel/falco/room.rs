//! Where cases are played: on the host, and in containers that look like it.
//!
//! A container's root is an overlay of a few folders; the host's programs and libraries and the program of the tests are
//! mounted into it, so that what a case writes is all that lies in the upper layer.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PLAN, cases::Case, open_to_all, plan, wait};
use crate::{
    child,
    harness::{self, Helper},
    needs::which,
};

/// The folder of all cgroups that the tests give to containers.
const CGROUPS: &str = "gyrfalcon-test";
/// Where the program of the tests and the plan are in a container.
const INSIDE: &str = "/opt/gyr";
/// What of the host's /usr a container sees; /usr/local is its own.
const USR: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libexec", "share"];
/// What an ordinary container may do.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
/// What a privileged one may do besides, as far as it is ours to give.
const PRIVILEGED: [&str; 7] = [
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYSLOG",
    "CAP_IPC_LOCK",
    "CAP_SYS_MODULE",
];

/// Where something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On the host.
    Host,
    /// In an ordinary container.
    Ordinary,
    /// In one that may do more.
    Privileged,
    /// In one that has a terminal.
    Terminal,
}

/// What all cases share.
pub struct Room {
    folder: TempDir,
    program: PathBuf,
}

impl Room {
    /// Prepares the folders of a container's root.
    pub fn new() -> Self {
        let folder = harness::folder();
        open_to_all(folder.path());
        let base = folder.path().join("base");
        let folders = [
            "bin",
            "sbin",
            "usr",
            "etc",
            "tmp",
            "proc",
            "dev",
            "sys",
            "var/log",
            "root",
            "home",
            "run",
            "opt/gyr/plan",
        ];
        for name in folders {
            fs::create_dir_all(base.join(name)).expect("a folder in a temporary folder");
        }
        for name in ["lib", "lib64"] {
            match fs::read_link(Path::new("/").join(name)) {
                Ok(target) => symlink(target, base.join(name)).expect("a link in a temporary folder"),
                Err(_) => fs::create_dir_all(base.join(name)).expect("a folder in a temporary folder"),
            }
        }
        for name in USR.iter().filter(|name| Path::new("/usr").join(name).is_dir()) {
            fs::create_dir_all(base.join("usr").join(name)).expect("a folder in a temporary folder");
        }
        fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a folder of ours");
        symlink("/usr/bin/sh", base.join("bin/sh")).expect("a link in a temporary folder");
        for file in ["etc/passwd", "etc/group", "etc/shadow"] {
            fs::copy(Path::new("/").join(file), base.join(file)).expect("a copy in a temporary folder");
        }
        fs::write(base.join("etc/hosts"), "127.0.0.1 localhost\n").expect("a file in a temporary folder");
        fs::write(base.join("opt/gyr/agent"), "").expect("a file in a temporary folder");
        let program = std::env::current_exe().expect("this program has a path");
        Self { folder, program }
    }

    /// Plays a case on the host.
    pub fn on_host(&self, case: &Case, mark: &str) -> Result<(), String> {
        self.host(&plan(case, mark), mark)
    }

    /// Has a chain of processes take steps on the host.
    pub fn perform(&self, chain: &Value, steps: &Value, mark: &str) -> Result<(), String> {
        self.host(&json!({ "chain": chain, "steps": steps, "mark": mark }), mark)
    }

    fn host(&self, plan: &Value, mark: &str) -> Result<(), String> {
        let folder = self.folder.path().join(mark);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut plan = plan.clone();
        plan["agent"] = self.program.display().to_string().into();
        plan["links"] = folder.display().to_string().into();
        let path = harness::write(&folder, "plan.json", &plan.to_string());
        let name = plan["chain"][0]["name"].as_str().ok_or("a chain begins with a name")?;
        let link = folder.join(name);
        // The same program may have been here before under this mark.
        if !link.is_symlink() {
            symlink(&self.program, &link).map_err(|error| error.to_string())?;
        }
        let mut command = Command::new(link);
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        child::dies_with_parent(&mut command);
        command.env(PLAN, path).env("GYR_AT", "0").env("GYR_MARK", mark).current_dir("/tmp");
        wait(Helper::start(command.stdin(Stdio::null()).stdout(Stdio::null())))
    }

    /// Plays a case in a container of its own, and returns the container's id. Its full id is told before it starts.
    pub fn in_container(
        &self,
        case: &Case,
        mark: &str,
        privileged: bool,
        starts: impl FnOnce(&str),
    ) -> Result<String, String> {
        self.contained(plan(case, mark), mark, if privileged { Kind::Privileged } else { Kind::Ordinary }, starts)
    }

    /// Has a chain of processes take steps somewhere; the container's id, if it is one.
    pub fn perform_in(&self, kind: Kind, chain: &Value, steps: &Value, mark: &str) -> Result<Option<String>, String> {
        match kind {
            Kind::Host => self.perform(chain, steps, mark).map(|()| None),
            Kind::Ordinary | Kind::Privileged | Kind::Terminal => {
                self.contained(json!({ "chain": chain, "steps": steps, "mark": mark }), mark, kind, |_| ()).map(Some)
            }
        }
    }

    /// Has a chain of processes take steps in an ordinary container of its own.
    pub fn perform_contained(&self, chain: &Value, steps: &Value, mark: &str) -> Result<(), String> {
        self.contained(json!({ "chain": chain, "steps": steps, "mark": mark }), mark, Kind::Ordinary, |_| ()).map(drop)
    }

    /// Has a shell run a script in an ordinary container of its own. Its full id is told before it starts, and returned
    /// when it has ended.
    pub fn shell_contained(&self, script: &str, mark: &str, starts: impl FnOnce(&str)) -> Result<String, String> {
        let container = Overlay::new(self.folder.path(), mark)?;
        starts(&container.id);
        container.run(&["/usr/bin/sh", "-c", script], &[], &[], Kind::Ordinary)?;
        Ok(container.id.clone())
    }

    fn contained(&self, mut plan: Value, mark: &str, kind: Kind, starts: impl FnOnce(&str)) -> Result<String, String> {
        let container = Overlay::new(self.folder.path(), mark)?;
        starts(&container.id);
        plan["agent"] = format!("{INSIDE}/agent").into();
        plan["links"] = "/tmp".into();
        // Who is not root in the container has its capabilities nevertheless.
        plan["keeps"] = true.into();
        let folder = container.bundle.join("plan");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        harness::write(&folder, "plan.json", &plan.to_string());
        container.play(self, &plan, mark, kind)?;
        Ok(container.id[..12].to_owned())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Not before the last container is gone: another may be about to be made.
        for folder in cgroups() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A container whose root is an overlay; taken apart when dropped.
struct Overlay {
    id: String,
    bundle: PathBuf,
}

impl Overlay {
    fn new(folder: &Path, mark: &str) -> Result<Self, String> {
        let bundle = folder.join(format!("bundle-{mark}"));
        for name in ["rootfs", "upper", "work"] {
            fs::create_dir_all(bundle.join(name)).map_err(|error| error.to_string())?;
        }
        open_to_all(&bundle);
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            folder.join("base").display(),
            bundle.join("upper").display(),
            bundle.join("work").display()
        );
        mount(Some("overlay"), &bundle.join("rootfs"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|error| format!("no overlay: {error}"))?;
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|error| error.to_string())?;
        let random = random.trim().replace('-', "");
        Ok(Self { id: format!("{random}{random}"), bundle })
    }

    /// Plays a plan, which lies in the container's folder.
    fn play(&self, room: &Room, plan: &Value, mark: &str, kind: Kind) -> Result<(), String> {
        let name = plan["chain"][0]["name"].as_str().ok_or("a chain begins with a name")?;
        // Only a link lies in the upper layer; the program itself does not.
        symlink(format!("{INSIDE}/agent"), self.bundle.join("rootfs/tmp").join(name))
            .map_err(|error| error.to_string())?;
        let env = [format!("{PLAN}={INSIDE}/plan/plan.json"), "GYR_AT=0".to_owned(), format!("GYR_MARK={mark}")];
        let plans = self.bundle.join("plan").display().to_string();
        let mounts = [bind(&room.program.display().to_string(), "/opt/gyr/agent"), bind(&plans, "/opt/gyr/plan")];
        self.run(&[&format!("/tmp/{name}")], &env, &mounts, kind)
    }

    /// Runs a program to its end, with these variables and mounts besides the usual ones.
    fn run(&self, args: &[&str], env: &[String], mounts: &[Value], kind: Kind) -> Result<(), String> {
        let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
        let own = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap_or_default();
        let own = u64::from_str_radix(own.trim(), 16).map_err(|error| error.to_string())?;
        let ours = |name: &&&str| number(name).is_some_and(|bit| own & 1 << bit != 0);
        let more = PRIVILEGED.iter().filter(|_| kind == Kind::Privileged).filter(ours);
        let capabilities: Vec<_> = CAPABILITIES.iter().chain(more).collect();
        let usual = [
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
        ];
        let mut mounts: Vec<_> = usual.iter().chain(mounts).cloned().collect();
        if kind == Kind::Terminal {
            let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
            mounts.push(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options }));
        }
        for name in USR.iter().map(|name| format!("/usr/{name}")).chain(["/lib".to_owned(), "/lib64".to_owned()]) {
            let name = name.as_str();
            if Path::new(name).is_dir() && !Path::new(name).is_symlink() {
                mounts.push(bind(name, name));
            }
        }
        let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let env: Vec<_> = [&path].into_iter().chain(env).collect();
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": false },
            "hostname": &self.id[..12],
            "process": {
                "terminal": kind == Kind::Terminal, "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/tmp", "env": env,
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "mounts": mounts,
            "linux": { "cgroupsPath": format!("/{CGROUPS}/{}", self.id), "resources": {}, "namespaces": namespaces },
        });
        harness::write(&self.bundle, "config.json", &config.to_string());
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(&self.bundle);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if kind != Kind::Terminal {
            return wait(Helper::start(command.arg(&self.id)));
        }
        // The master of the terminal stays open as long as it lies unread in this socket.
        let console = self.bundle.join("console.sock");
        let _master = UnixListener::bind(&console).map_err(|error| error.to_string())?;
        command.args(["--detach", "--console-socket"]).arg(&console).arg(&self.id);
        // runc does not stay; who does, on a node, is the shim.
        let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let part: Vec<&str> = ["shim"].into_iter().chain(words.iter().map(AsRef::as_ref)).collect();
        let mut shim = child::command(&self.bundle, "containerd-shim", &part);
        wait(Helper::start(shim.stdout(Stdio::null()).stderr(Stdio::null())))
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(which("runc").expect("a need of the case"));
        command.arg("--root").arg(self.bundle.join("state")).stdin(Stdio::null());
        command
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = self.runc().args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        let _ = umount2(&self.bundle.join("rootfs"), MntFlags::MNT_DETACH);
        for folder in cgroups() {
            let _ = fs::remove_dir(folder.join(&self.id));
        }
    }
}

/// The folder of all cgroups that the tests give to containers, in each hierarchy.
fn cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(CGROUPS)).collect()
}

/// A mount of something of the host, for reading.
fn bind(from: &str, to: &str) -> Value {
    json!({ "destination": to, "source": from, "type": "bind", "options": ["rbind", "ro"] })
}

/// Bit of a capability (include/uapi/linux/capability.h).
fn number(name: &str) -> Option<u32> {
    Some(match name {
        "CAP_DAC_READ_SEARCH" => 2,
        "CAP_NET_ADMIN" => 12,
        "CAP_IPC_LOCK" => 14,
        "CAP_SYS_MODULE" => 16,
        "CAP_SYS_PTRACE" => 19,
        "CAP_SYS_ADMIN" => 21,
        "CAP_SYSLOG" => 34,
        _ => return None,
    })
}
