//! `floor`: what the kernel alone takes to write one frame to each of many sockets.
//!
//! One thread writes, as a server without any work of its own would, and only its processor time
//! counts; another one reads everything and does nothing with it.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinSet;

use clap::Args;

use crate::arguments::{RunArgs, size};
use crate::descriptors;
use crate::failure::Failure;
use crate::row::Row;

/// What is typed behind `floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// How many sockets are written to.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,

    /// Bytes of a payload; a frame is a few more.
    #[arg(long, default_value_t = 1_024, value_parser = size)]
    pub(crate) size: usize,

    /// How long to write, with TCP_NODELAY and then without.
    #[arg(long, default_value = "3s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// One round.
pub(crate) fn round(args: &FloorArgs) -> Result<Row, Failure> {
    descriptors::need(2 * u64::from(args.subscribers))?;
    let failed = |cause| Failure::Local("cannot write over loopback", cause);
    let mut row = Row::new([
        ("subscribers", args.subscribers.to_string()),
        ("size", args.size.to_string()),
        ("seconds", args.duration.as_secs_f64().to_string()),
    ]);
    for (name, nodelay) in [("nodelay", true), ("nagle", false)] {
        let written = measure(args, nodelay).map_err(failed)?;
        let Written { writes, used, took } = written;
        row.figure(format!("{name}_writes"), writes as f64);
        row.figure(
            format!("{name}_writes_per_s"),
            writes as f64 / took.as_secs_f64(),
        );
        row.figure(
            format!("{name}_us_per_write"),
            used.as_secs_f64() * 1e6 / writes as f64,
        );
    }
    Ok(row)
}

struct Written {
    writes: u64,
    used: Duration,
    took: Duration,
}

fn measure(args: &FloorArgs, nodelay: bool) -> io::Result<Written> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut writers = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..args.subscribers {
        readers.push(TcpStream::connect(address)?);
        let writer = listener.accept()?.0;
        writer.set_nodelay(nodelay)?;
        writers.push(writer);
    }
    let reading = std::thread::spawn(move || drain(readers));
    // A thread of its own, so that it has a clock of its own.
    let (frame, time) = (frame(args.size), args.duration);
    let writing = std::thread::spawn(move || {
        let (began, used) = (Instant::now(), thread_time());
        let mut writes = 0;
        while began.elapsed() < time {
            for writer in &mut writers {
                writer.write_all(&frame)?;
            }
            writes += writers.len() as u64;
        }
        let used = thread_time() - used;
        let took = began.elapsed();
        Ok(Written { writes, used, took })
    });
    let ended = |_| io::Error::other("a thread has ended");
    let written = writing.join().map_err(ended)?;
    reading.join().map_err(ended)??;
    written
}

/// A WebSocket frame around a payload of this size.
fn frame(size: usize) -> Vec<u8> {
    let head = match size {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    vec![b'x'; head + size]
}

/// Processor time of the thread that asks.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// Reads everything until every connection has ended.
fn drain(readers: Vec<TcpStream>) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let buffer = std::rc::Rc::new(std::cell::RefCell::new(vec![0; 256 << 10]));
        let mut tasks = JoinSet::new();
        for reader in readers {
            reader.set_nonblocking(true)?;
            let mut reader = tokio::net::TcpStream::from_std(reader)?;
            let buffer = buffer.clone();
            tasks.spawn_local(std::future::poll_fn(move |cx| {
                let mut buffer = buffer.borrow_mut();
                loop {
                    let mut buffer = ReadBuf::new(&mut buffer);
                    let reader = std::pin::Pin::new(&mut reader);
                    std::task::ready!(reader.poll_read(cx, &mut buffer))?;
                    if buffer.filled().is_empty() {
                        return std::task::Poll::Ready(Ok::<_, io::Error>(()));
                    }
                }
            }));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    })
}
