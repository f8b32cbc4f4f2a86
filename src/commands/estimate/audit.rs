//! Exact counts over a sliding window, and how far estimates are from them.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use crate::commands::session::Usage;
use millrace_train::frequency::{Frequency, Meaning};

/// The part of the past that the exact count looks back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookBack {
    /// The last batches.
    Steps(u64),
    /// Event time, ms.
    Time(i64),
}

impl FromStr for LookBack {
    type Err = Usage;

    /// `100` steps, or event time as `90s`, `30m`, `1h`, `7d`.
    fn from_str(text: &str) -> Result<Self, Usage> {
        let wrong = || {
            Usage(format!("`{text}` is no number of steps (100) and no time (90s, 30m, 1h, 7d)"))
        };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?;
        let seconds = match &text[digits.len()..] {
            "" => return Ok(Self::Steps(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return Err(wrong()),
        };
        let milliseconds = i64::try_from(number).ok().and_then(|n| n.checked_mul(1000 * seconds));
        milliseconds.map(Self::Time).ok_or_else(wrong)
    }
}

/// An item of the window: its name and its copies there.
pub(super) type Counted<'a> = (&'a str, u64, u32);

/// The events of the window, counted by item.
pub(super) struct Recent {
    window: LookBack,
    /// Newest last: step, event time, item.
    events: VecDeque<(u64, i64, u64)>,
    /// Ordered, so that sums over it repeat to the digit.
    counts: BTreeMap<u64, (Box<str>, u32)>,
    newest_ms: i64,
    /// Whether the window lies within what was read.
    pub(super) full: bool,
}

impl Recent {
    pub(super) fn new(window: LookBack) -> Self {
        Self {
            window,
            events: VecDeque::new(),
            counts: BTreeMap::new(),
            newest_ms: i64::MIN,
            full: false,
        }
    }

    /// Takes in one event of `step`.
    pub(super) fn add(&mut self, step: u64, time_ms: i64, id: u64, name: &str) {
        self.events.push_back((step, time_ms, id));
        self.counts.entry(id).or_insert_with(|| (name.into(), 0)).1 += 1;
        self.newest_ms = self.newest_ms.max(time_ms);
    }

    /// Lets go of what is outside the window once `step` is complete. Events count in log order: a
    /// late one stays until those before it have gone.
    pub(super) fn slide(&mut self, step: u64) {
        while let Some(&(at, time_ms, id)) = self.events.front() {
            let past = match self.window {
                LookBack::Steps(steps) => at + steps <= step,
                LookBack::Time(span) => time_ms <= self.newest_ms - span,
            };
            if !past {
                break;
            }
            self.full = true;
            self.events.pop_front();
            let counted = self.counts.get_mut(&id).expect("an event in the window is counted");
            counted.1 -= 1;
            if counted.1 == 0 {
                self.counts.remove(&id);
            }
        }
    }

    /// Events in the window.
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Items in the window.
    pub(super) fn items(&self) -> usize {
        self.counts.len()
    }

    /// The items with most copies, ties by name.
    pub(super) fn top(&self, most: usize) -> Vec<Counted<'_>> {
        let mut items: Vec<Counted<'_>> =
            self.counts.iter().map(|(&id, (name, count))| (&**name, id, *count)).collect();
        items.sort_unstable_by_key(|&(name, _, count)| (std::cmp::Reverse(count), name));
        items.truncate(most);
        items
    }

    /// `count` copies in the window as copies in a batch of `size`.
    pub(super) fn per_batch(&self, count: u32, size: usize) -> f64 {
        f64::from(count) * size as f64 / self.events.len() as f64
    }

    /// Each item of the window: copies there, exact copies a batch, estimated copies a batch.
    pub(super) fn compare(&self, frequency: &Frequency, size: usize) -> Vec<Compared> {
        let compare = |(&id, &(_, count)): (&u64, &(Box<str>, u32))| Compared {
            count,
            exact: self.per_batch(count, size),
            estimate: f64::from(frequency.estimate(id, Meaning::ExpectedCount)),
        };
        self.counts.iter().map(compare).collect()
    }
}

