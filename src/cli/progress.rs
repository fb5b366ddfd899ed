//! Progress of a run: one live line per running node on a terminal, plain lines elsewhere, and events as JSON Lines for
//! programs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::table::hanging;
use super::ui::{CliError, Paint, Ui, duration, printable, printable_with_colors, write_json};
use stic_engine::event::{Event, ItemCounts, NodeReport, Observer, State};
use stic_engine::node::Progress;

/// How often the progress of a running node is printed without a terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(15);
/// How often a live line is redrawn when nothing changed.
const TICK: Duration = Duration::from_millis(250);
/// Indent of wrapped lines: below the node's name.
const INDENT: usize = 8;

/// Prints the events of a run.
pub struct Watch {
    ui: Ui,
    json: bool,
    live: Option<MultiProgress>,
    running: Mutex<HashMap<String, Running>>,
    /// The error of the first event that could not be written.
    unwritten: Mutex<Option<CliError>>,
}

/// A running node.
struct Running {
    kind: String,
    since: Instant,
    /// When counting started in this process, and at which count.
    first: Option<(Instant, usize)>,
    reported: Instant,
    bar: Option<ProgressBar>,
}

impl Watch {
    /// Prints through `ui`, and writes events to standard output if `json`.
    pub fn new(ui: Ui, json: bool) -> Self {
        let live = (ui.terminal && !ui.quiet).then(MultiProgress::new);
        Self { ui, json, live, running: Mutex::default(), unwritten: Mutex::default() }
    }

    /// Checks that all events were written.
    ///
    /// # Errors
    /// The first event that could not be written.
    pub fn written(&self) -> Result<(), CliError> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line above the live ones.
    pub fn say(&self, line: &str) {
        match &self.live {
            // Fails if the terminal was closed.
            Some(live) => drop(live.println(printable_with_colors(line))),
            None => self.ui.say(line),
        }
    }

    fn line(&self, paint: Paint, word: &str, node: &str, rest: &str) {
        let word = self.ui.paint(paint, format_args!("{word:<7}"));
        self.say(&hanging(&format!("{word} {node}  "), rest, self.ui.width, INDENT).join("\n"));
    }

