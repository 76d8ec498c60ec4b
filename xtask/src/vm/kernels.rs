//! Debian's kernels, fetched with an apt configuration of our own, so that the machine's lists and packages stay as they
//! are. Exact versions vanish from the archive: which one there is, is read from the meta package `linux-image-amd64`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::{self, announce};

/// A kernel to test on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian 11: the oldest with BTF, typed tracepoints and ring buffers.
    V5_10,
    /// Debian 12.
    V6_1,
    /// Debian 13.
    V6_12,
    /// The newest that is ported back to Debian 13.
    V7,
}

impl Version {
    /// Oldest first.
    pub const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V7];

    /// The word for `--vm`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7 => "7",
        }
    }

    /// Archive below the mirror, and suite in it.
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::V5_10 => ("debian-security", "bullseye-security"),
            Self::V6_1 => ("debian", "bookworm"),
            Self::V6_12 => ("debian", "trixie"),
            Self::V7 => ("debian", "trixie-backports"),
        }
    }
}

/// A kernel, unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The uncompressed kernel: a guest without hardware acceleration takes long to unpack one.
    pub image: PathBuf,
    /// The folder that holds `lib/modules`.
    pub root: PathBuf,
}

/// What a kernel is made of, beside packages of its name.
const META: &str = "linux-image-amd64";

/// Gets a kernel, from the cache if it is there.
pub fn fetch(cache: &Path, version: Version) -> Result<Kernel> {
    let root = cache.join(version.name());
    if let Some(kernel) = found(&root) {
        return Ok(kernel);
    }
    let (archive, suite) = version.source();
    announce(format_args!("fetching Debian's kernel of {suite} into {} (once)", root.display()));
    let apt = Apt::new(&cache.join(format!("apt-{}", version.name())), archive, suite)?;
    let packages = apt.packages()?;
    let partial = cache.join(format!("{}.partial", version.name()));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let download = partial.join("packages");
    fs::create_dir_all(&download)?;
    let mut get = apt.command("apt-get");
    get.current_dir(&download).arg("download").args(&packages).stdout(Stdio::null());
    process::run(&mut get, "downloading a kernel", "look at the network, then run this again")?;
    for file in fs::read_dir(&download)? {
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").arg(file?.path()).arg(&partial);
        process::run(&mut unpack, "unpacking a kernel", "is there room below the cache folder?")?;
    }
    fs::remove_dir_all(&download)?;
    // Since Debian 13 modules lie in /usr, which is where /lib leads on a merged system.
    let (merged, lib) = (partial.join("usr/lib/modules"), partial.join("lib/modules"));
    if merged.exists() && !lib.exists() {
        fs::create_dir_all(partial.join("lib"))?;
        fs::rename(&merged, &lib)?;
    }
    let release = only_name(&lib)?;
    let mut depmod = Command::new(program("depmod"));
    process::run(depmod.arg("-b").arg(&partial).arg(&release), "listing modules", "install kmod")?;
    let packed = packed(&partial, &release)?;
    let image = unpacked(&fs::read(&packed)?).context("the kernel is packed in a way that is not known")?;
    fs::write(partial.join("vmlinux"), image)?;
    fs::rename(&partial, &root)?;
    found(&root).context("the kernel is not where it was put")
}

/// The kernel as a boot loader takes it: in /boot, or beside its modules, as Debian has it since Linux 7.
fn packed(root: &Path, release: &str) -> Result<PathBuf> {
    let places = [root.join(format!("boot/vmlinuz-{release}")), root.join("lib/modules").join(release).join("vmlinuz")];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => bail!("the packages hold no kernel: neither {} nor {}", places[0].display(), places[1].display()),
    }
}

fn found(root: &Path) -> Option<Kernel> {
    let image = root.join("vmlinux");
    let release = only_name(&root.join("lib/modules")).ok()?;
    image.exists().then(|| Kernel { release, image, root: root.to_owned() })
}

fn only_name(folder: &Path) -> Result<String> {
    let mut names = fs::read_dir(folder).with_context(|| format!("there is no {}", folder.display()))?;
    let name = names.next().context("no modules")??.file_name();
    Ok(name.to_string_lossy().into_owned())
}

/// A program for administrators, whose folders are not on everyone's path.
pub fn program(name: &str) -> PathBuf {
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    process::on_path(name).or_else(|| admin.into_iter().find(|path| path.exists())).unwrap_or_else(|| name.into())
}

/// The ELF file inside of a packed kernel: tries every place where a known form of compression begins.
fn unpacked(kernel: &[u8]) -> Option<Vec<u8>> {
    const FORMS: [(&[u8], &[&str]); 4] = [
        (b"\xfd7zXZ\0", &["xz", "-dc", "--single-stream"]),
        (b"\x28\xb5\x2f\xfd", &["zstd", "-dc"]),
        (b"\x1f\x8b\x08", &["gzip", "-dc"]),
        (b"\x02\x21\x4c\x18", &["lz4", "-dc"]),
    ];
    FORMS.iter().find_map(|(magic, tool)| {
        let places = kernel.windows(magic.len()).enumerate().filter(|(_, window)| window == magic);
        places.map(|(at, _)| piped(tool, &kernel[at..])).find(|image| image.starts_with(b"\x7fELF"))
    })
}

