//! Embeds the kernel programs.
//!
//! `cargo xtask` builds them with a tool chain of their own and names the file in `GYRFALCON_EBPF_OBJECT`. Without it the
//! sensor still compiles (for `cargo check`, for editors) and says at run time what is missing.

use std::{env, fs, path::Path};

fn main() {
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
