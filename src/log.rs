//! How log lines are written: a line for people or a JSON object, to standard error, by a thread
//! of its own.
//!
//! Whoever logs never waits for who reads: lines are gathered in memory, a bounded amount of it,
//! and written many at a time. What comes while there is no room is lost, and counted.

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use crate::trust::rfc3339;

/// So much may wait to be written.
const ROOM: usize = 4 << 20;
/// So long is gathered before it is written: at a hundred thousand lines a second, waking a thread
/// for each would cost more than the lines.
const GATHER: Duration = Duration::from_millis(5);
/// So long may the last lines take at the end, where nobody reads them.
const LAST: Duration = Duration::from_secs(1);

/// Where log lines go.
#[derive(Clone, Debug)]
pub struct LogWriter(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// There is something to write, or nothing more will come.
    stirred: Condvar,
    /// All has been written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lost: u64,
    /// The writer sleeps, and must be woken.
    is_idle: bool,
    is_closing: bool,
    is_done: bool,
}

/// Has the last lines written when it is dropped.
#[derive(Debug)]
#[must_use = "the log ends when it is dropped"]
pub struct LogGuard(Arc<Queue>);

impl LogWriter {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(out: impl io::Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let queue = Arc::new(Queue::default());
        let writer = Arc::clone(&queue);
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_out(out))?;
        Ok((Self(Arc::clone(&queue)), LogGuard(queue)))
    }

    /// How many lines were lost until now.
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
        if state.bytes.len() + line.len() > ROOM {
            state.lost += 1;
            return;
        }
        state.bytes.extend_from_slice(line);
        if std::mem::take(&mut state.is_idle) {
            drop(state);
            self.stirred.notify_one();
        }
    }

    fn write_out(&self, mut out: impl io::Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state();
            while state.bytes.is_empty() && !state.is_closing {
                state.is_idle = true;
                state = self.stirred.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_idle = false;
            std::mem::swap(&mut batch, &mut state.bytes);
            let is_last = state.is_closing;
            drop(state);
            // Where standard error is gone there is nobody to tell.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            let mut state = self.state();
            if is_last && state.bytes.is_empty() {
                state.is_done = true;
                return self.done.notify_all();
            }
            let gathers = |state: &mut State| !state.is_closing;
            drop(self.stirred.wait_timeout_while(state, GATHER, gathers));
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closing = true;
        self.0.stirred.notify_all();
        drop(self.0.done.wait_timeout_while(state, LAST, |state| !state.is_done));
    }
}

impl io::Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug)]
pub enum Lines {
    /// For people, with colours or without.
    Text {
        /// Whether it is a terminal that shows them.
        colours: bool,
    },
    /// A JSON object.
    Json,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Json => json(&mut out, event),
            Self::Text { colours } => text(&mut out, event, *colours),
        }
    }
}

/// A second as RFC 3339 has it, without what comes after the second.
#[derive(Clone, Copy)]
struct Second(u64, [u8; 19]);

thread_local! {
    /// The last second in which this thread has logged: most lines come in the same.
    static SECOND: Cell<Second> = const { Cell::new(Second(0, *b"1970-01-01T00:00:00")) };
}

/// The time now as RFC 3339 has it, in UTC, to the microsecond.
fn push_now(line: &mut String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut second = SECOND.get();
    if second.0 != now.as_secs() {
        let text = rfc3339(UnixTime::since_unix_epoch(now));
        if let Some(text) = text.as_bytes().first_chunk() {
            second = Second(now.as_secs(), *text);
            SECOND.set(second);
        }
    }
    line.push_str(std::str::from_utf8(&second.1).unwrap_or_default());
    line.push('.');
    line.push_str(six_digits(&mut [0; 6], now.subsec_micros()));
    line.push('Z');
}

fn six_digits(digits: &mut [u8; 6], mut number: u32) -> &str {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    std::str::from_utf8(digits).unwrap_or_default()
}

/// A number as [`fmt::Display`] has it. Most are times in microseconds, for which that takes longer
/// than all else of a line.
fn push_number(line: &mut String, value: f64) -> fmt::Result {
    let micros = (value * 1e6).round();
    if !(0.0..1e15).contains(&micros) || micros / 1e6 != value {
        return write!(line, "{value}");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range"
    )]
    let micros = micros as u64;
    write!(line, "{}", micros / 1_000_000)?;
    let below = u32::try_from(micros % 1_000_000).unwrap_or_default();
    if below > 0 {
        line.push('.');
        line.push_str(six_digits(&mut [0; 6], below).trim_end_matches('0'));
    }
    Ok(())
}

/// As long as most lines are, and longer.
const LINE: usize = 512;

fn json(out: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    // Of its own: what is pushed to a known type costs a fraction of what is written to any.
    let mut line = String::with_capacity(LINE);
    line.push_str("{\"timestamp\":\"");
    push_now(&mut line);
    line.push_str("\",\"level\":\"");
    line.push_str(metadata.level().as_str());
    line.push_str("\",\"target\":\"");
    Escaped(&mut line).write_str(metadata.target())?;
    line.push('"');
    let mut fields = JsonFields { line: &mut line, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    line.push_str("}\n");
    out.write_str(&line)
}

/// Writes each field as a member of an object.
struct JsonFields<'a> {
    line: &'a mut String,
    result: fmt::Result,
}

