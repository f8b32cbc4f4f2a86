//! The outcome as a table, as JSON, and as a picture.

use millrace::plot::{Marks, Plot, Series, svg};
use millrace_train::evaluation::KS;
use serde_json::{Map, Value, json};

use super::cost::Costs;
use super::measure::Recalls;

/// Recall after events that were cut, and after the same events in full batches.
pub(super) type Outcome = (Recalls, Recalls);

/// Places of 10 and 100 in [`KS`].
const AT: [usize; 2] = [0, 2];

/// One way of cutting.
pub(super) struct Row {
    pub(super) name: String,
    /// Right after; for a night also after the morning's full batches.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) cost: Costs,
}

/// All that was measured, by data set.
pub(super) struct Results {
    seed: u64,
    datasets: Vec<(&'static str, usize, Vec<Row>)>,
}

impl Results {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, datasets: Vec::new() }
    }

    /// What follows is of `dataset`, of which the first `trained` events are trained.
    pub(super) fn begin(&mut self, dataset: &'static str, trained: usize) {
        println!("\n{dataset}: {trained} events trained in full batches, the next ones cut");
        println!(
            "cut      steps  recall@10    @100   of full batches   steps/s  events/s  CPU ms a \
             step   of a full one (clock)"
        );
        self.datasets.push((dataset, trained, Vec::new()));
    }

    /// Takes in a row, and prints it.
    pub(super) fn add(&mut self, row: Row) {
        for (number, outcome) in row.outcomes.iter().enumerate() {
            let (own, full) = outcome;
            let [(at_10, of_10), (at_100, of_100)] = AT.map(|k| (own[k], own[k] / full[k]));
            let quality = format!("{at_10:>9.4} {at_100:>7.4}   {of_10:>7.3} {of_100:>7.3}");
            if number > 0 {
                println!("{:<14}  {quality}   (after six full batches)", "");
                continue;
            }
            let Costs { cut, full } = &row.cost;
            let seconds = cut.wall.as_secs_f64();
            println!(
                "{:<6} {:>7}  {quality}  {:>8.1}  {:>8.1}  {:>13.2}  {:>6.2} ({:.2})",
                row.name,
                cut.steps,
                cut.steps as f64 / seconds,
                cut.events as f64 / seconds,
                cut.cpu_ms(),
                cut.cpu_ms() / full.cpu_ms(),
                cut.wall_ms() / full.wall_ms(),
            );
        }
        let (_, _, rows) = self.datasets.last_mut().expect("a data set has begun");
        rows.push(row);
    }

    pub(super) fn json(&self) -> Value {
        let mut all = json!({ "seed": self.seed });
        for (dataset, trained, rows) in &self.datasets {
            let mut of_cut: Map<String, Value> =
                rows.iter().map(|row| (row.name.clone(), row.json())).collect();
            of_cut.insert("trained".to_owned(), json!(trained));
            all[*dataset] = Value::Object(of_cut);
        }
        all
    }

    /// Against events a step: recall of that in full batches, and the processor's time a step of
    /// that of a full one.
    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let panel = |title: &str, y: &str, of: &dyn Fn(&Row) -> f64| {
            let series = |(dataset, _, rows): &(&'static str, usize, Vec<Row>)| {
                let point = |row: &Row| Some((row.name.parse::<f64>().ok()?.log2(), of(row)));
                let mut points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series { name: (*dataset).to_owned(), points, ..Series::default() }
            };
            Plot {
                title: title.to_owned(),
                x: "events a step, log2".to_owned(),
                y: y.to_owned(),
                marks: Marks::Lines,
                series: self.datasets.iter().map(series).collect(),
            }
        };
        let recall = |k: usize| move |row: &Row| row.outcomes[0].0[k] / row.outcomes[0].1[k];
        let cpu = |row: &Row| row.cost.cut.cpu_ms() / row.cost.full.cpu_ms();
        let share = "share of full batches";
        svg(
            "The same events, cut into batches of many sizes",
            &[
                panel("recall@10 on what follows", share, &recall(AT[0])),
                panel("recall@100 on what follows", share, &recall(AT[1])),
                panel("processor time a step", share, &cpu),
            ],
        )
    }
}

impl Row {
    fn json(&self) -> Value {
        let by_k = |values: Recalls| -> Value {
            KS.iter().zip(values).map(|(k, value)| (k.to_string(), json!(value))).collect()
        };
        let of = |(own, full): &Outcome| {
            let ratio = std::array::from_fn(|k| own[k] / full[k]);
            json!({ "recall": by_k(*own), "full": by_k(*full), "ratio": by_k(ratio) })
        };
        let Costs { cut, full } = &self.cost;
        let mut row = of(&self.outcomes[0]);
        if let Some(later) = self.outcomes.get(1) {
            row["later"] = of(later);
        }
        let seconds = cut.wall.as_secs_f64();
        row["steps"] = json!(cut.steps);
        row["events"] = json!(cut.events);
        row["seconds"] = json!(seconds);
        row["cpu_s"] = json!(cut.cpu.as_secs_f64());
        row["steps_per_s"] = json!(cut.steps as f64 / seconds);
        row["events_per_s"] = json!(cut.events as f64 / seconds);
        row["cpu_ms_a_step"] = json!(cut.cpu_ms());
        row["full_cpu_ms_a_step"] = json!(full.cpu_ms());
        row["cpu_of_full_step"] = json!(cut.cpu_ms() / full.cpu_ms());
        row["seconds_of_full_step"] = json!(cut.wall_ms() / full.wall_ms());
        row
    }
}
