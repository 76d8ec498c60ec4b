//! Our own rules, as they are shipped: each resource is accepted, and passes the tests that it contains.

mod common;

use std::{fs, path::Path};

use api::{Spec, manifest};
use bundle::{Candidate, ConfigMap, Outcome};
use common::judge;
use gyrfalcon_bundle as bundle;

#[test]
fn our_rules_pass_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules");
    let mut candidates = Vec::new();
    for folder in [root.clone(), root.join("audit")] {
        for entry in fs::read_dir(&folder).expect("the folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|ending| ending != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            let file = manifest::read(&text);
            assert!(file.problems.is_empty(), "{}: {:?}", path.display(), file.problems);
            for manifest in &file.manifests {
                let Spec::Rules(spec) = manifest.resource.spec() else { continue };
                candidates.push(Candidate {
                    id: manifest.id(),
                    uid: candidates.len().to_string(),
                    generation: 1,
                    created: 0,
                    spec: spec.clone(),
                    config_map: ConfigMap::None,
                    percent: None,
                });
            }
        }
    }
    let accepted = judge(&candidates);
    let mut passed = 0;
    for (id, verdict) in &accepted.verdicts {
        assert!(verdict.errors.is_empty(), "{id}: {:?}", verdict.errors);
        assert!(matches!(verdict.outcome, Outcome::Accepted), "{id}");
        assert!(verdict.trial.is_passed(), "{id}: {:?}", verdict.trial.failures);
        passed += verdict.trial.passed;
    }
    assert!(accepted.verdicts.len() >= 4 && passed >= 9, "{passed} tests of {} resources", accepted.verdicts.len());
}
