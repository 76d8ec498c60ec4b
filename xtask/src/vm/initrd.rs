//! The first file system of a guest: busybox, the modules for 9p and overlay, and a script that makes this machine's root
//! the guest's.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernels::{Kernel, piped, program};
use crate::process;

/// Modules with all that they need.
const MODULES: [&str; 5] = ["virtio_pci", "9p", "9pnet_virtio", "overlay", "dummy"];

/// What the guest does first. Mounts are moved, so that / is the overlay itself: user namespaces and pivot_root refuse a
/// chroot.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in /modules/*.ko; do $b insmod $m || echo "guest: no module $m"; done
die() { echo "guest: FATAL $*"; $b poweroff -f; }
$b mount -t tmpfs tmpfs /layer && $b mkdir /layer/upper /layer/work
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host || die "no root over 9p"
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /root || die "no overlay"
for d in proc sys dev; do $b mount -o move /$d /root/$d; done
$b mount -t tmpfs tmpfs /root/run
$b mkdir -p /root/dev/pts /root/dev/shm /root/run/guest
$b mkdir -p /root/run/tmp
$b mount -t devpts devpts /root/dev/pts; $b mount -t tmpfs tmpfs /root/dev/shm
$b cp $b /root/run/busybox
$b cp /stage2 /root/run/stage2
exec $b switch_root -c /dev/console /root /run/stage2
"#;

/// What it does then: the file systems that the sensor and its tests look at, and the command. A node has its pods on a
/// disk, whose files have handles, unlike those of the overlay; and it has a way to the world, though here nothing goes out.
const STAGE2: &str = r#"#!/run/busybox sh
b=/run/busybox
$b mount -t securityfs securityfs /sys/kernel/security
$b mount -t tracefs tracefs /sys/kernel/tracing
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
for c in $($b cat /sys/fs/cgroup/cgroup.controllers); do echo +$c >/sys/fs/cgroup/cgroup.subtree_control; done 2>/dev/null
$b mkdir -p /var/lib/kubelet
$b mount -t tmpfs tmpfs /var/lib/kubelet
$b ip link set lo up
$b ip link set dummy0 up
$b ip addr add 192.0.2.2/24 dev dummy0
$b ip route add default dev dummy0
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /run/guest || { echo "guest: FATAL no share"; $b poweroff -f; }
$b setsid /run/guest/run.sh >/run/guest/out 2>&1 </dev/null
echo $? >/run/guest/status
$b sync; $b poweroff -f
"#;

/// Makes it, unless it is there; it changes only with this file.
pub fn make(kernel: &Kernel) -> Result<PathBuf> {
    let initrd = kernel.root.join("initrd.gz");
    let recipe = kernel.root.join("initrd.recipe");
    let text = [INIT, STAGE2, &MODULES.join(" ")].concat();
    if initrd.exists() && fs::read_to_string(&recipe).is_ok_and(|made| made == text) {
        return Ok(initrd);
    }
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    for name in ["bin", "modules", "proc", "sys", "dev", "host", "layer", "root"] {
        fs::create_dir(at.join(name))?;
    }
    fs::copy(program("busybox"), at.join("bin/busybox")).context("copying busybox")?;
    for (number, module) in modules(kernel)?.iter().enumerate() {
        let name = module.file_stem().context("a module without a name")?.to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        fs::write(at.join(format!("modules/{number:03}-{name}.ko")), plain(module)?)?;
    }
    executable(&at.join("init"), INIT)?;
    executable(&at.join("stage2"), STAGE2)?;
    let mut pack = Command::new("sh");
    pack.current_dir(at).arg("-c").arg("find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >\"$0\"").arg(&initrd);
    process::run(&mut pack, "packing the guest's first file system", "install busybox-static")?;
    fs::write(recipe, text)?;
    Ok(initrd)
}

fn executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Files of the modules in the order in which they are loaded; what is built in has none.
fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for module in MODULES {
        let mut modprobe = Command::new(program("modprobe"));
        modprobe.arg("-d").arg(&kernel.root).args(["-S", &kernel.release, "-D", module]);
        let Ok(said) = process::stdout_of(&mut modprobe) else { continue };
        let paths = said.lines().filter_map(|line| line.strip_prefix("insmod "));
        let paths = paths.filter_map(|line| line.split(' ').next()).map(PathBuf::from);
        files.extend(paths.filter(|path| seen.insert(path.clone())));
    }
    Ok(files)
}

/// A module as the kernel takes it.
fn plain(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    let tool: &[&str] = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["xz", "-dc"],
        Some("zst") => &["zstd", "-qdc"],
        Some("gz") => &["gzip", "-dc"],
        Some(_) | None => return Ok(bytes),
    };
    let plain = piped(tool, &bytes);
    if plain.is_empty() {
        bail!("cannot unpack {}", module.display());
    }
    Ok(plain)
}
