//! Falco's official rulesets load as they are.

use event::fields::EventSource;
use gyrfalcon_rules as rules;
use libtest_mimic::Failed;
use rules::load::{AppendOutput, Loader, Options};

/// Loads one ruleset; errors fail, warnings are counted.
pub fn run(text: &str) -> Result<(), Failed> {
    let options = Options {
        append_output: vec![AppendOutput::suggested()],
        sources: EventSource::ALL.to_vec(),
        ..Options::default()
    };
    let mut loader = Loader::new(options);
    loader.add("rules.yaml", text.as_bytes());
    let loaded = loader.finish();
    for diagnostic in loaded.diagnostics.iter().filter(|d| d.is_error()) {
        println!("{diagnostic}");
    }
    let ruleset = loaded.ruleset.ok_or("the ruleset has errors")?;
    println!(
        "{} rules, {} comparisons, {} event types, {} warnings",
        ruleset.rules().len(),
        ruleset.comparisons(),
        ruleset.event_types().len(),
        loaded.diagnostics.len(),
    );
    Ok(())
}
