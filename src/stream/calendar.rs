//! The wall clock, and days of the civil calendar in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Span;
use jiff::civil::date;

/// The wall clock, in ms since 1970. For people and gauges: no state may depend on it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The date that is `day` days after 1970-01-01, as `2017-10-01`.
pub fn date_of(day: i64) -> String {
    date(1970, 1, 1).saturating_add(Span::new().days(day)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        for (day, date) in [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29")] {
            assert_eq!(date_of(day), date);
        }
    }
}
