//! What is held, and what is judged when.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed, mpsc},
};

use event::{
    containers::{ContainerFacts, PodFacts},
    loss::Loss,
    state::{Host, Limits, State},
    testing::Encoder,
};
use proptest::prelude::*;
use rules::{
    alert::Alert,
    load::{Loader, Options},
};

use super::{Core, GONE_NS, SECOND_NS};
use crate::{
    active::Active,
    containers::{Asker, Told},
    hold::PATIENCE,
    lookup::Question,
    pipeline::{Counters, Origin, Publish, Share},
};

const PATIENCE_NS: u64 = PATIENCE.as_nanos() as u64;

/// Every mkdir is an alert that says where it was.
const RULES: &str = r"
- rule: Any
  desc: any
  condition: evt.type = mkdir
  output: '%evt.rawtime %container.id %container.name %k8s.pod.name %proc.exe'
  priority: INFO
";

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Publish for Seen {
    fn publish(&self, alert: Arc<Alert>, _: &Origin<'_>) {
        self.0.lock().expect("no panic").push(alert.message.to_string());
    }
}

struct World {
    core: Core,
    seen: Seen,
    asked: Box<dyn FnMut() -> Option<(Box<str>, bool)>>,
    questions: mpsc::Receiver<Question>,
}

fn world() -> World {
    let mut loader = Loader::new(Options::default());
    loader.add("test", RULES.as_bytes());
    let ruleset = loader.finish().ruleset.expect("rules");
    let (send, questions) = mpsc::sync_channel(100);
    let (asker, asked) = Asker::heard();
    let seen = Seen::default();
    let state = State::new(Limits::default(), Host::default());
    let active = Arc::new(Active::new(ruleset, Vec::new(), |_| None));
    let mut core = Core::new(send, asker, Box::new(seen.clone()), Arc::new(Counters::default()), state, active);
    core.scanned();
    core.told(Told::Available(true), 0);
    World { core, seen, asked: Box::new(asked), questions }
}

fn id(n: u64) -> String {
    format!("{n:064x}")
}

/// A process of container `n` starts.
fn exec(n: u64) -> Vec<u8> {
    let record = Encoder::exec().process(n as u32, n).cgroup_id(n).args(&[&format!("exe-{n}")]);
    record.cgroup(&format!("/kubepods/pod/{}", id(n))).encode()
}

/// It makes a folder at `time`.
fn mkdir(n: u64, time: u64) -> Vec<u8> {
    Encoder::syscall("mkdir").process(n as u32, n).cgroup_id(n).time(time).encode()
}

fn facts(name: &str) -> Box<ContainerFacts> {
    let pod = PodFacts { name: format!("pod-{name}").into(), ..PodFacts::default() };
    Box::new(ContainerFacts { name: name.into(), pod: Some(pod), ..ContainerFacts::default() })
}

impl World {
    fn seen(&self) -> Vec<String> {
        self.seen.0.lock().expect("no panic").drain(..).collect()
    }

    fn loss(&self, loss: Loss) -> u64 {
        self.core.state.losses.get(loss)
    }
}

#[test]
fn events_wait_for_facts_and_are_judged_with_them_in_order() {
    let mut w = world();
    w.core.take(&exec(7), 0, 0);
    w.core.take(&mkdir(7, 1), 0, 0);
    w.core.take(&mkdir(7, 2), 0, 0);
    assert!(w.seen().is_empty());
    assert_eq!((w.asked)(), Some((id(7).into(), true)));
    assert_eq!((w.asked)(), None, "asked once");
    w.core.told(Told::Facts(id(7).into(), facts("web")), 0);
    assert_eq!(w.seen(), ["1 000000000000 web pod-web exe-7", "2 000000000000 web pod-web exe-7"]);
    w.core.take(&mkdir(7, 3), 0, 0);
    assert_eq!(w.seen(), ["3 000000000000 web pod-web exe-7"]);
    assert!(!w.core.waits());
}

#[test]
fn others_do_not_wait() {
    let mut w = world();
    w.core.take(&exec(7), 0, 0);
    w.core.take(&Encoder::exec().process(1, 1).cgroup_id(1).args(&["init"]).cgroup("/init.scope").encode(), 0, 0);
    w.core.take(&mkdir(1, 5), 0, 0);
    assert_eq!(w.seen(), ["5 host host <NA> init"]);
    assert!(w.core.waits());
}

