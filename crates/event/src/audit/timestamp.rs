//! Timestamps of the API server: RFC 3339 with up to nine decimals.

/// Nanoseconds since the Unix epoch; `None` for what is no timestamp, or one before the epoch.
pub(super) fn unix_ns(text: &str) -> Option<u64> {
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let bytes = text.as_bytes();
    for (at, wanted) in [(4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":")] {
        if bytes.get(at..=at)? != wanted {
            return None;
        }
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ns = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let kept = fraction.get(..length.min(9)).filter(|kept| !kept.is_empty())?;
        ns = kept.parse::<i64>().ok()? * 10_i64.pow(9 - kept.len() as u32);
        rest = fraction.get(length..)?;
    }
    let offset = match (rest, rest.as_bytes().first()?) {
        ("Z" | "z", _) => 0,
        (_, sign @ (b'+' | b'-')) if rest.len() == 6 && rest.as_bytes().get(3) == Some(&b':') => {
            let start = text.len() - rest.len();
            let part = |from, to| digits(start + from, start + to);
            let seconds = part(1, 3)? * 3600 + part(4, 6)? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds.checked_mul(1_000_000_000)?.checked_add(ns)?).ok()
}

/// Days since 1970-01-01 of a date of the Gregorian calendar: whole eras of 400 years, in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_the_api_server_are_read() {
        let leap_day = 1_709_210_096_000_000_000;
        assert_eq!(unix_ns("2024-02-29T12:34:56.123456Z"), Some(leap_day + 123_456_000));
        assert_eq!(unix_ns("2024-02-29T12:34:56Z"), Some(leap_day));
        assert_eq!(unix_ns("2024-02-29T14:34:56.000000007+02:00"), Some(leap_day + 7));
        assert_eq!(unix_ns("2024-02-29T11:04:56.0000000071-01:30"), Some(leap_day + 7));
        assert_eq!(unix_ns("1970-01-01T00:00:00Z"), Some(0));
    }

    #[test]
    fn what_is_no_timestamp_is_none() {
        for text in [
            "",
            "2024-02-29",
            "2024-02-29 12:34:56Z",
            "2024-13-29T12:34:56Z",
            "2024-02-29T12:34:56",
            "2024-02-29T12:34:56.Z",
            "2024-02-29T12:34:56+1:00",
            "2024-02-29T12:34:5éZ",
            "1969-12-31T23:59:59Z",
            "+024-02-29T12:34:56Z",
        ] {
            assert_eq!(unix_ns(text), None, "{text}");
        }
    }
}
