//! The page and the JSON of what was measured.

use millrace::plot::{self, Marks, Plot, Series};
use millrace_train::evaluation::KS;
use millrace_train::evaluation::held_out::HeldOut;
use millrace_train::evaluation::metrics::{Band, Interval, Quality, Sums};
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
    /// Items ranked, where their number stays the same.
    pub(super) candidates: Option<usize>,
    rows: Vec<Row>,
}

/// One way of training and ranking.
pub(super) struct Row {
    name: &'static str,
    what: &'static str,
    ranked: Ranked,
    /// The same without what a query had in training.
    pub(super) excluding_seen: Option<Ranked>,
    pub(super) days: Vec<Sums>,
}

/// What a ranking achieved.
pub(super) struct Ranked {
    pub(super) quality: Quality,
    /// Of the best tens: share of the items that are shown, popularity over that of the targets.
    shown: Option<(f64, f64)>,
}

/// The items that a ranking is among.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Among {
    All,
    /// Those that the query did not have in training.
    Unseen,
}

/// What the tail's claim is about, by name.
const CLAIM: (&str, &str) = ("corrected", "plain");

impl Ranked {
    pub(super) fn of(quality: Quality) -> Self {
        Self { quality, shown: None }
    }

    pub(super) fn of_model(held_out: &HeldOut) -> Self {
        let coverage = held_out.shown.coverage(held_out.candidates());
        let shown = Some((coverage, held_out.shown.popularity_bias()));
        Self { quality: held_out.model.clone(), shown }
    }
}

impl Among {
    const BOTH: [Self; 2] = [Self::All, Self::Unseen];

