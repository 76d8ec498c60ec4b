//! What holds for process state whatever happens: bounds, identity, order.

use proptest::prelude::*;

use super::*;
use crate::{event::Event, testing::Encoder, value::Arena};

fn state() -> State {
    State::new(Limits::default(), Host::default())
}

fn apply(state: &mut State, record: Encoder) -> Wanted {
    let bytes = record.encode();
    state.apply(&Record::decode(&bytes).expect("valid"))
}

#[track_caller]
fn exe(state: &State, tgid: u32, start: u64) -> String {
    let process = state.by_key(ProcessKey { tgid, start: Start::Exact(start) }).expect("in the table");
    process.image.as_ref().map_or_else(|| "?".into(), |image| String::from_utf8_lossy(image.exe()).into_owned())
}

fn exec(tgid: u32, start: u64, time: u64, argv: &[&str]) -> Encoder {
    Encoder::exec().process(tgid, start).time(time).args(argv)
}

fn fork(tgid: u32, start: u64, parent: (u32, u64)) -> Encoder {
    Encoder::fork().process(tgid, start).time(start).ancestor(parent.0, parent.1, "parent")
}

fn seed(tgid: u32, ticks: u64, argv: &str) -> Seed {
    Seed {
        tgid,
        start: Start::Ticks(ticks),
        ppid: 0,
        comm: b"seeded".to_vec(),
        argv: argv.as_bytes().to_vec(),
        env: None,
        exepath: b"/memfd:x (deleted)".to_vec(),
        cwd: b"/".to_vec(),
        cgroup_path: b"/../docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_vec(),
        cgroup: 77,
        vpid: tgid,
        sid: tgid,
        pgid: tgid,
        vpgid: tgid,
    }
}

#[test]
fn a_child_has_its_parents_image_until_it_executes() {
    let mut state = state();
    apply(&mut state, exec(10, 1, 5, &["sh"]));
    apply(&mut state, fork(11, 6, (10, 1)));
    assert_eq!(exe(&state, 11, 6), "sh");
    let shared = |tgid, start| state.by_key(ProcessKey { tgid, start: Start::Exact(start) })?.image.clone();
    assert!(Arc::ptr_eq(&shared(10, 1).expect("image"), &shared(11, 6).expect("image")));
    apply(&mut state, exec(11, 6, 7, &["ls"]));
    assert_eq!((exe(&state, 11, 6), exe(&state, 10, 1)), ("ls".into(), "sh".into()));
}

#[test]
fn what_is_older_does_not_replace_what_is_newer() {
    let mut state = state();
    apply(&mut state, exec(10, 1, 5, &["sh"]));
    // The child's exec overtakes its fork.
    apply(&mut state, exec(11, 6, 8, &["ls"]));
    apply(&mut state, fork(11, 6, (10, 1)));
    assert_eq!(exe(&state, 11, 6), "ls");
    // An exec overtakes the one before it.
    apply(&mut state, exec(11, 6, 7, &["env"]));
    assert_eq!(exe(&state, 11, 6), "ls");
    // A fork overtaken by the parent's exec: the child is not of that image.
    apply(&mut state, exec(10, 1, 20, &["late"]));
    let wanted = apply(&mut state, fork(12, 15, (10, 1)));
    assert_eq!(exe(&state, 12, 15), "?");
    assert!(wanted.process);
}

#[test]
fn an_unknown_process_is_asked_for_once() {
    let mut state = state();
    let call = || Encoder::syscall("unlink").process(5, 30_000_000).cgroup_id(9);
    assert_eq!(apply(&mut state, call()), Wanted { process: true, cgroup: true, users: false });
    assert_eq!(apply(&mut state, call()), Wanted::default());
    assert_eq!(state.losses.get(Loss::UnknownProcess), 1);
    state.seed(&seed(5, 3, "found\0"));
    assert_eq!(exe(&state, 5, 30_000_000), "found");
}

#[test]
fn a_seed_becomes_exact_with_the_first_record() {
    let mut state = state();
    state.seed(&seed(5, 3, "old\0"));
    assert_eq!(apply(&mut state, Encoder::syscall("unlink").process(5, 31_234_567).cgroup_id(77)), Wanted::default());
    assert_eq!(exe(&state, 5, 31_234_567), "old");
    let process = state.by_key(ProcessKey { tgid: 5, start: Start::Exact(31_234_567) }).expect("in the table");
    assert_eq!(process.key.start, Start::Exact(31_234_567));
    assert_eq!(process.image.as_ref().map(|image| (image.memfd, image.exepath())), Some((true, &b"memfd:x"[..])));
    assert!(matches!(&process.membership, Membership::Container(c) if c.id() == "0123456789ab"));
    // Another tick is another process.
    assert!(state.by_key(ProcessKey { tgid: 5, start: Start::Exact(41_000_000) }).is_none());
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut state = state();
    apply(&mut state, exec(10, 1, 5, &["first"]));
    apply(&mut state, Encoder::exit().process(10, 1).time(6));
    apply(&mut state, exec(10, 100, 105, &["second"]));
    assert_eq!((exe(&state, 10, 1), exe(&state, 10, 100)), ("first".into(), "second".into()));
    assert_eq!(state.by_pid(10, 50).map(|p| p.key.start), Some(Start::Exact(1)));
    assert_eq!(state.by_pid(10, 200).map(|p| p.key.start), Some(Start::Exact(100)));
}

