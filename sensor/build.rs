//! Embeds the kernel programs, and makes Rust of what the sensor asks of container runtimes.
//!
//! `cargo xtask` builds them with a tool chain of their own and names the file in `GYRFALCON_EBPF_OBJECT`. Without it the
//! sensor still compiles (for `cargo check`, for editors) and says at run time what is missing.

use std::{env, fs, path::Path};

fn main() {
    kernel_programs();
    container_runtime();
}

/// Only the tests play the server.
fn container_runtime() {
    println!("cargo::rerun-if-changed=proto/cri.proto");
    let descriptors = protox::compile(["proto/cri.proto"], ["proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    tonic_prost_build::configure()
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(descriptors)
        .unwrap_or_else(|error| panic!("cannot generate the client: {error}"));
}

fn kernel_programs() {
    println!("cargo::rerun-if-env-changed=GYRFALCON_EBPF_OBJECT");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let code = match env::var("GYRFALCON_EBPF_OBJECT") {
        Ok(object) if !object.is_empty() => {
            println!("cargo::rerun-if-changed={object}");
            let copy = Path::new(&out).join("programs.o");
            fs::copy(&object, &copy).unwrap_or_else(|error| panic!("cannot copy {object}: {error}"));
            "#[repr(C, align(64))]\nstruct Aligned<T: ?Sized>(T);\n\
             static BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!(\"OUT_DIR\"), \"/programs.o\")));\n\
             /// The object file.\npub const OBJECT: Option<&[u8]> = Some(&BYTES.0);\n"
        }
        _ => "/// Built without kernel programs.\npub const OBJECT: Option<&[u8]> = None;\n",
    };
    fs::write(Path::new(&out).join("ebpf_object.rs"), code).expect("OUT_DIR is writable");
}
