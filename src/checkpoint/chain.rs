//! When a checkpoint may hold only what has changed, and on which ones it then builds.
//!
//! Owns the rule. Must never know a file.

use serde::{Deserialize, Serialize};

use super::{Manifest, SectionEntry};

/// A checkpoint that another one builds upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its step, which names its directory.
    pub step: u64,
    /// The checksum of its manifest: another checkpoint of the same step is not it.
    pub checksum: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// The checkpoints that the next one may build upon: a whole one, and the increments since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// The chain that ends with the checkpoint of `manifest`.
    pub fn of(manifest: &Manifest) -> Self {
        let own = Link {
            step: manifest.step,
            checksum: manifest.checksum.clone(),
            bytes: manifest.sections.iter().map(SectionEntry::stored).sum(),
        };
        let mut links = manifest.parents.clone();
        links.push(own);
        Self { links }
    }

    /// Whether an increment of `changed` bytes may follow at `step`, in a state of which all would
    /// be `whole` bytes: at most `base_every` checkpoints to a base, increments that weigh no more
    /// than it together, so that a chain is at most about two of them, and none that is longer than
    /// half of a whole one, since each makes the chain longer to read and easier to break.
    pub fn takes(&self, step: u64, base_every: u64, changed: u64, whole: u64) -> bool {
        let [base, increments @ ..] = &self.links[..] else { return false };
        let weight: u64 = increments.iter().map(|link| link.bytes).sum();
        let last = self.links.last().map_or(0, |link| link.step);
        step > last
            && (self.links.len() as u64) < base_every
            && weight.saturating_add(changed) <= base.bytes
            && changed <= whole / 2
    }

    /// The base first.
    pub fn links(&self) -> &[Link] {
        &self.links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(bytes: &[u64]) -> Chain {
        let link = |(step, &bytes)| Link { step, checksum: "c".into(), bytes };
        Chain { links: (10..).zip(bytes).map(link).collect() }
    }

    #[test]
    fn increments_weigh_no_more_than_their_base() {
        assert!(chain(&[1000]).takes(11, 16, 400, 1000));
        assert!(!chain(&[1000]).takes(10, 16, 1, 1000), "it would replace what it builds upon");
        assert!(!chain(&[1000]).takes(11, 16, 501, 1000), "hardly shorter than a whole one");
        assert!(chain(&[1000, 300, 300]).takes(20, 16, 400, 1000));
        assert!(!chain(&[1000, 300, 301]).takes(20, 16, 400, 1000));
        assert!(!chain(&[1000, 1, 1]).takes(20, 3, 1, 1000), "a base every third");
        assert!(!chain(&[1000]).takes(20, 1, 1, 1000), "all are bases");
    }
}
