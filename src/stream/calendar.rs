//! Times and days of the civil calendar, in UTC, without leap seconds: Kafka's times have none.
//!
//! The algorithms are Howard Hinnant's ("chrono-compatible low-level date algorithms").

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in ms since 1970. For people and gauges: no state may depend on it.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2017-10-01T03:00:00Z`, with or without a fraction; UTC only.
pub(super) fn rfc3339_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (date, clock) = text.split_once(['T', 't', ' '])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let parts = |text: &str, between: char, widths: [usize; 3]| -> Option<[i64; 3]> {
        let mut parts = text.split(between).zip(widths).map(|(part, width)| {
            let digits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse::<i64>().ok() } else { None }
        });
        let three = [parts.next()??, parts.next()??, parts.next()??];
        (text.split(between).count() == 3).then_some(three)
    };
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(clock, ':', [2, 2, 2])?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && digits;
    let ms = format!("{fraction:0<3}")[..3].parse::<i64>().ok().filter(|_| valid)?;
    Some((((days_from_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_1970(next.0, next.1, 1) - days_from_1970(year, month, 1)
}

/// Days from 1970-01-01 to this date.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date that is `day` days after 1970-01-01, as `2017-10-01`.
pub fn date_of(day: i64) -> String {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // from March
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_are_inverses() {
        for (day, date) in [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29")] {
            assert_eq!(date_of(day), date);
        }
        for day in (-200_000..200_000).step_by(37) {
            let midnight = format!("{}T00:00:00Z", date_of(day));
            assert_eq!(rfc3339_ms(&midnight), Some(day * 86_400_000), "{midnight}");
        }
    }
}
