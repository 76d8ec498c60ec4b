//! The course of judging: claims first, then one resource after the other.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use api::{
    condition::Reason,
    falco::rules_texts,
    resource::load_key,
    rule::{FalcoRuleSpec, RuleSummary, TestPolicy},
};
use event::fields::EventSource;
use rules::load::{Options, Outline};

use super::{Accepted, Candidate, ConfigMap, Outcome, Overrides, Verdict, claims, overrides::overrides};
use crate::{
    Assembly, Bundle, Limits, Problem, Settings, Staged, Unit,
    trial::{self, Trial},
};

/// How often judging begins anew because a resource that others made way for does not hold. Beyond, they stay refused.
const ROUNDS: usize = 16;

/// Which version of a resource is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The one that the cluster has.
    New,
    /// The one that was accepted before.
    LastGood,
    /// None.
    Nothing,
}

/// What runs of a resource.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    /// Rules that are enabled.
    enabled: usize,
    /// Some of them are on the audit log.
    audit: bool,
}

/// A version of a resource.
pub(super) struct Version<'a> {
    /// With the text of its ConfigMap in `rules`.
    spec: Cow<'a, FalcoRuleSpec>,
    pub(super) outline: Outline,
    pub(super) bytes: usize,
}

impl<'a> Version<'a> {
    fn new(candidate: &Candidate, spec: Cow<'a, FalcoRuleSpec>, limits: &Limits) -> Self {
        let texts = rules_texts(&candidate.id, &spec);
        let bytes = texts.iter().map(|text| text.text.len()).sum();
        let mut outline = Outline::default();
        if bytes <= limits.resource_bytes {
            for part in texts.iter().map(|text| Outline::of(&text.text)) {
                outline.rules.extend(part.rules);
                outline.changes.extend(part.changes);
                outline.macros += part.macros;
                outline.lists += part.lists;
            }
        }
        drop(texts);
        Self { spec, outline, bytes }
    }

    pub(super) fn spec(&self) -> &FalcoRuleSpec {
        &self.spec
    }
}

/// The versions of a resource. They do not change while it is judged.
struct Versions<'a> {
    candidate: &'a Candidate,
    new: Version<'a>,
    last_good: Option<(&'a Unit, Version<'a>)>,
}

impl<'a> Versions<'a> {
    fn new(candidate: &'a Candidate, last_good: Option<&'a Unit>, limits: &Limits) -> Self {
        let spec = match (&candidate.spec.config_map_ref, &candidate.config_map) {
            (Some(_), ConfigMap::Text(text)) => {
                Cow::Owned(FalcoRuleSpec { rules: Some(text.clone()), ..candidate.spec.clone() })
            }
            _ => Cow::Borrowed(&candidate.spec),
        };
        let last_good = last_good.map(|unit| (unit, Version::new(candidate, Cow::Borrowed(&unit.spec), limits)));
        Self { candidate, new: Version::new(candidate, spec, limits), last_good }
    }

    fn get(&self, choice: Choice) -> Option<&Version<'a>> {
        match choice {
            Choice::New => Some(&self.new),
            Choice::LastGood => self.last_good.as_ref().map(|(_, version)| version),
            Choice::Nothing => None,
        }
    }
}

/// A resource while it is judged.
pub(super) struct Entry<'a> {
    pub(super) candidate: &'a Candidate,
    versions: &'a Versions<'a>,
    choice: Choice,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    trial: Trial,
}

impl<'a> Entry<'a> {
    fn new(versions: &'a Versions<'a>) -> Self {
        let candidate = versions.candidate;
        let mut entry = Self {
            candidate,
            versions,
            choice: Choice::New,
            errors: Vec::new(),
            warnings: Vec::new(),
            trial: Trial::default(),
        };
        if candidate.spec.suspended() {
            entry.choice = entry.next_choice();
        } else if let Some(problem) = source_problem(candidate) {
            entry.refuse(vec![problem]);
        }
        entry
    }

    /// The version that is tried.
    pub(super) fn version(&self) -> Option<&'a Version<'a>> {
        self.versions.get(self.choice)
    }

