//! Decides how kernel programs get built here: from what the machine has to a tool chain, one step at a time.
//!
//! What is ready is used as it is. Otherwise the users' ordinary way, rustup's nightly, is completed if it can be, and
//! Debian's packages are the other way; a step that was refused is not asked for again, which leads from one to the
//! other. Downloading a compiler comes after knowing where its linker would come from. Pure: a test can be any machine.

use std::path::PathBuf;

use super::machine::{Machine, Rustc};

/// Versions of LLVM that our version of bpf-linker can be built with.
pub const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Build, with this.
    Ready(Toolchain),
    /// Install something, look again.
    Do(Step),
    /// Every way has been refused.
    Stuck,
}

/// A compiler with a linker that understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// Path of the bpf-linker.
    pub linker: PathBuf,
}

/// Which compiler; the version is part of the build's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// rustup's nightly.
    Rustup {
        /// First line of `rustc -vV`.
        version: String,
    },
    /// Debian's rustc-web.
    Debian {
        /// First line of `rustc -vV`.
        version: String,
    },
}

impl Compiler {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Rustup { version } => format!("rustup's nightly ({version})"),
            Self::Debian { version } => format!("Debian's {version}"),
        }
    }
}

/// One thing to install.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// `rustup toolchain install nightly`.
    Nightly,
    /// `rustup component add rust-src --toolchain nightly`.
    NightlySource,
    /// `cargo binstall bpf-linker`.
    BinstallLinker,
    /// Debian's development package of this LLVM.
    Llvm(u32),
    /// bpf-linker from source, with this LLVM.
    BuildLinker(u32),
    /// Debian's rustc-web, cargo-web, rust-web-src.
    DebianCompiler,
}

impl Step {
    /// What the machine would look like had the step been taken; guesses the versions that a download would bring.
    pub fn assume(&self, machine: &mut Machine) {
        let rustc = |llvm, has_src| Some(Rustc { version: "the newest".to_owned(), llvm, has_src });
        match self {
            Self::Nightly => machine.nightly = rustc(23, true),
            Self::NightlySource => machine.nightly.iter_mut().for_each(|nightly| nightly.has_src = true),
            Self::BinstallLinker => machine.linker_on_path = Some("bpf-linker".into()),
            Self::Llvm(llvm) => machine.llvms.push(*llvm),
            Self::BuildLinker(llvm) => machine.linkers_built.push((*llvm, "bpf-linker".into())),
            Self::DebianCompiler => {
                machine.debian = rustc(22, true);
                machine.llvms.push(22);
            }
        }
    }
}

/// The next step on this machine.
pub fn next(machine: &Machine) -> Next {
    ready(machine).map(Next::Ready).or_else(|| step(machine).map(Next::Do)).unwrap_or(Next::Stuck)
}

fn ready(machine: &Machine) -> Option<Toolchain> {
    let rustup = machine.nightly.as_ref().filter(|rustc| rustc.has_src).and_then(|rustc| {
        let linker = linker(machine, rustc.llvm)?;
        Some(Toolchain { compiler: Compiler::Rustup { version: rustc.version.clone() }, linker })
    });
    rustup.or_else(|| {
        let rustc = machine.debian.as_ref()?;
        let linker = linker(machine, rustc.llvm)?;
        Some(Toolchain { compiler: Compiler::Debian { version: rustc.version.clone() }, linker })
    })
}

/// A linker for bitcode of this LLVM: an older LLVM's would not read it.
fn linker(machine: &Machine, llvm: u32) -> Option<PathBuf> {
    let built = machine.linkers_built.iter().find(|(version, _)| *version >= llvm).map(|(_, path)| path.clone());
    built.or_else(|| machine.linker_on_path.clone())
}

fn step(machine: &Machine) -> Option<Step> {
    rustup_step(machine).or_else(|| debian_step(machine))
}

fn rustup_step(machine: &Machine) -> Option<Step> {
    if !machine.rustup {
        return None;
    }
    let Some(nightly) = &machine.nightly else {
        // Which LLVM it will have is not known before the download; only a linker that comes ready-made surely fits.
        let linker_for_any = machine.linker_on_path.is_some() || allowed(machine, Step::BinstallLinker).is_some();
        return linker_for_any.then(|| allowed(machine, Step::Nightly)).flatten();
    };
    let for_linker = linker_step(machine, nightly);
    if linker(machine, nightly.llvm).is_none() && for_linker.is_none() {
        return None;
    }
    if nightly.has_src { for_linker } else { allowed(machine, Step::NightlySource) }
}

