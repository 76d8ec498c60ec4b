//! One guest: started, waited for, and what it printed.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernels::Kernel;
use crate::rooted::CARRIED;
use crate::tally::Tally;

/// Longest run of a guest.
const LIMIT: Duration = Duration::from_secs(5400);

/// How often what the guest has written is shown.
const LOOK: Duration = Duration::from_millis(500);

/// How the tests ended in a guest.
#[derive(Debug)]
pub struct Outcome {
    /// Counts of cases.
    pub tally: Tally,
    /// Cases that were not run, with the reasons.
    pub ignored: Vec<String>,
    /// From the start of the guest to its end.
    pub took: Duration,
}

/// Lines such as `test rows: exec ... ignored (there is no busybox)`, without what is the same in all.
fn ignored(text: &str) -> Vec<String> {
    let cases = text.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... ignored ("));
    let reason = |text: &str| text.strip_suffix(')').unwrap_or(text).to_owned();
    cases.map(|(name, text)| format!("{}: {}", name.trim_end(), reason(text))).collect()
}

/// Runs the kernel tests in a guest; shows what they print, and says how they ended.
pub fn run(
    accelerator: Accelerator,
    kernel: &Kernel,
    initrd: &Path,
    folder: &Path,
    program: &Path,
    filters: &[String],
) -> Result<Outcome> {
    let began = Instant::now();
    let share = tempfile::tempdir()?;
    let script = share.path().join("run.sh");
    fs::write(&script, command(folder, program, filters))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut guest = Guest(qemu(accelerator, kernel, initrd, share.path()).spawn().context("cannot start QEMU")?);
    let text = follow(&mut guest.0, &share.path().join("out"))?;
    let tally = text.lines().rev().find_map(Tally::of_line);
    match tally {
        Some(tally) => Ok(Outcome { tally, ignored: ignored(&text), took: began.elapsed() }),
        None => {
            let console = fs::read_to_string(share.path().join("console")).unwrap_or_default();
            let last: Vec<_> = console.lines().rev().take(20).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            bail!("the guest ended without a result; its console said at last:\n{last}")
        }
    }
}

/// Killed when it is not needed any more, whatever happens.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(folder: &Path, program: &Path, filters: &[String]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut lines =
        vec!["#!/bin/bash".to_owned(), "export HOME=/root TERM=dumb TMPDIR=/run/tmp GYRFALCON_TEST_GUEST=1".to_owned()];
    lines.push(format!("export CARGO_MANIFEST_DIR={}", quoted(&folder.display().to_string())));
    lines.push(format!("export PATH={}", quoted(&env::var("PATH").unwrap_or_default())));
    let carried = CARRIED.iter().filter_map(|name| Some((name, env::var(name).ok()?)));
    lines.extend(carried.map(|(name, value)| format!("export {name}={}", quoted(&value))));
    lines.push(format!("cd {}", quoted(&folder.display().to_string())));
    let filters: String = filters.iter().map(|filter| format!(" {}", quoted(filter))).collect();
    lines.push(format!("{}{filters}", quoted(&program.display().to_string())));
    lines.join("\n") + "\n"
}

/// What executes a guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, which translates it.
    Tcg,
}

impl Accelerator {
    /// KVM where the device can be opened and the processor has what it takes. In a virtual machine without nested
    /// virtualization there may be a device as well, for kernels that were made for it: it interprets others, instruction
    /// by instruction, which is slower than translation by far.
    pub fn best() -> Self {
        let opens = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let virtualizes = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| virtualizes(&text));
        if opens && virtualizes { Self::Kvm } else { Self::Tcg }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation (no KVM here that runs any kernel)",
        }
    }

    fn args(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Page tables of five levels cost every miss one read more.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
        }
    }
}

/// Whether `/proc/cpuinfo` tells of virtualization by the processor.
fn virtualizes(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.flat_map(|(_, flags)| flags.split_whitespace()).any(|flag| matches!(flag, "vmx" | "svm"))
}

fn qemu(accelerator: Accelerator, kernel: &Kernel, initrd: &Path, share: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let console = format!("file:{}", share.join("console").display());
    command
        .args(accelerator.args())
        .args(["-M", "q35", "-m", "2048", "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", &console])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off lsm=landlock,lockdown,yama,bpf"])
        .args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"])
        .args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"])
        .args(["-fsdev", &format!("local,id=share,path={},security_model=none", share.display())])
        .args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"])
        .stdin(Stdio::null());
    command
}

/// Shows what the guest writes until it ends; returns all of it.
fn follow(guest: &mut Child, out: &Path) -> Result<String> {
    let began = Instant::now();
    let mut text = Vec::new();
    let mut stdout = std::io::stdout();
    loop {
        let ended = guest.try_wait()?.is_some();
        if let Ok(mut file) = File::open(out) {
            file.seek(SeekFrom::Start(text.len() as u64))?;
            let mut fresh = Vec::new();
            file.read_to_end(&mut fresh)?;
            stdout.write_all(&fresh)?;
            stdout.flush()?;
            text.extend(fresh);
        }
        if ended {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if began.elapsed() > LIMIT {
            bail!("the guest did not end within {} minutes", LIMIT.as_secs() / 60);
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_virtualizes_says_so() {
        assert!(virtualizes("model name\t: EPYC\nflags\t\t: fpu svm sse\n"));
        assert!(virtualizes("flags\t\t: fpu vmx\n"));
        assert!(!virtualizes("model name\t: no svm\nflags\t\t: fpu vmmcall hypervisor\n"));
    }

    #[test]
    fn what_was_ignored_is_told_with_its_reason() {
        let text = "running 2 tests\ntest rows: a    ... ok\ntest rows: b, c ... ignored (no way (Linux 9))\n";
        assert_eq!(ignored(text), ["rows: b, c: no way (Linux 9)"]);
    }

    #[test]
    fn words_of_the_command_stay_words() {
        let script = command(Path::new("/a b"), Path::new("/t/kernel"), &["run: it's".to_owned()]);
        assert!(script.contains("cd '/a b'\n"), "{script}");
        assert!(script.ends_with("'/t/kernel' 'run: it'\\''s'\n"), "{script}");
    }
}