    /// The namespace whose rules they are; `None` for the cluster's.
    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.candidate.id.kind.namespaced().then_some(&*self.candidate.id.namespace)
    }

    fn next_choice(&self) -> Choice {
        match (self.choice, &self.versions.last_good) {
            (Choice::New, Some(_)) => Choice::LastGood,
            (Choice::New, None) | (Choice::LastGood | Choice::Nothing, _) => Choice::Nothing,
        }
    }

    /// Refuses the version that is tried; the next one gets its turn.
    pub(super) fn refuse(&mut self, problems: Vec<Problem>) {
        // Why the last good version does not hold either is worth telling only if nothing else is.
        if self.errors.is_empty() {
            self.errors = problems;
        }
        self.choice = self.next_choice();
    }

    /// Place of the version that is tried in the load order.
    fn place(&self) -> (bool, u16, Box<str>, Box<str>) {
        let version = self.version().unwrap_or(&self.versions.new);
        load_key(&self.candidate.id, version.spec())
    }

    /// The unit of the bundle.
    fn unit(&self) -> Option<Unit> {
        let candidate = self.candidate;
        match self.choice {
            Choice::Nothing => None,
            Choice::LastGood => self.versions.last_good.as_ref().map(|(unit, _)| (*unit).clone()),
            Choice::New => Some(Unit {
                kind: candidate.id.kind,
                namespace: candidate.id.namespace.to_string(),
                name: candidate.id.name.to_string(),
                uid: candidate.uid.clone(),
                generation: candidate.generation,
                rollout: self.staged(),
                spec: FalcoRuleSpec {
                    config_map_ref: None,
                    tests: Vec::new(),
                    test_policy: None,
                    rollout: None,
                    suspend: None,
                    ..self.versions.new.spec().clone()
                },
            }),
        }
    }

    /// What the nodes run that the rollout has not reached: what ran everywhere before it.
    fn staged(&self) -> Option<Staged> {
        let percent = self.candidate.percent.filter(|percent| *percent < 100)?;
        let before = self.versions.last_good.as_ref().map(|(unit, _)| *unit);
        let (previous, previous_generation) = match before {
            Some(Unit { rollout: Some(staged), .. }) => (staged.previous.clone(), staged.previous_generation),
            Some(unit) if unit.generation == self.candidate.generation => return None,
            Some(unit) => (Some(Box::new(unit.spec.clone())), Some(unit.generation)),
            None => (None, None),
        };
        Some(Staged { percent, previous_generation, previous })
    }

    fn verdict(&self, Running { enabled, audit }: Running, overrides: Overrides) -> Verdict {
        let candidate = self.candidate;
        let outcome = match (self.errors.first(), candidate.spec.suspended()) {
            (_, true) => Outcome::Suspended,
            (Some(problem), false) => Outcome::Rejected(problem.reason),
            (None, false) => Outcome::Accepted,
        };
        let serving_generation = match self.choice {
            Choice::New => Some(candidate.generation),
            Choice::LastGood => self.versions.last_good.as_ref().map(|(unit, _)| unit.generation),
            Choice::Nothing => None,
        };
        let Outline { rules, macros, lists, changes: _ } = &self.versions.new.outline;
        let summary = RuleSummary {
            rules: rules.len() as u32,
            macros: *macros as u32,
            lists: *lists as u32,
            enabled: enabled as u32,
            warnings: self.warnings.len() as u32,
        };
        Verdict {
            uid: candidate.uid.clone(),
            generation: candidate.generation,
            outcome,
            errors: self.errors.clone(),
            warnings: self.warnings.clone(),
            serving_generation,
            summary,
            audit,
            trial: self.trial.clone(),
            overrides,
        }
    }
}

/// What is wrong with the reference to a ConfigMap.
fn source_problem(candidate: &Candidate) -> Option<Problem> {
    let reference = candidate.spec.config_map_ref.as_ref()?;
    let problem = |reason, message: &str, help| {
        Some(Problem::of_field("config-map", reason, "spec.configMapRef", message.to_owned(), help))
    };
    match &candidate.config_map {
        ConfigMap::Text(_) => None,
        ConfigMap::Missing(_) if reference.optional() => None,
        ConfigMap::Missing(message) => problem(Reason::RefNotFound, message, "create it, or set `optional: true`"),
        ConfigMap::Unreadable(message) => problem(Reason::SourceError, message, "it is tried again"),
        ConfigMap::None => problem(Reason::SourceError, "the ConfigMap has not been read yet", "it is tried again"),
    }
}

