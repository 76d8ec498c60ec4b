//! The manifests under `config/` are free of mistakes, and every kind has a sample.

use std::{collections::BTreeSet, fs, path::Path};

use gyrfalcon_api::{
    Kind, Spec, falco,
    manifest::{self, ManifestFile},
};

fn files(folder: &str) -> Vec<ManifestFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
    paths.sort();
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("a text");
        let file = manifest::read(&text);
        let problems: Vec<String> =
            file.problems.iter().map(|problem| problem.render(&path.display().to_string(), &text)).collect();
        assert!(problems.is_empty(), "{}", problems.concat());
        file
    };
    paths.iter().map(|path| read(path)).collect()
}

#[test]
fn every_kind_has_a_sample() {
    let files = files("samples");
    let sampled: BTreeSet<Kind> = files.iter().flat_map(|file| &file.manifests).map(|m| m.id().kind).collect();
    // A SensorNode is a report, which nobody writes by hand.
    assert_eq!(sampled, Kind::ALL.iter().copied().filter(|kind| *kind != Kind::SensorNode).collect());
    assert_eq!(manifest::duplicates(&files), []);
}

#[test]
fn our_rules_are_rules_of_the_cluster() {
    let ours = ["rules", "rules/audit"].map(files);
    for manifest in ours.iter().flatten().flat_map(|file| &file.manifests) {
        assert_eq!(manifest.id().kind, Kind::ClusterFalcoRule);
        let Spec::Rules(spec) = manifest.resource.spec() else { panic!("{} has no rules", manifest.id()) };
        assert!(!falco::rules_texts(&manifest.id(), spec).is_empty());
    }
}
