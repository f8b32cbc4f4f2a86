//! Is the house in order? Rules of structure and form, each shown to fail on a planted offence.
//!
//! Standard library only, and text only: it reads the sources as a person does, in milliseconds.
//! The table of [`ROOMS`] is the architecture; `docs/ARCHITECTURE.md` prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A room, the rooms it may import, and the words that its code never holds.
struct Room {
    name: &'static str,
    imports: &'static [&'static str],
    never: &'static [&'static str],
}

/// What crates of pure computation never name: brokers, sockets, arguments, files, clocks, logs.
const OUTSIDE: &[&str] =
    &["rdkafka", "tokio", "axum", "clap", "std::fs", "std::time", "tracing", "prometheus"];

/// From the ground up; a room imports what stands above it in this table, never what stands below.
const ROOMS: [Room; 19] = [
    Room {
        name: "events",
        imports: &[],
        never: &["rdkafka", "tokio", "burn", "std::fs", "std::time", "tracing", "prometheus"],
    },
    Room { name: "train", imports: &[], never: OUTSIDE },
    Room { name: "retrieval", imports: &[], never: OUTSIDE },
    Room {
        name: "config",
        imports: &["train"],
        never: &["rdkafka", "tokio", "burn", "prometheus"],
    },
    Room { name: "progress", imports: &[], never: &["rdkafka", "tokio", "burn"] },
    Room { name: "allocator", imports: &[], never: &["rdkafka", "tokio", "burn"] },
    Room { name: "priority", imports: &[], never: &["rdkafka", "tokio", "burn", "std::fs"] },
    Room { name: "plot", imports: &[], never: &["rdkafka", "tokio", "burn", "std::fs"] },
    Room { name: "synthetic", imports: &[], never: &["rdkafka", "tokio", "burn", "std::fs"] },
    Room { name: "telemetry", imports: &[], never: &["rdkafka", "burn", "std::fs"] },
    Room { name: "stream", imports: &["config"], never: &["burn", "prometheus", "axum", "clap"] },
    Room {
        name: "propose",
        imports: &["config", "stream"],
        never: &[
            "rdkafka",
            "tokio",
            "burn",
            "std::fs",
            "std::time",
            "tracing",
            "prometheus",
            "clap",
        ],
    },
    Room { name: "checkpoint", imports: &[], never: &["burn", "rdkafka", "tokio", "prometheus"] },
    Room {
        name: "sections",
        imports: &["checkpoint", "train"],
        never: &["burn", "rdkafka", "tokio", "std::fs", "std::time", "tracing", "prometheus"],
    },
    Room { name: "edge", imports: &["telemetry"], never: &["rdkafka", "burn"] },
    Room {
        name: "artifact",
        imports: &["checkpoint", "config", "sections", "stream", "train"],
        never: &["rdkafka", "tokio", "burn", "prometheus", "clap", "axum"],
    },
    Room {
        name: "publish",
        imports: &["artifact", "checkpoint", "config", "priority", "sections", "stream", "train"],
        never: &["tokio", "prometheus", "clap"],
    },
    Room {
        name: "pipeline",
        imports: &[
            "checkpoint",
            "config",
            "priority",
            "publish",
            "sections",
            "stream",
            "telemetry",
            "train",
        ],
        never: &["clap", "axum", "prometheus"],
    },
    Room {
        name: "serve",
        imports: &[
            "allocator",
            "checkpoint",
            "config",
            "priority",
            "sections",
            "stream",
            "telemetry",
            "train",
        ],
        never: &["rdkafka", "burn", "clap", "prometheus"],
    },
];

/// The top floor: it may import every room.
const TOP: [&str; 3] = ["commands", "main", "lib"];

