//! `millrace synthesize`

use std::io::{self, BufWriter, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::session::stop_on_signal;
use crate::stream::calendar;
use crate::stream::position::Position;
use crate::synthetic::{World, WorldSettings};

/// Lines wait this long to be written together: a reader sees no pauses, and a high rate does not
/// cost a system call for each line.
const TICK: Duration = Duration::from_millis(5);
/// A wait for the next line looks this often whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Lines between two looks when many are due at once.
const LINES_MAX: u64 = 1000;
/// Events in which popularity swings once around: some five hours at 50 events a second.
const PERIOD: u64 = 1_000_000;

/// Arguments of `synthesize`.
#[derive(Args)]
#[command(after_help = "\
    Prints interactions of a world with planted tastes, skewed popularity and drift, one JSON \
    object a line, in the shape of config/synthetic.toml. Users, items and their order depend on \
    the seed alone, so two runs differ only in their times, and with --from-time in nothing.\n\n\
    The stream ends with --events, when the reader closes the pipe, or on SIGTERM and SIGINT; all \
    three are exit status 0.\n\n\
    Examples:\n  \
    millrace synthesize --rate 50 | millrace produce --config config/synthetic.toml -\n  \
    millrace synthesize --rate 0 --events 100000 --from-time 2026-11-01T00:00:00Z > past.jsonl")]
pub(super) struct SynthesizeArgs {
    /// Events a second, such as 50 or 0.5; 0: as fast as they can be written.
    #[arg(long, value_name = "N", value_parser = rate, allow_negative_numbers = true)]
    rate: f64,
    /// Seed of the world and of the stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after this many events; without it the stream has no end.
    #[arg(long)]
    events: Option<u64>,
    /// Leaves out this many events at the beginning: a run goes on where another one ended.
    #[arg(long, value_name = "EVENTS", default_value_t = 0)]
    skip: u64,
    /// Users of the world.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Items of the world.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    items: u32,
    /// Time of the first event, in ms since 1970 or as 2026-11-01T00:00:00Z; the others follow at
    /// the rate, or a millisecond apart with --rate 0. Default: the time of writing.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    from_time: Option<i64>,
}

/// The parser of `--rate`.
fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number, such as 50".to_owned())?;
    if (0.0..=1e6).contains(&rate) {
        return Ok(rate);
    }
    Err("expected at least 0 and at most 1000000; 0 is as fast as possible".to_owned())
}

/// The parser of `--from-time`.
fn time_ms(text: &str) -> Result<i64, String> {
    match format!("time:{text}").parse() {
        Ok(Position::TimeMs(ms)) if ms >= 0 => Ok(ms),
        _ => Err("expected ms since 1970 or a time such as 2026-11-01T00:00:00Z (UTC)".to_owned()),
    }
}

