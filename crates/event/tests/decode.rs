//! Bytes from outside never panic, whatever they are: not in decoding, not in state, not in any field.

use gyrfalcon_event::{
    decode::Record,
    event::Event,
    fields::{self, Arg, ArgRule, Subject},
    state::{Host, Limits, State},
    testing::Encoder,
    value::Arena,
};
use proptest::prelude::*;

/// Everything the sensor does with one record.
fn use_record(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    let mut state = State::new(Limits::default(), Host::default());
    state.apply(&record);
    let arena = Arena::new();
    let Some(event) = Event::new(&record, &state, &arena, 1) else { return };
    for field in fields::all() {
        let args: &[Arg] = match field.arg {
            ArgRule::None => &[Arg::None],
            _ => &[Arg::None, Arg::Index(0), Arg::Index(3), Arg::Index(u32::MAX), Arg::Key("name".into())],
        };
        for arg in args {
            let _ = event.field(field, arg);
        }
    }
}

fn valid() -> impl Strategy<Value = Vec<u8>> {
    let name = "[a-z./]{0,40}";
    (0usize..6, name, any::<i64>(), 0u32..17).prop_map(|(which, name, number, ancestors)| {
        let mut record = match which {
            0 => Encoder::exec().args(&[&name, "-x", ""]).env(&["A=b"]).exepath(&name).cgroup(&name),
            1 => {
                Encoder::syscall("openat").int("fd", number).int("dirfd", -100).text("name", &name).base("name", "/a/b")
            }
            2 => Encoder::syscall("connect").int("fd", 3).text("addr", [2, 0, 0, 80, 1, 2, 3, 4]).int("res", -115),
            3 => Encoder::syscall("renameat2").text("oldpath", &name).int("olddirfd", number).text("newpath", "x"),
            4 => Encoder::exit().ret(number),
            _ => Encoder::fork(),
        };
        for i in 0..ancestors.min(16) {
            record = record.ancestor(i, u64::from(i), &name);
        }
        record.cwd(&name).encode()
    })
}

proptest! {
    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        use_record(&bytes);
    }

    #[test]
    fn valid_records_with_a_few_bytes_changed(mut bytes in valid(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        use_record(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        use_record(&bytes);
    }

    #[test]
    fn valid_records_decode(bytes in valid()) {
        prop_assert!(Record::decode(&bytes).is_ok());
    }
}
