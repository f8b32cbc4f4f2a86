//! The sizes of a bounded read's batches.
//!
//! A live trainer gets the events of `batch.linger_ms`, so its batches have any size; a replay
//! fills every batch. A cut makes a replay's batches as small as a trickle's, to see what they
//! teach. Owns: the size of each batch, as a function of the place in the log where it begins, so
//! that a run that resumes from a checkpoint cuts as if it had never stopped.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::form::WrongForm;

/// How many events each batch gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// As many as a batch holds.
    #[default]
    Full,
    /// This many, but no more than a batch holds.
    Every(usize),
    /// Sizes drawn by this seed: stretches of the log that trickle, that are busy, and bursts of
    /// full batches.
    Random(u64),
}

/// Most events of a batch in a stretch that trickles: a few events a second at the default linger.
const TRICKLE: u64 = 8;
/// Most events of a batch in a busy stretch.
const BUSY: u64 = 256;
/// Stretches of one regime that a full batch is as long as.
const STRETCHES_A_BATCH: usize = 4;

impl Cut {
    /// Events of the batch that begins at `position`, where `full` is what a batch holds. The
    /// position is the sum of the next offsets ([`millrace_events::Offsets::total`]): every record
    /// that is read moves it on by one or more.
    ///
    /// A random stretch is short, and trickles as often as not, so that a few thousand events see
    /// all three regimes.
    pub fn size(self, full: usize, position: u64) -> usize {
        match self {
            Cut::Full => full,
            Cut::Every(events) => events.min(full),
            Cut::Random(seed) => {
                let stretch = position / (full / STRETCHES_A_BATCH).max(1) as u64;
                let most = match draw(seed, "regime", stretch) % 4 {
                    0 | 1 => TRICKLE,
                    2 => BUSY,
                    _ => return full,
                };
                let events = 1 + draw(seed, "size", position) % most.min(full as u64);
                usize::try_from(events).expect("at most BUSY")
            }
        }
    }
}

/// 64 random bits: a function of the seed, of what is drawn and of the place.
fn draw(seed: u64, what: &str, place: u64) -> u64 {
    let mut bytes = what.as_bytes().to_vec();
    bytes.extend(place.to_le_bytes());
    xxh3_64_with_seed(&bytes, seed)
}

impl FromStr for Cut {
    type Err = WrongForm;

    fn from_str(text: &str) -> Result<Cut, WrongForm> {
        let cut = match text.strip_prefix("random:") {
            Some(seed) => seed.parse().ok().map(Cut::Random),
            None => text.parse().ok().filter(|&events| events > 0).map(Cut::Every),
        };
        cut.ok_or_else(|| {
            let forms = "expected a number of events from 1 up, such as 16, or random:SEED, such \
                         as random:7";
            WrongForm(forms.to_owned())
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Full => write!(f, "full"),
            Cut::Every(events) => write!(f, "{events}"),
            Cut::Random(seed) => write!(f, "random:{seed}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sizes of the batches from `from` on, over a log of `records` without gaps.
    fn sizes(cut: Cut, full: usize, from: u64, records: u64) -> Vec<(u64, usize)> {
        let mut sizes = Vec::new();
        let mut position = from;
        while position < records {
            let size = cut.size(full, position);
            sizes.push((position, size));
            position += size as u64;
        }
        sizes
    }

    proptest! {
        #[test]
        fn cuts_go_on_alike_from_any_boundary(
            seed in any::<u64>(), full in 2..2000_usize, stop in any::<prop::sample::Index>()
        ) {
            let cut = Cut::Random(seed);
            let all = sizes(cut, full, 0, 20_000);
            let stop = stop.index(all.len());
            prop_assert_eq!(&all[stop..], &sizes(cut, full, all[stop].0, 20_000)[..]);
            prop_assert!(all.iter().all(|&(_, size)| (1..=full).contains(&size)));
        }
    }

    #[test]
    fn random_cuts_trickle_are_busy_and_burst() {
        let sizes = sizes(Cut::Random(1), 1024, 0, 200_000);
        let events = |range: std::ops::RangeInclusive<usize>| {
            let within = sizes.iter().map(|(_, size)| *size).filter(|size| range.contains(size));
            within.sum::<usize>()
        };
        // A full batch is as long as four stretches, so most events are in one.
        let [trickle, busy, full] = [events(1..=8), events(9..=256), events(1024..=1024)];
        assert!(trickle > 30_000 && busy > 15_000 && full > 60_000, "{trickle} {busy} {full}");
        assert_eq!(events(257..=1023), 0);
        let other = self::sizes(Cut::Random(2), 1024, 0, 200_000);
        assert_ne!(sizes, other);
    }

    #[test]
    fn a_number_is_the_size_of_every_batch_but_no_more_than_a_batch_holds() {
        assert_eq!(Cut::Every(16).size(1024, 5), 16);
        assert_eq!(Cut::Every(2000).size(1024, 5), 1024);
        assert_eq!(Cut::Full.size(1024, 5), 1024);
    }

    #[test]
    fn texts_are_read_and_wrong_ones_teach_the_forms() {
        assert_eq!("16".parse(), Ok(Cut::Every(16)));
        assert_eq!("random:7".parse(), Ok(Cut::Random(7)));
        for wrong in ["", "0", "-1", "1.5", "random", "random:", "random:x", "sixteen"] {
            let error = wrong.parse::<Cut>().expect_err("not a cut").to_string();
            assert!(error.contains("such as 16") && error.contains("random:7"), "{error}");
        }
    }
}
