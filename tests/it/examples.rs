//! The programs of `examples/` do what they say.

use crate::support::{Bench, brokers, json};

#[expect(dead_code, reason = "it has a main of its own")]
#[path = "../../examples/embed_in_memory.rs"]
mod embed_in_memory;

#[expect(dead_code, reason = "it has a main of its own")]
#[path = "../../examples/read_versions.rs"]
mod read_versions;

#[test]
fn neighbours_in_memory_are_of_one_kind() {
    let neighbours = embed_in_memory::neighbours();
    assert_eq!(neighbours.len(), 12);
    let kinds = embed_in_memory::DRINKS;
    for (drink, nearest) in neighbours {
        let kind = kinds.iter().find(|kind| kind.contains(&&*drink)).expect("a known drink");
        let own = nearest.iter().all(|other| kind.contains(&&**other));
        assert!(own && nearest.len() == 3, "{drink} is near to {nearest:?}");
    }
}

#[test]
fn the_reader_of_versions_holds_what_was_published() {
    let bench = Bench::new("demo.toml", 2);
    bench.produce_synthetic(20_000, 51);
    let sets = ["checkpoint.every_steps=7", "publish.every_checkpoints=1"];
    let summary = json(bench.command("replay", "read", &sets).arg("--publish"));
    let topics = [format!("{}-out", bench.topic), format!("{}-versions", bench.topic)];
    let mut held = None;
    read_versions::follow(brokers(), topics.each_ref().map(String::as_str), |version| {
        let last = summary["version"] == *version.marker.version;
        if last {
            held = Some((version.marker.vectors, version.neighbours("i0", 5).len()));
        }
        !last
    })
    .expect("both topics are there");
    let published = summary["published"].as_u64().expect("a count") as usize;
    assert_eq!(held, Some((published, 5)));
}
