//! Spans of time as people write them: `5s`, `1h30m`, `300ms`.

/// Units from the longest to the shortest, in nanoseconds. A year has 365 days, as in Prometheus.
const UNITS: [(&str, u64); 9] = [
    ("y", 365 * 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Nanoseconds of a span: numbers with units, the longer units first, blanks between them permitted. `None` for anything
/// else, and for what is longer than 584 years.
pub fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut units = &UNITS[..];
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|char: char| !char.is_ascii_lowercase()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(units[at].1)?)?;
        units = &units[at + 1..];
        rest = behind.trim_start();
    }
    (units.len() < UNITS.len()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn units_are_added_from_the_longest_to_the_shortest() {
        const MS: u64 = 1_000_000;
        assert_eq!(nanoseconds("5s"), Some(5_000 * MS));
        assert_eq!(nanoseconds("1h3m2s1ms"), Some(3_782_001 * MS));
        assert_eq!(nanoseconds("2h 5m"), Some(7_500_000 * MS));
        assert_eq!(nanoseconds("10us"), Some(10_000));
        for wrong in ["", "5", "s", "1ms1y", "1t", "1s1s", "-1s", "1.5s", "99999999999y"] {
            assert_eq!(nanoseconds(wrong), None, "{wrong}");
        }
    }
}
