//! Writes log lines, as text or JSON, to standard error in a thread of its own.
//!
//! Logging never blocks on a slow reader: lines are buffered up to a bound and written in batches.
//! A line that does not fit is dropped and counted.

mod lines;

use std::cell::Cell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

pub use lines::Lines;

/// The most bytes that are buffered.
const MAX_BUFFERED: usize = 4 << 20;
/// How long lines are collected before a write: at a hundred thousand lines a second, waking the
/// thread for each would cost more than the lines.
const BATCH_DELAY: Duration = Duration::from_millis(5);
/// How long the last write may take when the process ends, if the reader is stuck.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Buffers log lines for the writing thread.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Signalled when lines are buffered or the log closes.
    has_lines: Condvar,
    /// Signalled when everything has been written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lost: u64,
    /// The writing thread sleeps and must be woken.
    is_idle: bool,
    is_closing: bool,
    is_done: bool,
}

/// Flushes the log when it is dropped.
#[derive(Debug)]
#[must_use = "the log ends when it is dropped"]
pub struct LogGuard(Arc<Queue>);

impl LogWriter {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(out: impl io::Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let queue = Arc::new(Queue::default());
        let writer = Arc::clone(&queue);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_out(out))?;
        Ok((Self(Arc::clone(&queue)), LogGuard(queue)))
    }

    /// The number of dropped lines.
    pub fn lost(&self) -> u64 {
        self.0.state().lost
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.bytes.len() + line.len() > MAX_BUFFERED {
            state.lost += 1;
            return;
        }
        state.bytes.extend_from_slice(line);
        if std::mem::take(&mut state.is_idle) {
            drop(state);
            self.has_lines.notify_one();
        }
    }

    fn write_out(&self, mut out: impl io::Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state();
            while state.bytes.is_empty() && !state.is_closing {
                state.is_idle = true;
                state = self.has_lines.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_idle = false;
            std::mem::swap(&mut batch, &mut state.bytes);
            let is_last = state.is_closing;
            drop(state);
            // An error of standard error has no other place to be reported.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            let mut state = self.state();
            if is_last && state.bytes.is_empty() {
                state.is_done = true;
                return self.done.notify_all();
            }
            let collects = |state: &mut State| !state.is_closing;
            drop(self.has_lines.wait_timeout_while(state, BATCH_DELAY, collects));
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closing = true;
        self.0.has_lines.notify_all();
        drop(self.0.done.wait_timeout_while(state, LAST_WRITE_TIMEOUT, |state| !state.is_done));
    }
}

/// Writes each event as a line.
#[derive(Clone, Debug)]
pub struct LogLayer {
    writer: LogWriter,
    lines: Lines,
}

impl LogLayer {
    /// Writes lines of this kind.
    pub fn new(lines: Lines, writer: LogWriter) -> Self {
        Self { writer, lines }
    }
}

thread_local! {
    /// The buffer of this thread's last line, reused by the next.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // A thread that is ending has dropped its buffer.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        line.clear();
        // Formatting fails only if a value's own `Display` does.
        if self.lines.write(&mut line, event).is_ok() {
            self.writer.0.push(line.as_bytes());
        }
        let _ = LINE.try_with(|memory| memory.set(line));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Sends each write to a channel.
    struct ChannelWriter(mpsc::Sender<String>);

    impl io::Write for ChannelWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(lines: Lines, log: impl FnOnce()) -> String {
        let (sender, receiver) = mpsc::channel();
        let (writer, guard) = LogWriter::start(ChannelWriter(sender)).unwrap();
        let layer = LogLayer::new(lines, writer);
        with_default(tracing_subscriber::registry().with(layer), log);
        drop(guard);
        receiver.try_iter().collect()
    }

    const HOSTILE: &str = "CN=\"\\\u{1b}[2J\nname=\u{7}";

    #[test]
    fn json_line_is_one_object_whatever_its_values() {
        let line = written(Lines::Json, || {
            tracing::info!(subject = HOSTILE, n = 7, share = 0.5, is = true, gone = Option::<u8>::None, d = ?HOSTILE, "client_rejected");
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(value["message"], "client_rejected");
        assert_eq!(value["subject"], HOSTILE);
        assert_eq!((&value["n"], &value["share"]), (&7.into(), &0.5.into()));
        assert_eq!(value["is"], true);
        assert!(value.get("gone").is_none());
        assert_eq!(value["d"], format!("{HOSTILE:?}"));
    }

    #[test]
    fn text_line_is_one_line_with_unambiguous_values() {
        let line = written(Lines::Text { colours: false }, || {
            tracing::warn!(subject = HOSTILE, reason = "expired", empty = "", "client_rejected");
        });
        assert!(line.contains(" WARN client_rejected subject=\"CN="), "{line}");
        assert!(line.contains(" reason=expired empty=\"\" "), "{line}");
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
    }

    #[test]
    fn text_line_begins_with_the_event() {
        for colours in [false, true] {
            let line = written(Lines::Text { colours }, || {
                tracing::info!(n = -7, share = 0.5, is = true, message = "named", d = ?Some(1));
            });
            let end = if colours { "named\u{1b}[0m \u{1b}[2mn=" } else { " INFO named n=-7 " };
            assert!(line.contains(end), "{line:?}");
            let plain = line.replace("\u{1b}[0m", "").replace("\u{1b}[2m", "");
            assert!(plain.contains(" n=-7 share=0.5 is=true d=Some(1) portcullis"), "{plain:?}");
        }
    }

    #[test]
    fn full_log_pipe_drops_lines_and_never_blocks_requests() {
        let (sender, receiver) = mpsc::sync_channel::<()>(0);
        struct Stuck(mpsc::SyncSender<()>);
        impl io::Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(()).map_err(io::Error::other)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (writer, guard) = LogWriter::start(Stuck(sender)).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..3 * MAX_BUFFERED / line.len() {
            writer.0.push(&line);
        }
        let most = u64::try_from(2 * MAX_BUFFERED / line.len()).unwrap();
        assert!(writer.lost() >= most / 2, "{}", writer.lost());
        drop(receiver);
        drop(guard);
    }
}
