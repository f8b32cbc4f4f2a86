//! A place in the log, in the words of `--from` and `--to`, and a range between two places.
//!
//! Must never know: the broker, which alone can say which offsets a place means
//! ([`super::topic`]).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use millrace_events::Offsets;

use super::form::WrongForm;

/// A place in every partition of a topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// The first record kept.
    Earliest,
    /// Past the last record there is now.
    Latest,
    /// This offset, or the nearest that the partition has.
    Offset(i64),
    /// This much of the records that the partition has now, in percent.
    Percent(f64),
    /// The first record whose Kafka timestamp is at or after this time (ms since 1970).
    TimeMs(i64),
}

/// The forms, for messages.
const FORMS: &str = "expected earliest, latest, 90%, offset:123, time:1506826800026 (ms) or \
                     time:2017-10-01T03:00:00Z";

impl FromStr for Position {
    type Err = WrongForm;

    fn from_str(text: &str) -> Result<Position, WrongForm> {
        let wrong = |why: &str| WrongForm(format!("`{text}`: {why}{FORMS}"));
        let offset = |digits: &str| {
            let offset = digits.parse::<i64>().map_err(|_| wrong("not an offset; "))?;
            if offset < 0 { Err(wrong("an offset is not negative; ")) } else { Ok(offset) }
        };
        match text {
            "earliest" => return Ok(Position::Earliest),
            "latest" => return Ok(Position::Latest),
            _ => {}
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.parse::<f64>().map_err(|_| wrong("not a number; "))?;
            let valid = (0.0..=100.0).contains(&percent);
            return if valid {
                Ok(Position::Percent(percent))
            } else {
                Err(wrong("not in 0..=100; "))
            };
        }
        if let Some(time) = text.strip_prefix("time:") {
            let instant = || Some(time.parse::<Timestamp>().ok()?.as_millisecond());
            let time = time.parse::<i64>().ok().or_else(instant);
            return time.map(Position::TimeMs).ok_or_else(|| wrong("not a time with its zone; "));
        }
        if let Some(digits) = text.strip_prefix("offset:") {
            return Ok(Position::Offset(offset(digits)?));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Position::Offset(offset(text)?));
        }
        Err(wrong(""))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Earliest => f.write_str("earliest"),
            Position::Latest => f.write_str("latest"),
            Position::Offset(offset) => write!(f, "offset:{offset}"),
            Position::Percent(percent) => write!(f, "{percent}%"),
            Position::TimeMs(ms) => write!(f, "time:{ms}"),
        }
    }
}

/// A part of the log: from these offsets, and up to those (exclusive) if it is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The next offset to read of every partition.
    pub from: Offsets,
    /// The end of each partition; none: the range has no end.
    pub to: Option<Offsets>,
}

impl Range {
    /// Records to be read, over all partitions; 0: the range has no end.
    pub fn records(&self) -> u64 {
        let ends = self.to.iter().flat_map(Offsets::iter);
        let records = ends.map(|(partition, end)| {
            let begin = self.from.next(partition).unwrap_or(0);
            u64::try_from(end - begin).unwrap_or(0)
        });
        records.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        for (text, position) in [
            ("earliest", Position::Earliest),
            ("latest", Position::Latest),
            ("90%", Position::Percent(90.0)),
            ("12.5%", Position::Percent(12.5)),
            ("offset:123", Position::Offset(123)),
            ("123", Position::Offset(123)),
            ("time:1506826800026", Position::TimeMs(1_506_826_800_026)),
            ("time:2017-10-01T03:00:00Z", Position::TimeMs(1_506_826_800_000)),
            ("time:2017-10-01T05:00:00+02:00", Position::TimeMs(1_506_826_800_000)),
            ("time:2017-10-01T03:00:00.0261Z", Position::TimeMs(1_506_826_800_026)),
            ("time:2024-02-29 00:00:00z", Position::TimeMs(1_709_164_800_000)),
            ("time:1969-12-31T23:59:59.5Z", Position::TimeMs(-500)),
        ] {
            assert_eq!(text.parse(), Ok(position), "{text}");
            assert_eq!(position.to_string().parse(), Ok(position), "{text}");
        }
    }

    #[test]
    fn teaches_the_forms_where_it_cannot_read() {
        for text in [
            "",
            "begin",
            "-1",
            "offset:-1",
            "offset:x",
            "99999999999999999999",
            "101%",
            "NaN%",
            "%",
            "time:",
            "time:2017-10-01",
            "time:2017-10-01T03:00:00",
            "time:2017-02-29T03:00:00Z",
            "time:2017-13-01T03:00:00Z",
            "time:2017-10-01T24:00:00Z",
            "time:2017-10-01T03:00:00.Z",
            "time:2017-10-1T03:00:00Z",
            "time:2017-10-01T03:00:00:00Z",
            "time:20é7-10-01T03:00:00Z",
        ] {
            let error = text.parse::<Position>().expect_err(text);
            assert!(error.to_string().contains("time:2017-10-01T03:00:00Z"), "{error}");
        }
    }

    #[test]
    fn a_range_counts_what_lies_between() {
        let offsets = |next: &[(i32, i64)]| {
            let mut offsets = Offsets::new("clicks");
            next.iter().for_each(|&(partition, next)| offsets.advance(partition, next));
            offsets
        };
        let from = offsets(&[(0, 10), (1, 7)]);
        let to = Some(offsets(&[(0, 15), (1, 5), (2, 3)]));
        let range = Range { from: from.clone(), to };
        assert_eq!(range.records(), 5 + 3, "a new partition counts, one that is past its end not");
        assert_eq!(Range { from, to: None }.records(), 0);
    }
}
