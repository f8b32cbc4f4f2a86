//! The page and the JSON of what was measured.

use millrace::plot::{self, Marks, Plot, Series};
use millrace::train::evaluation::KS;
use millrace::train::evaluation::metrics::{Band, Interval, Quality, Sums};
use serde_json::{Map, Value, json};

use super::by_k;

/// All data sets.
#[derive(Default)]
pub(super) struct Page {
    pub(super) datasets: Vec<Measured>,
}

/// One data set.
pub(super) struct Measured {
    pub(super) name: String,
    what: &'static str,
    pub(super) cases: usize,
    pub(super) candidates: f64,
    rows: Vec<Row>,
}

/// One way of training and ranking.
pub(super) struct Row {
    name: &'static str,
    what: &'static str,
    quality: Quality,
    /// Of the best tens: share of the items that are shown, popularity over that of the targets.
    pub(super) shown: Option<(f64, f64)>,
    pub(super) days: Vec<Sums>,
}

/// What the tail's claim is about, by name.
const CLAIM: (&str, &str) = ("corrected", "plain");

impl Page {
    pub(super) fn add(&mut self, measured: Measured) {
        self.datasets.push(measured);
    }

    pub(super) fn html(&self) -> anyhow::Result<String> {
        let mut body = String::new();
        for measured in &self.datasets {
            body += &measured.html()?;
        }
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Millrace: does it learn?</title>\n<style>{STYLE}</style>\n\
             <h1>Does it learn?</h1>\n<p>Recall of the item that was chosen, by exact search. \
             Intervals \
             are 95%, from a bootstrap over queries. Bands hold a third of the traffic each, by \
             popularity of the item. Written by <code>scripts/experiment quality</code>.</p>\n\
             {body}</html>\n"
        ))
    }
}

const STYLE: &str = "\
    body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:1180px;margin:2rem auto;\
    padding:0 1rem}\
    h1,h2,h3{line-height:1.2}table{border-collapse:collapse;margin:1rem 0;font-size:14px}\
    th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #e5e5e5}\
    th{border-bottom:2px solid #999}td:first-child,th:first-child{text-align:left}\
    small{color:#777;display:block;white-space:nowrap}\
    td:first-child small{white-space:normal;max-width:17rem}\
    svg{max-width:100%;height:auto}.best{font-weight:600}";

impl Measured {
    pub(super) fn new(name: &str, what: &'static str) -> Self {
        Self { name: name.to_owned(), what, cases: 0, candidates: f64::NAN, rows: Vec::new() }
    }

    pub(super) fn row(
        &mut self,
        name: &'static str,
        what: &'static str,
        quality: Quality,
    ) -> &mut Row {
        let row = Row { name, what, quality, shown: None, days: Vec::new() };
        self.rows.push(row);
        self.rows.last_mut().expect("just pushed")
    }

