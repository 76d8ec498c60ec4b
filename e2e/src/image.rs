//! Container images without a registry: an archive as `docker save` writes it, which every runtime imports.
//!
//! The same files give the same bytes: entries are sorted, times are zero, owners are numbers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kubectl;
use crate::tools::on_path;

/// The image that holds a pod's namespaces; a cluster with a node has it.
pub const PAUSE: &str = "e2e.gyrfalcon.dev/pause:1";
/// A shell with the usual programs, `/etc/shadow` included; a cluster with a node has it.
pub const BUSYBOX: &str = "e2e.gyrfalcon.dev/busybox:1";

/// Names the folder with the archives of our own images.
pub const FOLDER_VAR: &str = "GYRFALCON_E2E_IMAGES";
/// The tag of our own images: `gyrfalcon:dev` and `gyrfalcon-operator:dev`.
pub const TAG: &str = "dev";

/// The archive of our own image of that name, for [`crate::Cluster::load_image`].
pub fn archive(name: &str) -> Result<PathBuf> {
    const REMEDY: &str = "start the tests with `cargo xtask e2e`, which builds the images";
    let folder = std::env::var_os(FOLDER_VAR).filter(|folder| !folder.is_empty());
    let folder = folder.with_context(|| format!("{FOLDER_VAR} names no folder\n  remedy: {REMEDY}"))?;
    let archive = Path::new(&folder).join(format!("{name}.tar"));
    anyhow::ensure!(archive.is_file(), "there is no {}\n  remedy: {REMEDY}", archive.display());
    Ok(archive)
}

/// Where other distributions than Debian have their certificates, too.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// An image of one layer.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    entries: BTreeMap<String, Entry>,
    /// The OCI configuration: `Entrypoint`, `Cmd`, `User`, `Env`…
    config: Value,
}

#[derive(Debug, Clone)]
struct Entry {
    kind: Kind,
    mode: u32,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Folder,
    Link(String),
}

impl Image {
    /// An empty image with a name (`HOST/PATH:TAG`).
    pub fn new(name: &str, config: Value) -> Self {
        Self { name: name.to_owned(), entries: BTreeMap::new(), config }
    }

    /// An image for one static program: it runs as nobody in particular, and has the certificates of this machine.
    pub fn of_program(name: &str, program: &Path) -> Result<Self> {
        let file = program.file_name().context("a program without a name")?.to_string_lossy().into_owned();
        let path = format!("usr/bin/{file}");
        let config = json!({
            "Entrypoint": [format!("/{path}")], "User": "65532:65532", "WorkingDir": "/", "Env": ["PATH=/usr/bin"],
        });
        let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        let mut image = Self::new(name, config)
            .file(&path, 0o755, bytes)
            .file(
                "etc/passwd",
                0o644,
                "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
            )
            .file("etc/group", 0o644, "root:x:0:\nnonroot:x:65532:\n")
            .folder("tmp", 0o1777);
        if let Some(bundle) = CERTIFICATES.iter().find_map(|path| fs::read(path).ok()) {
            image = image.file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
        }
        Ok(image)
    }

    /// [`PAUSE`].
    pub fn pause() -> Result<Self> {
        // Its end is a SIGKILL, so it need not listen to anything else.
        let config = json!({ "Entrypoint": ["/bin/busybox", "sleep", "2147483647"] });
        Ok(Self::new(PAUSE, config).file("bin/busybox", 0o755, busybox()?))
    }

    /// [`BUSYBOX`].
    pub fn busybox() -> Result<Self> {
        let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"], "WorkingDir": "/" });
        let mut image = Self::new(BUSYBOX, config)
            .file("bin/busybox", 0o755, busybox()?)
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
            .file("etc/shadow", 0o640, "root:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n")
            .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
            .folder("root", 0o700)
            .folder("home", 0o755)
            .folder("tmp", 0o1777);
        let program = on_path("busybox").context("there is no busybox (Debian's busybox-static)")?;
        let list = kubectl::run(Command::new(program).arg("--list"), None)?.success()?;
        for applet in list.lines().filter(|applet| *applet != "busybox") {
            image = image.link(&format!("bin/{applet}"), "busybox");
        }
        Ok(image)
    }