    /// What stands behind the keys in quality.json.
    fn suffix(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Unseen => "_excluding_seen",
        }
    }

    /// The heading of its tables.
    fn heading(self) -> &'static str {
        match self {
            Self::All => "Among all items",
            Self::Unseen => "Among the items that the query did not have in training",
        }
    }

    fn of(self, row: &Row) -> Option<&Ranked> {
        match self {
            Self::All => Some(&row.ranked),
            Self::Unseen => row.excluding_seen.as_ref(),
        }
    }
}

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
    h1,h2,h3,h4{line-height:1.2}table{border-collapse:collapse;margin:1rem 0;font-size:14px}\
    th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #e5e5e5}\
    th{border-bottom:2px solid #999}td:first-child,th:first-child{text-align:left}\
    small{color:#777;display:block;white-space:nowrap}\
    td:first-child small{white-space:normal;max-width:17rem}\
    svg{max-width:100%;height:auto}.best{font-weight:600}";

impl Measured {
    pub(super) fn new(name: &str, what: &'static str) -> Self {
        Self { name: name.to_owned(), what, cases: 0, candidates: None, rows: Vec::new() }
    }

    pub(super) fn row(
        &mut self,
        name: &'static str,
        what: &'static str,
        ranked: Ranked,
    ) -> &mut Row {
        let row = Row { name, what, ranked, excluding_seen: None, days: Vec::new() };
        self.rows.push(row);
        self.rows.last_mut().expect("just pushed")
    }

    fn find(&self, name: &str, among: Among) -> Option<&Quality> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        among.of(row).map(|ranked| &ranked.quality)
    }

    /// The rows that are ranked so.
    fn ranked(&self, among: Among) -> impl Iterator<Item = (&Row, &Ranked)> {
        self.rows.iter().filter_map(move |row| Some((row, among.of(row)?)))
    }

    /// By how much the correction is above the plain softmax, in each band.
    fn claim(&self, among: Among) -> Option<Vec<(Band, [Interval; KS.len()])>> {
        let (corrected, plain) = (self.find(CLAIM.0, among)?, self.find(CLAIM.1, among)?);
        let above = |band| (band, corrected.recall_above(plain, &[band]));
        Some(Band::ALL.into_iter().map(above).collect())
    }

    pub(super) fn json(&self) -> Value {
        let mut result: Map<String, Value> =
            self.rows.iter().map(|row| (row.name.to_owned(), row.json())).collect();
        result.insert("cases".into(), json!(self.cases));
        if let Some(candidates) = self.candidates {
            result.insert("candidates".into(), json!(candidates));
        }
        for among in Among::BOTH {
            let Some(claim) = self.claim(among) else { continue };
            let bands = claim.into_iter().map(|(band, above)| {
                (band.name().to_owned(), by_k(above.map(|above| json!(triple(above)))))
            });
            let key = format!("corrected_above_plain{}", among.suffix());
            result.insert(key, Value::Object(bands.collect()));
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
                series: self.rows.iter().filter(|row| !row.days.is_empty()).map(series).collect(),
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
        let two = self.ranked(Among::Unseen).next().is_some();
        for among in Among::BOTH.into_iter().filter(|&among| two || among == Among::All) {
            if two {
                html += &format!("<h3>{}</h3>\n", among.heading());
            }
            html += &self.recall_table(among);
            html += &self.band_table(among);
            html += &self.claim_table(among);
        }
        Ok(html)
    }

    fn recall_table(&self, among: Among) -> String {
        let mut html = "<table><tr><th>mode".to_owned();
        for k in KS {
            html += &format!("<th>recall@{k}");
        }
        html += "<th>NDCG@10<th>MRR<th>shown<th>popularity bias</tr>\n";
        let best: [f64; KS.len()] = std::array::from_fn(|k| {
            let values = self.ranked(among).map(|(_, ranked)| ranked.quality.all.recall()[k]);
            values.fold(0.0, f64::max)
        });
        for (row, ranked) in self.ranked(among) {
            html += &format!("<tr><td>{}<small>{}</small>", row.name, row.what);
            for (recall, best) in ranked.quality.recall(&Band::ALL).into_iter().zip(best) {
                let class = if recall.value >= best { " class=\"best\"" } else { "" };
                let Interval { value, low, high } = recall;
                html += &format!("<td{class}>{value:.4}<small>{low:.4} to {high:.4}</small>");
            }
            let all = &ranked.quality.all;
            html += &format!("<td>{:.4}<td>{:.4}", all.ndcg()[0], all.mrr());
            match ranked.shown {
                Some((coverage, bias)) => {
                    html += &format!("<td>{:.0}%<td>{bias:.2}</tr>\n", 100.0 * coverage);
                }
                None => html += "<td><td></tr>\n",
            }
        }
        html + "</table>\n"
    }

    fn band_table(&self, among: Among) -> String {
        let mut html =
            "<h4>By popularity of the item: recall@10 / recall@100</h4>\n<table><tr><th>mode"
                .to_owned();
        let first = self.ranked(among).next().map(|(_, ranked)| &ranked.quality);
        for band in Band::ALL {
            let cases = first.map_or(0, |quality| quality.bands[band as usize].cases());
            html += &format!("<th>{} ({cases} cases)", band.name());
        }
        let cold = first.map_or(0, |quality| quality.cold.cases());
        html += &format!("<th>cold ({cold} cases)</tr>\n");
        for (row, Ranked { quality, .. }) in self.ranked(among) {
            html += &format!("<tr><td>{}", row.name);
            for sums in quality.bands.iter().chain([&quality.cold]) {
                let [at_10, _, at_100, _] = sums.recall();
                html += &format!("<td>{at_10:.4} / {at_100:.4}");
            }
            html += "</tr>\n";
        }
        html + "</table>\n"
    }

    fn claim_table(&self, among: Among) -> String {
        let Some(claim) = self.claim(among) else { return String::new() };
        let (ours, theirs) = CLAIM;
        let mut html = format!(
            "<h4>Does the correction help the tail? Recall of {ours} minus that of {theirs}, the \
             same queries drawn for both</h4>\n<table><tr><th>items"
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
        let mut result = Map::new();
        for among in Among::BOTH {
            let Some(ranked) = among.of(self) else { continue };
            for (key, value) in ranked.json() {
                result.insert(format!("{key}{}", among.suffix()), value);
            }
        }
        if !self.days.is_empty() {
            result.insert("days".into(), self.days.iter().map(sums).collect());
        }
        Value::Object(result)
    }
}

impl Ranked {
    fn json(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let Quality { all, bands, cold, .. } = &self.quality;
        let bands = Band::ALL.iter().zip(bands);
        let bands: Map<String, Value> =
            bands.map(|(band, of)| (band.name().to_owned(), sums(of))).collect();
        let intervals = self.quality.recall(&Band::ALL);
        let mut result = vec![
            ("recall", by_k(all.recall())),
            ("recall_95", by_k(intervals.map(|recall| json!([recall.low, recall.high])))),
            ("ndcg", by_k(all.ndcg())),
            ("mrr", json!(all.mrr())),
            ("bands", Value::Object(bands)),
            ("cold", sums(cold)),
        ];
        if let Some((coverage, bias)) = self.shown {
            result.push(("coverage@10", json!(coverage)));
            result.push(("popularity_bias@10", json!(bias)));
        }
        result.into_iter()
    }
}

fn sums(sums: &Sums) -> Value {
    json!({ "cases": sums.cases(), "recall": by_k(sums.recall()), "mrr": sums.mrr() })
}

/// Value and interval.
fn triple(interval: Interval) -> [f64; 3] {
    [interval.value, interval.low, interval.high]
}
