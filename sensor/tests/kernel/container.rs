//! A container of a case's own: busybox, run by runc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    harness::{self, Helper, LONG},
    needs::which,
};

/// The folder of all cgroups that the tests give to containers.
const CGROUPS: &str = "gyrfalcon-test";

/// A container; deleted when dropped.
pub struct Container {
    /// The id, 64 hexadecimal digits as every runtime makes them.
    pub id: String,
    bundle: TempDir,
}

impl Container {
    /// Prepares one with programs that are all busybox.
    pub fn new(programs: &[&str]) -> Self {
        let bundle = harness::folder();
        let rootfs = bundle.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "etc", "tmp"] {
            fs::create_dir_all(rootfs.join(folder)).expect("a folder in a temporary folder");
        }
        let busybox = which("busybox").expect("a need of the case");
        fs::copy(busybox, rootfs.join("bin/busybox")).expect("a copy in a temporary folder");
        for program in programs {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(program))
                .expect("a link in a temporary folder");
        }
        harness::write(&rootfs, "etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
        let random =
            fs::read_to_string("/proc/sys/kernel/random/uuid").expect("/proc is mounted").trim().replace('-', "");
        Self { id: format!("{random}{random}"), bundle }
    }

    /// The id as Falco shows it.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Runs a command as its first process and waits for its end, whatever that is: what counts is that it was begun.
    pub fn run(&self, args: &[String], env: &[String]) {
        let capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID"];
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
        let env = [&["PATH=/bin".to_owned()][..], env].concat();
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": false },
            "hostname": self.short_id(),
            "process": {
                "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "cwd": "/", "noNewPrivileges": true,
                "env": env,
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
            ],
            "linux": { "cgroupsPath": format!("/{CGROUPS}/{}", self.id), "resources": {}, "namespaces": namespaces },
        });
        harness::write(self.bundle.path(), "config.json", &config.to_string());
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(self.bundle.path()).arg(&self.id);
        let mut runc = Helper::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        harness::wait_for(&mut runc.0, LONG).expect("the container did not end");
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(which("runc").expect("a need of the case"));
        command.arg("--root").arg(self.bundle.path().join("state")).stdin(Stdio::null());
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.runc().args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        // Empty cgroups that runc made on the way to the container's, in whatever hierarchies there are.
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            let folder: PathBuf = hierarchy.join(CGROUPS);
            let _ = fs::remove_dir(folder.join(&self.id));
            let _ = fs::remove_dir(folder);
        }
    }
}
