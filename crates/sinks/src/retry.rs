//! How often and how fast a failed delivery is tried again.

use std::time::Duration;

use api::sink::RetrySpec;

/// The retry policy of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts for one alert, the first one included; none where the spec sets no limit.
    pub max_attempts: Option<u32>,
    /// Wait after the first failure.
    pub initial: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Retry {
    /// The policy that a spec describes, with its defaults.
    pub fn new(spec: Option<&RetrySpec>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        let initial = spec.initial_backoff.map_or(Duration::from_secs(1), |span| span.duration());
        let max = spec.max_backoff.map_or(Duration::from_secs(300), |span| span.duration());
        Self { max_attempts: spec.max_attempts.map(u32::from), initial, max: max.max(initial) }
    }

    /// The limit where alerts wait in memory, and something else waits behind them.
    pub fn max_attempts_in_memory(&self) -> u32 {
        self.max_attempts.unwrap_or(10)
    }

    /// How long to wait after so many failures (from 1): what the receiver asked for, or twice as long each time, of
    /// which a random part is taken (`random` from 0 to 1) lest all senders come back at once. Never above the
    /// longest wait: a receiver does not decide how long alerts lie in our memory.
    pub fn wait(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.min(self.max);
        }
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry = Retry { max_attempts: None, initial: Duration::from_secs(1), max: Duration::from_secs(300) };

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u64> = (1..=11).map(|failures| RETRY.wait(failures, None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(RETRY.wait(u32::MAX, None, 1.0), RETRY.max);
    }

    #[test]
    fn at_least_half_of_a_wait_is_kept() {
        assert_eq!(RETRY.wait(2, None, 0.0), Duration::from_secs(1));
        assert_eq!(RETRY.wait(2, None, 0.5), Duration::from_millis(1500));
    }

    #[test]
    fn what_the_receiver_asks_for_has_the_same_limit() {
        assert_eq!(RETRY.wait(5, Some(Duration::from_secs(2)), 0.0), Duration::from_secs(2));
        assert_eq!(RETRY.wait(1, Some(Duration::from_secs(86_400)), 0.0), RETRY.max);
    }

    #[test]
    fn the_longest_wait_is_never_below_the_first() {
        let spec = RetrySpec { initial_backoff: "10m".parse().ok(), ..RetrySpec::default() };
        assert_eq!(Retry::new(Some(&spec)).max, Duration::from_secs(600));
    }
}
