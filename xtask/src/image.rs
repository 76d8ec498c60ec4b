//! `cargo xtask image`: container images of the sensor and the operator, without docker.
//!
//! Static programs in empty images, as archives that every runtime loads (`docker load`, `podman load`,
//! `ctr images import`). The same programs make the same bytes. Who has docker can use the Dockerfile as well.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::image::{Image, TAG};

use crate::checkout::{self, Checkout, SENSOR};
use crate::process::{self, announce};
use crate::{binaries, ebpf};

/// An image of ours.
pub struct Ours {
    /// The package with the program.
    pub package: &'static str,
    /// The program; also the image's name, and with `.tar` the archive's.
    pub program: &'static str,
}

/// All of them.
pub const OURS: [Ours; 2] = [
    Ours { package: SENSOR, program: "gyrfalcon" },
    Ours { package: "gyrfalcon-operator", program: "gyrfalcon-operator" },
];

/// Where archives go when nothing is said.
pub fn default_folder(checkout: &Checkout) -> PathBuf {
    checkout.target.join("images")
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Where the program of an image is, once it is built.
pub fn program(checkout: &Checkout, image: &Ours) -> PathBuf {
    checkout.target.join(target()).join("release").join(image.program)
}

/// Builds the programs and writes the archives into a folder.
pub fn build(checkout: &Checkout, object: &Path, folder: &Path) -> Result<()> {
    let target = target();
    announce("building static programs, optimized (a few minutes the first time)");
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(["build", "--release", "--target", &target]);
    command.args(OURS.iter().flat_map(|image| ["--package", image.package, "--bin", image.program]));
    // With a target named, this is for the target alone: build scripts stay as they are.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Symbols are nine tenths of a program, and every node would carry them.
    command.envs([("CARGO_PROFILE_RELEASE_DEBUG", "none"), ("CARGO_PROFILE_RELEASE_STRIP", "symbols")]);
    ebpf::hand_over(&mut command, object);
    process::run(&mut command, "building static programs", binaries::READ_ABOVE)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for image in &OURS {
        let program = program(checkout, image);
        let archive = folder.join(format!("{}.tar", image.program));
        let name = format!("{}:{TAG}", image.program);
        Image::of_program(&name, &program)?.write(&archive)?;
        let size = fs::metadata(&archive).map_or(0, |meta| meta.len()) / (1 << 20);
        announce(format_args!("{}: image {name}, {size} MiB", archive.display()));
    }
    Ok(())
}

/// Builds everything that images need, then the images.
pub fn run(checkout: &Checkout, folder: Option<&Path>) -> Result<()> {
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    build(checkout, &object, folder.unwrap_or(&default_folder(checkout)))
}
