//! Leases: what a live run uses, `runs/<id>/lease`, so that nothing of it is evicted meanwhile.
//!
//! The first line says whose it is and since when, every further line is a key that the run uses or makes. A lease is
//! live as a claim is: until its process is known to be gone, or its heartbeat has stopped. A run writes a key before it
//! looks whether the result is there, for use by a node; who evicts takes the result away first, and looks at the
//! leases then. So either the run finds nothing and makes it, or the eviction sees the lease and puts the result back.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::claim::{HEARTBEAT, Owner};
use super::{Disk, Store, StoreError};
use crate::digest::Digest;

/// The name of a lease in the directory of its run.
const NAME: &str = "lease";

/// The lease of a run in progress; it ends when it is dropped.
pub(super) struct Lease {
    disk: Disk,
    path: PathBuf,
    file: File,
    written: Mutex<HashSet<Digest>>,
    heartbeat: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    owner: Owner,
    since_ns: u64,
}

impl Lease {
    /// Adds `keys` to the lease.
    pub(super) fn add(&self, keys: &[Digest]) -> Result<(), StoreError> {
        let mut written = self.written.lock().expect("no panic under the lock");
        let new: Vec<Digest> = keys.iter().filter(|key| written.insert(**key)).copied().collect();
        let lines: String = new.iter().map(|key| format!("{key}\n")).collect();
        if lines.is_empty() { Ok(()) } else { self.disk.add(&self.file, &self.path, lines.as_bytes()) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.heartbeat.take() {
            drop(stop);
            let _ = thread.join();
        }
        let _ = self.disk.remove(&self.path);
    }
}

/// What the live runs of a cache use.
#[derive(Debug, Default)]
pub(super) struct Leased {
    /// How many live runs there are.
    pub runs: usize,
    /// The keys that they use.
    pub keys: HashSet<Digest>,
    /// When the first of them began: objects that were put since then may be needed.
    pub since: Option<SystemTime>,
}

impl Store {
    /// A lease for the run with the directory `folder`.
    pub(super) fn lease(&self, folder: &Path) -> Result<Lease, StoreError> {
        let path = folder.join(NAME);
        let since = self.clock()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = Head { owner: Owner::this_process().clone(), since_ns: since.as_nanos() as u64 };
        let mut line = serde_json::to_vec(&head).expect("an owner is plain");
        line.push(b'\n');
        let temporary = self.write_temporary(&line, 0o644, false)?;
        let placed = self.disk.rename(&temporary, &path).and_then(|()| self.disk.open_end(&path, false));
        if placed.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        let file = placed?;
        let heartbeat = file.try_clone().ok().map(|file| beat(self.disk.clone(), path.clone(), file));
        Ok(Lease { disk: self.disk.clone(), path, file, written: Mutex::default(), heartbeat })
    }

    /// The leases of live runs. Those of the dead are removed, where the cache may be written to.
    pub(super) fn leased(&self) -> Result<Leased, StoreError> {
        let mut leased = Leased::default();
        let runs = self.root.join("runs");
        for run in self.disk.names(&runs)? {
            let path = runs.join(run).join(NAME);
            let Some(metadata) = self.disk.look(&path)? else { continue };
            let beat = metadata.modified().map_err(StoreError::io("read", &path))?;
            let Some(text) = self.disk.read(&path)? else { continue };
            let mut lines = text.split(|byte| *byte == b'\n');
            let first = lines.next().unwrap_or_default();
            let head = serde_json::from_slice::<Head>(first).ok();
            let is_gone = head.as_ref().is_some_and(|head| head.owner.is_gone());
            if is_gone || !self.beats(first, beat)? {
                if self.writes {
                    self.disk.remove(&path)?;
                }
                continue;
            }
            leased.runs += 1;
            leased.keys.extend(lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse::<Digest>().ok()));
            // One that does not say since when may have begun at any time.
            let since = head.map_or(UNIX_EPOCH, |head| UNIX_EPOCH + Duration::from_nanos(head.since_ns));
            leased.since = Some(leased.since.map_or(since, |first| first.min(since)));
        }
        Ok(leased)
    }
}

/// Says that the owner of the lease at `path` lives, until the sender is dropped.
fn beat(disk: Disk, path: PathBuf, file: File) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver) = channel::<()>();
    let thread = std::thread::spawn(move || {
        while receiver.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            let _ = disk.touch(&file, &path);
        }
    });
    (sender, thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_it_is_dropped_or_its_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let [a, b] = [b"a", b"b"].map(|text| Digest::of(text));
        let run = store.begin_run().unwrap();
        run.lease(&[a]);
        run.lease(&[a, b]);
        let leased = store.leased().unwrap();
        assert_eq!((leased.runs, leased.keys), (1, [a, b].into()));
        assert!(leased.since.is_some_and(|since| since <= store.clock().unwrap()));
        let path = run.folder().join(NAME);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3, "a key is written once");
        let text = std::fs::read_to_string(&path).unwrap();
        drop(run);
        assert_eq!(store.leased().unwrap().runs, 0);
        // As a killed process leaves it.
        let this = Owner::this_process();
        let dead = text.replace(&format!("\"started\":{}", this.started), "\"started\":1");
        std::fs::write(&path, &dead).unwrap();
        if this.started != 0 && !this.boot.is_empty() {
            assert_eq!(store.leased().unwrap().runs, 0);
            assert!(!path.exists());
        }
        // On another machine, as far as anybody knows.
        std::fs::write(&path, text.replace(&this.boot, "another")).unwrap();
        assert_eq!(store.leased().unwrap().keys.len(), 2);
        std::fs::write(&path, "torn").unwrap();
        assert_eq!(store.leased().unwrap().since, Some(UNIX_EPOCH), "nothing is known of it, so all may be needed");
    }
}
