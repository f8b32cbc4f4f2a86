//! What docs/reference/config.md says of the keys.

use std::collections::BTreeSet;
use std::path::Path;

use toml::{Table, Value};

use super::super::Config;
use super::super::load::RENAMED;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/config.md");
    std::fs::read_to_string(path).expect("the page of keys")
}

/// The part of a page under a heading.
fn under<'p>(page: &'p str, heading: &str) -> &'p str {
    let behind = page.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there");
    behind.split("\n## ").next().expect("split yields a part")
}

/// What is between back-quotes.
fn spans(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn trainer() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/trainer.toml");
    Config::load(Some(&path), &[]).expect("the annotated config is right")
}

/// Sections and keys at the top, by the names that the page has for them.
fn sections(config: &Config) -> BTreeSet<String> {
    let table: Table = config.to_toml().parse().expect("valid TOML");
    let name = |(key, value): (&String, &Value)| match (key.as_str(), value) {
        ("tables", _) => "[tables.NAME]".to_owned(),
        (key, Value::Table(_)) => format!("[{key}]"),
        (key, _) => key.to_owned(),
    };
    table.iter().map(name).collect()
}

#[test]
fn the_page_lists_every_section() {
    let page = page();
    let rows = under(&page, "Sections").lines().filter(|line| line.starts_with('|'));
    // The row of keys without a section names them in its second column.
    let cell = |row: &str| row.split('|').nth(if row.contains("(top)") { 2 } else { 1 }).map(spans);
    let listed: BTreeSet<String> = rows.filter_map(cell).flatten().collect();
    assert_eq!(listed, sections(&trainer()), "left: the page, right: the program");
}

#[test]
fn the_page_lists_every_renamed_key() {
    let page = page();
    let listed = spans(under(&page, "Renamed keys"));
    for (section, old, new) in RENAMED {
        for key in [old, new].map(|key| format!("{section}.{key}")) {
            assert!(listed.contains(&key), "docs/reference/config.md lacks `{key}`");
        }
    }
}

/// The config with another value at `path`, whatever value the key takes.
fn changed(config: &Config, path: &str) -> Option<Config> {
    let others = [
        Value::Boolean(true),
        Value::Boolean(false),
        Value::Integer(7),
        Value::Float(0.3),
        Value::String("gpu".into()),
        Value::String("latest".into()),
        Value::String("arrival".into()),
        Value::String("skip".into()),
        Value::String("s".into()),
        Value::String("plain".into()),
        Value::String("debezium".into()),
        Value::String("adam".into()),
        Value::String("bf16".into()),
        Value::Array(vec![Value::Integer(5)]),
        Value::Array(vec![Value::String("a key of enough bytes".into())]),
        Value::String("earliest".into()),
    ];
    let keys: Vec<&str> = path.split('.').collect();
    let table: Table = config.to_toml().parse().expect("valid TOML");
    let with = |other: Value| {
        let mut table = table.clone();
        let (last, outer) = keys.split_last()?;
        let mut inner = &mut table;
        for key in outer {
            inner = inner.get_mut(*key)?.as_table_mut()?;
        }
        inner.insert((*last).to_owned(), other);
        let config: Config = Value::Table(table).try_into().ok()?;
        Some(config)
    };
    others.into_iter().filter_map(with).find(|other| other != config)
}

#[test]
fn the_page_tells_which_keys_belong_to_the_state() {
    let page = page();
    let (yes, no) = under(&page, "Keys that belong to the state")
        .split_once("\n\n`seed`")
        .and_then(|(_, list)| list.split_once("but for"))
        .expect("a list with its exceptions");
    let (mut yes, no) = (spans(&format!("`seed`{yes}")), spans(no));
    yes.remove("[tables.NAME]"); // Its own test is `state_keys`: no table is in the file.
    let config = trainer();
    let mut paths = BTreeSet::new();
    super::paths(&config.to_toml().parse().expect("valid TOML"), "", &mut paths);
    let mut used = BTreeSet::new();
    for path in paths {
        let section = format!("[{}]", path.split('.').next().unwrap_or_default());
        let listed = [&path, &section].into_iter().find(|name| yes.contains(*name));
        used.extend(listed.cloned());
        let Some(other) = changed(&config, &path) else {
            // Features are a list of their own shape.
            assert!(path.ends_with(".features"), "no other value for `{path}` was found");
            continue;
        };
        let belongs = other.state_keys() != config.state_keys();
        let said = listed.is_some() && !no.contains(&path);
        assert_eq!(said, belongs, "`{path}`: left: the page, right: the program");
    }
    assert_eq!(used, yes, "the page lists keys that do not exist");
}