/// A room of `train`, and the ones there that it may import.
type Inner = (&'static str, &'static [&'static str]);

/// The rooms of `train`, from the ground up.
const TRAIN_ROOMS: [Inner; 17] = [
    ("saved", &[]),
    ("capture", &[]),
    ("placement", &[]),
    ("portion", &[]),
    ("progress", &[]),
    ("kernel", &["saved"]),
    ("table", &["saved", "capture", "portion", "kernel"]),
    ("frequency", &["saved", "capture", "kernel"]),
    ("memory", &["saved", "capture", "kernel"]),
    ("model", &["saved", "placement", "portion", "kernel", "table", "memory"]),
    ("objective", &["saved", "placement", "kernel", "frequency", "memory"]),
    ("settings", &["frequency", "memory", "model", "objective"]),
    (
        "state",
        &[
            "saved",
            "placement",
            "progress",
            "frequency",
            "memory",
            "model",
            "objective",
            "settings",
        ],
    ),
    ("query_side", &["saved", "placement", "memory", "model", "settings"]),
    ("captured", &["capture", "progress", "table", "memory", "model", "state"]),
    ("evaluation", &["saved", "kernel", "frequency", "memory", "objective", "settings", "state"]),
    ("item_side", &["saved", "memory", "model", "settings", "evaluation"]),
];

/// The top floor of `train`: it may import every room there.
const TRAIN_TOP: [&str; 3] = ["trainer", "lib", "tests"];

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
const README_LINES_MAX: usize = 150;

/// A source file, and its code: without tests, comments and the contents of texts.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = if is_test(path) { String::new() } else { strip(untested(text)) };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The room it belongs to: a crate's name, else the first name under `src`.
    fn room(&self) -> &str {
        if let Some(inner) = self.path.strip_prefix("crates/") {
            return inner.split('/').next().unwrap_or(inner);
        }
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split(['/', '.']).next().unwrap_or(inner)
    }

    /// The room of `train` it belongs to, if it is there.
    fn train_room(&self) -> Option<&str> {
        self.path.strip_prefix("crates/train/src/")?.split(['/', '.']).next()
    }

    /// Its module's path within its crate: `["stream", "source", "lanes"]`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.split_once("src/").map_or(&*self.path, |(_, inner)| inner);
        let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        inner.split('/').filter(|name| *name != "lib").map(str::to_owned).collect()
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

/// The part before the file's own tests.
fn untested(text: &str) -> &str {
    let tests = text.match_indices("#[cfg(test)]\n").map(|(at, _)| at);
    let inline = |&at: &usize| text[at..].lines().nth(1).is_some_and(|line| line.contains(" {"));
    let module = |&at: &usize| text[at..].lines().nth(1).is_some_and(|line| line.contains("mod "));
    tests.filter(module).find(inline).map_or(text, |at| &text[..at])
}

/// Without comments, and with the texts between quotes emptied.
fn strip(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut quoted = false;
        let mut escaped = false;
        let mut before = ' ';
        for c in line.chars() {
            if !quoted && before == '/' && c == '/' {
                out.pop();
                break;
            }
            if c == '"' && !escaped && before != '\'' {
                quoted = !quoted;
            } else if quoted {
                escaped = c == '\\' && !escaped;
                before = c;
                continue;
            }
            escaped = false;
            out.push(c);
            before = c;
        }
        out.push('\n');
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `code` by itself.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let behind = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    })
}

/// Every path that begins with `crate::` or `super::`, as its segments; groups in braces one by
/// one.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| is_word(c) || c == ':') {
                expand(&code[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one path off the front of `text`; the rest of it.
fn expand<'t>(text: &'t str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'t str {
    let depth = prefix.len();
    let mut text = text.trim_start();
    loop {
        let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
        if end > 0 {
            prefix.push(text[..end].to_owned());
            text = &text[end..];
        }
        match text.strip_prefix("::") {
            Some(rest) if rest.starts_with('{') => {
                text = &rest[1..];
                while !text.trim_start().starts_with('}') && !text.is_empty() {
                    text = expand(text, prefix, found).trim_start();
                    text = text.strip_prefix(',').unwrap_or(text);
                    if text.starts_with(|c: char| !is_word(c) && c != '}' && !c.is_whitespace()) {
                        break;
                    }
                }
                text = text.trim_start().strip_prefix('}').unwrap_or(text);
                break;
            }
            Some(rest) if rest.starts_with(is_word) => text = rest,
            _ => {
                found.push(prefix.clone());
                break;
            }
        }
    }
    prefix.truncate(depth);
    text
}

/// Imports of a room that it may not import, and words that it must not know.
fn breaches(source: &Source) -> Vec<String> {
    let name = source.room();
    if TOP.contains(&name) {
        return Vec::new();
    }
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        return vec![format!("{}: no room `{name}` in the table", source.path)];
    };
    let mut breaches = Vec::new();
    for path in paths(&source.code).iter().filter(|path| path[0] == "crate") {
        let other = path.get(1).map_or("", String::as_str);
        let known = ROOMS.iter().any(|room| room.name == other) || TOP.contains(&other);
        if !source.path.starts_with("crates/")
            && known
            && other != name
            && !room.imports.contains(&other)
        {
            breaches.push(format!("{}: `{name}` may not import `{other}`", source.path));
        }
    }
    if names(&source.code, "millrace_train") && !room.imports.contains(&"train") {
        breaches.push(format!("{}: `{name}` may not import `train`", source.path));
    }
    breaches.extend(inner_breaches(source));
    for word in room.never.iter().filter(|word| names(&source.code, word)) {
        breaches.push(format!("{}: `{name}` never names `{word}`", source.path));
    }
    breaches
}

