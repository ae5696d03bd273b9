//! A line of the log: for people, or as a JSON object.

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::fields::List;
use crate::trust::rfc3339;

/// How a line is written.
#[derive(Clone, Copy, Debug)]
pub enum Lines {
    /// For people, with colours or without.
    Text {
        /// True if standard error is a terminal that shows colours.
        colours: bool,
    },
    /// A JSON object.
    Json,
}

impl Lines {
    /// Appends the line of an event.
    pub(super) fn write(self, line: &mut String, event: &Event<'_>) -> fmt::Result {
        match self {
            Self::Json => json(line, event),
            Self::Text { colours } => text(line, event, colours),
        }
    }
}

/// A second since the epoch, and its RFC 3339 text without fraction and zone.
#[derive(Clone, Copy)]
struct Second(u64, [u8; 19]);

thread_local! {
    /// The second of this thread's last line: most lines fall in the same one.
    static SECOND: Cell<Second> = const { Cell::new(Second(0, *b"1970-01-01T00:00:00")) };
}

/// Appends the current time in RFC 3339, in UTC, to the microsecond.
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
    line.push_str(six_digits(&mut itoa::Buffer::new(), now.subsec_micros()));
    line.push('Z');
}

/// A number below a million, with the zeros before it.
fn six_digits(buffer: &mut itoa::Buffer, number: u32) -> &str {
    buffer.format(1_000_000 + number).get(1..).unwrap_or_default()
}

/// Appends a number as [`fmt::Display`] does. Most are times in microseconds, for which `Display`
/// takes longer than the rest of the line.
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
    line.push_str(itoa::Buffer::new().format(micros / 1_000_000));
    let below = u32::try_from(micros % 1_000_000).unwrap_or_default();
    if below > 0 {
        line.push('.');
        line.push_str(six_digits(&mut itoa::Buffer::new(), below).trim_end_matches('0'));
    }
    Ok(())
}

/// True if any byte is odd. Without a branch for each byte, the compiler compares many at once.
fn has(text: &str, is_odd: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |any, byte| any | is_odd(byte))
}

fn json(line: &mut String, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    line.push_str("{\"timestamp\":\"");
    push_now(line);
    line.push_str("\",\"level\":\"");
    line.push_str(metadata.level().as_str());
    line.push_str("\",\"target\":\"");
    Escaped(line).write_str(metadata.target())?;
    line.push('"');
    let mut fields = JsonFields { line, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    line.push_str("}\n");
    Ok(())
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

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let Some(List(items)) = value.downcast_ref() else {
            return self.text(field, |out| write!(out, "{value}"));
        };
        self.member(field, |line| {
            line.push('[');
            for (index, item) in items.iter().enumerate() {
                line.push_str(if index == 0 { "\"" } else { ",\"" });
                Escaped(line).write_str(item)?;
                line.push('"');
            }
            line.push(']');
            Ok(())
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |line| line.write_str(itoa::Buffer::new().format(value)));
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
        let is_special =
            |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f);
        if !has(text, is_special) {
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

fn text(line: &mut String, event: &Event<'_>, colours: bool) -> fmt::Result {
    let metadata = event.metadata();
    let (dim, bold, off) = if colours { ("\x1b[2m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
    let colour = match *metadata.level() {
        _ if !colours => "",
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    };
    line.push_str(dim);
    push_now(line);
    let level = metadata.level().as_str();
    // Levels are padded to the widest.
    let gap = if level.len() < 5 { "  " } else { " " };
    line.extend([off, gap, colour, level, off, " "]);
    let name_at = line.len();
    let mut fields = TextFields { line, name_at, dim, bold, off, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    line.extend([" ", dim, metadata.target(), off, "\n"]);
    Ok(())
}

/// Appends a colour code. Appending an empty one costs time too, so it is skipped.
fn paint(line: &mut String, code: &str) {
    if !code.is_empty() {
        line.push_str(code);
    }
}

struct TextFields<'a> {
    line: &'a mut String,
    /// Where the name of the event belongs.
    name_at: usize,
    dim: &'static str,
    bold: &'static str,
    off: &'static str,
    result: fmt::Result,
}

impl TextFields<'_> {
    /// Writes a field. The name of the event goes first, whatever the order of the fields.
    fn field(&mut self, field: &Field, value: impl FnOnce(&mut String) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        if field.name() == "message" {
            let after = self.line.split_off(self.name_at);
            paint(self.line, self.bold);
            self.result = value(self.line);
            paint(self.line, self.off);
            self.line.push_str(&after);
        } else {
            self.line.push(' ');
            paint(self.line, self.dim);
            self.line.push_str(field.name());
            self.line.push('=');
            paint(self.line, self.off);
            self.result = value(self.line);
        }
    }
}

impl Visit for TextFields<'_> {
    /// Quotes and escapes a value that would not read as one word.
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_odd = |byte: u8| !byte.is_ascii_graphic() | (byte == b'"') | (byte == b'\\');
        let is_plain = !value.is_empty() && !has(value, is_odd);
        self.field(field, |line| match is_plain || field.name() == "message" {
            true => line.write_str(value),
            false => write!(line, "{value:?}"),
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.record_str(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |line| line.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, |line| push_number(line, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, |line| write!(line, "{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_by_std() {
        let seen = [0.0, 1e-7, 0.000_001, 0.000_120, 0.1 + 0.2, 1.5, 2.0, 7.000_001, 1e15, 1e20];
        for value in seen.into_iter().flat_map(|value| [value, -value]) {
            let mut text = String::new();
            push_number(&mut text, value).unwrap();
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(text.trim_start_matches('-'), value.abs().to_string());
        }
    }
}
