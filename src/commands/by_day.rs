//! `millrace replay --by-day`: the paper's sequential protocol (Yi et al. 2019, section 6.3).
//!
//! Two readers go over the log in step: one trains day d, the other then measures on what of day
//! d + 1 is never trained on. So nothing is kept but a batch of each.

mod days;
mod print;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;

use super::session::{Usage, stop_on_signal};
use crate::commands::output::say;
use crate::config::{Config, Order};
use crate::pipeline;
use crate::progress::ProgressLine;
use crate::stream::calendar::date_of;
use crate::stream::cut::Cut;
use crate::stream::events_of;
use crate::stream::log::Log;
use crate::stream::position::{Position, Range};
use crate::stream::shuffle::Shuffle;
use days::{Days, Split};
use millrace_events::Batch;
use millrace_train::evaluation::held_out::HeldOut;
use millrace_train::evaluation::metrics::Sums;
use millrace_train::trainer::Trainer;

/// Arguments of `replay --by-day`.
#[derive(Args)]
pub(super) struct ByDayArgs {
    /// Measure day by day, in memory (no checkpoint is read or written): each day (UTC, by event
    /// time) is trained but for its held-out events; then those of the next day that has events
    /// are ranked among the whole corpus, exactly, beside popularity.
    #[arg(long, conflicts_with_all = ["fresh", "passes", "cut"])]
    pub(super) by_day: bool,
    /// Share of each day's events that is never trained on, chosen by a hash of the seed and the
    /// event.
    #[arg(long, default_value = "10%", value_name = "SHARE%", requires = "by_day")]
    #[arg(value_parser = share)]
    held_out: f64,
    /// Draw recall@10 and @100 by day into this file.
    #[arg(long, value_name = "FILE.svg", requires = "by_day")]
    plot: Option<PathBuf>,
}

/// `10%`, as a share of 1.
fn share(text: &str) -> Result<f64, Usage> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match percent {
        Some(percent) if 0.0 < percent && percent < 100.0 => Ok(percent / 100.0),
        _ => Err(Usage(format!("`{text}`: expected a share between 0% and 100%, such as 10%"))),
    }
}

pub(super) fn run(
    args: &ByDayArgs,
    config: &Config,
    (from, to): (Position, Position),
    json: bool,
) -> anyhow::Result<()> {
    if !config.catalogue.is_empty() {
        bail!("--by-day does not read catalogues: leave [[catalogue]] out of its config");
    }
    let (stop, _edge) = stop_on_signal()?;
    let placement = pipeline::placement(config.device)?;
    let range = Log::of(config)?.range(from, to)?;
    let trainer = Trainer::new(&config.train(), &placement, range.from.clone());
    let began = Instant::now();
    let split = Split::new(config.seed, args.held_out);
    let mut protocol = Protocol::begin(config, trainer, range, split, &stop)?;
    let mut measured = Vec::new();
    while let Some(day) = protocol.next_day()? {
        measured.push(day);
    }
    if protocol.trainer.progress().step == 0 {
        bail!("the range holds no usable event");
    }
    if measured.iter().all(|day| day.model.cases() == 0) {
        bail!("no day has held-out events and a day before it: the range must span two days");
    }
    let (rejected, late) = (protocol.train.rejected, protocol.train.late);
    if late > 0 {
        tracing::warn!(
            late,
            "events came after the first of a later day and were counted there: is the topic in \
             the order of time?"
        );
    }
    let report = print::DayReport {
        topic: &config.topic_names(),
        seed: config.seed,
        held_out: args.held_out,
        days: &measured,
        rejected,
        late,
        elapsed: began.elapsed(),
    };
    if let Some(path) = &args.plot {
        std::fs::write(path, report.svg()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        tracing::info!(path = %path.display(), "plotted");
    }
    if json {
        say!("{}", report.json());
    } else {
        report.print();
    }
    Ok(())
}

/// One day.
struct Day {
    /// Days since 1970.
    day: i64,
    /// Events of it that were trained on.
    trained: u64,
    /// Items known at its end.
    candidates: usize,
    /// The model's ranking of the held-out events of the day that follows; none on the last day.
    model: Sums,
    /// The ranking by the items' counts, on the same events.
    popularity: Sums,
}

/// The state of a run between two days.
struct Protocol<'a> {
    config: &'a Config,
    trainer: Trainer,
    split: Split,
    shuffle: Option<Shuffle>,
    train: Days<'a>,
    /// A day ahead of `train`.
    test: Days<'a>,
    progress: Option<ProgressLine>,
}

