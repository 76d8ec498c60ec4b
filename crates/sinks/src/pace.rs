//! How fast a sink delivers.

use std::time::{Duration, Instant};

use api::sink::RateLimit;

/// The rate limit of a sink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Alerts per second in the long run.
    pub per_second: f64,
    /// Alerts at once after a quiet time.
    pub burst: u32,
}

// Rates come from a specification, which has no NaN.
impl Eq for Rate {}

impl Rate {
    /// Chats refuse more than that.
    pub const CHAT: Self = Self { per_second: 1.0, burst: RateLimit::DEFAULT_BURST };

    /// The rate that a spec describes.
    pub fn new(spec: &RateLimit) -> Self {
        // What the schema refuses, but a sink must not make of it a wait without end.
        Self { per_second: spec.per_second.clamp(0.001, 10_000.0), burst: spec.burst().max(1) }
    }
}

/// Tells a sink when it may deliver.
#[derive(Debug)]
pub struct Pace {
    rate: Option<Rate>,
    /// Alerts that may go at once, as of a time.
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Begins as after a quiet time.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, tokens: rate.map_or(0.0, |rate| f64::from(rate.burst)), at: now }
    }

    /// How long the next alert must wait. It is counted as gone then.
    pub fn next(&mut self, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_second;
        self.tokens = (self.tokens + refilled).min(f64::from(rate.burst)) - 1.0;
        self.at = self.at.max(now);
        match self.tokens < 0.0 {
            true => Duration::try_from_secs_f64(-self.tokens / rate.per_second).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(Rate { per_second: 2.0, burst: 3 }), start);
        let mut now = start;
        let waits: Vec<_> = (0..6)
            .map(|_| {
                let wait = pace.next(now);
                now += wait;
                wait.as_millis()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 500, 500, 500]);
        // A quiet time gives back a burst and no more.
        now += Duration::from_secs(3600);
        let waits: Vec<_> = (0..4).map(|_| pace.next(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 500]);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(None, Instant::now());
        assert!((0..1000).all(|_| pace.next(Instant::now()).is_zero()));
    }
}
