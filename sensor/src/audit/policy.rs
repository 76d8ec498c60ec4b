//! `gyrfalcon audit policy`: what the API server must log for the rules, and where it must send it.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use event::audit::Level;
use rules::audit::{Needs, Policy, PolicyRule, needs, policy};
use tracing::error;

use crate::{
    cli,
    commands::print_messages,
    exit::Exit,
    input, log, out,
    rules::{Specs, compile},
};

/// Prints a policy, or a kubeconfig.
pub fn print(args: &cli::AuditPolicy) -> Exit {
    if let Some(url) = &args.kubeconfig {
        return match kubeconfig(url, args.certificates.as_deref()) {
            Ok(text) => out::print(&text),
            Err(why) => {
                error!(why, "no kubeconfig was made");
                Exit::Input
            }
        };
    }
    let (files, errors) = input::read(&args.paths);
    let options = super::options(&args.compile, String::new());
    let compiled = compile(&files, &errors, &Specs::new(), options, log::colour());
    print_messages(&compiled.messages);
    let Some(active) = compiled.active else { return Exit::Input };
    if active.ruleset.rules().len() == 0 {
        error!("no rules found: the files hold no enabled rules with `source: k8s_audit`");
        return Exit::Input;
    }
    let needs: Vec<(String, Needs)> =
        active.ruleset.rules().map(|rule| (rule.name().to_owned(), needs(rule))).collect();
    if args.explain {
        return out::print(&explain(&needs));
    }
    let policy = policy(needs.iter().map(|(_, needs)| needs), !args.conditions_only);
    out::print(&yaml(&policy))
}

fn explain(needs: &[(String, Needs)]) -> String {
    let mut text = String::new();
    for (rule, needs) in needs {
        let _ = writeln!(text, "{rule}\n  condition needs {}, output {}", needs.condition.name(), needs.output.name());
        let words = |words: &Option<BTreeSet<Box<str>>>| match words {
            None => "*".to_owned(),
            Some(words) => words.iter().map(|word| &**word).collect::<Vec<_>>().join(","),
        };
        for clause in needs.requests() {
            let part = match &clause.part {
                rules::audit::Part::Any => String::new(),
                rules::audit::Part::Whole => " without a subresource".to_owned(),
                rules::audit::Part::Some => " with a subresource".to_owned(),
                rules::audit::Part::In(parts) => format!(" subresource {}", words(&Some(parts.clone()))),
            };
            let _ = writeln!(
                text,
                "  {} {}{part} at {}",
                words(&clause.verbs),
                words(&clause.resources),
                words(&clause.stages)
            );
        }
        if needs.clauses.is_empty() {
            text.push_str("  can match nothing as it is configured\n");
        }
    }
    text
}

/// Resources whose bodies hold what must not get into a log.
const SECRET: &[(&str, &str)] =
    &[("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews")];

fn yaml(policy: &Policy) -> String {
    let mut text = String::from(
        "# The least that the API server must log for these rules: made by `gyrfalcon audit policy`.\n\
         # --audit-policy-file=THIS --audit-webhook-config-file=KUBECONFIG --audit-webhook-batch-max-wait=1s\n\
         apiVersion: audit.k8s.io/v1\nkind: Policy\n",
    );
    if !policy.received {
        text.push_str("# Each request has a later stage that says more.\nomitStages: [RequestReceived]\n");
    }
    text.push_str("omitManagedFields: true\nrules:\n");
    for resource in &policy.unknown {
        let _ = writeln!(text, "  # The API group of {resource} is not known here: add a line for it.");
    }
    let mut guarded = !policy.any_object;
    for rule in &policy.rules {
        if !guarded && rule.resources.is_empty() && rule.level > Level::Metadata {
            guarded = true;
            text.push_str("  # What these hold must not be in a log, whatever rules ask for.\n");
            text.push_str("  - level: Metadata\n    resources:\n");
            for (group, resource) in SECRET {
                let _ = writeln!(text, "      - {{group: \"{group}\", resources: [{resource}]}}");
            }
        }
        line(&mut text, rule);
    }
    if !policy.rules.last().is_some_and(PolicyRule::is_everything) {
        text.push_str("  - level: None\n");
    }
    text
}

fn line(text: &mut String, rule: &PolicyRule) {
    let list = |words: &BTreeSet<Box<str>>| {
        let quoted = words.iter().map(|word| if word.contains('*') { format!("\"{word}\"") } else { word.to_string() });
        quoted.collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "  - level: {}", rule.level.name());
    if !rule.verbs.is_empty() {
        let _ = writeln!(text, "    verbs: [{}]", list(&rule.verbs));
    }
    if !rule.resources.is_empty() {
        text.push_str("    resources:\n");
        for (group, resources) in &rule.resources {
            let _ = writeln!(text, "      - {{group: \"{group}\", resources: [{}]}}", list(resources));
        }
    }
}

/// The configuration of the API server's webhook.
fn kubeconfig(url: &str, certificates: Option<&Path>) -> Result<String, String> {
    if !url.starts_with("https://") {
        return Err(format!("`{url}` does not begin with https://"));
    }
    let data = |name: &str| -> Result<String, String> {
        match certificates {
            Some(folder) => {
                let path = folder.join(name);
                let bytes = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                Ok(format!("-data: {}", STANDARD.encode(bytes)))
            }
            None => Ok(format!(": /etc/kubernetes/gyrfalcon-audit/{name}")),
        }
    };
    let (ca, certificate, key) = (data("ca.crt")?, data("client.crt")?, data("client.key")?);
    Ok(format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: gyrfalcon\n  cluster:\n    server: {url}\n    \
         certificate-authority{ca}\nusers:\n- name: kube-apiserver\n  user:\n    client-certificate{certificate}\n    \
         client-key{key}\ncontexts:\n- name: gyrfalcon\n  context:\n    cluster: gyrfalcon\n    user: kube-apiserver\n\
         current-context: gyrfalcon\n"
    ))
}
