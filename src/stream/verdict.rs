//! A verdict on a checkpoint's offsets: resume, resume with a loss, or stop.
//!
//! Must never know: the broker, or a checkpoint's files.

use anyhow::bail;
use millrace_events::{Offsets, lane_place};

use super::topic::Watermarks;
use crate::config::OnDataLoss;

/// The offsets at which a checkpoint resumes, in a log that may have moved since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The next offset to read of each lane.
    pub offsets: Offsets,
    /// The losses, one sentence for each partition; to be logged.
    pub warnings: Vec<String>,
}

/// Whether offsets are of this log, or of what it was before it got its last topics.
pub fn is_of(stored: &Offsets, log: &Offsets) -> bool {
    log.topics().get(..stored.topics().len()) == Some(stored.topics())
}

/// A checkpoint's offsets as those of `log`, which may have got topics since: these are read from
/// their start, whatever retention has left of them.
///
/// # Errors
/// A log without the topics of the checkpoint, or with another one before them.
pub fn in_log(stored: &Offsets, log: &Offsets, watermarks: &Watermarks) -> anyhow::Result<Offsets> {
    if !is_of(stored, log) {
        bail!(
            "trained on topic `{}`, where the config names `{}`: give each log a \
             checkpoint.directory of its own. A topic that is new to a log stands behind the \
             others, as the last of [[interactions]]",
            stored.topics().join("`, `"),
            log.topics().join("`, `"),
        );
    }
    let known = stored.topics().len();
    let mut offsets = stored.clone();
    for topic in &log.topics()[known..] {
        tracing::info!("topic `{topic}` is new to the checkpoint, and is read from its start");
        offsets = offsets.and(topic.as_str());
    }
    for (&lane, &(first, _)) in watermarks.iter().filter(|(lane, _)| lane_place(**lane).0 >= known)
    {
        offsets.advance(lane, first);
    }
    Ok(offsets)
}

/// Compares a checkpoint's offsets with what the log holds, by lane. Partitions that the checkpoint
/// does not know are new, and are read from their beginning: what retention took of them before is
/// lost as well. `silent` ones have no leader: nobody can say what they hold, and they are read on
/// where the checkpoint ends.
///
/// # Errors
/// A message that says what to do, if the log no longer (or never) held an offset and
/// `on_data_loss` does not allow a loss, or if the topic is not the one it was.
pub fn judge(
    stored: &Offsets,
    watermarks: &Watermarks,
    silent: &[i32],
    on_data_loss: OnDataLoss,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict { offsets: stored.unread(), warnings: Vec::new() };
    refuse_gone(stored, |lane| watermarks.contains_key(&lane) || silent.contains(&lane))?;
    let mut lost = Vec::new();
    for (&lane, &(low, high)) in watermarks {
        let (topic, partition) = stored.place(lane);
        let known = stored.next(lane);
        let next = known.unwrap_or(0);
        if next > high {
            bail!(
                "the checkpoint has read partition {partition} of `{topic}` up to offset {next}, \
                 but the log ends at {high}; the topic was probably deleted and created anew: \
                 restore it, or start over with `--fresh`"
            );
        }
        if known.is_none() && low > 0 {
            lost.push(format!(
                "partition {partition} of `{topic}` is new to the checkpoint, but its log begins \
                 at {low}; {low} records are lost"
            ));
        } else if next < low {
            lost.push(format!(
                "partition {partition} of `{topic}`: the checkpoint reads on at offset {next}, but \
                 the log begins at {low}; {} records are lost",
                low - next
            ));
        }
        verdict.offsets.advance(lane, next.max(low));
    }
    if !lost.is_empty() && on_data_loss == OnDataLoss::Fail {
        bail!(
            "{}; set kafka.on_data_loss = \"earliest\" to go on without them, or restore the topic \
             (and give it a longer retention)",
            lost.join("; ")
        );
    }
    verdict.warnings = lost;
    for (lane, next) in stored.iter().filter(|(lane, _)| silent.contains(lane)) {
        let (topic, partition) = stored.place(lane);
        verdict.offsets.advance(lane, next);
        verdict.warnings.push(format!(
            "partition {partition} of `{topic}` has no leader; it is read on at offset {next} when \
             it has one"
        ));
    }
    Ok(verdict)
}