fn debian_step(machine: &Machine) -> Option<Step> {
    match &machine.debian {
        Some(rustc) => linker_step(machine, rustc),
        None => allowed(machine, Step::DebianCompiler),
    }
}

/// How to get a linker for this compiler's bitcode.
fn linker_step(machine: &Machine, rustc: &Rustc) -> Option<Step> {
    if let Some(step) = allowed(machine, Step::BinstallLinker) {
        return Some(step);
    }
    let installed = machine.llvms.iter().copied().filter(|llvm| *llvm >= rustc.llvm);
    if let Some(step) = installed.filter_map(|llvm| allowed(machine, Step::BuildLinker(llvm))).next() {
        return Some(step);
    }
    if !LINKER_LLVMS.contains(&rustc.llvm) || machine.llvms.contains(&rustc.llvm) {
        return None;
    }
    allowed(machine, Step::Llvm(rustc.llvm))
}

/// The step, if this machine could take it and has not refused it.
fn allowed(machine: &Machine, step: Step) -> Option<Step> {
    let possible = match step {
        Step::Nightly | Step::NightlySource => machine.rustup,
        Step::BinstallLinker => machine.binstall,
        Step::BuildLinker(_) => true,
        Step::Llvm(_) | Step::DebianCompiler => machine.apt,
    };
    (possible && !machine.refused.contains(&step)).then_some(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(llvm: u32, has_src: bool) -> Option<Rustc> {
        Some(Rustc { version: format!("rustc with {llvm}"), llvm, has_src })
    }

    /// Does every step with success, or refuses it, and says which were asked for and what they led to.
    fn walk(mut machine: Machine, refuse: &[Step]) -> (Vec<Step>, Option<Compiler>) {
        let mut steps = Vec::new();
        loop {
            match next(&machine) {
                Next::Ready(toolchain) => return (steps, Some(toolchain.compiler)),
                Next::Stuck => return (steps, None),
                Next::Do(step) if refuse.contains(&step) => machine.refused.refuse(step.clone()),
                Next::Do(step) => {
                    step.assume(&mut machine);
                    steps.push(step);
                }
            }
        }
    }

    #[test]
    fn a_machine_that_has_everything_installs_nothing() {
        let machine = Machine {
            rustup: true,
            nightly: rustc(23, true),
            linker_on_path: Some("/bin/bpf-linker".into()),
            apt: true,
            ..Machine::default()
        };
        let (steps, compiler) = walk(machine, &[]);
        assert_eq!(steps, []);
        assert!(matches!(compiler, Some(Compiler::Rustup { .. })));
    }

    #[test]
    fn the_ordinary_way_needs_a_nightly_and_its_sources() {
        let machine = Machine { rustup: true, binstall: true, ..Machine::default() };
        assert_eq!(walk(machine, &[]).0, [Step::Nightly, Step::BinstallLinker]);
    }

    #[test]
    fn a_nightly_without_a_linker_is_not_downloaded() {
        let machine = Machine { rustup: true, apt: true, ..Machine::default() };
        let (steps, compiler) = walk(machine, &[]);
        assert_eq!(steps, [Step::DebianCompiler, Step::BuildLinker(22)]);
        assert!(matches!(compiler, Some(Compiler::Debian { .. })));
    }

    #[test]
    fn rustup_without_network_leads_to_debian() {
        let machine = Machine { rustup: true, nightly: rustc(22, false), apt: true, ..Machine::default() };
        let (steps, compiler) = walk(machine, &[Step::NightlySource]);
        assert_eq!(steps, [Step::DebianCompiler, Step::BuildLinker(22)]);
        assert!(matches!(compiler, Some(Compiler::Debian { .. })));
    }

    #[test]
    fn a_linker_of_an_older_llvm_does_not_fit() {
        let machine = Machine {
            rustup: true,
            nightly: rustc(23, true),
            debian: rustc(22, true),
            linkers_built: vec![(22, "/cache/bpf-linker".into())],
            ..Machine::default()
        };
        assert!(matches!(walk(machine, &[]).1, Some(Compiler::Debian { .. })));
    }

    #[test]
    fn a_compiler_newer_than_any_linker_is_left_alone() {
        let machine = Machine { rustup: true, nightly: rustc(24, false), ..Machine::default() };
        assert_eq!(walk(machine, &[]), (vec![], None));
    }

    #[test]
    fn nothing_at_all_is_stuck_and_ends() {
        assert_eq!(next(&Machine::default()), Next::Stuck);
        let everything_refused = [Step::NightlySource, Step::DebianCompiler];
        let machine = Machine { rustup: true, nightly: rustc(22, false), apt: true, ..Machine::default() };
        assert_eq!(walk(machine, &everything_refused).1, None);
    }
}
