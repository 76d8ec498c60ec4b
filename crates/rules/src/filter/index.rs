//! Finding the rules that an event may match without asking each of them.
//!
//! Of each condition the best cover is chosen ([`super::access`]), and its keys are filed by the value they compare. For
//! an event each of these values is computed once and looked up in all its keys together; what is found leads to rules,
//! or, where many rules share a key, to a next node, which looks further. Only what is found is then evaluated. So the cost
//! follows the kinds of values that rules look at, and what the event has in common with them.

use std::net::IpAddr;

use event::value::Value;
use hashbrown::HashMap;

use super::{
    access::{Cover, Key, Need, need},
    nets::Nets,
    program::{Compiler, LeafId, Slot},
    text_index::{TextIndex, TextTest},
    typed::{Leaf, Typed},
};
use event::catalogue::EventType;

/// So many rules behind one key are asked one by one.
const FEW: usize = 8;

/// How many nodes may stand behind each other.
const DEPTH: usize = 3;

/// A cover that lets more than this pass is no help.
const USELESS: f32 = 0.8;

/// Rules by what an event must have for them to match.
#[derive(Default)]
pub(crate) struct Node {
    /// Rules that must be asked in any case.
    always: Box<[u32]>,
    /// Comparisons that lead on if they hold.
    leaves: Box<[(LeafId, u32)]>,
    probes: Box<[Probe]>,
    postings: Box<[Posting]>,
}

/// What a key leads to.
struct Posting {
    rules: Box<[u32]>,
    next: Option<Box<Node>>,
}

/// All keys of one value. Numbers are indices of [`Node::postings`].
struct Probe {
    slot: Slot,
    text: TextIndex,
    ints: HashMap<i128, u32, ahash::RandomState>,
    /// For false and true.
    bools: [Option<u32>; 2],
    ips: HashMap<IpAddr, u32, ahash::RandomState>,
    nets: Nets,
}

/// What the search in a [`Node`] asks of an evaluation.
pub(super) trait Ask<'a> {
    /// Whether a comparison holds.
    fn leaf(&mut self, leaf: LeafId) -> bool;
    /// A value of the event.
    fn value(&mut self, slot: Slot) -> Option<Value<'a>>;
}

impl Node {
    /// Files conditions by their index, each as it is for events of a type.
    pub(crate) fn new<'c>(conditions: impl Iterator<Item = (&'c Typed, EventType)>, compiler: &mut Compiler) -> Self {
        let rules = conditions.zip(0..).filter_map(|((condition, ty), rule)| match need(condition, ty) {
            Need::Never => None,
            Need::All(covers) => Some(Filed { rule, covers }),
        });
        build(rules.collect(), DEPTH, compiler)
    }

    /// Adds the rules that the event may match to `found`, some more than once.
    pub(super) fn search<'a>(&self, run: &mut impl Ask<'a>, found: &mut Vec<u32>) {
        found.extend_from_slice(&self.always);
        for (leaf, posting) in &self.leaves {
            if run.leaf(*leaf) {
                self.follow(*posting, run, found);
            }
        }
        for probe in &self.probes {
            match run.value(probe.slot) {
                None => {}
                Some(Value::List(candidates)) => {
                    for candidate in candidates {
                        probe.look_up(*candidate, |posting| self.follow(posting, run, found));
                    }
                }
                Some(value) => probe.look_up(value, |posting| self.follow(posting, run, found)),
            }
        }
    }

    fn follow<'a>(&self, posting: u32, run: &mut impl Ask<'a>, found: &mut Vec<u32>) {
        let posting = &self.postings[posting as usize];
        found.extend_from_slice(&posting.rules);
        if let Some(next) = &posting.next {
            next.search(run, found);
        }
    }
}

impl Probe {
    fn look_up(&self, value: Value<'_>, mut found: impl FnMut(u32)) {
        match value {
            Value::Text(bytes) | Value::Bytes(bytes) => self.text.visit(bytes, found),
            Value::Int(number) => self.ints.get(&i128::from(number)).into_iter().for_each(|id| found(*id)),
            Value::Uint(number) => self.ints.get(&i128::from(number)).into_iter().for_each(|id| found(*id)),
            Value::Bool(truth) => self.bools[usize::from(truth)].into_iter().for_each(found),
            Value::Ip(ip) => {
                if !self.ips.is_empty() {
                    self.ips.get(&ip).into_iter().for_each(|id| found(*id));
                }
                if !self.nets.is_empty() {
                    self.nets.visit(ip, found);
                }
            }
            Value::Net(net) => self.nets.equal(&net).into_iter().for_each(found),
            // No key is made for them, and there are no lists in lists.
            Value::Double(_) | Value::List(_) => {}
        }
    }
}

