//! A verdict on a checkpoint's offsets: resume, resume with a loss, or stop.
//!
//! Must never know: the broker, or a checkpoint's files.

use anyhow::bail;
use millrace_events::Offsets;

use super::topic::Watermarks;
use crate::config::OnDataLoss;

/// The offsets at which a checkpoint resumes, in a log that may have moved since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The next offset to read of each partition.
    pub offsets: Offsets,
    /// The losses, one sentence for each partition; to be logged.
    pub warnings: Vec<String>,
}

/// Compares a checkpoint's offsets with what the log holds. Partitions that the checkpoint does
/// not know are new, and are read from their beginning: what retention took of them before is lost
/// as well. `silent` ones have no leader: nobody can say what they hold, and they are read on where
/// the checkpoint ends.
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
    let topic = stored.topic();
    let mut verdict = Verdict { offsets: Offsets::new(topic), warnings: Vec::new() };
    let gone: Vec<i32> = stored
        .iter()
        .map(|(partition, _)| partition)
        .filter(|partition| !watermarks.contains_key(partition) && !silent.contains(partition))
        .collect();
    if !gone.is_empty() {
        bail!(
            "topic `{topic}` has no partition {gone:?} any more, but the checkpoint has read from \
             it; the topic was probably deleted and created anew: point kafka.topic to the right \
             topic, or start over with `--fresh`"
        );
    }
    let mut lost = Vec::new();
    for (&partition, &(low, high)) in watermarks {
        let known = stored.next(partition);
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
        verdict.offsets.advance(partition, next.max(low));
    }
    if !lost.is_empty() && on_data_loss == OnDataLoss::Fail {
        bail!(
            "{}; set kafka.on_data_loss = \"earliest\" to go on without them, or restore the topic \
             (and give it a longer retention)",
            lost.join("; ")
        );
    }
    verdict.warnings = lost;
    for (partition, next) in stored.iter().filter(|(partition, _)| silent.contains(partition)) {
        verdict.offsets.advance(partition, next);
        verdict.warnings.push(format!(
            "partition {partition} of `{topic}` has no leader; it is read on at offset {next} when \
             it has one"
        ));
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(next: &[(i32, i64)]) -> Offsets {
        let mut offsets = Offsets::new("clicks");
        next.iter().for_each(|&(partition, next)| offsets.advance(partition, next));
        offsets
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
