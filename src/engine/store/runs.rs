//! The log of a run: `runs/<id>/events.jsonl` and `summary.json`. Of a summary
//! only the keys of nodes are known here, of events nothing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::{Store, StoreError, now};
use crate::digest::Digest;

/// How much of a log is held back before it is written.
const HELD: usize = 1 << 16;

/// The log of a run in progress.
pub struct RunLog {
    id: String,
    folder: PathBuf,
    events: Mutex<BufWriter<File>>,
    /// What says that the run is in progress; without it, results may be evicted under the run, which makes them again.
    lease: Option<Lease>,
}

impl Store {
    /// Begins the log of a new run. Ids sort as the runs were begun: they are of fixed width, and never below one that
    /// exists, even if the clock was set back.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin_run(&self) -> Result<RunLog, StoreError> {
        self.may_write()?;
        let runs = self.root.join("runs");
        self.make_folder(&runs)?;
        let latest = self.disk.names(&runs)?.iter().filter_map(|name| time_of(name)).max();
        let mut time = jiff::Timestamp::now();
        if let Some(latest) = latest.filter(|latest| *latest >= time) {
            time = after(latest);
        }
        loop {
            let id = time.strftime(ID).to_string();
            let folder = runs.join(&id);
            match fs::create_dir(&folder) {
                Ok(()) => {
                    self.disk.sync_folder(&runs)?;
                    let events = self.disk.open_end(&folder.join("events.jsonl"), false)?;
                    let events = Mutex::new(BufWriter::with_capacity(HELD, events));
                    let lease = self.lease(&folder).ok();
                    return Ok(RunLog { id, folder, events, lease });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => time = after(time),
                Err(error) => return Err(StoreError::io("make", &folder)(error)),
            }
        }
    }
}

/// A run's id: when it was begun, to the millisecond.
const ID: &str = "%Y%m%dT%H%M%S-%3f";

/// The next time whose id is free.
fn after(time: jiff::Timestamp) -> jiff::Timestamp {
    time.checked_add(jiff::SignedDuration::from_millis(1)).unwrap_or(time)
}

/// When the run called `id` was begun, as far as its id says it: earlier versions had `<second>` and
/// `<second>-<count>`.
fn time_of(id: &str) -> Option<jiff::Timestamp> {
    let (second, rest) = id.split_once('-').unwrap_or((id, ""));
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", second).ok()?;
    let milliseconds = if rest.len() == 3 { rest.parse().ok()? } else { 999 };
    let time = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
    time.checked_add(jiff::SignedDuration::from_millis(milliseconds)).ok()
}

/// How many of the latest runs are looked at for what they had of a pipeline.
const LOOKED_AT: usize = 20;

/// What is read of a summary.
#[derive(Deserialize)]
struct Summary {
    pipeline: String,
    nodes: Vec<SummaryNode>,
}

#[derive(Deserialize)]
struct SummaryNode {
    node: String,
    #[serde(default)]
    key: Option<Digest>,
    /// Whether the node is to keep its result whatever happens.
    #[serde(default)]
    frozen: bool,
}

/// What a past run used.
pub(super) struct PastRun {
    /// When it was begun.
    pub time: jiff::Timestamp,
    /// Its pipeline.
    pub pipeline: String,
    /// The nodes that had a key, each with its key and whether it was frozen.
    pub used: Vec<(String, Digest, bool)>,
}

impl Store {
    /// The keys that the nodes of `pipeline` last had in one of the latest runs, by name. Runs without a summary, as
    /// killed ones are, are passed over.
    ///
    /// # Errors
    /// When the summaries cannot be read.
    pub fn last_used(&self, pipeline: &str) -> Result<HashMap<String, Digest>, StoreError> {
        let mut keys = HashMap::new();
        self.past_runs(LOOKED_AT, |run| {
            if run.pipeline == pipeline {
                for (node, key, _) in run.used {
                    keys.entry(node).or_insert(key);
                }
            }
        })?;
        Ok(keys)
    }

    /// Calls `visit` with the `most` latest runs, the latest first. Runs without a summary, as killed ones are, are
    /// passed over.
    pub(super) fn past_runs(&self, most: usize, mut visit: impl FnMut(PastRun)) -> Result<(), StoreError> {
        let runs = self.root.join("runs");
        for run in self.disk.names(&runs)?.iter().rev().take(most) {
            let Some(text) = self.disk.read(&runs.join(run).join("summary.json"))? else { continue };
            let Ok(Summary { pipeline, nodes }) = serde_json::from_slice(&text) else { continue };
            let used = nodes.into_iter().filter_map(|node| Some((node.node, node.key?, node.frozen))).collect();
            visit(PastRun { time: time_of(run).unwrap_or_default(), pipeline, used });
        }
        Ok(())
    }
}

impl RunLog {
    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds an event, with the time. It is in the file once the log is flushed, or dropped. A log that cannot be written
    /// does not stop a run.
    pub fn add(&self, event: &impl Serialize) {
        // An event is an object: the time goes in front of its fields.
        let mut line = Vec::with_capacity(512);
        let _ = write!(line, "{{\"time\":\"{}\",", now());
        let start = line.len();
        if serde_json::to_writer(&mut line, event).is_ok() && line[start..].starts_with(b"{\"") {
            line.remove(start);
            line.push(b'\n');
            let _ = self.events.lock().expect("no panic under the lock").write_all(&line);
        }
    }

    /// From now on until the log is dropped, the results and the items of `keys` are not evicted. What is not there when
    /// this returns has been evicted before.
    pub fn lease(&self, keys: &[Digest]) {
        if let Some(lease) = &self.lease {
            // As without a lease.
            let _ = lease.add(keys);
        }
    }

    /// Writes what was added.
    pub fn flush(&self) {
        let _ = self.events.lock().expect("no panic under the lock").flush();
    }

    /// Writes the report of the run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&self, store: &Store, summary: &impl Serialize) -> Result<(), StoreError> {
        store.write_by(&self.folder.join("summary.json"), 0o644, |out| {
            serde_json::to_writer_pretty(&mut *out, summary)?;
            out.write_all(b"\n")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_runs_sort_as_the_runs_were_begun_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let runs = folder.path().join("runs");
        // As an earlier version named them.
        let second = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
        for earlier in [second.clone(), format!("{second}-2"), format!("{second}-9")] {
            fs::create_dir_all(runs.join(earlier)).unwrap();
        }
        let mut ids: Vec<String> = (0..25).map(|_| store.begin_run().unwrap().id().to_owned()).collect();
        // By a clock that was wrong.
        fs::create_dir(runs.join("29990101T000000-000")).unwrap();
        ids.extend((0..3).map(|_| store.begin_run().unwrap().id().to_owned()));
        assert!(ids.is_sorted() && ids.iter().collect::<std::collections::HashSet<_>>().len() == 28, "{ids:?}");
        assert!(ids[0] > format!("{second}-9"));
        assert!(ids.iter().all(|id| id.len() == ids[0].len()));
    }

    #[test]
    fn runs_begun_in_one_second_have_ids_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let runs = [store.begin_run().unwrap(), store.begin_run().unwrap(), store.begin_run().unwrap()];
        runs[2].add(&serde_json::json!({ "event": "started" }));
        runs[2].flush();
        let text = fs::read_to_string(runs[2].folder().join("events.jsonl")).unwrap();
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["event"], "started");
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 3);
        runs[0].finish(&store, &serde_json::json!({ "ran": 1 })).unwrap();
        assert!(runs[0].folder().join("summary.json").exists());
    }
}
