//! What judging an audit event costs: parsing, all rules, and the alerts, on one thread and from memory.
//!
//! ```text
//! GYRFALCON_FALCO_RULES=/path/to/falco-rules cargo bench -p gyrfalcon-rules --bench audit
//! ```

mod events;

use std::{env, fs, path::Path};

use event::{
    audit::{AuditEvent, Surroundings, json::Limits},
    fields::EventSource,
    value::Arena,
};
use gyrfalcon_rules as rules;
use rules::{
    load::{Loader, Options},
    ruleset::Evaluation,
};

/// Bytes of events in one turn.
const BYTES: usize = 100 << 20;
/// Turns; the fastest counts, as the others were disturbed.
const TURNS: usize = 5;

/// CPU time of this thread so far: what others run meanwhile does not count.
fn cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn main() {
    let Some(folder) = env::var_os("GYRFALCON_FALCO_RULES") else {
        return eprintln!("ignored: GYRFALCON_FALCO_RULES is not set");
    };
    let text = fs::read(Path::new(&folder).join("k8s_audit_rules.yaml")).expect("the rules");
    let mut loader = Loader::new(Options { sources: EventSource::ALL.to_vec(), ..Options::default() });
    loader.add("rules.yaml", &text);
    let ruleset = loader.finish().ruleset.expect("good rules");
    let mut lines = Vec::new();
    let mut bytes = 0;
    while bytes < BYTES {
        let line = events::event(lines.len());
        bytes += line.len();
        lines.push(line);
    }
    let (surroundings, mut arena, mut evaluation) = (Surroundings::default(), Arena::new(), Evaluation::default());
    let mut fastest = f64::MAX;
    let (mut matched, mut alerts) = (0, 0);
    for _ in 0..TURNS {
        (matched, alerts) = (0, 0);
        let begun = cpu_seconds();
        for (number, line) in lines.iter().enumerate() {
            let event = AuditEvent::parse(line.as_bytes(), Limits::default(), number as u64, &surroundings, &arena);
            let event = event.expect("an event");
            ruleset.matches(&event, &mut evaluation, |rule| {
                matched += 1;
                alerts += ruleset.alert(rule, &event).message.len();
            });
            arena.reset();
        }
        fastest = fastest.min(cpu_seconds() - begun);
    }
    let (count, megabytes) = (lines.len() as f64, bytes as f64 / 1e6);
    println!(
        "{} events of {:.0} bytes: {:.0} MB/s, {:.0} events/s, {:.2} us each; {matched} alerts of {alerts} bytes",
        lines.len(),
        bytes as f64 / count,
        megabytes / fastest,
        count / fastest,
        fastest / count * 1e6
    );
}
