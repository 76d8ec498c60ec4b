//! Which of our packages may use which. The direction is the design; a new edge is a decision, so it is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};

use super::Finding;
use crate::checkout::{Checkout, Package};

/// The graph that is agreed on.
pub const EXPECTED: &str = "xtask/expected/crate-graph.txt";

const HEAD: &str = "\
# Which of our crates may use which (tests: what only their tests use). A line more is a decision about the design:
# change this file by hand, or write what is there with `cargo xtask tidy --bless`.
";

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Compares the packages with the agreed graph.
pub fn check(packages: &[&Package], expected: &str) -> Vec<Finding> {
    let agreed = parse(expected);
    let mut findings = Vec::new();
    for (line, uses) in graph(packages) {
        let Some((at, allowed)) = agreed.get(&line) else {
            findings.push(Finding::error(EXPECTED, 1, format!("`{line}` is not listed; it uses {}", list(&uses))));
            continue;
        };
        for new in uses.difference(allowed) {
            let message = format!("`{line}` uses {new}, which is not agreed: drop the dependency, or add it here");
            findings.push(Finding::error(EXPECTED, *at, message));
        }
        for gone in allowed.difference(&uses) {
            let message = format!("`{line}` does not use {gone}: remove it here if it is not to come");
            findings.push(Finding::warning(EXPECTED, *at, message));
        }
    }
    findings
}

/// Writes the graph as it is.
pub fn bless(checkout: &Checkout) -> Result<()> {
    let outside = super::outside_packages(checkout)?;
    let packages: Vec<&Package> = checkout.packages.iter().chain(&outside).collect();
    let lines: String = graph(&packages).iter().map(|(line, uses)| format!("{line}: {}\n", list(uses))).collect();
    let path = checkout.root.join(EXPECTED);
    fs::write(&path, format!("{HEAD}{lines}")).with_context(|| format!("cannot write {}", path.display()))
}

fn graph(packages: &[&Package]) -> Graph {
    let mut graph = Graph::new();
    for package in packages {
        let name = short(&package.name);
        let uses = |tests: bool| -> BTreeSet<String> {
            // A package that uses itself does so for its tests, with a feature.
            let others = package.uses.iter().filter(|used| used.name != package.name);
            let chosen = others.filter(|used| (used.kind == "dev") == tests);
            chosen.map(|used| short(&used.name).to_owned()).collect()
        };
        graph.insert(name.to_owned(), uses(false));
        let only_tests: BTreeSet<String> = uses(true).difference(&uses(false)).cloned().collect();
        if !only_tests.is_empty() {
            graph.insert(format!("{name} tests"), only_tests);
        }
    }
    graph
}

fn short(name: &str) -> &str {
    name.strip_prefix("gyrfalcon-").unwrap_or(name)
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// Each listed package with the number of its line and what it may use.
fn parse(expected: &str) -> BTreeMap<String, (usize, BTreeSet<String>)> {
    let lines = expected.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let parsed = lines.filter_map(|(index, line)| {
        let (name, uses) = line.split_once(':')?;
        let uses = uses.split(',').map(str::trim).filter(|used| !used.is_empty() && *used != "nothing");
        Some((name.trim().to_owned(), (index + 1, uses.map(str::to_owned).collect())))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::Use;
    use crate::tidy::Weight;

    fn package(name: &str, uses: &[(&str, &str)]) -> Package {
        let uses = uses.iter().map(|(name, kind)| Use { name: (*name).into(), kind: (*kind).into() }).collect();
        Package { name: name.into(), manifest: "Cargo.toml".into(), targets: vec![], uses }
    }

    #[test]
    fn a_new_edge_is_an_error_and_a_lost_one_a_warning() {
        let event = package(
            "gyrfalcon-event",
            &[("gyrfalcon-rules", "normal"), ("gyrfalcon-abi", "dev"), ("gyrfalcon-event", "dev")],
        );
        let findings = check(&[&event], "# head\nevent: abi\nevent tests: abi\n");
        let weights: Vec<_> = findings.iter().map(|finding| (finding.weight, finding.line)).collect();
        assert_eq!(weights, [(Weight::Error, 2), (Weight::Warning, 2)]);
    }

    #[test]
    fn a_package_that_nobody_agreed_to_is_an_error() {
        assert_eq!(check(&[&package("gyrfalcon-new", &[])], "").len(), 1);
    }
}
