//! Recordings: read and played to their end, every field of the first events read. Inputs that crash belong into
//! `fuzz/regressions/replay`, where `cargo test` tries them again.
#![no_main]

use gyrfalcon_event::{
    fields::{self, Arg, Subject},
    value::Arena,
};
use gyrfalcon_recording::{Player, Step};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(mut player) = Player::new(bytes) else { return };
    let mut arena = Arena::new();
    loop {
        let step = player.step(&arena, |event| fields::all().for_each(|field| drop(event.field(field, &Arg::None))));
        match step {
            Ok(Step::Event | Step::State) => arena.reset(),
            Ok(Step::End) | Err(_) => return,
        }
    }
});
