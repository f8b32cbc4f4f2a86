//! Lines of JSON become records of the interactions topic.
//!
//! Owns: reading plain, gzip and zstd input, the record's key (the query's id, so that one user
//! stays in one partition and in order) and its timestamp (the event's own). Lines are sent as
//! they are: whether one is any good is for the reader of the topic to say.
//!
//! Must never know: features.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::config::Config;

use super::calendar::now_ms;
use super::client::{self, MESSAGE_BYTES_MAX};
use super::decode::{EventTime, FieldPlace, FieldValues, Fields};
use super::describe::{kept, retention_ms};
use super::outbox::{Outbox, Outgoing, Patience};

/// Lines that wait to be sent; beyond it reading waits.
const QUEUE_KBYTES: usize = 128 << 10;
/// A little delay makes requests of megabytes out of lines of a hundred bytes.
const LINGER_MS: u32 = 20;
/// Lines between two reports of progress.
const REPORT_EVERY: u64 = 8192;
/// Compressed input is read in pieces of this size.
const READ_BYTES: usize = 256 << 10;

/// Younger events outlive any retention worth a question to the brokers.
const RECENT_MS: i64 = 3_600_000;
/// They answer in milliseconds; without an answer there is nothing to warn of.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The result of sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Produced {
    /// Records on the broker.
    pub lines: u64,
    /// Their bytes, without keys.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

/// An opened input, decompressed on the way.
pub struct Input {
    /// Its text.
    pub lines: Box<dyn BufRead + Send>,
    /// Bytes read of the source so far, before decompression.
    pub read: Arc<AtomicU64>,
    /// Size of the source, if it is a file.
    pub total: Option<u64>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Input {
    /// Opens a file, or standard input if `path` is `-`.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub fn open(path: &str) -> anyhow::Result<Input> {
        if path == "-" {
            return Input::new(io::stdin(), None).context("cannot read standard input");
        }
        let open = || -> io::Result<Input> {
            let file = File::open(Path::new(path))?;
            let total = file.metadata().ok().map(|meta| meta.len()).filter(|&bytes| bytes > 0);
            Input::new(file, total)
        };
        open().with_context(|| format!("cannot read {path}"))
    }

    /// Finds out from the first bytes whether `source` is gzip, zstd or plain.
    ///
    /// # Errors
    /// If the first bytes cannot be read.
    pub fn new(source: impl Read + Send + 'static, total: Option<u64>) -> io::Result<Input> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = CountingReader { source, read: Arc::clone(&read) };
        let mut source = BufReader::with_capacity(READ_BYTES, counted);
        let start = source.fill_buf()?;
        let lines: Box<dyn BufRead + Send> = if start.starts_with(&[0x1f, 0x8b]) {
            // gzip files may be several, one after the other.
            let plain = flate2::bufread::MultiGzDecoder::new(source);
            Box::new(BufReader::with_capacity(READ_BYTES, plain))
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let plain = zstd::Decoder::with_buffer(source)?;
            Box::new(BufReader::with_capacity(READ_BYTES, plain))
        } else {
            Box::new(source)
        };
        Ok(Input { lines, read, total })
    }
}

struct CountingReader<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.source.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Sends every line of `input` to `kafka.topic` and waits until all of them are there.
/// `key_field` names the field whose text is the record's key (none: `query.id`); `progress` is
/// told how much was sent, every few thousand lines and at the end.
///
/// # Errors
/// If the input breaks off, a line is too long, or a record could not be delivered; what was sent
/// before stays on the topic.
pub fn produce(
    config: &Config,
    mut input: impl BufRead,
    key_field: Option<&str>,
    mut progress: impl FnMut(&Produced),
) -> anyhow::Result<Produced> {
    let started = Instant::now();
    let topic = config.kafka.topic.as_str();
    let mut outbox = Outbox::new(config, LINGER_MS, QUEUE_KBYTES, Patience::Bounded)?;
    let mut envelope = Envelope::new(config, key_field);
    let mut retention = Retention { config, kept_ms: None, warned: false };
    let mut done = Produced::default();
    let mut line = Vec::new();
    let mut number = 0_u64;
    while read_line(&mut input, &mut line, number + 1)? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (key, time_ms) = envelope.of(&line);
        // Nobody has sent a record in the future, whatever its event says: readers and brokers tell
        // a wrong clock by it.
        let now_ms = now_ms();
        let time_ms = time_ms.map(|time_ms| time_ms.min(now_ms));
        retention.look(now_ms - time_ms.unwrap_or(now_ms));
        let key = key.as_deref().map(str::as_bytes);
        let record = Outgoing { topic, key, payload: Some(&line), time_ms, ..Outgoing::default() };
        outbox.send(record).with_context(|| format!("sending stopped at line {number}"))?;
        done.lines += 1;
        done.bytes += line.len() as u64;
        if done.lines.is_multiple_of(REPORT_EVERY) {
            done.seconds = started.elapsed().as_secs_f64();
            progress(&done);
        }
    }
    outbox.flush()?;
    done.seconds = started.elapsed().as_secs_f64();
    progress(&done);
    Ok(done)
}

/// A topic that keeps records for less time than has passed since their events deletes them within
/// minutes: the broker goes by the record's time.
struct Retention<'c> {
    config: &'c Config,
    /// For how long it keeps records, ms, negative for ever; none: nobody has asked.
    kept_ms: Option<i64>,
    warned: bool,
}

