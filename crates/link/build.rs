//! Makes Rust of the protocol, without a protobuf compiler on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/link.proto");
    let descriptors = protox::compile(["proto/link.proto"], ["proto"])?;
    // A bundle goes to every sensor: its bytes are shared, not copied for each.
    tonic_prost_build::configure().bytes(".gyrfalcon.link.v1.BundleChunk").compile_fds(descriptors)?;
    Ok(())
}
