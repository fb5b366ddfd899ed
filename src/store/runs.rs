//! What is kept of a run: `runs/<id>/events.jsonl` and `summary.json`. Of a summary
//! only the keys of nodes are known here, of events nothing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, make_folder, now};
use crate::digest::Digest;

/// The log of a run that goes on.
pub struct RunLog {
    id: String,
    folder: PathBuf,
    events: Mutex<File>,
}

#[derive(Serialize)]
struct Timed<'a, T: Serialize> {
    time: String,
    #[serde(flatten)]
    event: &'a T,
}

impl Store {
    /// Begins the log of a new run. Ids sort as the runs were begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin_run(&self) -> Result<RunLog, StoreError> {
        let runs = self.root.join("runs");
        make_folder(&runs)?;
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S").to_string();
        for count in 1.. {
            let id = if count == 1 { time.clone() } else { format!("{time}-{count}") };
            let folder = runs.join(&id);
            match fs::create_dir(&folder) {
                Ok(()) => {
                    let path = folder.join("events.jsonl");
                    let file = File::options().append(true).create(true).open(&path);
                    let events = Mutex::new(file.map_err(StoreError::io("write", &path))?);
                    return Ok(RunLog { id, folder, events });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(StoreError::io("make", &folder)(error)),
            }
        }
        unreachable!("some number is free")
    }
}

/// How many of the latest runs are looked at for what they had of a pipeline.
const LOOKED_AT: usize = 20;

/// What is read of a summary.
#[derive(Deserialize)]
struct Used {
    pipeline: String,
    nodes: Vec<UsedNode>,
}

#[derive(Deserialize)]
struct UsedNode {
    node: String,
    #[serde(default)]
    key: Option<Digest>,
}

impl Store {
    /// The keys that the nodes of `pipeline` last had in one of the latest runs, by name. Runs without a summary that
    /// can be read are passed over.
    pub fn last_used(&self, pipeline: &str) -> HashMap<String, Digest> {
        let entries = fs::read_dir(self.root.join("runs")).into_iter().flatten().flatten();
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        runs.sort_unstable_by(|one, other| other.cmp(one));
        let mut keys = HashMap::new();
        for run in runs.iter().take(LOOKED_AT) {
            let text = fs::read(run.join("summary.json")).unwrap_or_default();
            let Ok(used) = serde_json::from_slice::<Used>(&text) else { continue };
            if used.pipeline == pipeline {
                for UsedNode { node, key } in used.nodes {
                    key.map(|key| keys.entry(node).or_insert(key));
                }
            }
        }
        keys
    }
}

impl RunLog {
    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds an event, with the time. A log that cannot be written does not stop a run.
    pub fn add(&self, event: &impl Serialize) {
        if let Ok(mut line) = serde_json::to_vec(&Timed { time: now(), event }) {
            line.push(b'\n');
            let _ = self.events.lock().expect("no panic under the lock").write_all(&line);
        }
    }

    /// Writes what the run came to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&self, store: &Store, summary: &impl Serialize) -> Result<(), StoreError> {
        let mut text = serde_json::to_vec_pretty(summary).expect("a summary is plain");
        text.push(b'\n');
        store.write_whole(&self.folder.join("summary.json"), &text, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begun_in_one_second_have_ids_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let runs = [store.begin_run().unwrap(), store.begin_run().unwrap(), store.begin_run().unwrap()];
        runs[2].add(&serde_json::json!({ "event": "started" }));
        let text = fs::read_to_string(runs[2].folder().join("events.jsonl")).unwrap();
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["event"], "started");
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 3);
        runs[0].finish(&store, &serde_json::json!({ "ran": 1 })).unwrap();
        assert!(runs[0].folder().join("summary.json").exists());
    }
}
