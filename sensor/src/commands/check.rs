//! `gyrfalcon check`: everything that is wrong with files, without running them.

use crate::{
    cli,
    commands::{compile_options, print_messages},
    exit::Exit,
    input, log,
    rules::{Specs, compile},
};

/// Checks and reports.
pub fn check(args: &cli::Check) -> Exit {
    let (files, errors) = input::read(&args.paths);
    let options = compile_options(&args.compile, String::new());
    let compiled = compile(&files, &errors, &Specs::new(), options, log::colour());
    let failed = compiled.messages.iter().any(|message| message.error);
    if args.json {
        println!("{:#}", compiled.loaded.falco_load_results());
        // Problems of manifests have no place in Falco's form.
        if failed && !compiled.loaded.diagnostics.iter().any(rules::diagnostic::Diagnostic::is_error) {
            print_messages(&compiled.messages);
        }
    } else {
        print_messages(&compiled.messages);
        if let Some(active) = &compiled.active {
            println!(
                "{} rules and {} sinks in {} files are fine",
                active.ruleset.rules().len(),
                compiled.sinks.len(),
                files.len()
            );
            if compiled.foreign > 0 {
                println!("{} objects of other API groups were left alone", compiled.foreign);
            }
            for (rule, types) in active.waiting() {
                println!("rule `{rule}` waits for events that are not collected yet: {}", types.join(" "));
            }
        }
    }
    if failed { Exit::Input } else { Exit::Fine }
}
