//! What steps cost: by the clock, and by the processor, which other work on the machine does not
//! slow down.

use std::time::{Duration, Instant};

use millrace_events::Batch;
use millrace_train::trainer::Trainer;

/// Full steps of the reference a round: about as long as a hundred small ones.
pub(super) const FULL_STEPS: usize = 8;
/// Both sides take turns so often: what else the machine does hits both.
const ROUNDS: usize = 6;

/// A run of steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) steps: usize,
    pub(super) events: usize,
    pub(super) wall: Duration,
    /// Of all threads of this process.
    pub(super) cpu: Duration,
}

impl Cost {
    /// Trains `batches` and counts what it takes.
    fn add(&mut self, trainer: &mut Trainer, batches: &[Batch]) {
        let (began, cpu) = (Instant::now(), cpu_time());
        for batch in batches {
            trainer.step(batch);
        }
        self.wall += began.elapsed();
        self.cpu += cpu_time() - cpu;
        self.steps += batches.len();
        self.events += batches.iter().map(Batch::len).sum::<usize>();
    }

    /// Milliseconds of the clock a step.
    pub(super) fn wall_ms(&self) -> f64 {
        1e3 * self.wall.as_secs_f64() / self.steps as f64
    }

    /// Milliseconds of the processor a step.
    pub(super) fn cpu_ms(&self) -> f64 {
        1e3 * self.cpu.as_secs_f64() / self.steps as f64
    }
}

/// The cost of the steps that were cut, and of full ones beside them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    pub(super) cut: Cost,
    pub(super) full: Cost,
}

/// A trainer that repeats full batches.
pub(super) struct Reference {
    trainer: Trainer,
    batches: Vec<Batch>,
}

impl Reference {
    /// Repeats `batches` with `trainer`, which is warm then.
    pub(super) fn new(mut trainer: Trainer, batches: Vec<Batch>) -> Self {
        Cost::default().add(&mut trainer, &batches);
        Self { trainer, batches }
    }

    /// Trains `trainer` on `batches`, in turns with full steps of its own.
    pub(super) fn alternate(&mut self, trainer: &mut Trainer, batches: &[Batch]) -> Costs {
        let (mut cut, mut full) = (Cost::default(), Cost::default());
        for round in batches.chunks(batches.len().div_ceil(ROUNDS)) {
            cut.add(trainer, round);
            full.add(&mut self.trainer, &self.batches);
        }
        Costs { cut, full }
    }
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    // SAFETY: the kernel fills the struct, for which all zeros are a valid value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert!(
            libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) == 0,
            "one's own usage is known"
        );
        usage
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec.unsigned_abs())
            + Duration::from_micros(value.tv_usec.unsigned_abs())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