impl JsonFields<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        if self.result.is_ok() {
            self.line.push_str(",\"");
            self.line.push_str(field.name());
            self.line.push_str("\":");
            self.result = value(self.line);
        }
    }

    fn text(&mut self, field: &Field, value: impl FnOnce(&mut Escaped<'_>) -> fmt::Result) {
        self.member(field, |line| {
            line.push('"');
            value(&mut Escaped(line))?;
            line.push('"');
            Ok(())
        });
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, |out| out.write_str(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, |out| write!(out, "{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| write!(line, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, |line| match value.is_finite() {
            true => push_number(line, value),
            false => line.write_str("null"),
        });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |line| write!(line, "{value}"));
    }
}

/// Escapes what is written through it, as a JSON string has it.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Nearly everything; told from the rest without a branch for each octet.
        let is_plain = |octet: u8| octet >= 0x20 && !matches!(octet, b'"' | b'\\' | 0x7f);
        if text.bytes().fold(true, |plain, octet| plain & is_plain(octet)) {
            self.0.push_str(text);
            return Ok(());
        }
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                '\n' => self.0.push_str("\\n"),
                _ if character.is_ascii_control() => {
                    write!(self.0, "\\u{:04x}", u32::from(character))?;
                }
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

fn text(out: &mut Writer<'_>, event: &Event<'_>, colours: bool) -> fmt::Result {
    let metadata = event.metadata();
    let (dim, bold, off) = if colours { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let colour = match *metadata.level() {
        _ if !colours => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    };
    let mut now = String::new();
    push_now(&mut now);
    write!(out, "{dim}{now}{off} {colour}{:>5}{off} ", metadata.level().as_str())?;
    // The name of the event comes first, whatever the order of the fields.
    let mut name = Name { out, bold, off, result: Ok(()) };
    event.record(&mut name);
    name.result?;
    let mut fields = TextFields { out, dim, off, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    writeln!(out, " {dim}{}{off}", metadata.target())
}

struct Name<'a, 'b> {
    out: &'a mut Writer<'b>,
    bold: &'static str,
    off: &'static str,
    result: fmt::Result,
}

impl Visit for Name<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.result = write!(self.out, "{}{value:?}{}", self.bold, self.off);
        }
    }

    fn record_str(&mut self, _: &Field, _: &str) {}
}

struct TextFields<'a, 'b> {
    out: &'a mut Writer<'b>,
    dim: &'static str,
    off: &'static str,
    result: fmt::Result,
}

impl TextFields<'_, '_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_ok() && field.name() != "message" {
            let (dim, off) = (self.dim, self.off);
            self.result = write!(self.out, " {dim}{}={off}{value}", field.name());
        }
    }
}

impl Visit for TextFields<'_, '_> {
    /// In quotation marks where it would not read as one word; what does not print is escaped.
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_word = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        match !value.is_empty() && value.chars().all(is_word) {
            true => self.field(field, format_args!("{value}")),
            false => self.field(field, format_args!("{value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What somebody would have written who hands each write over.
    struct Handing(mpsc::Sender<String>);

    impl io::Write for Handing {
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
        let (writer, guard) = LogWriter::start(Handing(sender)).unwrap();
        let layer = tracing_subscriber::fmt::layer().event_format(lines).with_writer(writer);
        with_default(tracing_subscriber::registry().with(layer), log);
        drop(guard);
        receiver.try_iter().collect()
    }

    const HOSTILE: &str = "CN=\"\\\u{1b}[2J\nname=\u{7}";

    #[test]
    fn a_json_line_is_one_object_whatever_is_in_it() {
        let line = written(Lines::Json, || {
            tracing::info!(subject = HOSTILE, n = 7, share = 0.5, is = true, gone = Option::<u8>::None, d = ?HOSTILE, "refused");
        });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(value["message"], "refused");
        assert_eq!(value["subject"], HOSTILE);
        assert_eq!((&value["n"], &value["share"]), (&7.into(), &0.5.into()));
        assert_eq!(value["is"], true);
        assert!(value.get("gone").is_none());
        assert_eq!(value["d"], format!("{HOSTILE:?}"));
    }

    #[test]
    fn a_number_is_written_as_everywhere_else() {
        let seen = [0.0, 1e-7, 0.000_001, 0.000_120, 0.1 + 0.2, 1.5, 2.0, 7.000_001, 1e15, 1e20];
        for value in seen.into_iter().flat_map(|value| [value, -value]) {
            let mut text = String::new();
            push_number(&mut text, value).unwrap();
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(text.trim_start_matches('-'), value.abs().to_string());
        }
    }

    #[test]
    fn a_text_line_is_one_line_whose_words_are_what_they_seem() {
        let line = written(Lines::Text { colours: false }, || {
            tracing::warn!(subject = HOSTILE, reason = "expired", empty = "", "refused");
        });
        assert!(line.contains(" WARN refused subject=\"CN="), "{line}");
        assert!(line.contains(" reason=expired empty=\"\" "), "{line}");
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
    }

    #[test]
    fn what_nobody_reads_is_lost_and_counted_and_holds_nobody_up() {
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
        for _ in 0..3 * ROOM / line.len() {
            (&writer).write_all(&line).unwrap();
        }
        let most = u64::try_from(2 * ROOM / line.len()).unwrap();
        assert!(writer.lost() >= most / 2, "{}", writer.lost());
        drop(receiver);
        drop(guard);
    }
}
