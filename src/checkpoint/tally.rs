//! Sections as they come, a piece at a time: their lengths and checksums.
//!
//! Owns the sums. Must never know a file.

use xxhash_rust::xxh3::Xxh3;

use super::SectionEntry;
use super::manifest::hex;

/// See the module's head.
#[derive(Default)]
pub struct Tally {
    sections: Vec<SectionEntry>,
    open: Option<(String, Sum)>,
}

/// Length and checksum of some bytes.
#[derive(Default)]
pub(crate) struct Sum {
    length: u64,
    hasher: Box<Xxh3>,
}

impl Sum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// Length, and checksum in hex.
    pub(crate) fn finish(&self) -> (u64, String) {
        (self.length, hex(self.hasher.digest128()))
    }
}

impl Tally {
    /// Takes in the next bytes of what section `name` holds.
    pub fn add(&mut self, name: &str, content: &[u8]) {
        match &mut self.open {
            Some((open, sum)) if open == name => sum.add(content),
            _ => {
                self.close();
                let mut sum = Sum::default();
                sum.add(content);
                self.open = Some((name.to_owned(), sum));
            }
        }
    }

    /// Ends the section that is open, if any: its entry.
    pub(super) fn close(&mut self) -> Option<&mut SectionEntry> {
        let (name, sum) = self.open.take()?;
        let (length, checksum) = sum.finish();
        self.sections.push(SectionEntry {
            name,
            length,
            checksum,
            digested: true,
            increment: None,
        });
        self.sections.last_mut()
    }

    /// The section that is open.
    pub(super) fn name(&self) -> Option<&str> {
        self.open.as_ref().map(|(name, _)| name.as_str())
    }

    /// Whether a section of that name has come, or is open.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.name() == Some(name) || self.sections.iter().any(|section| section.name == name)
    }

    /// The entries of all sections, in the order in which they came.
    pub fn finish(mut self) -> Vec<SectionEntry> {
        self.close();
        self.sections
    }
}
