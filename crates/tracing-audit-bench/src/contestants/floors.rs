//! Floors, which no log with these properties can beat: a layer that only formats, one that also queues, and
//! one that also chains. They check and count nothing, and have the simplest possible escaping.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt::{self, Write as _},
    fs::File,
    io::{self, BufRead as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    layer::{Context, Layer},
    prelude::*,
    registry::LookupSpan,
};

use super::Subject;
use crate::{
    Result, machine,
    workload::{self, Event},
};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The last second that was printed, and its text.
    static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((0, [b'0'; 20])) };
}

/// The most bytes that may be queued.
const ROOM: usize = 12 << 20;
/// The number of queued bytes at which the writer is woken.
const WAKE: usize = 512 << 10;

/// Members of a span, encoded.
struct Inherited(Vec<u8>);

struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    fn name(&mut self, field: &Field) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(field.name().as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl Visit for Members<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push(b'"');
        if value.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
            self.0.extend(value.escape_default().to_string().into_bytes());
        } else {
            self.0.extend_from_slice(value.as_bytes());
        }
        self.0.push(b'"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        struct Plain<'a>(&'a mut Vec<u8>);
        impl fmt::Write for Plain<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        self.name(field);
        self.0.push(b'"');
        write!(Plain(self.0), "{value:?}").unwrap_or_default();
        self.0.push(b'"');
    }
}

/// Appends a time as long as `2026-11-21T08:00:00.000000000Z`, keeping the text of the second between events.
///
/// The date is replaced by the count of seconds, of the same length: converting it is not what is measured.
fn put_time(out: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut text) = SECOND.get();
    if second != now.as_secs() {
        put_digits(&mut text, now.as_secs());
        SECOND.set((now.as_secs(), text));
    }
    let mut nanos = [b'0'; 10];
    put_digits(&mut nanos, u64::from(now.subsec_nanos()));
    out.extend_from_slice(&text);
    out.extend_from_slice(&nanos);
}

fn put_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

struct FloorLayer(Option<Arc<Pipe>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for FloorLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut members = Vec::new();
        attributes.record(&mut Members(&mut members));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Inherited(members));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        BUFFER.with_borrow_mut(|line| {
            line.clear();
            line.extend_from_slice(b",\"ts\":\"");
            put_time(line);
            line.extend_from_slice(b"\",\"kind\":\"event\",\"severity\":\"routine\",\"level\":\"");
            line.extend_from_slice(event.metadata().level().as_str().as_bytes());
            line.push(b'"');
            event.record(&mut Members(line));
            if let Some(span) = context.event_span(event)
                && let Some(inherited) = span.extensions().get::<Inherited>()
            {
                line.extend_from_slice(&inherited.0);
            }
            for (name, value) in [
                (",\"target\":\"", event.metadata().target()),
                (",\"module\":\"", event.metadata().module_path().unwrap_or_default()),
            ] {
                line.extend_from_slice(name.as_bytes());
                line.extend_from_slice(value.as_bytes());
                line.push(b'"');
            }
            match &self.0 {
                Some(pipe) => pipe.put(line),
                None => {
                    std::hint::black_box(&*line);
                }
            }
        });
    }
}

/// A byte buffer that the writer swaps out.
#[derive(Default)]
struct Pipe {
    state: Mutex<Queued>,
    room: Condvar,
    work: Condvar,
}

