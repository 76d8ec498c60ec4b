//! What cases need besides themselves, and what becomes of a case that does not get it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use libtest_mimic::{Completion, Failed, Trial};

use crate::{
    child,
    harness::{self, GYRFALCON},
};

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Rights, a kernel and an object file with which the programs load and attach.
    Tracing,
    /// A program on the path.
    Program(&'static str),
    /// A kernel that takes 32-bit system calls.
    Calls32,
    /// A kernel whose programs can ask for the registers of a task, as tracepoints of perf must: since Linux 5.15.
    RegistersOfTask,
    /// A kernel that makes sockets for io_uring, which is there since Linux 5.19 and can be switched off.
    SocketsByRing,
    /// The folder of Falco's rules.
    OfficialRules,
    /// Somebody's wish to have many containers come and go: a slow sensor among them can lose what a test waits for.
    Crowd,
    /// The folder of conformance data.
    Conformance,
}

impl Need {
    /// Why it cannot be had, if it cannot.
    fn missing(self) -> Option<String> {
        static TRACING: OnceLock<Option<String>> = OnceLock::new();
        match self {
            Self::Tracing => TRACING.get_or_init(no_tracing).clone(),
            Self::Program(name) => which(name).is_none().then(|| format!("there is no {name} on the path")),
            Self::Calls32 => (!child::takes_calls32()).then(|| "this kernel takes no 32-bit system calls".to_owned()),
            Self::RegistersOfTask => {
                (harness::kernel() < (5, 15)).then(|| "this kernel lacks bpf_task_pt_regs (Linux 5.15)".to_owned())
            }
            Self::SocketsByRing => {
                (!makes_sockets_by_ring()).then(|| "this kernel makes no sockets for io_uring (Linux 5.19)".to_owned())
            }
            Self::OfficialRules => folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").err(),
            Self::Crowd => env::var_os("GYRFALCON_TEST_CONTAINERS").is_none().then(|| {
                "it wants a machine for itself: GYRFALCON_TEST_CONTAINERS=200 lets so many containers run".to_owned()
            }),
            Self::Conformance => folder("GYRFALCON_CONFORMANCE", "evtgen_cases.json").err(),
        }
    }

    /// Whether `REQUIRE_KERNEL=1` asks for it: data from elsewhere and calls of another age are nobody's duty.
    fn is_required(self) -> bool {
        match self {
            Self::Tracing | Self::Program(_) => true,
            Self::Calls32
            | Self::RegistersOfTask
            | Self::SocketsByRing
            | Self::Crowd
            | Self::OfficialRules
            | Self::Conformance => false,
        }
    }
}

/// A case: a sentence, what it needs, and what it does.
pub fn trial(name: impl Into<String>, needs: &'static [Need], run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        for need in needs {
            let Some(reason) = need.missing() else { continue };
            if need.is_required() && env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1") {
                return Err(Failed::from(format!("REQUIRE_KERNEL=1, but {reason}")));
            }
            return Ok(Completion::ignored_with(reason));
        }
        run();
        Ok(Completion::Completed)
    })
}

/// The sensor's own word: it tries to load and attach everything.
fn no_tracing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the kernel tests need root".to_owned());
    }
    let doctor = Command::new(GYRFALCON).arg("doctor").output().expect("the sensor was built with this test");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let refused = said.lines().find(|line| line.starts_with("no   BTF") || line.starts_with("no   kernel programs"));
    let refused = refused.unwrap_or("doctor found no way to trace");
    (!doctor.status.success()).then(|| refused.trim_start_matches("no ").trim().to_owned())
}

fn makes_sockets_by_ring() -> bool {
    let mut probe = io_uring::Probe::new();
    let asked = io_uring::IoUring::new(2).and_then(|ring| ring.submitter().register_probe(&mut probe));
    asked.is_ok() && probe.is_supported(io_uring::opcode::Socket::CODE)
}

/// The path of a program; root's path has the folders for administrators, others' may not.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(admin).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The folder that a variable names, when it holds this file.
pub fn folder(variable: &str, file: &str) -> Result<PathBuf, String> {
    let Some(folder) = env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Err(format!("{variable} names no folder"));
    };
    let folder = PathBuf::from(folder);
    match Path::new(&folder).join(file).is_file() {
        true => Ok(folder),
        false => Err(format!("there is no {file} in {variable}={}", folder.display())),
    }
}
