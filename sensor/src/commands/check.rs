//! `gyrfalcon check`: everything that is wrong with files, without running them.

use event::fields::EventSource;
use rules::load::Options;

use crate::{
    active::Active,
    cli,
    commands::{compile_options, print_messages},
    exit::Exit,
    input, log, out,
    rules::{Compiled, Specs, compile},
};

/// Checks and reports.
pub fn check(args: &cli::Check) -> Exit {
    let (files, errors) = input::read(&args.paths);
    let options = Options { sources: EventSource::ALL.to_vec(), ..compile_options(&args.compile, String::new()) };
    let compiled = compile(&files, &errors, &Specs::new(), options, log::colour());
    let failed = compiled.messages.iter().any(|message| message.error);
    let mut text = String::new();
    if args.json {
        text = format!("{:#}\n", compiled.loaded.falco_load_results());
        // Problems of manifests have no place in Falco's form.
        if failed && !compiled.loaded.diagnostics.iter().any(rules::diagnostic::Diagnostic::is_error) {
            print_messages(&compiled.messages);
        }
    } else {
        print_messages(&compiled.messages);
        if let Some(active) = &compiled.active {
            text = summary(active, &compiled, files.len());
        }
    }
    let printed = out::print(&text);
    if failed { Exit::Input } else { printed }
}

fn summary(active: &Active, compiled: &Compiled, files: usize) -> String {
    let (rules, sinks) = (active.ruleset.rules().len(), compiled.sinks.len());
    let mut text = format!("{rules} rules and {sinks} sinks in {files} files are fine\n");
    if compiled.foreign > 0 {
        text += &format!("{} objects of other API groups were left alone\n", compiled.foreign);
    }
    for (_, rule, types) in active.waiting() {
        text += &format!("rule `{rule}` waits for events that are not collected yet: {}\n", types.join(" "));
    }
    text
}
