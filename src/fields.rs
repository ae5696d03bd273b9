//! Values of log events that are more than text or a number.

use std::error::Error;
use std::fmt;

/// A list: an array in JSON, its items separated by commas in text.
///
/// `tracing` has no lists. An error is the one kind of value that the writer of the log can
/// downcast.
#[derive(Debug)]
pub(crate) struct List(pub(crate) Vec<String>);

impl List {
    /// Collects what the items display.
    pub(crate) fn new(items: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        Self(items.into_iter().map(|item| item.to_string()).collect())
    }

    /// The value of a field.
    pub(crate) fn field(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl Error for List {}