#[test]
fn late_facts_are_given_up_and_counted_and_taken_when_they_come() {
    let mut w = world();
    w.core.take(&exec(7), 0, 0);
    w.core.take(&mkdir(7, 1), 0, SECOND_NS);
    w.core.tick(PATIENCE_NS - 1);
    assert!(w.seen().is_empty());
    w.core.tick(PATIENCE_NS);
    assert_eq!(w.seen(), ["1 000000000000 <NA> <NA> exe-7"]);
    assert_eq!(w.loss(Loss::HoldExpired), 2);
    // Nothing is held for a while, and each event counts.
    w.core.take(&mkdir(7, 2), 0, PATIENCE_NS + SECOND_NS);
    assert_eq!(w.seen().len(), 1);
    assert_eq!(w.loss(Loss::HoldExpired), 3);
    w.core.told(Told::Facts(id(7).into(), facts("web")), PATIENCE_NS + 2 * SECOND_NS);
    w.core.take(&mkdir(7, 3), 0, PATIENCE_NS + 2 * SECOND_NS);
    assert_eq!(w.seen(), ["3 000000000000 web pod-web exe-7"]);
    assert_eq!(w.loss(Loss::HoldExpired), 3);
}

#[test]
fn what_no_runtime_knows_is_judged_at_once_and_asked_again_later() {
    let mut w = world();
    w.core.take(&exec(7), 0, 0);
    w.core.told(Told::Unknown(id(7).into()), 0);
    w.core.take(&mkdir(7, 1), 0, SECOND_NS);
    assert_eq!(w.seen(), ["1 000000000000 <NA> <NA> exe-7"]);
    assert_eq!(w.loss(Loss::HoldExpired), 0);
    w.core.take(&mkdir(7, 2), 0, 100 * SECOND_NS);
    assert!(w.core.waits() && w.seen().is_empty());
}

#[test]
fn nothing_is_held_when_nobody_can_tell() {
    let mut w = world();
    w.core.told(Told::Available(false), 0);
    w.core.take(&exec(7), 0, 0);
    w.core.take(&mkdir(7, 1), 0, 0);
    assert_eq!(w.seen().len(), 1);
    assert!(!w.core.waits());
}

#[test]
fn facts_outlive_their_container_for_a_while() {
    let mut w = world();
    w.core.told(Told::Facts(id(7).into(), facts("web")), 0);
    w.core.take(&exec(7), 0, 0);
    w.core.told(Told::Gone(id(7).into()), 0);
    w.core.tick(GONE_NS - 1);
    w.core.take(&mkdir(7, 1), 0, GONE_NS - 1);
    assert_eq!(w.seen(), ["1 000000000000 web pod-web exe-7"]);
    w.core.tick(GONE_NS);
    w.core.take(&mkdir(7, 2), 0, GONE_NS);
    assert!(w.core.waits(), "they are asked for again");
}

#[test]
fn a_cgroup_that_nobody_has_named_is_looked_up_first() {
    let mut w = world();
    w.core.take(&mkdir(7, 1), 0, 0);
    let question = w.questions.try_recv().expect("a question");
    assert_eq!((question.pid, question.cgroup), (7, Some(7)));
    assert!(w.seen().is_empty());
    // Its path names a container; its facts are pending, too.
    w.core.cgroup(7, Some(format!("/kubepods/pod/{}", id(7)).as_bytes()), 0);
    assert!(w.seen().is_empty());
    assert_eq!((w.asked)().map(|(id, _)| id), Some(id(7).into()));
    w.core.told(Told::Facts(id(7).into(), facts("web")), 0);
    assert_eq!(w.seen().len(), 1);

    w.core.take(&mkdir(8, 2), 0, 0);
    w.core.cgroup(8, Some(b"/system.slice/cron.service"), 0);
    assert_eq!(w.seen(), ["2 host host <NA> <NA>"]);
    w.core.take(&mkdir(9, 3), 0, 0);
    w.core.cgroup(9, None, 0);
    assert_eq!(w.seen(), ["3 <NA> <NA> <NA> <NA>"]);
}

#[test]
fn an_exec_names_the_cgroup_that_others_wait_for() {
    let mut w = world();
    w.core.take(&mkdir(7, 1), 0, 0);
    w.core.take(&exec(7), 0, 0);
    w.core.take(&mkdir(7, 2), 0, 0);
    w.core.told(Told::Facts(id(7).into(), facts("web")), 0);
    assert_eq!(w.seen(), ["1 000000000000 web pod-web <NA>", "2 000000000000 web pod-web exe-7"]);
}

