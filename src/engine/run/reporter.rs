//! Reports to observers and the run's log what happens. It does not know what any of it means.

use crate::event::{Event, Observer};
use crate::store::RunLog;

/// Who is notified.
pub struct Reporter<'a> {
    observer: &'a dyn Observer,
    log: &'a RunLog,
}

impl<'a> Reporter<'a> {
    /// Tells `observer` and `log`.
    pub fn new(observer: &'a dyn Observer, log: &'a RunLog) -> Self {
        Self { observer, log }
    }

    /// Tells that `event` happened.
    pub fn report(&self, event: Event) {
        self.log.add(&event);
        self.observer.notice(&event);
    }

    /// Tells what people should know about `node`.
    pub fn note(&self, node: &str, text: impl Into<String>) {
        self.report(Event::Note { node: node.to_owned(), text: text.into() });
    }
}
