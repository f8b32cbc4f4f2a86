//! What README and docs say of the commands, held against clap itself.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::Cli;

/// Set, `the_reference_of_commands_is_their_help` writes the page instead of comparing it.
const WRITE: &str = "MILLRACE_WRITE_REFERENCE";

/// Above it docs/reference/cli.md is written by hand.
const GENERATED: &str = "<!-- From here on: --help of each command. A test holds it; with \
    MILLRACE_WRITE_REFERENCE=1 the test writes it. -->\n";

/// A command as a page has it.
#[derive(Debug, PartialEq)]
struct Quoted {
    line: usize,
    /// From a block to paste, so it must be whole. A sentence may leave required arguments out.
    whole: bool,
    /// The words behind `millrace`.
    words: Vec<String>,
}

/// The commands of a page: in blocks of shell and in back-quotes.
fn quoted(page: &str) -> Vec<Quoted> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    let mut block = String::new();
    let mut sentence = (1, String::new());
    for (number, text) in (1..).zip(page.lines()) {
        if let Some(language) = text.trim_start().strip_prefix("```") {
            spans(&mut sentence, number, &mut found);
            fence = if fence.is_some() { None } else { Some(language) };
            block.clear();
        } else if let Some(language) = fence {
            // A block without a language may be anything; a prompt says that it is a shell's.
            let text = text.trim_start();
            let command = text.strip_prefix("$ ");
            let shell = ["sh", "bash", "console"].contains(&language);
            if !(shell && language != "console" || command.is_some() || !block.is_empty()) {
                continue;
            }
            block += command.unwrap_or(text);
            if block.ends_with('\\') {
                block.pop();
                continue;
            }
            for words in commands(&block) {
                found.push(Quoted { line: number, whole: true, words });
            }
            block.clear();
        } else if text.is_empty() {
            spans(&mut sentence, number, &mut found);
        } else {
            // A line of a table ends its sentence.
            let row = text.starts_with('|');
            if row {
                spans(&mut sentence, number - 1, &mut found);
            }
            sentence.1 += text;
            sentence.1.push(' ');
            if row {
                spans(&mut sentence, number, &mut found);
            }
        }
    }
    spans(&mut sentence, 0, &mut found);
    found
}

/// Takes the commands between back-quotes out of a paragraph; the next one begins behind `line`.
fn spans(paragraph: &mut (usize, String), line: usize, found: &mut Vec<Quoted>) {
    for span in paragraph.1.split('`').skip(1).step_by(2) {
        for words in commands(span) {
            found.push(Quoted { line: paragraph.0, whole: false, words });
        }
    }
    *paragraph = (line + 1, String::new());
}

/// The arguments of each `millrace` in a line of shell.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut before = String::new();
    let mut inside = false;
    for word in words(line) {
        if word.starts_with('#') {
            break;
        }
        if inside && word.starts_with(['|', '&', ';', '>', '<', '(', ')']) {
            inside = false;
        } else if inside {
            found.last_mut().expect("a command was begun").push(word.clone());
        } else if word == "millrace" && !before.starts_with('-') || word.ends_with("/millrace") {
            inside = true;
            found.push(Vec::new());
        } else if word == "--" && line.trim_start().starts_with("cargo run") {
            inside = !line.contains("--example");
            if inside {
                found.push(Vec::new());
            }
        }
        before = word;
    }
    found.retain(|words| !words.is_empty());
    found
}

