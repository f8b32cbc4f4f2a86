//! The output of `millrace estimate`.

use std::time::Duration;

use serde_json::{Value, json};

use super::audit::{Compared, QUANTILES, Quantiles, quantiles};
use super::{Contestant, Trial};
use crate::commands::output::say;
use crate::commands::report::number;
use crate::config::Alpha;
use millrace_train::frequency::{FrequencySettings, Meaning};

/// Items by their copies in the window.
const BANDS: [(&str, std::ops::RangeInclusive<u32>); 4] = [
    ("all", 1..=u32::MAX),
    ("100 copies or more", 100..=u32::MAX),
    ("10 to 99", 10..=99),
    ("1 to 9", 1..=9),
];

/// The end of a trial.
pub(super) struct TrialReport<'a> {
    pub(super) source: &'a str,
    pub(super) trial: &'a Trial,
    pub(super) top: usize,
    pub(super) elapsed: Duration,
}

/// The estimator's size for the eye.
pub(super) fn size(settings: &FrequencySettings) -> String {
    if settings.exact {
        "exact".into()
    } else {
        format!("m = {}, H = {}", settings.hashes, settings.buckets)
    }
}

fn in_band(compared: &[Compared], band: usize) -> Option<Quantiles> {
    let (_, copies) = &BANDS[band];
    quantiles(compared.iter().copied().filter(|item| copies.contains(&item.count)))
}

impl TrialReport<'_> {
    pub(super) fn print(&self) {
        let (trial, recent) = (self.trial, &self.trial.recent);
        say!(
            "{}: {} events in {} steps of {}, {} rejected; window: {} events of {} items",
            self.source,
            trial.events,
            trial.step,
            trial.size,
            trial.rejected,
            recent.events(),
            recent.items()
        );
        if !recent.full {
            say!("(the window is longer than what was read: counts are of all of it)");
        }
        self.print_contestants();
        for (place, contestant) in trial.contestants.iter().enumerate() {
            let several = trial.contestants.len() > 1;
            if several {
                say!("\n{}.", place + 1);
            }
            self.print_bands(contestant);
        }
        self.print_top();
        say!("\n{:.1} s", self.elapsed.as_secs_f64());
    }

    fn print_contestants(&self) {
        say!(
            "\n   alpha         table                    memory  collisions  \
             |error of log q|  M updates/s"
        );
        for (place, contestant) in self.trial.contestants.iter().enumerate() {
            let alpha = match contestant.alpha {
                Alpha::Auto => format!("auto ({})", contestant.frequency.alpha()),
                alpha => alpha.to_string(),
            };
            say!(
                "{}. {alpha:<13} {:<22} {:>8}  {:>9.2}%  {:>16.3}  {:>11.1}",
                place + 1,
                size(&contestant.settings),
                bytes(contestant.frequency.bytes()),
                100.0 * contestant.collisions.value().unwrap_or(0.0),
                contestant.error.value().unwrap_or(f64::NAN),
                self.rate(contestant) / 1e6,
            );
        }
        say!("   error: mean over time and events, nats; updates on this machine, now");
    }

    fn print_bands(&self, contestant: &Contestant) {
        say!("\nerror of log q at the end, nats, by event");
        say!("   items of the window       items    events     bias     p50     p90     p99");
        let compared = self.trial.recent.compare(&contestant.frequency, self.trial.size);
        for (band, (name, _)) in BANDS.iter().enumerate() {
            let Some(found) = in_band(&compared, band) else { continue };
            let [p50, p90, p99] = found.absolute;
            say!(
                "   {name:<22} {:>8}  {:>8}  {:>+7.3}  {p50:>6.3}  {p90:>6.3}  {p99:>6.3}",
                found.items,
                found.events,
                found.bias
            );
        }
    }

    fn print_top(&self) {
        let (trial, recent) = (self.trial, &self.trial.recent);
        say!("\nmost frequent: copies in the window, and of a batch exactly and as estimated");
        let columns: String = (1..=trial.contestants.len())
            .map(|place| format!("{:>10}", format!("{place}.")))
            .collect();
        say!("   {:<24}    copies     exact{columns}", "item");
        for (name, id, count) in recent.top(self.top) {
            let estimates: String = trial
                .contestants
                .iter()
                .map(|contestant| format!("{:>10.3}", contestant.expected(id)))
                .collect();
            let exact = recent.per_batch(count, trial.size);
            say!("   {name:<24}  {count:>8}  {exact:>8.3}{estimates}");
        }
    }

    pub(super) fn json(&self) -> Value {
        let (trial, recent) = (self.trial, &self.trial.recent);
        let top: Vec<Value> = recent
            .top(self.top)
            .into_iter()
            .map(|(name, id, count)| {
                let estimates: Vec<Value> =
                    trial.contestants.iter().map(|c| number(c.expected(id))).collect();
                json!({
                    "item": name,
                    "copies": count,
                    "exact_per_batch": recent.per_batch(count, trial.size),
                    "estimated_per_batch": estimates,
                })
            })
            .collect();
        let contestants: Vec<Value> =
            trial.contestants.iter().map(|c| self.contestant_json(c)).collect();
        json!({
            "source": self.source,
            "events": trial.events,
            "rejected": trial.rejected,
            "steps": trial.step,
            "batch_size": trial.size,
            "window": {"events": recent.events(), "items": recent.items(), "full": recent.full},
            "estimators": contestants,
            "top": top,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }

    fn contestant_json(&self, contestant: &Contestant) -> Value {
        let settings = &contestant.settings;
        let compared = self.trial.recent.compare(&contestant.frequency, self.trial.size);
        let bands: serde_json::Map<String, Value> = (0..BANDS.len())
            .filter_map(|band| {
                let found = in_band(&compared, band)?;
                let absolute = QUANTILES.iter().zip(found.absolute);
                let mut values = json!({
                    "items": found.items, "events": found.events, "bias": number(found.bias),
                });
                for (q, value) in absolute {
                    values[format!("p{}", 100.0 * q)] = number(value);
                }
                Some((BANDS[band].0.into(), values))
            })
            .collect();
        json!({
            "alpha": match contestant.alpha {
                Alpha::Auto => "auto".into(),
                Alpha::Fixed(alpha) => decimal(alpha),
            },
            "alpha_at_end": decimal(contestant.frequency.alpha()),
            "exact": settings.exact,
            "hashes": settings.hashes,
            "buckets": settings.buckets,
            "bytes": contestant.frequency.bytes(),
            "collisions": contestant.collisions.value().map(number),
            "log_q_error_mean": contestant.error.value().map(number),
            "log_q_error_at_end": bands,
            "updates_per_second": number(self.rate(contestant)),
        })
    }

    fn rate(&self, contestant: &Contestant) -> f64 {
        self.trial.events as f64 / contestant.busy.as_secs_f64()
    }
}

impl Contestant {
    fn expected(&self, id: u64) -> f64 {
        f64::from(self.frequency.estimate(id, Meaning::ExpectedCount))
    }
}

/// A float as people write it: 0.01, though the float's nearest double is 0.009999999776.
fn decimal(value: f32) -> Value {
    number(value.to_string().parse().expect("a float prints as a number"))
}

fn bytes(bytes: usize) -> String {
    let bytes = bytes as f64;
    match bytes {
        ..1e6 => format!("{:.0} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}