/// Refuses a log that lacks a lane of the checkpoint.
fn refuse_gone(stored: &Offsets, there: impl Fn(i32) -> bool) -> anyhow::Result<()> {
    let gone = stored.iter().map(|(lane, _)| lane).filter(|&lane| !there(lane));
    let gone: Vec<(&str, i32)> = gone.map(|lane| stored.place(lane)).collect();
    let Some((topic, _)) = gone.first() else { return Ok(()) };
    let partitions = gone.iter().filter(|(other, _)| other == topic).map(|(_, id)| *id);
    let partitions: Vec<i32> = partitions.collect();
    bail!(
        "topic `{topic}` has no partition {partitions:?} any more, but the checkpoint has read \
         from it; the topic was probably deleted and created anew: point the config to the right \
         topic, or start over with `--fresh`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::lane;

    fn stored(next: &[(i32, i64)]) -> Offsets {
        let mut offsets = Offsets::new("clicks");
        next.iter().for_each(|&(partition, next)| offsets.advance(partition, next));
        offsets
    }

    #[test]
    fn a_topic_that_came_to_a_log_is_read_from_its_start_and_none_may_go() {
        let bounds = Watermarks::from([(0, (2, 9)), (lane(1, 0), (3, 7))]);
        let in_log = |stored: &Offsets, topics: &[&str]| {
            let log =
                topics[1..].iter().fold(Offsets::new(topics[0]), |log, other| log.and(*other));
            let there = |lane: &i32| lane_place(*lane).0 < topics.len();
            let bounds = bounds.iter().filter(|(lane, _)| there(lane));
            super::in_log(stored, &log, &bounds.map(|(&lane, &at)| (lane, at)).collect())
        };
        let one = stored(&[(0, 5)]);
        assert_eq!(in_log(&one, &["clicks"]).expect("the same"), one);
        let mut two = one.clone().and("orders");
        two.advance(lane(1, 0), 3);
        let grown = in_log(&one, &["clicks", "orders"]).expect("one more");
        assert_eq!(grown, two, "whatever retention left");
        let verdict = judge(&grown, &bounds, &[], OnDataLoss::Fail).expect("nothing is lost");
        assert_eq!((verdict.offsets, verdict.warnings.len()), (grown, 0));
        two.advance(lane(1, 0), 6);
        assert_eq!(in_log(&two, &["clicks", "orders"]).expect("the same"), two);
        for topics in
            [&["orders", "clicks"][..], &["clicks"], &["clicks", "x"], &["x", "clicks", "orders"]]
        {
            let error = in_log(&two, topics).expect_err("another log").to_string();
            let said = ["topic `clicks`, `orders`", "[[interactions]]"];
            assert!(said.iter().all(|said| error.contains(said)), "{error}");
        }
        let lost = Watermarks::from([(0, (2, 9)), (lane(1, 0), (7, 7))]);
        let error = judge(&two, &lost, &[], OnDataLoss::Fail).expect_err("one is lost").to_string();
        assert!(error.contains("partition 0 of `orders`: the checkpoint reads on at"), "{error}");
    }

    #[test]
    fn stored_offsets_within_the_log_are_taken_and_new_partitions_begin_at_the_beginning() {
        let bounds = Watermarks::from([(0, (5, 50)), (1, (0, 7)), (2, (0, 9))]);
        let verdict =
            judge(&stored(&[(0, 50), (1, 0)]), &bounds, &[], OnDataLoss::Fail).expect("within");
        assert_eq!(verdict.offsets, stored(&[(0, 50), (1, 0), (2, 0)]));
        assert!(verdict.warnings.is_empty());
    }

    #[test]
    fn a_new_partition_that_lost_its_beginning_is_a_loss_like_any_other() {
        let bounds = Watermarks::from([(0, (0, 50)), (1, (3, 7))]);
        let error =
            judge(&stored(&[(0, 50)]), &bounds, &[], OnDataLoss::Fail).expect_err("3 are lost");
        let text = error.to_string();
        assert!(
            text.contains("partition 1 of `clicks` is new") && text.contains("3 rec"),
            "{text}"
        );
        let verdict =
            judge(&stored(&[(0, 50)]), &bounds, &[], OnDataLoss::Earliest).expect("allowed");
        assert_eq!(verdict.offsets, stored(&[(0, 50), (1, 3)]));
        assert_eq!(verdict.warnings.len(), 1);
    }

    #[test]
    fn lost_records_stop_the_run_unless_it_may_go_on() {
        let bounds = Watermarks::from([(0, (5, 50)), (1, (2, 7))]);
        let offsets = stored(&[(0, 3), (1, 7)]);
        let error = judge(&offsets, &bounds, &[], OnDataLoss::Fail).expect_err("2 are lost");
        let text = error.to_string();
        assert!(text.contains("partition 0 of `clicks`") && text.contains("2 records"), "{text}");
        assert!(text.contains("kafka.on_data_loss = \"earliest\""), "{text}");
        let verdict = judge(&offsets, &bounds, &[], OnDataLoss::Earliest).expect("allowed");
        assert_eq!(verdict.offsets, stored(&[(0, 5), (1, 7)]));
        assert_eq!(verdict.warnings.len(), 1);
    }

    #[test]
    fn another_topic_of_the_same_name_is_refused() {
        for policy in [OnDataLoss::Fail, OnDataLoss::Earliest] {
            let bounds = Watermarks::from([(0, (0, 10))]);
            let error = judge(&stored(&[(0, 11)]), &bounds, &[], policy).expect_err("beyond");
            assert!(error.to_string().contains("ends at 10"), "{error}");
            let error = judge(&stored(&[(0, 1), (1, 1)]), &bounds, &[], policy).expect_err("gone");
            assert!(error.to_string().contains("no partition [1]"), "{error}");
        }
    }

    #[test]
    fn a_partition_without_a_leader_is_read_on_where_it_was() {
        let bounds = Watermarks::from([(0, (0, 50))]);
        let offsets = stored(&[(0, 50), (1, 7)]);
        let verdict =
            judge(&offsets, &bounds, &[1, 2], OnDataLoss::Fail).expect("no loss is known");
        assert_eq!(verdict.offsets, offsets, "what the checkpoint does not know is found later");
        assert!(verdict.warnings[0].contains("partition 1 of `clicks` has no leader"));
    }
}
