//! Claims on keys: `work/<key>/claim.<n>`. One process works on a key; the others wait for it.
//!
//! A claim names host, boot, process and the process's start time. It is made by a hard link, which fails when the
//! name is taken, on network file systems too. To take over from a dead owner, a process links the next number, and so
//! only one of several succeeds; having linked, it looks again, and steps back when another claim lives. Since each
//! links before it looks, two can never both find themselves alone.
//!
//! An owner on this machine is dead when its process is gone. Of others only the heartbeat is known: the claim's time
//! of change, compared with the file system's own clock.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, make_folder};
use crate::digest::Digest;

/// How often a claim's owner says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a silent owner on another machine is believed to live.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The machine's name.
    pub host: String,
    /// What this start of the machine, and this view of its processes, is called; empty when the system does not say.
    pub boot: String,
    /// The process's number.
    pub process: u32,
    /// When it started, in the system's own unit; tells it from a later process with the same number.
    pub started: u64,
}

impl Owner {
    /// This process.
    pub fn this_process() -> &'static Self {
        static THIS: OnceLock<Owner> = OnceLock::new();
        THIS.get_or_init(|| {
            let process = std::process::id();
            Self { host: host(), boot: boot(), process, started: started(process).unwrap_or(0) }
        })
    }

    /// A short name that no other process has had, for files.
    pub(super) fn unique(&self) -> String {
        let place = Digest::of(format!("{}\n{}\n{}", self.host, self.boot, self.started).as_bytes()).to_string();
        format!("{}-{}", &place[..8], self.process)
    }

    /// Whether the process is known to live or to be dead; `None` when it is out of sight.
    fn lives(&self) -> Option<bool> {
        let this = Self::this_process();
        if self.host != this.host || self.boot != this.boot {
            return None;
        }
        process_lives(self.process, self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// What asking for a claim came to.
pub enum Claiming {
    /// The key is ours until the claim is dropped.
    Held(Claim),
    /// Another process, or another thread of this one, works on it.
    Taken(Owner),
}

/// A held claim. Dropping it lets the next one in.
pub struct Claim {
    path: PathBuf,
    folder: PathBuf,
    text: Vec<u8>,
    heartbeat: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Claim {
    /// A folder for unfinished work, which outlives this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        let scratch = self.folder.join("scratch");
        make_folder(&scratch)?;
        Ok(scratch)
    }

    /// The work is done and published: the scratch is no longer needed.
    pub fn finish(self) {
        let _ = fs::remove_dir_all(self.folder.join("scratch"));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.heartbeat.take() {
            drop(stop);
            let _ = thread.join();
        }
        // A machine that slept past all patience may have lost its claim to another.
        if fs::read(&self.path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(&self.path);
        }
        // Succeeds only when nothing is left in it.
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Store {
    /// Asks for the claim on `key`, without waiting.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub fn claim(&self, key: &Digest) -> Result<Claiming, StoreError> {
        let folder = self.root.join("work").join(key.to_string());
        loop {
            make_folder(&folder)?;
            let seen = self.claims(&folder);
            if let Some(living) = seen.iter().find(|claim| claim.lives) {
                return Ok(Claiming::Taken(living.owner.clone()));
            }
            let number = seen.iter().map(|claim| claim.number).max().unwrap_or(0) + 1;
            let path = folder.join(format!("claim.{number}"));
            let text = claim_text();
            match self.link_new(&text, &path) {
                Ok(()) => {}
                // Another was faster, or has finished and removed the folder.
                Err(StoreError::Io { cause, .. })
                    if matches!(cause.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
            let (mut others, mut dead) = (Vec::new(), Vec::new());
            for claim in self.claims(&folder).into_iter().filter(|claim| claim.number != number) {
                if claim.lives { others.push(claim.owner) } else { dead.push(claim.path) }
            }
            if let Some(owner) = others.into_iter().next() {
                let _ = fs::remove_file(&path);
                return Ok(Claiming::Taken(owner));
            }
            for path in dead {
                let _ = fs::remove_file(path);
            }
            let heartbeat = Some(beat(path.clone()));
            return Ok(Claiming::Held(Claim { path, folder, text, heartbeat }));
        }
    }

    /// The claims in `folder` as they are now.
    fn claims(&self, folder: &Path) -> Vec<Seen> {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut claims: Vec<Seen> = files
            .filter_map(|file| {
                let number = file.file_name().to_str()?.strip_prefix("claim.")?.parse().ok()?;
                let path = file.path();
                // Gone since the folder was listed.
                let metadata = fs::metadata(&path).ok()?;
                let owner = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Owner>(&text).ok());
                let lives = owner.as_ref().and_then(Owner::lives).unwrap_or_else(|| {
                    let silent = self.clock(folder).and_then(|now| now.duration_since(metadata.modified().ok()?).ok());
                    silent.is_none_or(|silent| silent < PATIENCE)
                });
                let unknown = || Owner { host: "?".to_owned(), boot: String::new(), process: 0, started: 0 };
                Some(Seen { number, path, owner: owner.unwrap_or_else(unknown), lives })
            })
            .collect();
        claims.sort_by_key(|claim| claim.number);
        claims
    }

    /// Now, by the clock of the file system, which machines that share a cache have in common.
    fn clock(&self, folder: &Path) -> Option<SystemTime> {
        let path = folder.join(format!("clock-{}", Owner::this_process().unique()));
        let now = File::create(&path).and_then(|file| file.metadata()).and_then(|metadata| metadata.modified()).ok();
        let _ = fs::remove_file(path);
        now
    }

    /// Gives `content` the name `path`, unless it is taken.
    fn link_new(&self, content: &[u8], path: &Path) -> Result<(), StoreError> {
        let temporary = self.write_temporary(content, 0o644, false)?;
        let linked = fs::hard_link(&temporary, path).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotFound => Err(error),
            // No hard links here: the name first, the content a moment later.
            _ => File::options().write(true).create_new(true).open(path).and_then(|mut file| {
                use std::io::Write;
                file.write_all(content)
            }),
        });
        let _ = fs::remove_file(&temporary);
        linked.map_err(StoreError::io("write", path))
    }
}

/// What a claim's file says: the owner, and which of its claims this is.
fn claim_text() -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    #[derive(Serialize)]
    struct Text<'a> {
        #[serde(flatten)]
        owner: &'a Owner,
        count: u64,
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    serde_json::to_vec(&Text { owner: Owner::this_process(), count }).expect("an owner is plain")
}

struct Seen {
    number: u64,
    path: PathBuf,
    owner: Owner,
    lives: bool,
}

/// Says that the owner of the claim at `path` lives, until the sender is dropped.
fn beat(path: PathBuf) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
    let thread = std::thread::spawn(move || {
        while receiver.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        }
    });
    (sender, thread)
}

