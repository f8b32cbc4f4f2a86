//! The trainer's end of the way to the disk: when a capture begins, how it goes on beside the
//! steps, and how it ends.
//!
//! One capture is on its way at a time. Its parts go to the checkpoint thread as they are copied,
//! a few at once, so that neither memory nor a step pays for the size of the state. What has
//! changed counts as changed until the thread says that the checkpoint is durable.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};

use super::durable::{Lineage, Message, Outcome, Snapshot, facts};
use super::metrics::Queue;
use super::stats::RunStats;
use super::{Broken, Site};
use crate::checkpoint::Chain;
use millrace_train::Progress;
use millrace_train::capture::Extent;
use millrace_train::trainer::Trainer;

/// Parts of a snapshot on their way to the disk. A part is a megabyte or so at 64 dimensions; two
/// steps' worth keep the disk busy while the trainer computes.
const PARTS_IN_FLIGHT: usize = 8;

/// Rows that change before their turn are kept until then: the price of training on. Past this the
/// disk is slower than the stream, and the trainer waits for it: a tenth of the memory of ten
/// million rows of 32 dimensions, in which they hardly ever are so many.
const KEPT_BYTES_MAX: usize = 128 << 20;

/// See the module's head.
pub(super) struct Captures<'a> {
    site: &'a Site,
    lineage: Lineage,
    snapshots: Sender<Snapshot>,
    outcomes: Receiver<Outcome>,
    /// The newest durable checkpoint and those it builds upon; none: the next one is whole.
    chain: Option<Chain>,
    stage: Stage,
    /// Of the newest capture, so that the outcome of one that was given up is not taken for it.
    number: u64,
    /// Step, place in the log and time of the newest capture.
    begun: (u64, u64, Instant),
    /// Failures in a row, and when to try again.
    failed: Option<(u32, Instant)>,
}

/// What a run begins with.
pub(super) struct RunState {
    /// The run that the state began with, and its log.
    pub(super) lineage: Lineage,
    pub(super) progress: Progress,
    /// The checkpoints that lead to it; none: it is on no disk.
    pub(super) chain: Option<Chain>,
}

/// How far the capture on its way has come.
enum Stage {
    None,
    /// Parts of it are still with the trainer.
    Copying(Sender<Message>),
    /// The checkpoint thread has all of it.
    Writing,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Taken,
    NoRoom,
    NobodyThere,
}

impl<'a> Captures<'a> {
    /// Captures of a state that begins here, and the ends of the checkpoint thread's channels.
    pub(super) fn new(
        site: &'a Site,
        (snapshots, outcomes): (Sender<Snapshot>, Receiver<Outcome>),
        RunState { lineage, progress, chain }: RunState,
    ) -> Self {
        let begun = (progress.step, progress.place(), Instant::now());
        let stage = Stage::None;
        Self { site, lineage, snapshots, outcomes, chain, stage, number: 0, begun, failed: None }
    }