#[test]
fn what_another_sensor_judges_changes_the_state_only() {
    let mut w = world();
    w.core.share = Share::NOTHING;
    w.core.told(Told::Facts(id(7).into(), facts("web")), 0);
    w.core.take(&exec(7), 0, 0);
    w.core.take(&mkdir(7, 1), 0, 0);
    // These wait for facts.
    w.core.take(&exec(8), 0, 0);
    w.core.take(&mkdir(8, 2), 0, 0);
    w.core.share.pause(5);
    for time in [4, 9, 10] {
        w.core.take(&mkdir(8, time), 0, 0);
    }
    w.core.share.judge_from(10);
    w.core.go_on(0);
    w.core.told(Told::Facts(id(8).into(), facts("db")), 0);
    assert_eq!(w.seen(), ["10 000000000000 db pod-db exe-8"]);
    w.core.take(&mkdir(7, 10), 0, 0);
    assert_eq!(w.seen(), ["10 000000000000 web pod-web exe-7"], "what it executed before is known");
    assert_eq!(w.core.counters.alerts.load(Relaxed), 2);
}

#[test]
fn what_happens_in_a_pause_is_judged_afterwards_and_takes_bounded_memory() {
    let mut w = world();
    w.core.take(&Encoder::exec().process(1, 1).cgroup_id(1).args(&["init"]).cgroup("/init.scope").encode(), 0, 0);
    w.core.share.pause(5);
    w.core.take(&mkdir(1, 4), 0, 0);
    assert_eq!(w.seen(), ["4 host host <NA> init"]);
    let mut time = 5;
    while w.core.until(u64::MAX) == u64::MAX {
        w.core.take(&mkdir(1, time), 0, 0);
        time += 1;
    }
    assert!(time * 64 < 64 << 20, "{time} records");
    assert_eq!((w.core.until(u64::MAX), w.core.until(3)), (4, 3), "the rest stays in the rings");
    w.core.share.go_on();
    w.core.go_on(0);
    assert_eq!((w.seen().len() as u64, w.core.until(u64::MAX)), (time - 5, u64::MAX));
}

#[derive(Debug, Clone)]
enum Step {
    Event(u64),
    Facts(u64),
    Unknown(u64),
    Cgroup(u64),
    Gone(u64),
    Available(bool),
    Later,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..5u64).prop_map(Step::Event),
        1 => (1..5u64).prop_map(Step::Facts),
        1 => (1..5u64).prop_map(Step::Unknown),
        2 => (1..5u64).prop_map(Step::Cgroup),
        1 => (1..5u64).prop_map(Step::Gone),
        1 => any::<bool>().prop_map(Step::Available),
        1 => Just(Step::Later),
    ]
}

proptest! {
    /// Whatever is told when: each event is judged once, and those of a container in the order in which they came.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in proptest::collection::vec(step(), 0..150)) {
        let mut w = world();
        let (mut now, mut number) = (0, 0);
        let mut want: HashMap<u64, Vec<u64>> = HashMap::new();
        for step in steps {
            match step {
                Step::Event(n) => {
                    number += 1;
                    // The pid says in the alert which container it was.
                    w.core.take(&mkdir(n, number * 10 + n), 0, now);
                    want.entry(n).or_default().push(number * 10 + n);
                }
                Step::Facts(n) => w.core.told(Told::Facts(id(n).into(), facts("web")), now),
                Step::Unknown(n) => w.core.told(Told::Unknown(id(n).into()), now),
                Step::Cgroup(n) => {
                    w.core.cgroup(n, Some(format!("/kubepods/pod/{}", id(n)).as_bytes()), now);
                }
                Step::Gone(n) => w.core.told(Told::Gone(id(n).into()), now),
                Step::Available(yes) => w.core.told(Told::Available(yes), now),
                Step::Later => now += PATIENCE_NS * 3 / 4,
            }
            w.core.tick(now);
        }
        w.core.give_up();
        let mut got: HashMap<u64, Vec<u64>> = HashMap::new();
        for message in w.seen() {
            let time: u64 = message.split(' ').next().and_then(|time| time.parse().ok()).expect("a time");
            got.entry(time % 10).or_default().push(time);
        }
        prop_assert_eq!(got, want);
    }
}