    fn find(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// By how much the correction is above the plain softmax, in each band.
    fn claim(&self) -> Option<Vec<(Band, [Interval; KS.len()])>> {
        let (corrected, plain) = (self.find(CLAIM.0)?, self.find(CLAIM.1)?);
        let above = |band| (band, corrected.quality.recall_above(&plain.quality, &[band]));
        Some(Band::ALL.into_iter().map(above).collect())
    }

    pub(super) fn json(&self) -> Value {
        let mut result: Map<String, Value> =
            self.rows.iter().map(|row| (row.name.to_owned(), row.json())).collect();
        result.insert("cases".into(), json!(self.cases));
        if let Some(claim) = self.claim() {
            let bands = claim.into_iter().map(|(band, above)| {
                (band.name().to_owned(), by_k(above.map(|above| json!(triple(above)))))
            });
            result.insert("corrected_above_plain".into(), Value::Object(bands.collect()));
        }
        Value::Object(result)
    }

    /// The curves by day, for data sets that have days.
    pub(super) fn by_day(&self) -> anyhow::Result<Option<String>> {
        if self.rows.iter().all(|row| row.days.is_empty()) {
            return Ok(None);
        }
        let plot = |place: usize| {
            let series = |row: &Row| Series {
                name: row.name.replace('_', " "),
                points: (0..)
                    .zip(&row.days)
                    .map(|(day, sums)| (f64::from(day), sums.recall()[place]))
                    .collect(),
                band: Vec::new(),
            };
            Plot {
                title: format!("recall@{}", KS[place]),
                x: "day".into(),
                y: "recall".into(),
                marks: Marks::Lines,
                series: self.rows.iter().map(series).collect(),
            }
        };
        plot::svg(
            &format!("{}: each click before it is trained on", self.name),
            &[plot(0), plot(2)],
        )
        .map(Some)
    }

    fn html(&self) -> anyhow::Result<String> {
        let mut html =
            format!("<h2>{}</h2>\n<p>{}. {} cases.</p>\n", self.name, self.what, self.cases);
        if let Some(svg) = self.by_day()? {
            html += &svg;
        }
        html += &self.recall_table();
        html += &self.band_table();
        html += &self.claim_table();
        Ok(html)
    }

    fn recall_table(&self) -> String {
        let mut html = "<table><tr><th>mode".to_owned();
        for k in KS {
            html += &format!("<th>recall@{k}");
        }
        html += "<th>NDCG@10<th>MRR<th>shown<th>popularity bias</tr>\n";
        let best: [f64; KS.len()] = std::array::from_fn(|k| {
            let values = self.rows.iter().map(|row| row.quality.all.recall()[k]);
            values.fold(0.0, f64::max)
        });
        for row in &self.rows {
            html += &format!("<tr><td>{}<small>{}</small>", row.name, row.what);
            for (recall, best) in row.quality.recall(&Band::ALL).into_iter().zip(best) {
                let class = if recall.value >= best { " class=\"best\"" } else { "" };
                let Interval { value, low, high } = recall;
                html += &format!("<td{class}>{value:.4}<small>{low:.4} to {high:.4}</small>");
            }
            let all = &row.quality.all;
            html += &format!("<td>{:.4}<td>{:.4}", all.ndcg()[0], all.mrr());
            match row.shown {
                Some((coverage, bias)) => {
                    html += &format!("<td>{:.0}%<td>{bias:.2}</tr>\n", 100.0 * coverage);
                }
                None => html += "<td><td></tr>\n",
            }
        }
        html + "</table>\n"
    }

    fn band_table(&self) -> String {
        let mut html =
            "<h3>By popularity of the item: recall@10 / recall@100</h3>\n<table><tr><th>mode"
                .to_owned();
        let first = self.rows.first().map(|row| &row.quality);
        for band in Band::ALL {
            let cases = first.map_or(0, |quality| quality.bands[band as usize].cases());
            html += &format!("<th>{} ({cases} cases)", band.name());
        }
        let cold = first.map_or(0, |quality| quality.cold.cases());
        html += &format!("<th>cold ({cold} cases)</tr>\n");
        for row in &self.rows {
            html += &format!("<tr><td>{}", row.name);
            for sums in row.quality.bands.iter().chain([&row.quality.cold]) {
                let [at_10, _, at_100, _] = sums.recall();
                html += &format!("<td>{at_10:.4} / {at_100:.4}");
            }
            html += "</tr>\n";
        }
        html + "</table>\n"
    }

    fn claim_table(&self) -> String {
        let Some(claim) = self.claim() else { return String::new() };
        let (ours, theirs) = CLAIM;
        let mut html = format!(
            "<h3>Does the correction help the tail? Recall of {ours} minus that of {theirs}, the \
             same \
             queries drawn for both</h3>\n<table><tr><th>items"
        );
        for k in KS {
            html += &format!("<th>@{k}");
        }
        html += "</tr>\n";
        for (band, above) in claim {
            html += &format!("<tr><td>{}", band.name());
            for Interval { value, low, high } in above {
                html += &format!("<td>{value:+.4}<small>{low:+.4} to {high:+.4}</small>");
            }
            html += "</tr>\n";
        }
        html + "</table>\n"
    }
}

impl Row {
    fn json(&self) -> Value {
        let of = |sums: &Sums| {
            let recall = by_k(sums.recall());
            json!({ "cases": sums.cases(), "recall": recall, "mrr": sums.mrr() })
        };
        let bands = Band::ALL.iter().zip(&self.quality.bands);
        let bands: Map<String, Value> =
            bands.map(|(band, sums)| (band.name().to_owned(), of(sums))).collect();
        let intervals = self.quality.recall(&Band::ALL);
        let mut result = json!({
            "recall": by_k(self.quality.all.recall()),
            "recall_95": by_k(intervals.map(|recall| json!([recall.low, recall.high]))),
            "ndcg": by_k(self.quality.all.ndcg()),
            "mrr": self.quality.all.mrr(),
            "bands": bands,
            "cold": of(&self.quality.cold),
        });
        if let Some((coverage, bias)) = self.shown {
            result["coverage@10"] = json!(coverage);
            result["popularity_bias@10"] = json!(bias);
        }
        if !self.days.is_empty() {
            result["days"] = self.days.iter().map(of).collect();
        }
        result
    }
}

/// Value and interval.
fn triple(interval: Interval) -> [f64; 3] {
    [interval.value, interval.low, interval.high]
}
