//! Requests at a rate that does not care how long answers take: an open loop, so that a server that
//! falls behind is seen to. A request's time counts from when it was due, not from when a
//! connection was free for it.
//!
//! Sends only to a `serve` of this machine.

use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;

use crate::quantile::quantile;

/// No answer takes longer: `serve.timeout_ms` is two seconds.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Arguments of `load`.
#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Where a `serve` listens, on this machine.
    pub(crate) address: SocketAddr,
    /// Requests a second; 0: as many as the connections get answered, one after another each.
    #[arg(long, default_value_t = 500.0)]
    pub(crate) rate: f64,
    /// How long.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Connections, each with a thread.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) connections: u64,
    /// Items asked for.
    #[arg(long, default_value_t = 100)]
    pub(crate) k: usize,
    /// The query's field.
    #[arg(long, default_value = "user")]
    pub(crate) field: String,
    /// The ids asked for are this and a number.
    #[arg(long, default_value = "u")]
    pub(crate) prefix: String,
    /// The numbers go up to here.
    #[arg(long, default_value_t = 1000)]
    pub(crate) queries: u64,
    /// Bearer key, if the server wants one.
    #[arg(long)]
    pub(crate) key: Option<String>,
}

/// What the threads share.
struct Loop<'a> {
    args: &'a LoadArgs,
    began: Instant,
    next: AtomicU64,
    /// Seconds from due to answered.
    took: Mutex<Vec<f64>>,
    refused: AtomicU64,
}

pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<()> {
    println!("{}", load(args)?);
    Ok(())
}

/// How long answers took.
pub(crate) struct Took {
    /// Seconds from due to answered, ascending.
    answers: Vec<f64>,
    /// Of all of it.
    seconds: f64,
    refused: u64,
}

/// Asks, and waits for the last answer.
///
/// # Errors
/// If nobody listens, an answer does not come, or there is none.
pub(crate) fn load(args: &LoadArgs) -> anyhow::Result<Took> {
    ensure!(args.address.ip().is_loopback(), "{} is not this machine", args.address);
    let shared = Loop {
        args,
        began: Instant::now(),
        next: AtomicU64::new(0),
        took: Mutex::default(),
        refused: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..args.connections).map(|_| scope.spawn(|| shared.client())).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("no panic"))
    })?;
    let seconds = shared.began.elapsed().as_secs_f64();
    let mut answers = shared.took.into_inner().expect("nobody panicked");
    answers.sort_by(f64::total_cmp);
    ensure!(!answers.is_empty(), "no answer");
    Ok(Took { answers, seconds, refused: shared.refused.into_inner() })
}

impl Display for Took {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let Took { answers, seconds, refused } = self;
        let at = |share| quantile(answers, share) * 1e3;
        write!(
            to,
            "{} answers in {seconds:.1} s: {:.0}/s; ms p50 {:.2} p90 {:.2} p99 {:.2} p99.9 {:.2} \
             most {:.2}; {refused} not 200",
            answers.len(),
            answers.len() as f64 / seconds,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
        )
    }
}

impl Loop<'_> {
    /// Takes the next request that is due, until the time is over.
    fn client(&self) -> anyhow::Result<()> {
        let LoadArgs { address, rate, seconds, .. } = *self.args;
        let stream = TcpStream::connect(address).context("nobody listens there")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let mut stream = BufReader::new(stream);
        let mut own = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = match rate > 0.0 {
                true => Duration::from_secs_f64(number as f64 / rate),
                false => self.began.elapsed(),
            };
            if due >= Duration::from_secs(seconds) {
                break;
            }
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
            if self.ask(&mut stream, number)? != 200 {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            own.push((self.began.elapsed() - due).as_secs_f64());
        }
        self.took.lock().expect("nobody panicked").extend(own);
        Ok(())
    }

    /// The status of an answer, which is read whole.
    fn ask(&self, stream: &mut BufReader<TcpStream>, number: u64) -> anyhow::Result<u16> {
        let LoadArgs { k, field, prefix, queries, key, .. } = self.args;
        // Far from the one before, so that nothing is in a cache for that reason.
        let query = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % queries;
        let body = format!("{{\"query\":{{\"{field}\":\"{prefix}{query}\"}},\"k\":{k}}}");
        let key =
            key.as_ref().map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let request = format!(
            "POST /v1/retrieve HTTP/1.1\r\nHost: load\r\n{key}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the connection was closed");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            } else if let Some(rest) = text.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().unwrap_or_default().parse()?;
            } else if let Some(rest) = text.strip_prefix("content-length: ") {
                length = rest.parse()?;
            }
        }
        let read = stream.by_ref().take(length).read_to_end(&mut Vec::new())?;
        ensure!(read as u64 == length, "the answer breaks off");
        Ok(status)
    }
}