    /// Goes on with the capture on its way, or begins one if it is due. Called after each step and
    /// while none comes.
    pub(super) fn turn(
        &mut self,
        trainer: &mut Trainer,
        stats: &mut RunStats,
    ) -> Result<(), Broken> {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.settle(trainer, outcome);
        }
        if stats.whole && matches!(self.stage, Stage::None) && self.is_due(trainer) {
            stats.count_state(self.site, trainer);
            self.begin(trainer);
        }
        if let Stage::Copying(parts) = &self.stage {
            let room = PARTS_IN_FLIGHT.saturating_sub(parts.len());
            self.hand_out(trainer, room, Duration::ZERO)?;
        }
        let waiting = match &self.stage {
            Stage::Copying(parts) => i64::try_from(parts.len()).unwrap_or(i64::MAX),
            Stage::None | Stage::Writing => 0,
        };
        self.site.metrics.queue(Queue::Snapshots).set(waiting);
        Ok(())
    }

    /// Whether there is something to copy: then a turn may come as soon as no batch waits.
    pub(super) fn is_copying(&self) -> bool {
        matches!(self.stage, Stage::Copying(_))
    }

    /// Waits for the disk if the copy on its way costs too much memory.
    pub(super) fn catch_up(&mut self, trainer: &mut Trainer) -> Result<(), Broken> {
        let kept = trainer.kept_bytes();
        if kept > KEPT_BYTES_MAX && self.is_copying() {
            tracing::warn!(kept, "training waits for the checkpoint directory's disk");
            self.hand_out_all(trainer)?;
        }
        Ok(())
    }

    /// The last capture, of the state as it is now, again and again until it is durable or the
    /// checkpoint thread gives up.
    pub(super) fn last(mut self, trainer: &mut Trainer) -> anyhow::Result<()> {
        if self.is_copying() {
            self.give_up(trainer);
        }
        // One that the thread has is nearly durable, and the next is an increment of it.
        self.hear(trainer)?;
        loop {
            self.begin(trainer);
            if self.hand_out_all(trainer).is_err() {
                tracing::error!("the last state is not finite and was not written");
                return Ok(());
            }
            self.hear(trainer)?;
            let Some((_, again)) = self.failed else { return Ok(()) };
            std::thread::sleep(again.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits until the thread has done what it has.
    fn hear(&mut self, trainer: &mut Trainer) -> anyhow::Result<()> {
        while matches!(self.stage, Stage::Writing) {
            let outcome = self.outcomes.recv();
            let outcome = outcome.map_err(|_| anyhow!("the checkpoint thread ended early"))?;
            self.settle(trainer, outcome);
        }
        Ok(())
    }

    fn is_due(&self, trainer: &Trainer) -> bool {
        if let Some((_, again)) = self.failed {
            return Instant::now() >= again;
        }
        let (cadence, (step, place, at)) = (&self.site.config.checkpoint, self.begun);
        let progress = trainer.progress();
        let stepped = progress.step - step;
        // Offsets alone count, too: of rejected records, and of markers, which retention may pass.
        let moved = progress.place() > place;
        let every = Duration::from_secs(cadence.every_s);
        let overdue = cadence.every_s > 0 && moved && at.elapsed() >= every;
        // What has only read catalogues has learned nothing: it is not worth a version.
        progress.events > 0 && (stepped >= cadence.every_steps || overdue)
    }

    fn begin(&mut self, trainer: &mut Trainer) {
        let (progress, change) = (trainer.progress().clone(), trainer.change());
        let base_every = self.site.config.checkpoint.base_every;
        let chain = self.chain.clone();
        let chain = chain
            .filter(|chain| chain.takes(progress.step, base_every, change.changed, change.whole));
        trainer.begin_capture(if chain.is_some() { Extent::Changed } else { Extent::Whole });
        self.begun = (progress.step, progress.place(), Instant::now());
        let (sender, parts) = bounded(PARTS_IN_FLIGHT);
        let facts = facts(&self.site.config, &self.lineage, progress);
        self.stage = Stage::Copying(sender);
        self.number += 1;
        let snapshot = Snapshot { number: self.number, facts, chain, parts };
        if self.snapshots.send(snapshot).is_err() {
            // The thread has ended, and has stopped the run.
            trainer.settle_capture(false);
            self.stage = Stage::Writing;
        }
    }

    /// Sends a step's share of the copy, at most `room` parts, and the end of it. Waits so long for
    /// the disk.
    fn hand_out(
        &mut self,
        trainer: &mut Trainer,
        room: usize,
        wait: Duration,
    ) -> Result<(), Broken> {
        let Stage::Copying(parts) = &self.stage else { return Ok(()) };
        let send = |message| match parts.send_timeout(message, wait) {
            Ok(()) => Sent::Taken,
            Err(SendTimeoutError::Timeout(_)) => Sent::NoRoom,
            Err(SendTimeoutError::Disconnected(_)) => Sent::NobodyThere,
        };
        let mut sent = Sent::Taken;
        for part in trainer.advance_capture(room) {
            if sent == Sent::Taken {
                sent = send(Message::Part(part));
            }
        }
        if !trainer.is_capturing() && sent == Sent::Taken {
            if !trainer.captured_finite() {
                self.site.metrics.checkpoint_failures_total.inc();
                self.give_up(trainer);
                return Err(Broken { step: trainer.progress().step });
            }
            // Without room for it the next turn sends it.
            sent = send(Message::Complete);
            if sent == Sent::Taken {
                self.stage = Stage::Writing;
            }
        }
        if sent == Sent::NobodyThere {
            // It could not be written: the thread says so next.
            trainer.settle_capture(false);
            self.stage = Stage::Writing;
        }
        Ok(())
    }

    /// Sends all of the copy, as fast as the disk takes it.
    fn hand_out_all(&mut self, trainer: &mut Trainer) -> Result<(), Broken> {
        while self.is_copying() {
            self.hand_out(trainer, 1, Duration::MAX)?;
        }
        Ok(())
    }

    /// Drops the capture on its way; the thread sees its channel end.
    fn give_up(&mut self, trainer: &mut Trainer) {
        trainer.settle_capture(false);
        self.stage = Stage::None;
    }

    fn settle(&mut self, trainer: &mut Trainer, Outcome { number, chain }: Outcome) {
        if number != self.number {
            return;
        }
        self.stage = Stage::None;
        trainer.settle_capture(chain.is_some());
        match chain {
            Some(_) => (self.chain, self.failed) = (chain, None),
            None => {
                let failures = self.failed.map_or(0, |(failures, _)| failures) + 1;
                let again = Instant::now() + Duration::from_secs(1 << failures.min(6));
                self.failed = Some((failures, again));
            }
        }
    }
}