#[test]
fn an_ended_process_is_kept_for_a_while() {
    let mut state = State::new(Limits { grace_ns: 10, ..Limits::default() }, Host::default());
    apply(&mut state, exec(10, 1, 5, &["sh"]));
    apply(&mut state, Encoder::exit().process(10, 1).time(100));
    apply(&mut state, exec(11, 90, 105, &["x"]));
    assert_eq!(exe(&state, 10, 1), "sh");
    apply(&mut state, exec(11, 90, 120, &["x"]));
    assert!(state.by_key(ProcessKey { tgid: 10, start: Start::Exact(1) }).is_none());
    assert_eq!(state.processes(), 1);
}

#[test]
fn a_full_table_forgets_ended_processes_first_and_counts_live_ones() {
    let mut state = State::new(Limits { processes: 2, ..Limits::default() }, Host::default());
    apply(&mut state, exec(1, 1, 5, &["a"]));
    apply(&mut state, exec(2, 2, 6, &["b"]));
    apply(&mut state, Encoder::exit().process(2, 2).time(7));
    apply(&mut state, exec(3, 3, 8, &["c"]));
    assert_eq!(state.losses.get(Loss::ProcessTableFull), 0);
    assert_eq!((exe(&state, 1, 1), exe(&state, 3, 3)), ("a".into(), "c".into()));
    apply(&mut state, exec(4, 4, 9, &["d"]));
    assert_eq!((state.processes(), state.losses.get(Loss::ProcessTableFull)), (2, 1));
}

#[test]
fn a_cgroup_is_learned_from_exec_and_inherited() {
    let mut state = state();
    let id = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    apply(&mut state, exec(10, 1, 5, &["sh"]).cgroup_id(50).cgroup(&format!("/docker/{id}")));
    let wanted = apply(&mut state, fork(11, 6, (10, 1)).cgroup_id(50));
    assert_eq!(wanted, Wanted::default());
    let bytes = Encoder::syscall("unlink").process(11, 6).cgroup_id(50).encode();
    let record = Record::decode(&bytes).expect("valid");
    assert!(matches!(state.membership(&record, state.process(&record)), Membership::Container(c) if c.full_id() == id));
    // Moved to a cgroup that nobody has named: asked for once, unknown until then.
    let moved = || Encoder::syscall("unlink").process(11, 6).cgroup_id(51);
    assert!(apply(&mut state, moved()).cgroup && !apply(&mut state, moved()).cgroup);
    let bytes = moved().encode();
    let record = Record::decode(&bytes).expect("valid");
    assert_eq!(state.membership(&record, state.process(&record)), &Membership::Unknown);
    state.learn_cgroup(51, b"/system.slice/x.service");
    assert_eq!(state.membership(&record, state.process(&record)), &Membership::Host);
}

#[test]
fn cgroups_of_containers_that_come_and_go_are_forgotten() {
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let mut state = state();
    let second = 1_000_000_000;
    apply(&mut state, exec(1, 1, 5, &["stays"]).cgroup_id(1).cgroup("/init.scope"));
    for number in 1..=100u32 {
        let (tgid, cgroup, time) = (100 + number, 100 + u64::from(number), u64::from(number) * second);
        apply(&mut state, exec(tgid, time, time, &["comes"]).cgroup_id(cgroup).cgroup(&format!("/docker/{ID}")));
        apply(&mut state, Encoder::exit().process(tgid, time).time(time + 1));
        // Those of the time that ended processes are kept, and of two looks.
        assert!(state.cgroups() <= 27, "{} cgroups after {number} containers", state.cgroups());
    }
    for later in [110, 120, 130] {
        apply(&mut state, exec(1, 1, later * second, &["stays"]).cgroup_id(1));
    }
    assert_eq!((state.cgroups(), state.losses.get(Loss::CgroupTableFull)), (1, 0));
    assert_eq!(*state.cgroup(1), Membership::Host, "somebody is in it");
}

#[test]
fn ancestors_go_on_in_the_table_where_the_record_ends() {
    let mut state = state();
    apply(&mut state, exec(1, 1, 1, &["init"]).comm("init"));
    apply(&mut state, exec(2, 2, 2, &["shd"]).comm("shd").ancestor(1, 1, "init"));
    apply(&mut state, exec(3, 3, 3, &["sh"]).comm("sh").ancestor(2, 2, "shd").ancestor(1, 1, "init"));
    let call =
        |flags| Encoder::syscall("unlink").process(4, 4).ancestor(3, 3, "sh").header(|h| h.flags = flags).encode();
    let names = |bytes: &[u8]| {
        let record = Record::decode(bytes).expect("valid");
        let arena = Arena::new();
        let event = Event::new(&record, &state, &arena, 1).expect("an event");
        event.ancestors().map(|a| String::from_utf8_lossy(a.comm).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&call(0)), ["sh"]);
    assert_eq!(names(&call(abi::record::flag::MORE_ANCESTORS)), ["sh", "shd", "init"]);
}

