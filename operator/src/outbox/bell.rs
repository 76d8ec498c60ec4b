//! Wakes the thread of a sink.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

/// Remembers one ring until it is heard.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    /// Wakes whoever waits, now or the next time.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rings.notify_one();
    }

    /// Waits for a ring, until the time given. True when there was one.
    pub fn wait(&self, until: Option<Instant>) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            rung = match until {
                None => self.rings.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
                    let Some(left) = left else { return false };
                    self.rings.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *rung = false;
        true
    }
}