    fn started(&self, node: &str, kind: &str, why: &[String]) {
        let now = Instant::now();
        let bar = self.live.as_ref().map(|live| {
            let bar = live.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_message(format!("{node}  {kind}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        let running = Running { kind: kind.to_owned(), since: now, first: None, reported: now, bar };
        self.running().insert(node.to_owned(), running);
        let why: Vec<&str> = why.iter().filter_map(|why| why.lines().next()).collect();
        self.line(Paint::Busy, "run", node, &self.ui.paint(Paint::Dim, why.join("; ")));
    }

    fn progress(&self, node: &str, progress: &Progress) {
        let now = Instant::now();
        let mut nodes = self.running();
        let Some(running) = nodes.get_mut(node) else { return };
        let first = *running.first.get_or_insert((now, progress.done));
        let text = reported(progress, first, now, running.since);
        if let Some(bar) = &running.bar {
            bar.set_message(format!("{node}  {}  {text}", running.kind));
        } else if now - running.reported >= PLAIN_EVERY {
            running.reported = now;
            drop(nodes);
            self.line(Paint::Dim, "", node, &text);
        }
    }
}

impl Observer for Watch {
    fn observe(&self, event: &Event) {
        if self.json {
            // Reported at the end of the run.
            if let Err(problem) = write_json(event) {
                self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
            }
        }
        match event {
            Event::Started { node, kind, why } => self.started(node, kind, why),
            Event::Progress { node, progress } => self.progress(node, progress),
            Event::Note { node, text } => self.line(Paint::Busy, "note", node, text),
            Event::Waiting { node, owner, items } => {
                let what = if *items { "the same items" } else { "the same result" };
                self.line(Paint::Dim, "waits", node, &format!("for {owner}, which is computing {what}"));
            }
            Event::Finished(NodeReport { node, how, items, seconds, summary, error, help, key, .. }) => {
                if let Some(running) = self.running().remove(node)
                    && let Some(bar) = running.bar
                {
                    bar.finish_and_clear();
                }
                let line = summary.as_ref().map_or("", |summary| summary.line.as_str());
                match how {
                    State::Hit => self.line(Paint::Good, "hit", node, &self.ui.paint(Paint::Dim, line)),
                    State::Run => {
                        let time = duration(*seconds);
                        let parts = [line.to_owned(), items.map(counted).unwrap_or_default(), time];
                        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                        // A node with warnings is not shown in green.
                        let warned = summary.as_ref().is_some_and(|summary| !summary.warnings.is_empty());
                        self.line(if warned { Paint::Busy } else { Paint::Good }, "done", node, &parts.join(", "));
                    }
                    State::Failed => {
                        let word = self.ui.paint(Paint::Bad, "failed ");
                        let mut text = printable(error.as_deref().unwrap_or_default());
                        if let Some(help) = help {
                            text.push_str(&format!("\nhelp: {help}"));
                        }
                        let text = hanging(&format!("{word} {node}  "), &text, self.ui.width, INDENT).join("\n");
                        match &self.live {
                            Some(live) => drop(live.println(printable_with_colors(&text))),
                            // Errors are printed even with `--quiet`.
                            None => self.ui.print(text),
                        }
                    }
                    State::Skipped | State::Awaits => {}
                }
                for warning in summary.iter().flat_map(|summary| &summary.warnings) {
                    self.line(Paint::Bad, "warning", node, warning);
                }
                if let Some(key) = key.as_ref().filter(|_| self.ui.verbose) {
                    self.line(Paint::Dim, "", node, &format!("key {key}"));
                }
            }
            Event::RunStarted { .. } | Event::Compared(_) | Event::RunFinished { .. } => {}
        }
    }
}

/// How many items were computed and how many were cached. Skipped items are counted in the node's summary line.
fn counted(items: ItemCounts) -> String {
    if items.cached == 0 { String::new() } else { format!("{} new, {} cached", items.done, items.cached) }
}

/// `120/6000  3.2/s  410 tokens/s  loss 0.693  12 min 03 s left`. `first` is when counting started, and at which count.
fn reported(progress: &Progress, first: (Instant, usize), now: Instant, since: Instant) -> String {
    let mut parts = vec![format!("{}/{}", progress.done, progress.total)];
    let counting = (now - first.0).as_secs_f64();
    let done = progress.done.saturating_sub(first.1);
    let rate = (counting > 0.5 && done > 0).then(|| done as f64 / counting);
    if let Some(rate) = rate {
        parts.push(format!("{}/s", readable(rate)));
    }
    let seconds = (now - since).as_secs_f64();
    if let Some(tokens) = progress.tokens.filter(|_| seconds > 0.5) {
        parts.push(format!("{} tokens/s", readable(tokens as f64 / seconds)));
    }
    if let Some(loss) = progress.loss {
        parts.push(format!("loss {loss:.4}"));
    }
    if let Some(rate) = rate {
        parts.push(format!("{} left", duration(progress.total.saturating_sub(progress.done) as f64 / rate)));
    }
    parts.join("  ")
}

/// `rate` to about three digits.
fn readable(rate: f64) -> String {
    match rate {
        100.0.. => format!("{rate:.0}"),
        10.0.. => format!("{rate:.1}"),
        _ => format!("{rate:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_the_remaining_time_exclude_cached_items() {
        let since = Instant::now();
        let first = (since + Duration::from_secs(2), 100);
        let progress = Progress { done: 140, total: 200, tokens: Some(1200), loss: Some(0.75321) };
        let text = reported(&progress, first, since + Duration::from_secs(12), since);
        assert_eq!(text, "140/200  4.00/s  100 tokens/s  loss 0.7532  15 s left");
    }

    #[test]
    fn a_node_that_has_just_started_has_no_rate() {
        let since = Instant::now();
        let progress = Progress { done: 3, total: 9, ..Progress::default() };
        assert_eq!(reported(&progress, (since, 3), since, since), "3/9");
    }
}