impl<'a> Protocol<'a> {
    fn begin(
        config: &'a Config,
        trainer: Trainer,
        range: Range,
        split: Split,
        stop: &'a Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let total = range.records();
        let mut reading = config.clone();
        // Days are cut from what comes in the order of time; a window is shuffled within its day.
        reading.kafka.order = Order::EventTime;
        reading.batch.shuffle_events = 0;
        let train = Days::open(&reading, range.clone(), stop)?;
        // One letter for each rejected record is enough.
        reading.kafka.dead_letter_topic = String::new();
        let mut test = Days::open(&reading, range.clone(), stop)?;
        // There is no model yet to measure on the first day.
        test.skip_day()?;
        let shuffled = config.batch.shuffle_events > 0;
        let (size, seed) = (config.batch.size, config.seed);
        let shuffle = shuffled.then(|| Shuffle::new(size, Cut::Full, seed, 1, range.from.clone()));
        let progress = Some(ProgressLine::new("by day", total, "events"));
        Ok(Self { config, trainer, split, shuffle, train, test, progress })
    }

    /// Trains the next day and measures on the one after it; `None` at the end.
    fn next_day(&mut self) -> anyhow::Result<Option<Day>> {
        let Some(day) = self.train.begin_day()? else {
            self.progress.take().into_iter().for_each(ProgressLine::finish);
            return Ok(None);
        };
        let before = self.trainer.progress().events;
        self.train_day(day)?;
        let measured = Day {
            day,
            trained: self.trainer.progress().events - before,
            candidates: self.trainer.state().corpus.len(),
            model: Sums::default(),
            popularity: Sums::default(),
        };
        self.measure(measured).map(Some)
    }

    fn train_day(&mut self, day: i64) -> anyhow::Result<()> {
        let size = self.config.batch.size.max(self.config.batch.shuffle_events);
        let split = self.split;
        let mut more = true;
        while more {
            let mut batch = self.empty_batch();
            more = self.train.fill(&mut batch, size, |batch, i| !split.holds_out(batch, i))?;
            match &mut self.shuffle {
                _ if batch.is_empty() => {}
                None => drop(self.trainer.step(&batch)),
                Some(shuffle) => {
                    shuffle.load(batch);
                    while let Some(batch) = shuffle.deal() {
                        self.trainer.step(&batch);
                    }
                }
            }
            if let Some(progress) = &mut self.progress {
                progress.set(self.train.read, || date_of(day));
            }
        }
        Ok(())
    }

    /// Ranks the held-out events of the day ahead among all items, as everything is now.
    fn measure(&mut self, mut day: Day) -> anyhow::Result<Day> {
        if self.test.begin_day()?.is_none() {
            return Ok(day);
        }
        let mut held_out = HeldOut::new(self.trainer.state(), self.config.retrieval.popularity);
        let (size, split) = (self.config.batch.size, self.split);
        let mut more = true;
        while more {
            let mut batch = self.empty_batch();
            more = self.test.fill(&mut batch, size, |batch, i| split.holds_out(batch, i))?;
            if batch.is_empty() {
                continue;
            }
            let queries = self.trainer.state().embed_now(&batch); // [events, dim]
            held_out.add(&batch, &queries, None);
        }
        (day.model, day.popularity) = (held_out.model.all, held_out.popularity.all);
        Ok(day)
    }

    fn empty_batch(&self) -> Batch {
        Batch::new(events_of(self.config), self.trainer.progress().offsets.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_that_leaves_something() {
        assert_eq!((share("10%"), share("0.5%")), (Ok(0.1), Ok(0.005)));
        for wrong in ["0%", "100%", "10", "ten%", "-1%", "NaN%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
