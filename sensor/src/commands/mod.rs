//! The commands, one module each.

pub mod check;
pub mod convert;
pub mod doctor;
pub mod explain;
pub mod list;
pub mod record;
pub mod replay;
pub mod run;
pub mod test;

use std::io::Write;

use rules::filter::names::Catalogue;
use rules::load::{AppendOutput, Options, RuleMatching, Selection, Selector};

use crate::{cli, rules::Message};

/// The loader's options from the command line.
pub fn compile_options(args: &cli::Compile, hostname: String) -> Options {
    let select = |enable: bool| move |name: &String| Selection { enable, selector: Selector::Rule(name.clone()) };
    let append = |output: &String| AppendOutput { extra_output: Some(output.clone()), ..AppendOutput::default() };
    let suggested = (!args.no_suggested_output).then(AppendOutput::suggested);
    let append_output = args.append_output.iter().map(append).chain(suggested).collect();
    Options {
        rule_matching: match args.rule_matching {
            cli::Matching::First => RuleMatching::First,
            cli::Matching::All => RuleMatching::All,
        },
        minimum_priority: args.minimum_priority,
        hostname: hostname.into(),
        append_output,
        catalogue: catalogue(args),
        selection: args.disable.iter().map(select(false)).chain(args.enable.iter().map(select(true))).collect(),
        ..Options::default()
    }
}

/// The fields, with the static ones of the command line, whose keys were looked at as it was read.
fn catalogue(args: &cli::Compile) -> Catalogue {
    match args.static_field.is_empty() {
        true => Catalogue::default(),
        false => Catalogue::default().with_statics(&args.static_field).unwrap_or_default(),
    }
}

/// The name of this host in alerts: the one that was given, or its own.
pub fn hostname(given: Option<&str>) -> String {
    given.map_or_else(
        || {
            nix::unistd::gethostname()
                .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
        },
        str::to_owned,
    )
}

/// Prints what the user must know about the files.
pub fn print_messages(messages: &[Message]) {
    let mut out = std::io::stderr().lock();
    for message in messages {
        // Nobody reads standard error any more: there is nobody to tell.
        let _ = out.write_all(message.text.as_bytes());
    }
}
