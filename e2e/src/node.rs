//! The node: a network namespace and a mount namespace that all programs of a cluster run in, and a cgroup for its pods.
//!
//! The network namespace has a link to ours and nothing else, so that addresses of Services and pods, and the firewall
//! rules of kube-proxy, are the cluster's alone. In the mount namespace /var and /run are the machine's with a layer
//! above: a program of the cluster, or a pod with a hostPath, has the paths that it has on every node and writes
//! nothing on the machine. Ids of processes are the machine's.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::kubectl;
use crate::layout::{Layout, Link, PODS};
use crate::tools::on_path;

/// The namespaces. They live as long as this, or a process in them.
#[derive(Debug)]
pub struct Node {
    network: File,
    mounts: File,
}

/// Folders that get a layer above.
const LAYERED: [&str; 2] = ["/var", "/run"];

/// Settings of the whole machine that a kubelet wants to change. It reads these instead and is content.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

impl Node {
    /// Makes the namespaces, the cgroup, and the link, whose number it notes in the layout.
    pub fn create(layout: &mut Layout) -> Result<Self> {
        if LAYERED.iter().any(|folder| layout.dir.starts_with(folder)) {
            bail!("a node's folder cannot be below {}\n  remedy: set TMPDIR to another folder", LAYERED.join(" or "));
        }
        let dir = layout.dir.clone();
        // A thread can leave its namespaces without the others.
        let made = thread::spawn(move || Self::in_this_thread(&dir)).join();
        let node = made.map_err(|_| anyhow!("making the node's namespaces panicked"))??;
        node.link(layout)?;
        make_cgroups(&layout.cgroup())?;
        Ok(node)
    }

    fn in_this_thread(dir: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make namespaces for a node")?;
        let none = None::<&str>;
        // First nothing goes back to the machine; then containers see what the node mounts, as on every node.
        for kind in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(none, "/", none, kind | MsFlags::MS_REC, none).context("cannot separate a node's mounts")?;
        }
        for folder in LAYERED {
            layer(dir, folder)?;
        }
        for (setting, value) in KERNEL_SETTINGS {
            let file = dir.join(setting.trim_start_matches('/').replace('/', "."));
            fs::write(&file, format!("{value}\n")).with_context(|| format!("cannot write {}", file.display()))?;
            if Path::new(setting).exists() {
                mount(Some(&file), setting, none, MsFlags::MS_BIND, none)
                    .with_context(|| format!("cannot cover {setting}"))?;
            }
        }
        let open = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}")).context("cannot hold a namespace");
        Ok(Self { network: open("net")?, mounts: open("mnt")? })
    }

    /// Connects the namespaces, under the first number that is free.
    fn link(&self, layout: &mut Layout) -> Result<()> {
        let made = (0..=254)
            .map(Link)
            .find(|link| ip(&["link", "add", &link.interface(), "type", "veth", "peer", "name", &peer(*link)]).is_ok());
        let link = made.context("cannot make a pair of network interfaces")?;
        fs::write(layout.file("link"), link.interface()).context("cannot note the network interface")?;
        layout.link = Some(link);
        let interface = link.interface();
        // The peer goes where a process of the node is.
        let mut anchor = self.command("sleep")?.arg("60").spawn().context("cannot start a process in a namespace")?;
        let moved = ip(&["link", "set", &peer(link), "netns", &anchor.id().to_string()]);
        let ended = anchor.kill().and_then(|()| anchor.wait());
        moved?;
        ended.context("cannot end a process in a namespace")?;
        ip(&["address", "add", &format!("{}/30", link.host()), "dev", &interface])?;
        ip(&["link", "set", &interface, "up"])?;
        self.ip(&["link", "set", "lo", "up"])?;
        self.ip(&["link", "set", &peer(link), "name", "eth0"])?;
        self.ip(&["address", "add", &format!("{}/30", link.node()), "dev", "eth0"])?;
        self.ip(&["link", "set", "eth0", "up"])?;
        self.ip(&["route", "add", "default", "via", &link.host()])?;
        // To us a pod has its node's address: we know no way to pods.
        let rules = format!(
            "add table ip node\n\
             add chain ip node postrouting {{ type nat hook postrouting priority srcnat; }}\n\
             add rule ip node postrouting ip saddr {PODS} oifname eth0 masquerade\n"
        );
        kubectl::run(self.command("sh")?.args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]), None)?.success()?;
        kubectl::run(self.command("nft")?.args(["--file", "-"]), Some(&rules))?.success()?;
        Ok(())
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        kubectl::run(self.command("ip")?.args(args), None)?.success().map(|_| ())
    }

    /// A program of the system that will run on the node.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(on_path(program).with_context(|| format!("there is no {program}"))?);
        self.enter(&mut command)?;
        Ok(command)
    }

    /// Has the command run on the node.
    pub fn enter(&self, command: &mut Command) -> Result<()> {
        let hold = |file: &File| file.try_clone().context("cannot hold a namespace");
        let (network, mounts) = (hold(&self.network)?, hold(&self.mounts)?);
        let enter = move || {
            setns(&network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            setns(&mounts, CloneFlags::CLONE_NEWNS).map_err(io::Error::from)
        };
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }
}

fn peer(link: Link) -> String {
    format!("gyrf-peer-{}", link.0)
}

fn ip(args: &[&str]) -> Result<()> {
    let program = on_path("ip").context("there is no ip (Debian's iproute2)")?;
    kubectl::run(Command::new(program).args(args), None)?.success().map(|_| ())
}

/// Covers a folder with an empty layer that takes what is written.
fn layer(dir: &Path, folder: &str) -> Result<()> {
    let part = |name: &str| -> Result<PathBuf> {
        let path = dir.join(format!("layer{}", folder.replace('/', "-"))).join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    };
    let options =
        format!("lowerdir={folder},upperdir={},workdir={}", part("upper")?.display(), part("work")?.display());
    mount(Some("overlay"), folder, Some("overlay"), MsFlags::empty(), Some(options.as_str())).with_context(|| {
        format!("cannot put a layer above {folder}\n  remedy: set TMPDIR to a folder on a disk, not on an overlay")
    })
}

/// Makes the cgroup of all pods in every hierarchy.
fn make_cgroups(name: &str) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot list mounts")?;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(root), Some(kind)) = (words.next(), words.next()) else { continue };
        let cgroup = Path::new(root).join(name);
        match kind {
            "cgroup" => {
                fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
                // In the hierarchy of processors a new cgroup has none, and can hold nothing before it has.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(all) = fs::read_to_string(Path::new(root).join(file)) {
                        fs::write(cgroup.join(file), all)
                            .with_context(|| format!("cannot set up {}", cgroup.display()))?;
                    }
                }
            }
            "cgroup2" => {
                pass_on_controllers(Path::new(root));
                fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
                pass_on_controllers(&cgroup);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives a cgroup's children what it has. What they do not get, the kubelet misses and says so.
fn pass_on_controllers(cgroup: &Path) {
    let controllers = fs::read_to_string(cgroup.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