#[test]
fn a_loop_of_parents_ends() {
    let mut state = state();
    apply(&mut state, exec(1, 1, 1, &["a"]).ancestor(2, 2, "b"));
    apply(&mut state, exec(2, 2, 2, &["b"]).ancestor(1, 1, "a"));
    let bytes = Encoder::syscall("unlink")
        .process(3, 3)
        .ancestor(1, 1, "a")
        .header(|h| h.flags = abi::record::flag::MORE_ANCESTORS)
        .encode();
    let record = Record::decode(&bytes).expect("valid");
    let arena = Arena::new();
    let event = Event::new(&record, &state, &arena, 1).expect("an event");
    assert_eq!(event.ancestors().count(), crate::event::MAX_ANCESTORS as usize);
}

/// A step of a made-up history: few pids, so that they are reused.
fn steps() -> impl Strategy<Value = Vec<(u8, u32, u64)>> {
    prop::collection::vec((0u8..4, 1u32..6, 0u64..40), 0..200)
}

proptest! {
    #[test]
    fn state_stays_bounded_and_a_reused_pid_never_confuses(steps in steps()) {
        let limits = Limits { processes: 8, cgroups: 6, grace_ns: 5 };
        let mut state = State::new(limits, Host::default());
        for (time, (what, tgid, start)) in steps.into_iter().enumerate() {
            let time = time as u64;
            let name = format!("{tgid}-{start}");
            let record = match what {
                0 => exec(tgid, start, time, &[&name]),
                1 => Encoder::fork().process(tgid, start).time(time),
                2 => Encoder::exit().process(tgid, start).time(time),
                _ => Encoder::syscall("unlink").process(tgid, start).time(time),
            };
            apply(&mut state, record.cgroup_id(start + 1));
            prop_assert!(state.processes() <= limits.processes && state.cgroups() <= limits.cgroups);
            // No fork here has a parent: an image, if any, is the process's own.
            let key = ProcessKey { tgid, start: Start::Exact(start) };
            if let Some(process) = state.by_key(key) {
                prop_assert_eq!(process.key, key);
                if let Some(image) = &process.image {
                    prop_assert_eq!(image.exe(), name.as_bytes());
                }
            }
        }
    }
}

#[test]
fn a_process_needs_less_than_a_kilobyte() {
    let argv = "/usr/bin/python3\0/srv/app/manage.py\0runserver\0--port\08080\0";
    let parts = ImageParts { argv: argv.as_bytes(), env: None, exepath: b"/usr/bin/python3.12", cwd: b"/srv/app" };
    let text = parts.argv.len() + parts.exepath.len() + parts.cwd.len();
    assert!(
        size_of::<Process>() + size_of::<Image>() + text <= 1024,
        "{} {}",
        size_of::<Process>(),
        size_of::<Image>()
    );
}

#[test]
fn what_proc_does_not_show_has_ended() {
    const SEEN: u64 = 1_000_000_000;
    let mut state = state();
    apply(&mut state, exec(10, 10_000_001, 20_000_000, &["lives"]));
    apply(&mut state, exec(11, 10_000_002, 20_000_001, &["gone"]));
    apply(&mut state, exec(12, SEEN - 1, SEEN, &["new"]));
    state.bury(&[(10, Start::Ticks(1))], SEEN);
    let ended = |state: &State, tgid, start| {
        state.by_key(ProcessKey { tgid, start: Start::Exact(start) }).map(|process| process.exit.is_some())
    };
    assert_eq!(ended(&state, 10, 10_000_001), Some(false));
    assert_eq!(ended(&state, 11, 10_000_002), Some(true));
    assert_eq!(ended(&state, 12, SEEN - 1), Some(false), "it began while /proc was read");
    // It goes as any that has ended.
    apply(&mut state, exec(10, 10_000_001, SEEN + Limits::default().grace_ns + 1, &["lives"]));
    assert_eq!(ended(&state, 11, 10_000_002), None);
}

#[test]
fn a_lost_exec_is_made_good() {
    let mut state = state();
    apply(&mut state, exec(10, 10_000_001, 20_000_000, &["before"]));
    state.correct(&seed(10, 1, "after\0"), 10_000_000);
    assert_eq!(exe(&state, 10, 10_000_001), "before", "/proc was read before the exec");
    state.correct(&seed(10, 1, "after\0"), 30_000_000);
    assert_eq!(exe(&state, 10, 10_000_001), "after");
}
