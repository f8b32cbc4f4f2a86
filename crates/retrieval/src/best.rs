//! The best so far, of scores that are known within bounds.

/// Candidates kept beyond those that are asked for before the hopeless ones go: sorting them out
/// costs a microsecond for so many.
const ROOM: usize = 1024;

/// A row that may be among the best.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its score is at least so much,
    lower: f32,
    /// and at most so much.
    upper: f32,
    position: u32,
}

/// Rows that may be among the best `k`.
pub(crate) struct Best {
    k: usize,
    /// `k` rows are at least so good.
    cut: f32,
    candidates: Vec<Candidate>,
    room: usize,
    /// Candidates kept at most; of those that nobody can tell apart some go then.
    most: usize,
}

impl Best {
    /// Of none yet. `k` is at least 1, and `most` at least `k`.
    pub(crate) fn new(k: usize, most: usize) -> Self {
        let room = ROOM + 2 * k;
        Self { k, cut: f32::NEG_INFINITY, candidates: Vec::with_capacity(room), room, most }
    }

    /// What is below it cannot be among the best.
    #[inline(always)]
    pub(crate) fn cut(&self) -> f32 {
        self.cut
    }

    /// Takes in a row whose score lies between `lower` and `upper`.
    #[inline]
    pub(crate) fn push(&mut self, lower: f32, upper: f32, position: u32) {
        if self.candidates.len() == self.room {
            self.sort_out();
            // Many that nobody can tell apart: sorting them out again and again would cost more
            // than to keep them.
            self.room = self.room.max(2 * self.candidates.len());
        }
        self.candidates.push(Candidate { lower, upper, position });
    }

    /// Lets go of those that cannot be among the best.
    #[inline(never)]
    fn sort_out(&mut self) {
        if self.candidates.len() > self.k {
            let falling = |a: &Candidate, b: &Candidate| b.lower.total_cmp(&a.lower);
            let (_, last, _) = self.candidates.select_nth_unstable_by(self.k - 1, falling);
            let sure = last.lower;
            self.cut = self.cut.max(sure);
            self.candidates.retain(|candidate| candidate.upper >= sure);
        }
        if self.candidates.len() > self.most {
            // The likeliest stay, of equals the first, and only what may be better comes in.
            let likely = |candidate: &Candidate| candidate.lower + candidate.upper;
            let (_, last, _) = self.candidates.select_nth_unstable_by(self.most - 1, |a, b| {
                likely(b).total_cmp(&likely(a)).then(a.position.cmp(&b.position))
            });
            self.cut = self.cut.max(last.upper.next_up());
            self.candidates.truncate(self.most);
        }
    }

    /// Positions of the rows that may be among the best, in no order: all of them, unless there are
    /// more than `most`.
    pub(crate) fn finish(mut self) -> impl ExactSizeIterator<Item = u32> {
        self.sort_out();
        self.candidates.into_iter().map(|candidate| candidate.position)
    }
}