/// A rule that is being filed, with the covers that have not been used for it.
struct Filed<'c> {
    rule: u32,
    covers: Vec<Cover<'c>>,
}

fn build(rules: Vec<Filed<'_>>, depth: usize, compiler: &mut Compiler) -> Node {
    let mut node = Node::default();
    let mut always = Vec::new();
    let mut groups: HashMap<(&Leaf, Key), Group<'_>, ahash::RandomState> = HashMap::default();
    // The same key of two comparisons of one value is one.
    let mut by_value: HashMap<(Slot, Key), (&Leaf, Key), ahash::RandomState> = HashMap::default();
    let mut order = Vec::new();
    for Filed { rule, mut covers } in rules {
        let best = (0..covers.len()).min_by(|a, b| covers[*a].weight.total_cmp(&covers[*b].weight));
        let Some(best) = best.filter(|at| covers[*at].weight < USELESS) else {
            always.push(rule);
            continue;
        };
        let gate = if depth == DEPTH { covers.iter().position(Cover::is_gate) } else { None };
        let best = covers.swap_remove(gate.unwrap_or(best));
        let is_gate = gate.is_some();
        for (leaf, key) in best.keys {
            let group = match key {
                Key::Leaf => (leaf, Key::Leaf),
                key => {
                    let slot = compiler.slot(&leaf.left);
                    by_value.entry((slot, key.clone())).or_insert((leaf, key)).clone()
                }
            };
            let group = groups.entry(group.clone()).or_insert_with(|| {
                order.push(group);
                Group { filed: Vec::new(), is_gate }
            });
            if group.filed.last().is_none_or(|last| last.rule != rule) {
                group.filed.push(Filed { rule, covers: covers.clone() });
            }
        }
    }
    let mut postings = Vec::new();
    let mut leaves = Vec::new();
    let mut keys: Vec<(Slot, Vec<(Key, u32)>)> = Vec::new();
    let mut slots: HashMap<Slot, usize, ahash::RandomState> = HashMap::default();
    for group in order {
        let Some(behind) = groups.remove(&group) else { continue };
        let id = postings.len() as u32;
        postings.push(posting(behind, depth, compiler));
        match group {
            (leaf, Key::Leaf) => leaves.push((compiler.leaf(leaf), id)),
            (leaf, key) => {
                let slot = compiler.slot(&leaf.left);
                let at = *slots.entry(slot).or_insert_with(|| {
                    keys.push((slot, Vec::new()));
                    keys.len() - 1
                });
                keys[at].1.push((key, id));
            }
        }
    }
    node.always = always.into();
    node.leaves = leaves.into();
    node.postings = postings.into();
    node.probes = keys.into_iter().map(|(slot, keys)| Probe::new(slot, keys)).collect();
    node
}

/// Rules behind one key.
struct Group<'c> {
    filed: Vec<Filed<'c>>,
    /// See [`Cover::is_gate`].
    is_gate: bool,
}

fn posting(group: Group<'_>, depth: usize, compiler: &mut Compiler) -> Posting {
    let Group { filed, is_gate } = group;
    let helped = |filed: &Filed<'_>| filed.covers.iter().any(|cover| cover.weight < USELESS);
    if filed.len() <= FEW && !is_gate || depth == 0 || !filed.iter().any(helped) {
        return Posting { rules: filed.iter().map(|filed| filed.rule).collect(), next: None };
    }
    Posting { rules: Box::default(), next: Some(Box::new(build(filed, depth - 1, compiler))) }
}

impl Probe {
    fn new(slot: Slot, keys: Vec<(Key, u32)>) -> Self {
        let mut texts: Vec<(TextTest, Box<[u8]>, u32)> = Vec::new();
        let mut nets = Vec::new();
        let mut probe = Self {
            slot,
            text: TextIndex::default(),
            ints: HashMap::default(),
            bools: [None; 2],
            ips: HashMap::default(),
            nets: Nets::default(),
        };
        for (key, id) in keys {
            match key {
                Key::Text(test, text) => texts.push((test, text, id)),
                Key::Int(number) => drop(probe.ints.insert(number, id)),
                Key::Bool(truth) => probe.bools[usize::from(truth)] = Some(id),
                Key::Ip(ip) => drop(probe.ips.insert(ip, id)),
                Key::Net(net) => nets.push((net, id)),
                Key::Leaf => {}
            }
        }
        probe.text = TextIndex::new(&texts);
        probe.nets = Nets::new(nets);
        probe
    }
}
