//! The table and the plot of `millrace replay --by-day`.

use std::time::Duration;

use serde_json::{Value, json};

use super::Day;
use crate::commands::output::say;
use crate::commands::report::by_k;
use crate::plot::{Marks, Plot, Series, svg};
use crate::stream::calendar::date_of;
use millrace_train::evaluation::KS;
use millrace_train::evaluation::metrics::Sums;

/// Which of [`KS`] are drawn.
const DRAWN: [usize; 2] = [0, 2];

/// All days.
pub(super) struct DayReport<'a> {
    pub(super) topic: &'a str,
    pub(super) seed: u64,
    pub(super) held_out: f64,
    pub(super) days: &'a [Day],
    pub(super) rejected: u64,
    pub(super) late: u64,
    pub(super) elapsed: Duration,
}

impl DayReport<'_> {
    /// Days with cases.
    fn measured(&self) -> impl Iterator<Item = &Day> + Clone {
        self.days.iter().filter(|day| day.model.cases() > 0)
    }

    /// Mean over days, each counting alike; in the order of [`KS`].
    #[expect(clippy::cast_precision_loss, reason = "a number of days")]
    fn mean(&self, of: fn(&Day) -> &Sums) -> [f64; KS.len()] {
        let days = self.measured().count() as f64;
        let sum = |k: usize| self.measured().map(|day| of(day).recall()[k]).sum::<f64>();
        std::array::from_fn(|k| sum(k) / days)
    }

    pub(super) fn json(&self) -> Value {
        let day = |day: &Day| {
            json!({
                "date": date_of(day.day),
                "trained": day.trained,
                "cases": day.model.cases(),
                "candidates": day.candidates,
                "recall": by_k(day.model.recall()),
                "popularity": by_k(day.popularity.recall()),
            })
        };
        json!({
            "topic": self.topic,
            "days": self.days.iter().map(day).collect::<Vec<_>>(),
            "mean": {
                "recall": by_k(self.mean(|day| &day.model)),
                "popularity": by_k(self.mean(|day| &day.popularity)),
                "days": self.measured().count(),
            },
            "trained": self.days.iter().map(|day| day.trained).sum::<u64>(),
            "rejected": self.rejected,
            "late": self.late,
            "held_out": self.held_out,
            "seed": self.seed,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }

    pub(super) fn print(&self) {
        let (topic, percent) = (self.topic, 100.0 * self.held_out);
        say!("{topic}, {percent}% of each day held out; recall on those of the day after\n");
        say!("{:>32}model{:>30}popularity", "", "");
        let head = KS.map(|k| format!("{:>8}", format!("@{k}"))).concat();
        say!("date          trained     cases {head}   {head}");
        for day in self.days {
            let row = row(day.model.recall(), day.popularity.recall());
            say!("{} {:>10} {:>9} {row}", date_of(day.day), day.trained, day.model.cases());
        }
        let row = row(self.mean(|day| &day.model), self.mean(|day| &day.popularity));
        say!("{:<31} {row}", format!("mean of {} days", self.measured().count()));
        say!("\nexact search, {:.1} s", self.elapsed.as_secs_f64());
    }

    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let first = self.days.first().map_or(0, |day| day.day);
        let plots = DRAWN.map(|place| {
            let k = KS[place];
            let series = |name: &str, of: fn(&Day) -> &Sums| Series {
                name: name.to_owned(),
                #[expect(clippy::cast_precision_loss, reason = "a number of days")]
                points: self
                    .measured()
                    .map(|day| ((day.day - first + 1) as f64, of(day).recall()[place]))
                    .collect(),
                ..Series::default()
            };
            Plot {
                title: format!("recall@{k}"),
                x: format!("days trained, from {}", date_of(first)),
                y: format!("recall@{k} on the day after"),
                marks: Marks::Lines,
                series: vec![
                    series("model", |day| &day.model),
                    series("popularity", |day| &day.popularity),
                ],
            }
        });
        svg(&format!("{}, day by day", self.topic), &plots)
    }
}

/// Columns of one line; a day without cases has dashes.
fn row(model: [f64; KS.len()], popularity: [f64; KS.len()]) -> String {
    let columns = |values: [f64; KS.len()]| -> String {
        let column = |value: f64| match value {
            value if value.is_nan() => format!("{:>8}", "-"),
            value => format!("{value:>8.4}"),
        };
        values.map(column).concat()
    };
    format!("{}   {}", columns(model), columns(popularity))
}