impl Retention<'_> {
    /// Warns at the first event that is too old.
    fn look(&mut self, age_ms: i64) {
        if self.warned || age_ms <= RECENT_MS {
            return;
        }
        let topic = self.config.kafka.topic.as_str();
        let ask = || retention_ms(client::remedies(self.config).client(), topic, ANSWER_MAX);
        let kept_ms = *self.kept_ms.get_or_insert_with(|| ask().unwrap_or(-1));
        if kept_ms >= 0 && age_ms > kept_ms {
            self.warned = true;
            tracing::warn!(
                "there are events from {} ago, and topic `{topic}` is kept {}: the broker soon \
                 deletes them; set its retention.ms to -1 for as long as they are needed",
                kept(age_ms),
                kept(kept_ms)
            );
        }
    }
}

/// Reads the next line, without its end; false at the end of the input.
pub(crate) fn read_line(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: u64,
) -> anyhow::Result<bool> {
    line.clear();
    let limit = MESSAGE_BYTES_MAX as u64;
    let read = input.by_ref().take(limit).read_until(b'\n', line);
    if read.with_context(|| format!("the input breaks off at line {number}"))? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == limit {
        bail!("line {number} is longer than {limit} bytes; is this a file of JSON lines?");
    }
    Ok(true)
}

/// Finds a record's key and time in its line.
struct Envelope {
    fields: Fields,
    found: FieldValues,
    key: FieldPlace,
    time: Option<EventTime>,
}

impl Envelope {
    fn new(config: &Config, key_field: Option<&str>) -> Envelope {
        let mut fields = Fields::new(config.kafka.format);
        let key = fields.add(key_field.unwrap_or(&config.query.id));
        let time = EventTime::new(&mut fields, &config.timestamp);
        Envelope { fields, found: FieldValues::default(), key, time }
    }

    /// The key and the time of a line. A bad line has neither: it goes to any partition, with the
    /// present time.
    fn of(&mut self, line: &[u8]) -> (Option<String>, Option<i64>) {
        let Ok(text) = std::str::from_utf8(line) else { return (None, None) };
        let found = &mut self.found;
        if self.fields.scan(text, &|_| None, found).is_err() {
            return (None, None);
        }
        if found.events() > 0 {
            self.fields.select(0, found);
        }
        let mut digits = itoa::Buffer::new();
        let key = found.get(self.key).scalar(found, &mut digits).map(str::to_owned);
        let time = self.time.as_ref().and_then(|time| time.ms(found).ok());
        // Kafka refuses records from before 1970, and 0 stands for the present time.
        (key, time.filter(|&ms| ms > 0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rdkafka::message::Message;

    use super::*;
    use crate::stream::source::tests::{Broker, read};

    const LINES: &str = "{\"u\":\"a\",\"i\":1,\"t\":1506826800026}\n\nnot json\r\n\
                         {\"u\":7,\"i\":2,\"t\":\"x\"}\n{\"i\":3}";

    fn open(bytes: Vec<u8>) -> Input {
        Input::new(io::Cursor::new(bytes), None).expect("readable")
    }

    #[test]
    fn lines_are_sent_as_they_are_with_key_and_time() {
        let broker = Broker::new(4);
        let input = open(LINES.into());
        let mut reported = Produced::default();
        let done = produce(&broker.config, input.lines, None, |done| reported = *done)
            .expect("everything is delivered");
        assert_eq!((done.lines, done, input.read.load(Ordering::Relaxed)), (4, reported, 74));
        let mut records: Vec<_> = read(&broker.config, "clicks")
            .iter()
            .map(|record| {
                let text = |bytes: Option<&[u8]>| {
                    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                };
                (text(record.payload()), text(record.key()), record.timestamp().to_millis())
            })
            .collect();
        records.sort();
        let mut keys = records.iter().map(|(_, key, _)| key.as_deref());
        assert_eq!(keys.by_ref().collect::<Vec<_>>(), [None, None, Some("a"), Some("7")]);
        assert_eq!(records[2].0.as_deref(), LINES.lines().next());
        assert_eq!(records[2].2, Some(1_506_826_800_026));
        assert_eq!(records[0].0.as_deref(), Some("not json\r"));
        let year_2020 = 1_577_836_800_000;
        assert!(records[0].2 > Some(year_2020), "the present time");
    }

    #[test]
    fn reads_gzip_and_zstd_by_their_first_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(LINES.as_bytes()).expect("memory");
        let member = gzip.finish().expect("memory");
        let two = [member.clone(), b"".to_vec(), member].concat();
        let zstd = zstd::encode_all(LINES.as_bytes(), 1).expect("memory");
        for (bytes, times) in [(two, 2), (zstd, 1), (LINES.into(), 1), (Vec::new(), 0)] {
            let mut text = String::new();
            open(bytes).lines.read_to_string(&mut text).expect("whole");
            assert_eq!(text, LINES.repeat(times));
        }
    }

    #[test]
    fn a_broken_input_names_its_line() {
        let broker = Broker::new(1);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gzip.write_all(LINES.repeat(100).as_bytes()).expect("memory");
        let mut bytes = gzip.finish().expect("memory");
        bytes.truncate(bytes.len() / 2);
        let error = produce(&broker.config, open(bytes).lines, None, |_| {}).expect_err("cut off");
        assert!(format!("{error:#}").starts_with("the input breaks off at line"), "{error:#}");
        let endless = BufReader::new(io::repeat(b'x'));
        let error = produce(&broker.config, endless, None, |_| {}).expect_err("no line's end");
        assert!(error.to_string().starts_with("line 1 is longer than 10485760 bytes"), "{error}");
        assert!(Input::open("/nowhere").is_err());
    }
}
