//! A config as a person would write it: sections with a word on why each key has its value.

use std::fmt::Write as _;

use toml::Value;

/// Sections in their order.
#[derive(Debug, Default)]
pub(super) struct Document {
    head: Vec<String>,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    /// `kafka`, or `[query.features]` for one of an array.
    header: String,
    notes: Vec<String>,
    keys: Vec<(String, Value)>,
    /// Comments behind the keys.
    rest: Vec<String>,
}

impl Document {
    pub(super) fn new(head: &[&str]) -> Document {
        let head = head.iter().map(|line| (*line).to_owned()).collect();
        Document { head, sections: Vec::new() }
    }

    /// A section, with comments before it.
    pub(super) fn section(&mut self, header: &str, notes: &[String]) -> &mut Self {
        self.sections.push(Section {
            header: header.to_owned(),
            notes: notes.to_vec(),
            keys: Vec::new(),
            rest: Vec::new(),
        });
        self
    }

    /// A key of the newest section.
    pub(super) fn key(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let section = self.sections.last_mut().expect("a section was begun");
        section.keys.push((key.to_owned(), value.into()));
        self
    }

    /// A comment behind the newest section's keys.
    pub(super) fn rest(&mut self, line: String) -> &mut Self {
        self.sections.last_mut().expect("a section was begun").rest.push(line);
        self
    }

    /// A key's value, wherever it stands: `--set` has the last word.
    pub(super) fn set(&mut self, path: &[&str], value: &Value) {
        let Some((key, outer)) = path.split_last() else { return };
        let header = outer.join(".");
        let known = self.sections.iter().position(|section| section.header == header);
        let index = known.unwrap_or_else(|| {
            self.section(&header, &[]);
            self.sections.len() - 1
        });
        let keys = &mut self.sections[index].keys;
        match keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value.clone(),
            None => keys.push(((*key).to_owned(), value.clone())),
        }
    }

    pub(super) fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("a String takes any text");
        let comment = |text: &String| format!("# {text}");
        self.head.iter().map(comment).for_each(|text| line(&text));
        // Keys of no section come before the first one.
        let (top, sections): (Vec<_>, Vec<_>) =
            self.sections.iter().partition(|section| section.header.is_empty());
        for section in top.into_iter().chain(sections) {
            line("");
            section.notes.iter().map(comment).for_each(|text| line(&text));
            if !section.header.is_empty() {
                line(&format!("[{}]", section.header));
            }
            for (key, value) in &section.keys {
                line(&format!("{} = {value}", bare(key)));
            }
            section.rest.iter().map(comment).for_each(|text| line(&text));
        }
        text
    }
}

/// A key, in quotes if it needs them.
fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if key.chars().all(plain) { key.to_owned() } else { format!("{key:?}") }
}