    /// Adds a file.
    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.entry(path, mode, Kind::File(bytes.into()))
    }

    /// Adds a folder.
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(path, mode, Kind::Folder)
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, to: &str) -> Self {
        self.entry(path, 0o777, Kind::Link(to.to_owned()))
    }

    fn entry(mut self, path: &str, mode: u32, kind: Kind) -> Self {
        for (at, _) in path.match_indices('/') {
            let parent = Entry { kind: Kind::Folder, mode: 0o755 };
            self.entries.entry(path[..at].to_owned()).or_insert(parent);
        }
        self.entries.insert(path.to_owned(), Entry { kind, mode });
        self
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = self.layer().context("cannot make a layer")?;
        let config = json!({
            "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "gyrfalcon" }],
        });
        let config = config.to_string().into_bytes();
        let config_name = format!("{}.json", sha256(&config));
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        let write = || -> io::Result<()> {
            let mut file = io::BufWriter::new(fs::File::create(archive)?);
            for (name, bytes) in
                [("manifest.json", manifest.to_string().as_bytes()), (&config_name, &config), ("layer.tar", &layer)]
            {
                append(&mut file, name, b'0', 0o644, bytes, "")?;
            }
            file.write_all(&END)?;
            file.flush()
        };
        write().with_context(|| format!("cannot write {}", archive.display()))
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut tar = Vec::new();
        for (path, entry) in &self.entries {
            match &entry.kind {
                Kind::File(bytes) => append(&mut tar, path, b'0', entry.mode, bytes, "")?,
                Kind::Folder => append(&mut tar, &format!("{path}/"), b'5', entry.mode, &[], "")?,
                Kind::Link(to) => append(&mut tar, path, b'2', entry.mode, &[], to)?,
            }
        }
        tar.write_all(&END)?;
        Ok(tar)
    }
}

const BLOCK: usize = 512;
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Adds an entry to a tar archive: POSIX.1-1988's header, then the contents in blocks.
fn append(tar: &mut impl Write, name: &str, kind: u8, mode: u32, bytes: &[u8], link: &str) -> io::Result<()> {
    if name.len() > 100 || link.len() > 100 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a name too long for tar: {name}")));
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0"); // uid
    put(116, b"0000000\0"); // gid
    put(124, format!("{:011o}\0", bytes.len()).as_bytes());
    put(136, b"00000000000\0"); // time
    put(148, b"        "); // checksum, which counts itself as spaces
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.write_all(&header)?;
    tar.write_all(bytes)?;
    tar.write_all(&END[..bytes.len().next_multiple_of(BLOCK) - bytes.len()])
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// This machine's, in the words of the OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn busybox() -> Result<Vec<u8>> {
    let program = on_path("busybox").context("there is no busybox (Debian's busybox-static)")?;
    fs::read(&program).with_context(|| format!("cannot read {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_was_written() -> Result<()> {
        let image = Image::new("a/b:1", json!({})).file("etc/deep/file", 0o640, "text").link("bin", "usr/bin");
        let layer = image.layer()?;
        let listing = std::env::temp_dir().join(format!("gyrfalcon-tar-{}", std::process::id()));
        fs::write(&listing, &layer)?;
        let listed = kubectl::run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&listing), None)?.success();
        fs::remove_file(&listing)?;
        let names: Vec<String> =
            listed?.lines().map(|line| [&line[..10], line.split(":00 ").last().unwrap_or("")].join(" ")).collect();
        assert_eq!(
            names,
            ["lrwxrwxrwx bin -> usr/bin", "drwxr-xr-x etc/", "drwxr-xr-x etc/deep/", "-rw-r----- etc/deep/file"]
        );
        Ok(())
    }

    #[test]
    fn the_same_files_in_any_order_are_the_same_bytes() -> Result<()> {
        let new = || Image::new("a/b:1", json!({}));
        let one = new().file("a", 0o644, "1").file("b/c", 0o644, "2").layer()?;
        let other = new().file("b/c", 0o644, "2").file("a", 0o644, "1").layer()?;
        assert_eq!(one, other);
        Ok(())
    }
}
