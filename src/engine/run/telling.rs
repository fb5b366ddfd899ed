//! Tells observers and the run's log what happens. It does not know what any of it means.

use crate::event::{Event, Observer};
use crate::store::RunLog;

/// Who is told.
pub struct Telling<'a> {
    observer: &'a dyn Observer,
    log: &'a RunLog,
}

impl<'a> Telling<'a> {
    /// Tells `observer` and `log`.
    pub fn new(observer: &'a dyn Observer, log: &'a RunLog) -> Self {
        Self { observer, log }
    }

    /// Tells that `event` happened.
    pub fn tell(&self, event: Event) {
        self.log.add(&event);
        self.observer.notice(&event);
    }

    /// Tells what people should know about `node`.
    pub fn note(&self, node: &str, text: impl Into<String>) {
        self.tell(Event::Note { node: node.to_owned(), text: text.into() });
    }
}
