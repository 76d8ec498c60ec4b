//! Clock times as text, in Falco's formats.

use crate::{text::text, value::Arena};

const NS: u64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// A moment taken apart.
struct Moment {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    ns: u64,
}

impl Moment {
    fn new(unix_ns: u64, offset_s: i32) -> Self {
        let seconds = (unix_ns / NS) as i64 + i64::from(offset_s);
        let (year, month, day) = civil(seconds.div_euclid(DAY));
        Self { year, month, day, second_of_day: seconds.rem_euclid(DAY), ns: unix_ns % NS }
    }

    fn clock(&self) -> (i64, i64, i64) {
        (self.second_of_day / 3600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }
}

/// The day of the proleptic Gregorian calendar, `days` after 1970-01-01: whole 400-year eras first, then the year of the
/// era that begins in March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// `HH:MM:SS`, with `.nnnnnnnnn` when asked.
pub(crate) fn time_of_day(arena: &Arena, unix_ns: u64, offset_s: i32, fraction: bool) -> &[u8] {
    let moment = Moment::new(unix_ns, offset_s);
    let (h, m, s) = moment.clock();
    if fraction { text!(arena, "{h:02}:{m:02}:{s:02}.{:09}", moment.ns) } else { text!(arena, "{h:02}:{m:02}:{s:02}") }
}

/// `YYYY-MM-DD HH:MM:SS`, with `.nnnnnnnnn` when asked.
pub(crate) fn date_time(arena: &Arena, unix_ns: u64, offset_s: i32, fraction: bool) -> &[u8] {
    let Moment { year, month, day, ns, .. } = Moment::new(unix_ns, offset_s);
    let (h, m, s) = Moment::new(unix_ns, offset_s).clock();
    if fraction {
        text!(arena, "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{ns:09}")
    } else {
        text!(arena, "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}")
    }
}

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnn+0000`.
pub(crate) fn iso8601(arena: &Arena, unix_ns: u64) -> &[u8] {
    let moment = Moment::new(unix_ns, 0);
    let Moment { year, month, day, ns, .. } = moment;
    let (h, m, s) = moment.clock();
    text!(arena, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ns:09}+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_falcos() {
        let arena = Arena::new();
        let leap_day = 1_709_210_096_000_000_007; // 2024-02-29
        assert_eq!(iso8601(&arena, leap_day), b"2024-02-29T12:34:56.000000007+0000");
        assert_eq!(time_of_day(&arena, leap_day, 3600, true), b"13:34:56.000000007");
        assert_eq!(date_time(&arena, leap_day, 12 * 3600, false), b"2024-03-01 00:34:56");
        assert_eq!(time_of_day(&arena, 0, -1, false), b"23:59:59");
        assert_eq!(iso8601(&arena, 0), b"1970-01-01T00:00:00.000000000+0000");
    }
}
