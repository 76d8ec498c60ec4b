//! Signals, as messages to the thread that controls the program.

use std::{sync::mpsc::Sender, thread};

/// Sends these signals as messages, from a thread of its own.
pub fn send<T: Send + 'static>(
    signals: &[i32],
    sender: Sender<T>,
    message: impl Fn(i32) -> T + Send + 'static,
) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            if sender.send(message(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
