//! What `millrace replay --by-day` prints and draws.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::days::date;
use super::{Day, KS};
use crate::commands::report::{number, recall_json};
use crate::plot::{Marks, Plot, Series, svg};
use crate::train::evaluation::Recall;

/// Cut-offs that are drawn.
const DRAWN: [u32; 2] = [10, 100];

/// All days.
pub(super) struct Report<'a> {
    pub(super) topic: &'a str,
    pub(super) seed: u64,
    pub(super) held_out: f64,
    pub(super) days: &'a [Day],
    pub(super) rejected: u64,
    pub(super) late: u64,
    pub(super) elapsed: Duration,
}

impl Report<'_> {
    /// Days with cases.
    fn measured(&self) -> impl Iterator<Item = &Day> + Clone {
        self.days.iter().filter(|day| day.model.cases() > 0)
    }

    /// Mean over days, each counting alike; in the order of [`KS`].
    #[expect(clippy::cast_precision_loss, reason = "a number of days")]
    fn mean(&self, of: fn(&Day) -> &Recall) -> [f64; KS.len()] {
        let days = self.measured().count() as f64;
        KS.map(|k| self.measured().map(|day| of(day).at(k)).sum::<f64>() / days)
    }

    pub(super) fn json(&self) -> Value {
        let day = |day: &Day| {
            json!({
                "date": date(day.day),
                "trained": day.trained,
                "cases": day.model.cases(),
                "candidates": day.candidates,
                "recall": recall_json(&day.model),
                "popularity": recall_json(&day.popularity),
            })
        };
        let mean = |of| -> Value {
            let means = KS.iter().zip(self.mean(of));
            Value::Object(
                means.map(|(k, mean)| (k.to_string(), number(mean))).collect::<Map<_, _>>(),
            )
        };
        json!({
            "topic": self.topic,
            "days": self.days.iter().map(day).collect::<Vec<_>>(),
            "mean": {
                "recall": mean(|day| &day.model),
                "popularity": mean(|day| &day.popularity),
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
        println!("{topic}, {percent}% of each day held out; recall on those of the day after\n");
        println!("{:>32}model{:>30}popularity", "", "");
        let head = KS.map(|k| format!("{:>8}", format!("@{k}"))).concat();
        println!("date          trained     cases {head}   {head}");
        for day in self.days {
            let values = |recall: &Recall| KS.map(|k| recall.at(k));
            let row = row(values(&day.model), values(&day.popularity));
            println!("{} {:>10} {:>9} {row}", date(day.day), day.trained, day.model.cases());
        }
        let row = row(self.mean(|day| &day.model), self.mean(|day| &day.popularity));
        println!("{:<31} {row}", format!("mean of {} days", self.measured().count()));
        println!("\nexact search, {:.1} s", self.elapsed.as_secs_f64());
    }

    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let first = self.days.first().map_or(0, |day| day.day);
        let plots = DRAWN.map(|k| {
            let series = |name: &str, of: fn(&Day) -> &Recall| Series {
                name: name.to_owned(),
                #[expect(clippy::cast_precision_loss, reason = "a number of days")]
                points: self
                    .measured()
                    .map(|day| ((day.day - first + 1) as f64, of(day).at(k)))
                    .collect(),
                ..Series::default()
            };
            Plot {
                title: format!("recall@{k}"),
                x: format!("days trained, from {}", date(first)),
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