/// Imports between rooms of `train` that run back up.
fn inner_breaches(source: &Source) -> Vec<String> {
    let Some(name) = source.train_room().filter(|name| !TRAIN_TOP.contains(name)) else {
        return Vec::new();
    };
    let Some((_, imports)) = TRAIN_ROOMS.iter().find(|(room, _)| *room == name) else {
        return vec![format!("{}: no room `{name}` in the table of `train`", source.path)];
    };
    let others = paths(&source.code).into_iter().filter(|path| path[0] == "crate");
    let others = others.filter_map(|path| path.into_iter().nth(1));
    let rooms = |other: &String| TRAIN_ROOMS.iter().any(|(room, _)| room == other);
    others
        .filter(|other| rooms(other) && other != name && !imports.contains(&&**other))
        .map(|other| format!("{}: `train`'s `{name}` may not import `{other}`", source.path))
        .collect()
}

/// Pairs of files that import each other, parents and their children aside.
fn circles(sources: &[Source]) -> Vec<String> {
    ["src/", "crates/events/src/", "crates/retrieval/src/", "crates/train/src/"]
        .into_iter()
        .flat_map(|root| {
            let of_crate = sources.iter().filter(|source| source.path.starts_with(root));
            circles_of_crate(&of_crate.collect::<Vec<_>>())
        })
        .collect()
}

fn circles_of_crate(sources: &[&Source]) -> Vec<String> {
    let modules: BTreeMap<Vec<String>, &str> = (sources.iter())
        .filter(|source| !source.code.is_empty())
        .map(|source| (source.module(), source.path.as_str()))
        .collect();
    let mut arrows = BTreeSet::new();
    for source in sources {
        let own = source.module();
        for path in paths(&source.code) {
            let supers = path.iter().take_while(|name| *name == "super").count();
            let mut target = match supers {
                0 => Vec::new(),
                supers => own[..own.len().saturating_sub(supers)].to_vec(),
            };
            target.extend(path[supers.max(1)..].iter().cloned());
            while !target.is_empty() && !modules.contains_key(&target) {
                target.pop();
            }
            let related = own.starts_with(&target) || target.starts_with(&own);
            if !related {
                arrows.insert((source.path.clone(), modules[&target].to_owned()));
            }
        }
    }
    let mutual = arrows.iter().filter(|(a, b)| a < b && arrows.contains(&(b.clone(), a.clone())));
    mutual.map(|(a, b)| format!("{a} and {b} import each other")).collect()
}

/// Offences of form: no head, long lines, long functions, long files.
fn untidy(source: &Source) -> Vec<String> {
    let Source { path, text, .. } = source;
    let mut offences = Vec::new();
    let head = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !head.is_some_and(|line| line.starts_with("//!")) && !is_test(path) {
        offences.push(format!("{path}: does not begin with `//!`"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if line.chars().count() > COLUMNS_MAX {
            offences.push(format!("{path}:{number}: longer than {COLUMNS_MAX} columns"));
        }
    }
    let lines = untested(text).lines().count();
    if lines > FILE_LINES_MAX && !is_test(path) {
        offences.push(format!("{path}: {lines} lines without tests"));
    }
    for (name, lines) in functions(untested(text)) {
        if lines > FUNCTION_LINES_MAX {
            offences.push(format!("{path}: `{name}` has {lines} lines"));
        }
    }
    offences
}

/// Name and length of each function. rustfmt puts its end at its own indent.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = code.split("fn ").nth(1).filter(|_| {
            let modifiers = ["pub", "fn", "const", "async", "unsafe", "extern"];
            modifiers.iter().any(|word| code.starts_with(word))
        }) else {
            continue;
        };
        let indent = &line[..line.len() - code.len()];
        let end = lines[at..].iter().position(|line| *line == format!("{indent}}}"));
        let declared = lines[at..].iter().position(|line| line.ends_with(';'));
        if let Some(end) =
            end.filter(|end| declared.is_none_or(|declared| declared > 0 || end < &1))
        {
            let name = name.split(|c: char| !is_word(c)).next().unwrap_or(name);
            functions.push((name.to_owned(), end + 1));
        }
    }
    functions
}

