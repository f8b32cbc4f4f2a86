//! A trainer without work says what it waits for.

use crate::support::{Bench, Running, inspect};

#[test]
fn a_trainer_on_an_empty_topic_says_every_minute_what_it_waits_for() {
    let bench = Bench::new("demo.toml", 2);
    let mut run = Running::start(&mut bench.command("train", "quiet", &[]));
    let line = run.wait_for("no batch for");
    println!("{line}");
    for part in [format!("new records: `{}` is read to its end", bench.topic), "lag".to_owned()] {
        assert!(line.contains(&part), "no {part} in {line}");
    }
    run.signal("-TERM");
    assert!(run.wait().1.success());
    // Checkpoint 0 holds where reading began, and nothing that was learned.
    let state = inspect(&bench.checkpoints("quiet"));
    assert_eq!((&state["step"], &state["events_trained"]), (&0.into(), &0.into()), "{state}");
}