/// See [`super::accept`].
pub(super) fn judge(candidates: &[Candidate], previous: &Bundle, settings: &Settings, limits: &Limits) -> Accepted {
    let units: HashMap<_, &Unit> = previous.units.iter().map(|unit| ((unit.id(), unit.uid.as_str()), unit)).collect();
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| (&a.id, &a.uid).cmp(&(&b.id, &b.uid)));
    let last_good = |candidate: &Candidate| units.get(&(candidate.id.clone(), candidate.uid.as_str())).copied();
    let versions: Vec<_> =
        sorted.iter().map(|candidate| Versions::new(candidate, last_good(candidate), limits)).collect();
    let mut fallen: HashMap<usize, (Choice, Vec<Problem>)> = HashMap::new();
    let mut round = 0;
    loop {
        round += 1;
        let mut entries: Vec<Entry<'_>> = versions.iter().map(Entry::new).collect();
        for (at, (choice, errors)) in &fallen {
            if let Some(entry) = entries.get_mut(*at) {
                (entry.choice, entry.errors) = (*choice, errors.clone());
            }
        }
        claims::quotas(&mut entries, limits);
        let holders = claims::names(&mut entries);
        match load(&mut entries, settings, limits, (round < ROUNDS).then_some(&holders)) {
            Ok((order, enabled)) => {
                let units = order.iter().filter_map(|at| entries[*at].unit()).collect();
                let bundle = Bundle { settings: settings.clone(), units, unreadable: Vec::new() };
                let overrides = overrides(&entries, &order);
                let verdict = |((entry, running), overrides): ((&Entry<'_>, Running), Overrides)| {
                    (entry.candidate.id.clone(), entry.verdict(running, overrides))
                };
                return Accepted {
                    bundle,
                    verdicts: entries.iter().zip(enabled).zip(overrides).map(verdict).collect::<BTreeMap<_, _>>(),
                };
            }
            Err(at) => {
                let entry = &mut entries[at];
                fallen.insert(at, (entry.choice, std::mem::take(&mut entry.errors)));
            }
        }
    }
}

/// Loads one resource after the other. Gives the load order of those that hold, and how many rules of each are enabled.
///
/// The error is a resource that does not hold, so that judging must begin anew without it: because its last good version
/// has another place in the order, or because others made way for it. Without `holders`, it goes on in its place.
fn load(
    entries: &mut [Entry<'_>],
    settings: &Settings,
    limits: &Limits,
    holders: Option<&Vec<usize>>,
) -> Result<(Vec<usize>, Vec<Running>), usize> {
    let mut order: Vec<usize> = (0..entries.len()).filter(|at| entries[*at].version().is_some()).collect();
    order.sort_by_cached_key(|at| entries[*at].place());
    let base = Options { sources: EventSource::ALL.to_vec(), ..Options::default() };
    let mut assembly = Assembly::new(settings.options(&base));
    for at in &order {
        let entry = &mut entries[*at];
        let before = entry.place();
        while let Some(version) = entry.version() {
            let Err(problems) = try_version(entry, version.spec(), &mut assembly, *at, limits) else { break };
            entry.refuse(problems);
            let elsewhere = entry.version().is_some() && entry.place() != before;
            if holders.is_some_and(|holders| elsewhere || holders.contains(at)) {
                return Err(*at);
            }
        }
    }
    order.retain(|at| entries[*at].choice != Choice::Nothing);
    let mut enabled = vec![Running::default(); entries.len()];
    for (at, rule) in assembly.rules() {
        if let Some(count) = at.and_then(|at| enabled.get_mut(at)) {
            let runs = rule.enabled && rule.selected;
            count.enabled += usize::from(runs);
            count.audit |= runs && rule.source == EventSource::K8sAudit;
        }
    }
    Ok((order, enabled))
}

/// Adds a version and runs its tests. If it does not hold, it is not there.
fn try_version<'a>(
    entry: &mut Entry<'a>,
    spec: &'a FalcoRuleSpec,
    assembly: &mut Assembly<'a>,
    at: usize,
    limits: &Limits,
) -> Result<(), Vec<Problem>> {
    let id = &entry.candidate.id;
    let mut problems = assembly.add(at, id, spec, true, limits.work(id.kind));
    if problems.first().is_some_and(|problem| problem.error) {
        problems.retain(|problem| problem.error);
        return Err(problems);
    }
    if entry.choice != Choice::New {
        return Ok(());
    }
    entry.warnings = problems;
    entry.trial = trial::run(assembly, id, spec, limits.explain_tests);
    if entry.trial.is_passed() || spec.test_policy() == TestPolicy::Report {
        return Ok(());
    }
    assembly.undo();
    Err(entry.trial.failures.iter().map(test_problem).collect())
}

fn test_problem(failure: &trial::Failure) -> Problem {
    let message = format!("test `{}`: want {}; got {}", failure.name, failure.want, failure.got);
    let path = format!("spec.tests[{}]", failure.index);
    let mut problem = Problem::of_field("test-failed", Reason::TestsFailed, &path, message, "");
    problem.help = failure.help.clone();
    problem
}