/// Names of public types that stand for two things.
fn twins(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for line in source.code.lines() {
            for kind in ["pub struct ", "pub enum ", "pub trait "] {
                if let Some(rest) = line.strip_prefix(kind) {
                    let name = rest.split(|c: char| !is_word(c)).next().unwrap_or(rest);
                    places.entry(name).or_default().push(&source.path);
                }
            }
        }
    }
    let twins = places.iter().filter(|(_, places)| places.len() > 1);
    twins.map(|(name, places)| format!("`{name}` is a public type in {places:?}")).collect()
}

/// Public functions that nobody calls, tests and benches included.
fn dead(sources: &[Source], everything: &str) -> Vec<String> {
    let mut dead = Vec::new();
    for source in sources {
        for line in source.code.lines().map(str::trim_start) {
            let Some(rest) = line.strip_prefix("pub fn ") else { continue };
            let name = rest.split(|c: char| !is_word(c)).next().unwrap_or(rest);
            let uses = everything.match_indices(name).filter(|(at, _)| {
                let before = everything[..*at].chars().next_back();
                let behind = everything[at + name.len()..].chars().next();
                !before.is_some_and(is_word) && !behind.is_some_and(is_word)
            });
            if uses.count() < 2 {
                dead.push(format!("{}: nobody calls `{name}`", source.path));
            }
        }
    }
    dead
}

// --- The repository ----------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under `folder` with this extension, and their texts.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).expect("under the root").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("a readable file")));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let all = files("src", "rs").into_iter().chain(files("crates", "rs"));
    all.map(|(path, text)| Source::new(&path, &text)).collect()
}

#[track_caller]
fn none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n{}", offences.join("\n"));
}

#[test]
fn rooms_import_what_they_may() {
    let offences: Vec<String> = sources().iter().flat_map(breaches).collect();
    none("imports between rooms", &offences);
    for (at, room) in ROOMS.iter().enumerate() {
        let below = |name: &&&str| !ROOMS[..at].iter().any(|lower| lower.name == **name);
        assert!(room.imports.iter().find(below).is_none(), "`{}` imports upwards", room.name);
    }
    for (at, (name, imports)) in TRAIN_ROOMS.iter().enumerate() {
        let below = |other: &&&str| !TRAIN_ROOMS[..at].iter().any(|(lower, _)| lower == *other);
        assert!(imports.iter().find(below).is_none(), "`{name}` imports upwards");
    }
}

#[test]
fn no_two_files_import_each_other() {
    none("circles", &circles(&sources()));
}

#[test]
fn files_and_functions_are_short_and_begin_with_what_they_are() {
    let others = ["benches", "examples", "experiments", "tests"];
    let others = others.into_iter().flat_map(|at| files(at, "rs"));
    let others = others.map(|(path, text)| Source::new(&path, &text));
    let offences: Vec<String> =
        sources().into_iter().chain(others).flat_map(|source| untidy(&source)).collect();
    none("form", &offences);
}

#[test]
fn one_word_is_one_type_and_what_is_public_is_used() {
    let sources = sources();
    none("twins", &twins(&sources));
    let everything = ["src", "crates", "tests", "benches", "experiments", "examples"]
        .into_iter()
        .flat_map(|at| files(at, "rs"))
        .map(|(_, text)| text)
        .collect::<String>();
    none("dead names", &dead(&sources, &everything));
}

/// Whether its commands parse is for clap to say: src/commands/tests.rs.
#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn the_page_of_architecture_prints_the_table() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("there is a page");
    for room in &ROOMS {
        let imports = match room.imports {
            [] => "nothing".to_owned(),
            imports => imports.join(", "),
        };
        let row = format!("| `{}` | {imports} | {} |", room.name, room.never.join(", "));
        assert!(page.contains(&row), "docs/ARCHITECTURE.md lacks the row\n{row}");
    }
    for (name, imports) in &TRAIN_ROOMS {
        let imports = if imports.is_empty() { "nothing".to_owned() } else { imports.join(", ") };
        let row = format!("| `{name}` | {imports} |");
        assert!(page.contains(&row), "docs/ARCHITECTURE.md lacks the row\n{row}");
    }
}

/// Back-quoted source paths in a text that no file has.
fn unknown_paths(path: &str, text: &str, known: &[String]) -> Vec<String> {
    let mut unknown = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for span in line.split('`').skip(1).step_by(2).filter(|span| span.ends_with(".rs")) {
            if !known.iter().any(|file| file == span || file.ends_with(&format!("/{span}"))) {
                unknown.push(format!("{path}:{number}: no file `{span}`"));
            }
        }
    }
    unknown
}

