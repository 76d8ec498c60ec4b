//! From the bytes of a bundle to rules that run on this node.

use ::link::proto;
use rules::load::Options;

use super::{compiler::Built, link::Verified};

/// Compiles a bundle.
pub fn compile(bundle: &Verified, node: &str, facts: &proto::NodeFacts, options: &Options) -> Result<Built, String> {
    let _ = (bundle, node, facts, options);
    Err("this sensor cannot compile bundles yet".to_owned())
}