pub(super) fn run(args: &SynthesizeArgs) -> anyhow::Result<()> {
    let (stop, _edge) = stop_on_signal()?;
    match write(args, io::stdout().lock(), &stop) {
        // The reader has had enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Writes lines as they become due, until there are enough of them or `stop` says so.
fn write(args: &SynthesizeArgs, output: impl Write, stop: &AtomicBool) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    let mut lines = Lines::new(args, now_ms());
    let began = Instant::now();
    let end = args.events.unwrap_or(u64::MAX);
    while lines.written < end && !stop.load(Ordering::Relaxed) {
        let due = lines.schedule.due(began.elapsed()).min(end);
        if lines.written >= due {
            let next = lines.schedule.offset(lines.written).saturating_sub(began.elapsed());
            std::thread::sleep(next.clamp(TICK, LOOK));
            continue;
        }
        for _ in lines.written..due.min(lines.written + LINES_MAX) {
            let line = lines.next(now_ms);
            writeln!(output, "{line}")?;
        }
        output.flush()?;
    }
    Ok(())
}

fn now_ms() -> u64 {
    calendar::now_ms().unsigned_abs()
}

/// The stream: what it says, and when.
struct Lines {
    world: World,
    schedule: Schedule,
    written: u64,
}

impl Lines {
    fn new(args: &SynthesizeArgs, now_ms: u64) -> Self {
        let mut world = World::new(WorldSettings {
            queries: args.users as usize,
            items: args.items as usize,
            dim: 8,
            taste: 5.0,
            skew: 1.0,
            drift: 1.0,
            period: PERIOD,
            seed: args.seed,
        });
        for _ in 0..args.skip {
            world.draw();
        }
        let from_time = args.from_time.map(i64::unsigned_abs);
        // Without a rate there is no other time of an event than that of its writing.
        let first_ms = from_time.or((args.rate > 0.0).then_some(now_ms));
        Self { world, schedule: Schedule { rate: args.rate, first_ms }, written: 0 }
    }

    fn next(&mut self, now_ms: impl Fn() -> u64) -> String {
        let time_ms = self.schedule.time_ms(self.written).unwrap_or_else(now_ms);
        self.written += 1;
        let drawn = self.world.draw();
        self.world.line(drawn, time_ms)
    }
}

/// When events are due, and the times that they carry.
struct Schedule {
    /// Events a second; 0: all are due at once.
    rate: f64,
    first_ms: Option<u64>,
}

#[expect(clippy::cast_precision_loss, reason = "a clock, not a count")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
impl Schedule {
    /// Events that are due when the stream is this old.
    fn due(&self, age: Duration) -> u64 {
        if self.rate == 0.0 {
            return u64::MAX;
        }
        (age.as_secs_f64() * self.rate) as u64 + 1
    }

    /// Age of the stream at which event `number`, counted from 0, is due.
    fn offset(&self, number: u64) -> Duration {
        if self.rate == 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(number as f64 / self.rate).unwrap_or(Duration::MAX)
    }

    /// Time of event `number`, if it is not the time of writing.
    fn time_ms(&self, number: u64) -> Option<u64> {
        let since = match self.rate {
            0.0 => number,
            _ => self.offset(number).as_millis() as u64,
        };
        Some(self.first_ms? + since)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: SynthesizeArgs,
    }

    fn arguments(text: &str) -> SynthesizeArgs {
        let words = ["synthesize"].into_iter().chain(text.split_whitespace());
        Command::try_parse_from(words).expect("arguments are right").args
    }

    fn lines(text: &str) -> Vec<Value> {
        let mut output = Vec::new();
        write(&arguments(text), &mut output, &AtomicBool::new(false)).expect("memory takes all");
        let text = String::from_utf8(output).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn time(line: &Value) -> u64 {
        line["time_ms"].as_u64().expect("a time")
    }

    fn without_times(mut lines: Vec<Value>) -> Vec<Value> {
        for line in &mut lines {
            line["time_ms"] = Value::Null;
        }
        lines
    }

    #[test]
    fn the_same_seed_gives_the_same_lines() {
        let from = "--rate 0 --events 2000 --seed 5 --from-time 1700000000000";
        assert_eq!(lines(from), lines(from));
        // Another rate and the present time change nothing but times.
        let now = lines("--rate 1000000 --events 2000 --seed 5");
        assert_eq!(without_times(lines(from)), without_times(now));
        assert_ne!(lines(from), lines(&from.replace("--seed 5", "--seed 6")));
        let skipped = lines("--rate 0 --events 500 --skip 1500 --seed 5");
        assert_eq!(without_times(lines(from))[1500..], without_times(skipped));
    }

    #[test]
    fn event_times_keep_the_rate() {
        let mut stream = Lines::new(&arguments("--rate 40 --from-time 1700000000000"), 0);
        let times: Vec<u64> = (0..4000)
            .map(|_| time(&serde_json::from_str(&stream.next(|| 0)).expect("JSON")))
            .collect();
        for second in 0..100 {
            let from = 1_700_000_000_000 + 1000 * second;
            let events = times.iter().filter(|&&time| (from..from + 1000).contains(&time));
            assert_eq!(events.count(), 40, "second {second}");
        }
        let apart = lines("--rate 0 --events 3 --from-time 2026-11-01T00:00:00Z");
        let times: Vec<u64> = apart.iter().map(time).collect();
        assert_eq!(times, [1_793_491_200_000, 1_793_491_200_001, 1_793_491_200_002]);
    }

    #[test]
    fn events_are_due_at_the_rate_and_not_before() {
        let half = Schedule { rate: 0.5, first_ms: None };
        for (seconds, due) in [(0, 1), (1, 1), (2, 2), (3600, 1801)] {
            assert_eq!(half.due(Duration::from_secs(seconds)), due, "after {seconds} s");
        }
        for number in 0..1000 {
            let schedule = Schedule { rate: 48.0, first_ms: None };
            let offset = schedule.offset(number);
            // A float's rounding of the offset may end a nanosecond short of the event's turn.
            assert_eq!(schedule.due(offset + Duration::from_nanos(1)), number + 1);
            assert!(schedule.due(offset.saturating_sub(TICK)) <= number.max(1));
        }
        assert_eq!(Schedule { rate: 0.0, first_ms: None }.due(Duration::ZERO), u64::MAX);
    }

    #[test]
    fn a_stop_ends_a_stream_without_an_end() {
        let mut output = Vec::new();
        let stop = AtomicBool::new(true);
        write(&arguments("--rate 0"), &mut output, &stop).expect("memory takes all");
        assert!(output.is_empty());
    }

    #[test]
    fn the_config_for_it_reads_its_lines() {
        let text = include_str!("../../config/synthetic.toml");
        let config = crate::config::Config::from_toml(text).expect("the config is right");
        let mut mapping = crate::stream::decode::Mapping::new(&config);
        let mut events = crate::stream::events_of(&config);
        for line in lines("--rate 0 --events 100 --from-time 1700000000000") {
            let line = line.to_string();
            mapping.decode(Some(line.as_bytes()), None, &mut events).expect("a good record");
        }
        assert_eq!(events.times_ms.first(), Some(&1_700_000_000_000));
        assert_eq!(events.len(), 100);
    }

    #[test]
    fn wrong_arguments_say_what_is_expected() {
        for (text, expected) in [
            ("--rate fast", "expected a number"),
            ("--rate -1", "expected at least 0"),
            ("--rate NaN", "expected at least 0"),
            ("--rate 1 --from-time yesterday", "expected ms since 1970"),
        ] {
            let words = ["synthesize"].into_iter().chain(text.split_whitespace());
            let error = Command::try_parse_from(words).err().expect("a wrong argument");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
