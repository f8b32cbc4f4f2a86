//! `millrace evaluate`: what a held-out event is ranked among.

use std::io::Write;

use crate::support::{Bench, json};

/// Items of the world below; the first is the most popular.
const ITEMS: usize = 13;

/// Training: item `k` comes from `2 (ITEMS - k)` users, and one more time, the first item, from
/// `me`. Held out: `me` takes all other items, the most popular first. Returns where that begins.
fn produce(bench: &Bench) -> usize {
    let mut takes = vec![("me".to_owned(), 0)];
    for item in 0..ITEMS {
        takes.extend((0..2 * (ITEMS - item)).map(|user| (format!("u{user}"), item)));
    }
    let trained = takes.len();
    takes.extend((1..ITEMS).map(|item| ("me".to_owned(), item)));
    let path = bench.directory.path().join("takes.jsonl");
    let mut file = std::fs::File::create(&path).expect("a file");
    for (time, (user, item)) in takes.iter().enumerate() {
        let rest = format!(r#""item":"i{item}","category":"c","time_ms":{time}"#);
        writeln!(file, r#"{{"user":"{user}",{rest}}}"#).expect("written");
    }
    assert_eq!(bench.produce(&path)["lines"], takes.len());
    trained
}

/// Popularity ranks item `k` at `k + 1`, and at `k` without what `me` had in training. A held-out
/// event that left its item out for the next batch would lift all of them into the best ten.
#[test]
fn only_what_was_had_in_training_is_left_out() {
    let bench = Bench::new("demo.toml", 1);
    let from = format!("offset:{}", produce(&bench));
    let recall_at_10 = |more: &[&str]| {
        let mut command = bench.command("evaluate", "none", &["batch.size=4"]);
        let run = json(command.args(["--from", &from]).args(more));
        assert_eq!(run["cases"], ITEMS - 1);
        run["popularity"]["10"].as_f64().expect("a number")
    };
    let near = |found: f64, hits: f64| (found - hits / (ITEMS - 1) as f64).abs() < 1e-9;
    let (all, unseen) = (recall_at_10(&[]), recall_at_10(&["--exclude-seen"]));
    assert!(near(all, 9.0), "{all}");
    assert!(near(unseen, 10.0), "{unseen}");
}