/// What a program makes of its input; what follows behind the packed part is an error that does not matter.
pub fn piped(tool: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let [program, args @ ..] = tool else { return Vec::new() };
    let child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return Vec::new() };
    std::thread::scope(|scope| {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that has seen the end of its data does not read the rest.
            scope.spawn(move || drop(stdin.write_all(input)));
        }
        child.wait_with_output().map(|output| output.stdout).unwrap_or_default()
    })
}

/// apt with lists, cache and sources of its own.
struct Apt {
    config: PathBuf,
}

/// Where this machine has Debian's packages from, without the archive's own folder.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    let sites = process::stdout_of(targets.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]))?;
    let mirror = sites.lines().find_map(|site| site.trim_end_matches('/').strip_suffix("/debian"));
    mirror.map(str::to_owned).context(
        "this machine has no mirror of Debian among its apt sources\n  remedy: run this on Debian, whose kernels it takes",
    )
}

impl Apt {
    fn new(folder: &Path, archive: &str, suite: &str) -> Result<Self> {
        for below in ["state/lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(folder.join(below))?;
        }
        fs::write(folder.join("status"), "")?;
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {}/{archive} {suite} main\n",
            mirror()?
        );
        fs::write(folder.join("sources.list"), source)?;
        let at = folder.display();
        let config = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"{at}/parts\";\n\
             Dir::Etc::preferencesparts \"{at}/parts\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n\
             APT::Architecture \"amd64\";\n"
        );
        let path = folder.join("apt.conf");
        fs::write(&path, config)?;
        let apt = Self { config: path };
        let mut update = apt.command("apt-get");
        process::run(update.args(["update", "-qq"]), "reading the list of Debian's kernels", "look at the network")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// The packages that the meta package leads to: those of its own version.
    fn packages(&self) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        let mut open = vec![META.to_owned()];
        while let Some(name) = open.pop() {
            let shown = process::stdout_of(self.command("apt-cache").args(["show", "--no-all-versions", &name]))?;
            open.extend(of_kernel(&shown).into_iter().filter(|next| !packages.contains(next)));
            if name != META {
                packages.push(name);
            }
        }
        if packages.is_empty() {
            bail!("{META} leads to no package");
        }
        packages.sort();
        packages.dedup();
        Ok(packages)
    }
}

/// Dependencies with an exact version: the parts of a kernel.
fn of_kernel(shown: &str) -> Vec<String> {
    let lines = shown.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let all = lines.flat_map(|line| line.split(", "));
    let exact = all.filter(|one| one.contains("(= ") && one.starts_with("linux-"));
    exact.filter_map(|one| Some(one.split(' ').next()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_what_has_its_very_version() {
        let shown = "Package: linux-image-7.3.4+deb13-amd64\nDepends: dracut | initramfs-tools (>= 0.120), linux-binary-7.3.4 \
                     (= 7.3.4-1), linux-modules-7.3.4 (= 7.3.4-1)\nPre-Depends: linux-base (>= 4.17~)\n";
        assert_eq!(of_kernel(shown), ["linux-binary-7.3.4", "linux-modules-7.3.4"]);
    }

    #[test]
    fn a_kernel_lies_in_boot_or_beside_its_modules() {
        let folder = tempfile::tempdir().expect("a folder");
        let (root, boot, modules) =
            (folder.path(), folder.path().join("boot"), folder.path().join("lib/modules/7.3-amd64"));
        fs::create_dir_all(&modules).expect("a folder of ours");
        assert!(
            packed(root, "7.3-amd64").expect_err("there is none").to_string().contains("lib/modules/7.3-amd64/vmlinuz")
        );
        fs::write(modules.join("vmlinuz"), "").expect("a folder of ours");
        assert_eq!(packed(root, "7.3-amd64").expect("a kernel"), modules.join("vmlinuz"));
        fs::create_dir(&boot).expect("a folder of ours");
        fs::write(boot.join("vmlinuz-7.3-amd64"), "").expect("a folder of ours");
        assert_eq!(packed(root, "7.3-amd64").expect("a kernel"), boot.join("vmlinuz-7.3-amd64"));
    }

    #[test]
    fn a_packed_kernel_is_found_behind_its_loader() {
        let elf = [b"\x7fELF".as_slice(), &[7; 1000]].concat();
        let packed = piped(&["gzip", "-c"], &elf);
        let kernel = [b"loader \x1f\x8b\x08 not it".as_slice(), &packed, b"behind"].concat();
        assert_eq!(unpacked(&kernel).as_deref(), Some(&elf[..]));
        assert_eq!(unpacked(b"nothing"), None);
    }
}
