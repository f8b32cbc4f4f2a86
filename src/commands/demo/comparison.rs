//! What came out of the demo, as lines or as one object.

use serde_json::json;

use super::CASES;
use super::answers::UserAnswer;
use crate::commands::output::say;
use crate::commands::report;

/// Both models beside what they are measured against.
pub(super) struct Comparison {
    pub(super) corrected: f64,
    pub(super) uncorrected: f64,
    pub(super) popularity: f64,
    pub(super) ceiling: f64,
    pub(super) items: usize,
    pub(super) events: u64,
    pub(super) seconds: f64,
    pub(super) published: u64,
    pub(super) read_back: u64,
    pub(super) seed: u64,
    pub(super) answers: Vec<UserAnswer>,
}

impl Comparison {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn events_per_s(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    pub(super) fn print_json(&self) {
        say!(
            "{}",
            json!({
                "recall_at_10": {
                    "corrected": report::number(self.corrected),
                    "uncorrected": report::number(self.uncorrected),
                    "popularity": report::number(self.popularity),
                    "ceiling": report::number(self.ceiling),
                },
                "events": self.events,
                "seconds": self.seconds,
                "events_per_s": self.events_per_s(),
                "published": self.published,
                "read_back": self.read_back,
                "items": self.items,
                "cases": CASES,
                "seed": self.seed,
                "answers": self.answers.iter().map(|answer| {
                    json!({
                        "user": answer.user,
                        "history": answer.history,
                        "items": answer.items,
                    })
                }).collect::<Vec<_>>(),
            })
        );
    }

    pub(super) fn print(&self) {
        say!("\nrecall@10 of {} items on {CASES} fresh events\n", self.items);
        let rows = [
            ("corrected", self.corrected, "trained with the sampling-bias correction"),
            ("uncorrected", self.uncorrected, "the same model without it"),
            ("popularity", self.popularity, "the items most frequent lately"),
            ("ceiling", self.ceiling, "the planted truth itself: nothing can do better"),
        ];
        for (name, recall, what) in rows {
            say!("  {name:<12} {recall:.4}   {what}");
        }
        say!(
            "\n{} events in {:.1} s: {:.0} events/s through each of two models side by side",
            self.events,
            self.seconds,
            self.events_per_s()
        );
        say!(
            "{} item embeddings published, {} read back from the output topic",
            self.published,
            self.read_back
        );
        say!("\nWhat the model answers over HTTP (`demo --serve` keeps it up)\n");
        for UserAnswer { user, history, items } in &self.answers {
            let last = history.iter().rev().take(3).map(String::as_str).collect::<Vec<_>>();
            say!("  {user:<5} best {}   after {}", items.join(", "), last.join(", "));
        }
    }
}