/// One item, exact and estimated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared {
    /// Copies in the window.
    pub(super) count: u32,
    /// Copies in a batch, by the exact count.
    pub(super) exact: f64,
    /// Copies in a batch, by the estimate.
    pub(super) estimate: f64,
}

impl Compared {
    /// Error of log q, nats.
    fn error(&self) -> f64 {
        (self.estimate / self.exact).ln()
    }
}

/// Mean |error| of log q over the window's events: what the loss feels.
pub(super) fn mean_error(compared: &[Compared]) -> f64 {
    let weight: f64 = compared.iter().map(|item| f64::from(item.count)).sum();
    let sum: f64 = compared.iter().map(|item| f64::from(item.count) * item.error().abs()).sum();
    sum / weight
}

/// Errors of log q over the events of some items.
pub(super) struct Quantiles {
    /// Items and their events.
    pub(super) items: usize,
    /// Events of these items.
    pub(super) events: u64,
    /// Median of the signed error, nats: above 0 is too frequent.
    pub(super) bias: f64,
    /// Quantiles of |error|, nats.
    pub(super) absolute: [f64; 3],
}

/// Which quantiles.
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// `None` without items.
pub(super) fn quantiles(compared: impl Iterator<Item = Compared>) -> Option<Quantiles> {
    let mut errors: Vec<(f64, u32)> = compared.map(|item| (item.error(), item.count)).collect();
    let events = errors.iter().map(|&(_, count)| u64::from(count)).sum();
    let bias = weighted(&mut errors, events, 0.5)?;
    errors.iter_mut().for_each(|(error, _)| *error = error.abs());
    let mut absolute = [0.0; 3];
    for (value, q) in absolute.iter_mut().zip(QUANTILES) {
        *value = weighted(&mut errors, events, q)?;
    }
    Some(Quantiles { items: errors.len(), events, bias, absolute })
}

/// The value below which the share `q` of the weight lies.
fn weighted(values: &mut [(f64, u32)], weight: u64, q: f64) -> Option<f64> {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0;
    let found = values.iter().find(|(_, count)| {
        below += u64::from(*count);
        below as f64 >= q * weight as f64
    });
    found.map(|&(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_by_steps_and_by_time() {
        assert_eq!("100".parse(), Ok(LookBack::Steps(100)));
        assert_eq!("90s".parse(), Ok(LookBack::Time(90_000)));
        assert_eq!("7d".parse(), Ok(LookBack::Time(604_800_000)));
        for wrong in ["", "0", "h", "-1", "1.5h", "1w", "99999999999999999d"] {
            assert!(wrong.parse::<LookBack>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_window_slides() {
        let mut recent = Recent::new(LookBack::Steps(2));
        for (step, ids) in [(1, [7, 7, 8]), (2, [7, 8, 8]), (3, [9, 9, 7])] {
            ids.into_iter().for_each(|id| recent.add(step, 0, id, &id.to_string()));
            assert!(!recent.full);
            recent.slide(step);
        }
        assert!(recent.full);
        assert_eq!(recent.top(9), [("7", 7, 2), ("8", 8, 2), ("9", 9, 2)]);
        assert_eq!((recent.events(), recent.items()), (6, 3));
        assert_eq!(recent.per_batch(2, 3), 1.0);
        let mut recent = Recent::new(LookBack::Time(1000));
        for (time, id) in [(0, 1), (500, 2), (1200, 3)] {
            recent.add(1, time, id, "");
        }
        recent.slide(1);
        assert_eq!((recent.events(), recent.items()), (2, 2));
    }

    #[test]
    fn quantiles_weigh_items_by_their_events() {
        let item = |count, error: f64| Compared { count, exact: 1.0, estimate: error.exp() };
        let items = [item(90, 0.1), item(9, -0.2), item(1, 3.0)];
        let all = quantiles(items.into_iter()).expect("three items");
        assert_eq!((all.items, all.events), (3, 100));
        assert!((all.bias - 0.1).abs() < 1e-12);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(all.absolute[0], 0.1) && near(all.absolute[2], 0.2), "{:?}", all.absolute);
        assert!(near(mean_error(&items), (9.0 + 1.8 + 3.0) / 100.0));
        assert!(quantiles(std::iter::empty()).is_none());
    }
}
