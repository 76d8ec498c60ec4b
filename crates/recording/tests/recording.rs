//! What is written is read again; what is cut off or damaged is told, and never a panic.

use std::path::Path;

use event::{
    containers::{ContainerFacts, PodFacts},
    fields::{self, Arg, Subject},
    state::{Seed, Start},
    testing::Encoder,
    users::{User, Users},
    value::{Arena, Value},
};
use gyrfalcon_recording::{End, Frame, Head, Kinds, Player, ReadError, Reader, Step, Writer};
use proptest::prelude::*;

fn head() -> Head {
    Head { hostname: "h".into(), boot_ns: 5, kinds: Kinds::ours(), ..Head::default() }
}

fn seed() -> Box<Seed> {
    Box::new(Seed {
        tgid: 7,
        start: Start::Ticks(3),
        ppid: 1,
        comm: b"sh\xff".to_vec(),
        argv: b"sh\0-c\0".to_vec(),
        env: Some(b"A=\xfe\0".to_vec()),
        exepath: b"/bin/sh".to_vec(),
        cwd: b"/".to_vec(),
        cgroup_path: b"/a.scope".to_vec(),
        cgroup: 9,
        vpid: 7,
        sid: 7,
        pgid: 7,
        vpgid: 7,
    })
}

fn open(name: &str) -> Vec<u8> {
    Encoder::syscall("openat").process(7, 30_000_000).ret(3).int("fd", 3).int("dirfd", -100).text("name", name).encode()
}

/// A recording of a few opens, `flushes` says after which of them a block ends.
fn recorded(opens: usize, flushes: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, &head()).expect("memory");
    let mut users = Users::default();
    users.insert_user(0, User { name: (*b"admin").into(), home: (*b"/root").into(), shell: (*b"/bin/sh").into() });
    users.insert_group(0, *b"wheel");
    let pod = PodFacts { name: "web".into(), namespace: "shop".into(), ..PodFacts::default() };
    let facts = ContainerFacts { name: "c".into(), pod: Some(pod), ..ContainerFacts::default() };
    let mut frames = vec![
        Frame::Process(seed()),
        Frame::Cgroup(9, b"/a.scope".to_vec()),
        Frame::Container("0123".into(), Box::new(facts)),
        Frame::Users(Box::new(users)),
    ];
    let records: Vec<_> = (0..opens).map(|n| open(&format!("/tmp/{n}"))).collect();
    frames.push(Frame::Begin);
    frames.extend(records.iter().map(|bytes| Frame::Record(3, bytes)));
    frames.push(Frame::Lost(2));
    frames.push(Frame::End(Box::default()));
    for frame in &frames {
        writer.write(frame).expect("memory");
        if flushes {
            writer.flush().expect("memory");
        }
    }
    writer.flush().expect("memory");
    out
}

fn text<'a>(event: &impl Subject<'a>, name: &str) -> String {
    match event.field(fields::by_name(name).expect("a field"), &Arg::None) {
        Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Plays all of it: what was opened, and how it ended.
fn play(bytes: &[u8]) -> (Vec<String>, Result<Option<End>, ReadError>) {
    let mut seen = Vec::new();
    let mut player = match Player::new(bytes) {
        Ok(player) => player,
        Err(error) => return (seen, Err(error)),
    };
    let mut arena = Arena::new();
    loop {
        let say = |event: &event::event::Event<'_>| {
            let cpu = event.record.cpu.unwrap_or_default();
            seen.push(format!(
                "{} {} {} {cpu}",
                text(event, "proc.cmdline"),
                text(event, "fd.name"),
                text(event, "user.name")
            ));
        };
        match player.step(&arena, say) {
            Ok(Step::End) => return (seen, Ok(player.end().cloned())),
            Ok(Step::Event | Step::State) => {}
            Err(error) => return (seen, Err(error)),
        }
        arena.reset();
    }
}

#[test]
fn what_was_recorded_is_played_with_its_state() {
    let (seen, end) = play(&recorded(2, false));
    // The record's own name of the thread is empty; arguments, users and the CPU come from the other frames.
    assert_eq!(seen, [" -c /tmp/0 admin 3", " -c /tmp/1 admin 3"]);
    assert_eq!(end.expect("whole"), Some(End { records: 2, ..End::default() }));
}

#[test]
fn many_records_fill_several_blocks_and_take_little_room() {
    let bytes = recorded(5000, false);
    let (seen, end) = play(&bytes);
    assert_eq!((seen.len(), end.expect("whole").expect("an end").records), (5000, 5000));
    assert!(bytes.len() < 5000 * 60, "{} bytes", bytes.len());
}

#[test]
fn a_recording_that_is_cut_off_is_played_up_to_there() {
    let bytes = recorded(5, true);
    let whole = play(&bytes).0;
    let mut counts = Vec::new();
    for len in 0..bytes.len() {
        let (seen, end) = play(&bytes[..len]);
        assert!(whole.starts_with(&seen), "{len}");
        match end {
            Err(ReadError::NoRecording) => assert!(len < 8),
            Err(ReadError::CutOff { at }) => assert!(at <= len as u64 && at >= 8),
            other => panic!("{len}: {other:?}"),
        }
        counts.push(seen.len());
    }
    assert!(counts.is_sorted() && counts.ends_with(&[5]));
}

#[test]
fn a_damaged_block_is_told_with_its_place() {
    let mut bytes = recorded(5, true);
    let at = bytes.len() - 40;
    bytes[at] ^= 0x10;
    let (seen, end) = play(&bytes);
    assert!(seen.len() <= 5);
    assert!(matches!(end, Err(ReadError::Damaged { .. } | ReadError::CutOff { .. })), "{end:?}");
}

#[test]
fn other_files_and_other_versions_are_refused() {
    assert!(matches!(Reader::new(&b"- rule: x\n"[..]), Err(ReadError::NoRecording)));
    let mut bytes = recorded(0, false);
    bytes[7] = 9;
    let error = Reader::new(&bytes[..]).expect_err("another version");
    assert!(error.to_string().contains("version 9"), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), opens in 0usize..4) {
        let mut bytes = recorded(opens, true);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = play(&bytes);
    }

    #[test]
    fn rubbish_behind_the_front_does_not_panic(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = play(&[&gyrfalcon_recording::MAGIC[..], &rest].concat());
    }
}

/// What `cargo fuzz run replay` once found is kept, and tried here.
#[test]
fn inputs_that_once_crashed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions/replay");
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = play(&std::fs::read(file.path()).expect("a readable file"));
    }
}