#[cfg(unix)]
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// On Linux the boot's id and the space of process numbers, which containers have for themselves.
fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{} {space}", boot.trim()).trim().to_owned()
}

/// When `process` started, in clock ticks after boot: field 22 of Linux's `/proc/<pid>/stat`.
fn started(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(unix)]
fn process_lives(process: u32, started_at: u64) -> Option<bool> {
    let raw = rustix::process::Pid::from_raw(i32::try_from(process).unwrap_or(0));
    if raw.is_none_or(|raw| rustix::process::test_kill_process(raw) == Err(rustix::io::Errno::SRCH)) {
        return Some(false);
    }
    // The number is in use: by this very process, if the system lets its start be seen, and unless it only waits to be
    // collected by its parent.
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else { return Some(true) };
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    Some(!matches!(state, Some('Z' | 'X')) && started(process).is_none_or(|started| started == started_at))
}

#[cfg(not(unix))]
fn process_lives(_process: u32, _started: u64) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn store() -> (tempfile::TempDir, Store, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store, Digest::of(b"key"))
    }

    /// Leaves a claim behind as a process that was killed does.
    fn leave(store: &Store, key: &Digest, owner: &Owner) -> PathBuf {
        let folder = store.root.join("work").join(key.to_string());
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("claim.1");
        fs::write(&path, serde_json::to_vec(owner).unwrap()).unwrap();
        path
    }

    fn is_held(claiming: &Claiming) -> bool {
        matches!(claiming, Claiming::Held(_))
    }

    #[test]
    fn a_claim_is_exclusive_until_it_is_dropped() {
        let (_folder, store, key) = store();
        let first = store.claim(&key).unwrap();
        assert!(is_held(&first));
        match store.claim(&key).unwrap() {
            Claiming::Taken(owner) => assert_eq!(&owner, Owner::this_process()),
            Claiming::Held(_) => panic!("held twice"),
        }
        drop(first);
        assert!(is_held(&store.claim(&key).unwrap()));
        assert!(!store.root.join("work").join(key.to_string()).exists(), "nothing is left behind");
    }

    #[test]
    fn a_dead_owner_of_this_machine_gives_way_at_once() {
        let (_folder, store, key) = store();
        let this = Owner::this_process();
        // This process's number, but another start: the number was used again.
        for dead in [Owner { process: u32::MAX, ..this.clone() }, Owner { started: this.started + 1, ..this.clone() }] {
            leave(&store, &key, &dead);
            let claiming = store.claim(&key).unwrap();
            assert_eq!(is_held(&claiming), cfg!(target_os = "linux") || dead.process == u32::MAX);
        }
    }

    #[test]
    fn an_owner_elsewhere_gives_way_when_its_heartbeat_stops() {
        let (_folder, store, key) = store();
        let path = leave(&store, &key, &Owner { host: "elsewhere".to_owned(), ..Owner::this_process().clone() });
        assert!(!is_held(&store.claim(&key).unwrap()));
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - PATIENCE - Duration::from_secs(1)).unwrap();
        assert!(is_held(&store.claim(&key).unwrap()));
    }

    #[test]
    fn of_many_contenders_for_a_dead_claim_one_at_a_time_holds_it() {
        let (_folder, store, key) = store();
        let dead = Owner { process: u32::MAX, ..Owner::this_process().clone() };
        let (inside, entered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        leave(&store, &key, &dead);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (store, inside, entered, key, dead) = (&store, &inside, &entered, &key, &dead);
                scope.spawn(move || {
                    let mut held = 0;
                    while held < 12 {
                        if let Claiming::Held(claim) = store.claim(key).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold one claim");
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            entered.fetch_add(1, Ordering::SeqCst);
                            held += 1;
                            // Every other time as if killed: the claim stays, its owner is gone.
                            if held % 2 == 0 {
                                let left = claim.folder.join(format!("claim.{}", 100_000 + thread * 100 + held));
                                fs::write(&left, serde_json::to_vec(dead).unwrap()).unwrap();
                                drop(claim);
                            }
                        }
                        std::thread::sleep(Duration::from_micros(200 * (thread as u64 + 1)));
                    }
                });
            }
        });
        assert_eq!(entered.load(Ordering::SeqCst), 96);
    }

    #[test]
    fn scratch_outlives_a_claim_and_goes_when_the_work_is_finished() {
        let (_folder, store, key) = store();
        let Claiming::Held(claim) = store.claim(&key).unwrap() else { panic!("taken") };
        fs::write(claim.scratch().unwrap().join("checkpoint"), "3").unwrap();
        drop(claim);
        let Claiming::Held(claim) = store.claim(&key).unwrap() else { panic!("taken") };
        assert_eq!(fs::read_to_string(claim.scratch().unwrap().join("checkpoint")).unwrap(), "3");
        claim.finish();
        assert!(!store.root.join("work").join(key.to_string()).exists());
    }
}