#[derive(Default)]
struct Queued {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
    is_ended: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, payload: &[u8]) {
        let mut state = self.lock();
        while state.bytes.len() > ROOM {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let before = state.bytes.len();
        state.bytes.extend_from_slice(payload);
        state.lengths.push(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        let wake = before < WAKE && state.bytes.len() >= WAKE;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Passes everything that is queued to `use_batch`, until the pipe is ended.
    fn serve(&self, mut use_batch: impl FnMut(&[u8], &[u32])) {
        let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
        loop {
            let mut state = self.lock();
            if state.bytes.len() < WAKE && !state.is_ended {
                let pause = self.work.wait_timeout(state, Duration::from_millis(5));
                state = pause.unwrap_or_else(PoisonError::into_inner).0;
            }
            let is_ended = state.is_ended;
            std::mem::swap(&mut bytes, &mut state.bytes);
            std::mem::swap(&mut lengths, &mut state.lengths);
            drop(state);
            self.room.notify_all();
            use_batch(&bytes, &lengths);
            bytes.clear();
            lengths.clear();
            if is_ended {
                return;
            }
        }
    }
}

struct Floor {
    pipe: Option<Arc<Pipe>>,
    writer: Option<JoinHandle<()>>,
}

impl Subject for Floor {
    fn enter(&self) -> Box<dyn Any> {
        Box::new(workload::span())
    }

    fn emit(&self, event: Event<'_>) {
        workload::emit(event);
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some(pipe) = &self.pipe {
            pipe.lock().is_ended = true;
            pipe.work.notify_all();
        }
        if let Some(writer) = self.writer.take() {
            writer.join().map_err(|_| "the writer panicked")?;
        }
        Ok(())
    }
}

fn floor(serve: Option<impl FnOnce(Arc<Pipe>) + Send + 'static>) -> Box<dyn Subject> {
    let (pipe, writer) = match serve {
        Some(serve) => {
            let pipe = Arc::new(Pipe::default());
            let writer = thread::spawn({
                let pipe = Arc::clone(&pipe);
                move || serve(pipe)
            });
            (Some(pipe), Some(writer))
        }
        None => (None, None),
    };
    tracing_subscriber::registry().with(FloorLayer(pipe.clone())).init();
    Box::new(Floor { pipe, writer })
}

#[expect(clippy::unnecessary_wraps, reason = "all contestants are set up alike")]
pub(super) fn format(_: &Path) -> Result<Box<dyn Subject>> {
    Ok(floor(None::<fn(Arc<Pipe>)>))
}

#[expect(clippy::unnecessary_wraps, reason = "all contestants are set up alike")]
pub(super) fn queue(_: &Path) -> Result<Box<dyn Subject>> {
    Ok(floor(Some(|pipe: Arc<Pipe>| {
        pipe.serve(|bytes, _| {
            std::hint::black_box(bytes);
        });
    })))
}

pub(super) fn chain(dir: &Path) -> Result<Box<dyn Subject>> {
    chained(dir, false)
}

pub(super) fn chain_synced(dir: &Path) -> Result<Box<dyn Subject>> {
    chained(dir, true)
}

/// Writes lines like those of tracing-audit: with a number at the start and two hashes at the end.
fn chained(dir: &Path, syncs: bool) -> Result<Box<dyn Subject>> {
    let mut file = File::options().create_new(true).append(true).open(dir.join("log"))?;
    let mut chain = Chain { seq: 0, previous: [b'0'; 64] };
    let mut lines = Vec::new();
    Ok(floor(Some(move |pipe: Arc<Pipe>| {
        pipe.serve(|mut bytes, lengths| {
            for batch in lengths.chunks(512) {
                lines.clear();
                for length in batch {
                    let Some((payload, rest)) = bytes.split_at_checked(*length as usize) else { return };
                    bytes = rest;
                    chain.seal(&mut lines, payload);
                }
                crate::or_exit(file.write_all(&lines));
            }
            if syncs && !lengths.is_empty() {
                crate::or_exit(file.sync_data());
            }
        });
    })))
}

struct Chain {
    seq: u64,
    previous: [u8; 64],
}

impl Chain {
    fn seal(&mut self, lines: &mut Vec<u8>, payload: &[u8]) {
        self.seq += 1;
        let start = lines.len();
        lines.extend_from_slice(b"{\"seq\":");
        lines.extend_from_slice(itoa::Buffer::new().format(self.seq).as_bytes());
        lines.extend_from_slice(payload);
        lines.extend_from_slice(b",\"_prev_hash\":\"");
        lines.extend_from_slice(&self.previous);
        lines.extend_from_slice(b"\"}");
        let mut hasher = Sha256::new();
        hasher.update([0]);
        hasher.update(lines.get(start..).unwrap_or_default());
        for (pair, byte) in self.previous.chunks_exact_mut(2).zip(hasher.finalize()) {
            let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        lines.pop();
        lines.extend_from_slice(b",\"_hash\":\"");
        lines.extend_from_slice(&self.previous);
        lines.extend_from_slice(b"\"}\n");
    }
}

/// Computes SHA-256 over each line of a log, on as many threads as our verification. Each thread takes a part of every
/// file.
pub(super) fn sha256(dir: &Path, threads: usize) -> Result<u64> {
    let threads = if threads == 0 { machine::cores() } else { threads } as u64;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("log"))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let length = path.metadata()?.len();
        let stretch = |number: u64| length * number / threads..length * (number + 1) / threads;
        thread::scope(|scope| -> Result<()> {
            let path = &path;
            let hashing: Vec<_> =
                (0..threads).map(|number| scope.spawn(move || hash_lines(path, stretch(number)))).collect();
            for thread in hashing {
                bytes += thread.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })?;
    }
    Ok(bytes)
}

/// Hashes the lines that begin in a part of a file. Returns their total length.
fn hash_lines(path: &Path, stretch: Range<u64>) -> io::Result<u64> {
    let mut file = File::open(path)?;
    // A line that began earlier belongs to the previous part.
    let mut at = stretch.start.saturating_sub(1);
    file.seek(SeekFrom::Start(at))?;
    let mut reader = io::BufReader::with_capacity(1 << 20, file);
    if stretch.start > 0 {
        at += reader.skip_until(b'\n')? as u64;
    }
    let (mut line, mut bytes) = (Vec::new(), 0);
    while at < stretch.end {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            break;
        }
        std::hint::black_box(Sha256::digest(&line));
        at += length;
        bytes += length;
    }
    Ok(bytes)
}
