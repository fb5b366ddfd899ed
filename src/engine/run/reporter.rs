//! Reports events to the observer and the run's log.

use crate::digest::Digest;
use crate::event::{Event, Observer, State};
use crate::store::RunLog;

/// Who is notified.
pub struct Reporter<'a> {
    observer: &'a dyn Observer,
    log: &'a RunLog,
}

impl<'a> Reporter<'a> {
    /// Reports to `observer` and `log`.
    pub fn new(observer: &'a dyn Observer, log: &'a RunLog) -> Self {
        Self { observer, log }
    }

    pub fn report(&self, event: Event) {
        self.log.add(&event);
        // Of hits there may be many at once, and none is news.
        if !matches!(&event, Event::Finished(report) if report.how == State::Hit) {
            self.log.flush();
        }
        self.observer.observe(&event);
    }

    /// Has the results and items of `keys` stay in the cache until the end of the run.
    pub fn lease(&self, keys: &[Digest]) {
        self.log.lease(keys);
    }

    /// Reports a note about `node`.
    pub fn note(&self, node: &str, text: impl Into<String>) {
        self.report(Event::Note { node: node.to_owned(), text: text.into() });
    }
}