/// Words of a shell's line, quotes taken off.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Why a command of a page is wrong, if it is.
fn fault(quoted: &Quoted) -> Option<String> {
    let words = ["millrace"].into_iter().chain(quoted.words.iter().map(String::as_str));
    let error = Cli::try_parse_from(words).err()?;
    let whole = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument => !quoted.whole,
        _ => false,
    };
    let line = format!("line {}: millrace {}\n{error}", quoted.line, quoted.words.join(" "));
    (!whole).then_some(line)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Pages under `folder` and under its folders.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of pages") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_command_of_readme_and_docs_parses() {
    let mut paths = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|p| root().join(p)).into();
    pages(&root().join("docs"), &mut paths);
    let mut count = 0;
    let mut faults = Vec::new();
    for path in paths {
        let page = fs::read_to_string(&path).expect("a readable page");
        let found = quoted(&page);
        count += found.len();
        let wrong = found.iter().filter_map(fault);
        faults.extend(wrong.map(|fault| format!("{}, {fault}", path.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 30, "only {count} commands were found");
}

#[test]
fn every_command_of_help_and_of_the_stack_parses() {
    let mut faults = Vec::new();
    let mut count = 0;
    let help = help_pages();
    let stack = fs::read_to_string(root().join("docker-compose.yml")).expect("the stack");
    // Its long command is one text over lines.
    let stack = stack.replace("\n        | millrace", " | millrace");
    for (number, line) in (1..).zip(help.lines().chain(stack.lines())) {
        let command = line.trim_start();
        if !command.starts_with("millrace ") {
            continue;
        }
        for words in commands(command) {
            count += 1;
            faults.extend(fault(&Quoted { line: number, whole: true, words }));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count >= 5, "only {count} commands were found");
}

#[test]
fn planted_commands_are_found_wherever_they_are() {
    let page = "\
        Run `millrace train`, not `millrace\nfly`.\n\n\
        ```sh\nmillrace check --config my.toml   # `millrace fly`\n\
        cat a | target/release/millrace produce --config my.toml --keys id - > b\n\
        cargo run --release -- demo --wings\n\
        millrace evaluate \\\n    --config my.toml --cut 2\n```\n\n\
        | `millrace train --wings` | a row |\n\n\
        ```text\nmillrace fly\n$ millrace train\n```\n";
    let found = quoted(page);
    let line = |quoted: &Quoted| (quoted.line, quoted.words.join(" "));
    let all = found.iter().map(line).collect::<Vec<_>>();
    assert_eq!(
        all.iter().map(|(line, words)| (*line, words.as_str())).collect::<Vec<_>>(),
        [
            (1, "train"),
            (1, "fly"),
            (5, "check --config my.toml"),
            (6, "produce --config my.toml --keys id -"),
            (7, "demo --wings"),
            (9, "evaluate --config my.toml --cut 2"),
            (12, "train --wings"),
            (16, "train"),
        ]
    );
    let wrong: Vec<usize> =
        found.iter().filter(|quoted| fault(quoted).is_some()).map(|quoted| quoted.line).collect();
    assert_eq!(wrong, [1, 6, 7, 12, 16], "`train` in a block needs its config");
}

/// `--help` of the program and of every command, as a page.
fn help_pages() -> String {
    // Without a terminal clap wraps at this width.
    let mut program = Cli::command().term_width(98).disable_help_subcommand(true);
    program.build();
    let mut page = String::new();
    for command in program.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        page += &format!("\n## `millrace {name}`\n\n```text\n{}\n```\n", lines.join("\n"));
    }
    page
}

#[test]
fn the_reference_of_commands_is_their_help() {
    let path = root().join("docs/reference/cli.md");
    let page = fs::read_to_string(&path).expect("the reference of commands");
    let (overview, generated) = page.split_once(GENERATED).expect("the line above what is written");
    let listed = |name: &str| overview.contains(&format!("| `{name}"));
    let forgotten: Vec<String> = (Cli::command().get_subcommands())
        .map(|command| command.get_name().to_owned())
        .filter(|name| !listed(name))
        .collect();
    assert!(forgotten.is_empty(), "the overview lacks {forgotten:?}");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{overview}{GENERATED}{}", help_pages())).expect("written");
    } else {
        assert!(generated == help_pages(), "docs/reference/cli.md is old; set {WRITE}=1");
    }
}