#[test]
fn sources_that_docs_name_exist() {
    let known: Vec<String> = ["src", "crates", "tests", "benches", "experiments", "examples"]
        .into_iter()
        .flat_map(|at| files(at, "rs"))
        .map(|(path, _)| path)
        .collect();
    // What is dated stays as it was: decisions and benchmarks.
    let pages = files("docs", "md").into_iter().filter(|(path, _)| {
        !path.starts_with("docs/benchmarks/") && !path.starts_with("docs/decisions/")
    });
    let unknown: Vec<String> =
        pages.flat_map(|(path, text)| unknown_paths(&path, &text, &known)).collect();
    none("source files in docs", &unknown);
}

// --- Each rule fails on a planted offence --------------------------------------------------------

fn planted(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

#[test]
fn an_import_that_runs_back_up_is_found() {
    let source =
        planted("src/stream/a.rs", "//! A.\nuse crate::{config::Config, pipeline::Live};\n");
    assert_eq!(breaches(&source), ["src/stream/a.rs: `stream` may not import `pipeline`"]);
    let source = planted("src/checkpoint/a.rs", "use millrace_train::Trainer;\n");
    assert_eq!(breaches(&source), ["src/checkpoint/a.rs: `checkpoint` may not import `train`"]);
    let text = "use crate::{model::Model, trainer::Trainer};\n";
    let source = planted("crates/train/src/frequency/a.rs", text);
    let path = "crates/train/src/frequency/a.rs";
    assert_eq!(
        breaches(&source),
        [format!("{path}: `train`'s `frequency` may not import `model`")]
    );
    let text = "//! A.\nfn a() { std::time::Instant::now(); }\n";
    let source = planted("crates/train/src/trainer/a.rs", text);
    let path = "crates/train/src/trainer/a.rs";
    assert_eq!(breaches(&source), [format!("{path}: `train` never names `std::time`")]);
    // In a comment, a text or a test the same words are harmless.
    let text = "//! clap\nfn a() { b(\"burn\"); }\n#[cfg(test)]\nmod tests {\nuse clap::A;\n}\n";
    assert!(breaches(&planted("src/stream/a.rs", text)).is_empty());
    assert_eq!(breaches(&planted("src/attic/a.rs", "")).len(), 1);
}

#[test]
fn a_circle_is_found() {
    let a = planted("src/stream/a.rs", "use super::b::B;\n");
    let b = planted("src/stream/b.rs", "use crate::stream::a::{A, C};\n");
    assert_eq!(circles(&[a, b]), ["src/stream/a.rs and src/stream/b.rs import each other"]);
    let [a, b] = ["a", "b"].map(|name| format!("crates/train/src/table/{name}.rs"));
    let sources = [planted(&a, "use super::b::B;\n"), planted(&b, "use crate::table::a::A;\n")];
    assert_eq!(circles(&sources), [format!("{a} and {b} import each other")]);
}

#[test]
fn long_and_headless_files_are_found() {
    let body = "    work();\n".repeat(FUNCTION_LINES_MAX);
    let text = format!("fn long() {{\n{body}}}\n{}\n", "x".repeat(COLUMNS_MAX + 1));
    let offences = untidy(&planted("src/a.rs", &text));
    assert_eq!(offences.len(), 3, "{offences:?}");
    let text = format!("//! A.\n{}", "// x\n".repeat(FILE_LINES_MAX));
    assert_eq!(untidy(&planted("src/a.rs", &text)), ["src/a.rs: 401 lines without tests"]);
}

#[test]
fn twins_and_dead_names_are_found() {
    let text = "pub struct Rows;\npub fn unused() {}\n";
    let (a, b) = (planted("src/a.rs", text), planted("src/b.rs", "pub enum Rows {}\n"));
    assert_eq!(dead(std::slice::from_ref(&a), text), ["src/a.rs: nobody calls `unused`"]);
    assert_eq!(twins(&[a, b]).len(), 1);
}

#[test]
fn a_source_that_is_not_there_is_found() {
    let known = ["src/stream/merge.rs".to_owned()];
    let text = "`merge.rs`, `stream/merge.rs`\n`train/merge.rs`\n";
    assert_eq!(unknown_paths("a.md", text, &known), ["a.md:2: no file `train/merge.rs`"]);
}
