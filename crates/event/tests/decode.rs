//! Bytes from outside never panic, whatever they are: not in decoding, not in state, not in any field.

use std::path::Path;

use gyrfalcon_event::{
    decode::Record,
    testing::{Encoder, exercise},
};
use proptest::prelude::*;

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
        exercise(&bytes);
    }

    #[test]
    fn valid_records_with_a_few_bytes_changed(mut bytes in valid(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>()) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        exercise(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        exercise(&bytes);
    }

    #[test]
    fn valid_records_decode(bytes in valid()) {
        prop_assert!(Record::decode(&bytes).is_ok());
    }
}

/// What `cargo fuzz run record_decode` once found is kept, and tried here.
#[test]
fn inputs_that_once_crashed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions/record_decode");
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        exercise(&std::fs::read(file.path()).expect("a readable file"));
    }
}
