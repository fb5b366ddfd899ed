//! Claims on keys: `work/<key>/claim.<n>`. One process works on a key; the others wait for it.
//!
//! A claim names host, boot, process and the process's start time. It is made by a hard link, which fails when the
//! name is taken, on network file systems too. To take over from a dead owner, a process links the next number, and so
//! only one of several succeeds; having linked, it looks again, and steps back when another claim lives. Since each
//! links before it looks, two can never both find themselves alone.
//!
//! An owner is dead when its heartbeat, the claim's time of change, has stopped for a while; one on this machine also
//! when its process is gone. Owner and waiter both take the time from the file server, so their own clocks may differ;
//! and a waiter that sees the same heartbeat for as long believes no clock at all.
//!
//! A process can be stopped at any point for longer than anybody's patience, and go on without knowing that another
//! took over. So whoever takes over removes the old claim first, and then moves away what its owner was about to write:
//! the record that it staged for publication ([`Store::publish`]) and its scratch ([`Store::scratch`]). An owner
//! prepares, looks whether its claim is still there, and then acts by renaming what it prepared; either that comes
//! before the takeover and is seen by it, or it finds nothing to rename. `tests/claims` checks this step by step.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Disk, Scratch, Store, StoreError, unique};
use crate::digest::Digest;

/// How often a claim's owner says that it lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a silent owner is believed to live.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the name of a record begins with that is about to be published.
const STAGED: &str = "publish-";

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

    /// A short unique name, for files. Process ids are reused; the random part is not.
    pub(super) fn unique(&self) -> &'static str {
        use std::hash::{BuildHasher, RandomState};
        static NAME: OnceLock<String> = OnceLock::new();
        NAME.get_or_init(|| {
            let random = [RandomState::new().hash_one(0), RandomState::new().hash_one(1)];
            let time = SystemTime::now();
            let all = format!("{}\n{}\n{}\n{random:?}\n{time:?}", self.host, self.boot, self.started);
            format!("{}-{}", &Digest::of(all.as_bytes()).to_string()[..16], self.process)
        })
    }

    /// Whether the process is known to be gone. Only of this start of this machine anything is known, and only where
    /// the system says when a process started: numbers of processes come again.
    pub(super) fn is_gone(&self) -> bool {
        let this = Self::this_process();
        let visible = self.boot == this.boot && !self.boot.is_empty() && this.started != 0;
        visible && process_is_gone(self.process, self.started)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// The outcome of asking for a claim.
pub enum Claiming {
    /// The key is ours until the claim is dropped.
    Held(Claim),
    /// Another process, or another thread of this one, works on it.
    Taken(Owner),
}

/// A held claim. Dropping it lets the next one in.
pub struct Claim {
    pub(super) key: Digest,
    pub(super) folder: PathBuf,
    /// A unique name.
    pub(super) token: String,
    this: Arc<This>,
    heartbeat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The claims that this process has. One that is not among them could not be removed when it was dropped, and is dead.
static LIVING: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

/// What the owner of a claim and its heartbeat have in common.
struct This {
    disk: Disk,
    path: PathBuf,
    text: Vec<u8>,
    lost: AtomicBool,
}

impl This {
    /// Whether the claim is still there. Once lost, it is lost for good.
    fn holds(&self) -> Result<bool, StoreError> {
        if !self.lost.load(Ordering::Relaxed) && self.disk.read(&self.path)?.as_ref() != Some(&self.text) {
            self.lost.store(true, Ordering::Relaxed);
        }
        Ok(!self.lost.load(Ordering::Relaxed))
    }
}

impl Claim {
    /// Whether another process was seen to have taken over. What is done under the claim is to end then.
    pub fn is_lost(&self) -> bool {
        self.this.lost.load(Ordering::Relaxed)
    }

    /// Looks whether the claim is still ours.
    ///
    /// # Errors
    /// [`StoreError::ClaimLost`] when it is not; others when that cannot be determined.
    pub fn verify(&self) -> Result<(), StoreError> {
        if self.this.holds()? { Ok(()) } else { Err(StoreError::ClaimLost { key: self.key }) }
    }

    /// A complete, durable file with `content` in the claim's directory, to be moved to its place by the caller.
    pub(super) fn stage(&self, content: &[u8]) -> Result<PathBuf, StoreError> {
        let path = self.folder.join(format!("{STAGED}{}", unique()));
        match self.this.disk.create(&path, content, 0o644, true) {
            // The directory goes with its last claim.
            Err(error) if error.is(ErrorKind::NotFound) => Err(self.verify().err().unwrap_or(error)),
            created => created.map(|()| path),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.heartbeat.take() {
            drop(stop);
            let _ = thread.join();
        }
        if self.this.holds().unwrap_or(false) {
            // Succeeds only when nothing is unfinished.
            for which in [Scratch::Ordinary, Scratch::Forced] {
                self.this.disk.remove_empty(&self.folder.join(self.scratch_name(which)));
            }
            let _ = self.this.disk.remove(&self.this.path);
        }
        // Not before: whoever took it for dead could remove it first, and its name be another's when it is removed
        // here.
        LIVING.lock().expect("no panic under the lock").remove(&self.this.text);
        // Succeeds only when nothing is left in it.
        self.this.disk.remove_empty(&self.folder);
    }
}

impl Store {
    /// Asks for the claim on `key`, without waiting.
    ///
    /// # Errors
    /// When the cache cannot be written to, or it cannot be determined who works on the key.
    pub fn claim(&self, key: &Digest) -> Result<Claiming, StoreError> {
        self.may_write()?;
        let folder = self.root.join("work").join(key.to_string());
        loop {
            self.make_passing_folder(&folder)?;
            let seen = self.claims(&folder)?;
            if let Some(living) = seen.iter().find(|claim| claim.lives) {
                return Ok(Claiming::Taken(living.owner.clone()));
            }
            let number = seen.iter().map(|claim| claim.number).max().unwrap_or(0) + 1;
            let path = folder.join(format!("claim.{number}"));
            let token = unique();
            let text = claim_text(&token);
            LIVING.lock().expect("no panic under the lock").insert(text.clone());
            match self.link_new(&text, &path) {
                Ok(()) => {}
                // Another was faster, or has finished and removed the directory.
                Err(error) => {
                    LIVING.lock().expect("no panic under the lock").remove(&text);
                    if error.is(ErrorKind::AlreadyExists) || error.is(ErrorKind::NotFound) {
                        continue;
                    }
                    return Err(error);
                }
            }
            let this = Arc::new(This { disk: self.disk.clone(), path, text, lost: AtomicBool::new(false) });
            // From here on dropped like any claim, even on errors.
            let mut claim = Claim { key: *key, folder: folder.clone(), token, this, heartbeat: None };
            // Opened before it is looked whether the name is still ours: later it may be another's.
            let file = File::options().write(true).open(&claim.this.path);
            match self.settle_claim(&claim)? {
                Settled::Ours => {
                    claim.heartbeat = Some(beat(Arc::clone(&claim.this), file.ok()));
                    return Ok(Claiming::Held(claim));
                }
                Settled::Theirs(owner) => return Ok(Claiming::Taken(owner)),
                Settled::Lost => {}
            }
        }
    }

    /// Having linked a claim: looks for others, and does away with what the dead among them left.
    fn settle_claim(&self, claim: &Claim) -> Result<Settled, StoreError> {
        let (ours, others): (Vec<Seen>, Vec<Seen>) =
            self.claims(&claim.folder)?.into_iter().partition(|seen| seen.text == claim.this.text);
        if let Some(living) = others.iter().find(|claim| claim.lives) {
            return Ok(Settled::Theirs(living.owner.clone()));
        }
        // Taken for dead while it was held up between linking and looking.
        if ours.is_empty() {
            return Ok(Settled::Lost);
        }
        for dead in others {
            // A number may have come again since it was seen; what goes is the dead one's.
            if self.disk.read(&dead.path)?.as_ref() == Some(&dead.text) {
                self.disk.remove(&dead.path)?;
            }
        }
        // Without its claim, no owner stages anything more that it then publishes: nothing can be added any more.
        let names = self.disk.names(&claim.folder)?.into_iter().filter(|name| name.starts_with(STAGED));
        let staged: Vec<String> = names.collect();
        // Listed first and looked at then: while the claim is ours, none of these is a later owner's.
        if !claim.this.holds()? {
            return Ok(Settled::Lost);
        }
        for name in staged {
            self.disk.remove(&claim.folder.join(name))?;
        }
        Ok(Settled::Ours)
    }

    /// The claims in `folder` as they are now.
    fn claims(&self, folder: &Path) -> Result<Vec<Seen>, StoreError> {
        let mut claims = Vec::new();
        for name in self.disk.names(folder)? {
            let Some(number) = name.strip_prefix("claim.").and_then(|number| number.parse().ok()) else { continue };
            let path = folder.join(&name);
            // What is gone since the directory was listed is no claim.
            let Some(text) = self.disk.read(&path)? else { continue };
            let Some(metadata) = self.disk.look(&path)? else { continue };
            let owner = serde_json::from_slice::<Owner>(&text).ok();
            let beat = metadata.modified().map_err(StoreError::io("read", &path))?;
            let dropped = owner.as_ref() == Some(Owner::this_process())
                && !LIVING.lock().expect("no panic under the lock").contains(&text);
            let lives = !dropped && !owner.as_ref().is_some_and(Owner::is_gone) && self.beats(&text, beat)?;
            let unknown = || Owner { host: "?".to_owned(), boot: String::new(), process: 0, started: 0 };
            claims.push(Seen { number, path, text, owner: owner.unwrap_or_else(unknown), lives });
        }
        claims.sort_by_key(|claim| claim.number);
        Ok(claims)
    }

    /// Whether the heartbeat of the claim that says `text`, which was `beat`, is still advancing.
    pub(super) fn beats(&self, text: &[u8], beat: SystemTime) -> Result<bool, StoreError> {
        let known = self.heartbeats.lock().expect("no panic under the lock").get(text).copied();
        let until = match known {
            Some((last, until)) if last == beat => until,
            _ => {
                // A heartbeat in the future, by a clock that was set back meanwhile, is watched from now on.
                let silent = self.clock()?.duration_since(beat).unwrap_or_default();
                let until = Instant::now() + PATIENCE.saturating_sub(silent);
                self.heartbeats.lock().expect("no panic under the lock").insert(text.to_owned(), (beat, until));
                until
            }
        };
        Ok(Instant::now() < until)
    }

    /// Names the unique file `content` `path`, unless that name is taken.
    fn link_new(&self, content: &[u8], path: &Path) -> Result<(), StoreError> {
        let temporary = self.write_temporary(content, 0o644, false)?;
        let linked = match self.disk.link(&temporary, path) {
            // No hard links here: the name first, the content a moment later.
            Err(error) if error.is(ErrorKind::Unsupported) => self.disk.create(path, content, 0o644, false),
            // A network file system may repeat a request that succeeded, and then report that the name is taken.
            Err(error) if error.is(ErrorKind::AlreadyExists) => match self.disk.read(path) {
                Ok(Some(there)) if there == content => Ok(()),
                _ => Err(error),
            },
            linked => linked,
        };
        let _ = self.disk.remove(&temporary);
        linked
    }
}

/// The outcome of looking again.
enum Settled {
    Ours,
    Theirs(Owner),
    /// Another took this claim for a dead one's.
    Lost,
}

/// What a claim's file says: the owner, and which of its claims this is.
fn claim_text(token: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Text<'a> {
        #[serde(flatten)]
        owner: &'a Owner,
        token: &'a str,
    }
    serde_json::to_vec(&Text { owner: Owner::this_process(), token }).expect("an owner is plain")
}

struct Seen {
    number: u64,
    path: PathBuf,
    text: Vec<u8>,
    owner: Owner,
    lives: bool,
}

/// Says that the owner of `claim` lives, and looks whether it still is, until the sender is dropped.
fn beat(claim: Arc<This>, file: Option<File>) -> (Sender<()>, JoinHandle<()>) {
    let (sender, receiver): (Sender<()>, Receiver<()>) = channel();
    let thread = std::thread::spawn(move || {
        while receiver.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            // An error is met again at the next beat.
            if claim.holds().unwrap_or(true)
                && let Some(file) = &file
            {
                let _ = claim.disk.touch(file, &claim.path);
            }
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

/// Whether no process has the number `process` that started at `started_at`, or it only waits to be collected by its
/// parent.
#[cfg(unix)]
fn process_is_gone(process: u32, started_at: u64) -> bool {
    let raw = rustix::process::Pid::from_raw(i32::try_from(process).unwrap_or(0));
    if raw.is_none_or(|raw| rustix::process::test_kill_process(raw) == Err(rustix::io::Errno::SRCH)) {
        return true;
    }
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('Z' | 'X')) || started(process).is_some_and(|started| started != started_at)
}

#[cfg(not(unix))]
fn process_is_gone(_process: u32, _started: u64) -> bool {
    false
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

    /// Sets the time of a claim's last heartbeat.
    fn set_beat(path: &Path, time: SystemTime) {
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn an_owner_gives_way_when_its_heartbeat_stops_on_this_machine_too() {
        let (_folder, store, key) = store();
        let this = Owner::this_process();
        // The process that began this one lives all the while.
        let parent = rustix::process::getppid().map_or(1, |parent| parent.as_raw_nonzero().get().unsigned_abs());
        let parent = Owner { process: parent, started: started(parent).unwrap_or(0), ..this.clone() };
        for owner in [Owner { boot: "elsewhere".to_owned(), ..this.clone() }, parent] {
            let path = leave(&store, &key, &owner);
            assert!(!is_held(&store.claim(&key).unwrap()));
            set_beat(&path, SystemTime::now() - PATIENCE - Duration::from_secs(1));
            assert!(is_held(&store.claim(&key).unwrap()));
        }
    }

    #[test]
    fn without_a_boot_id_or_start_times_only_the_heartbeat_counts() {
        let (_folder, store, key) = store();
        // A number that no process here has.
        let elsewhere = Owner { boot: String::new(), process: u32::MAX, started: 0, ..Owner::this_process().clone() };
        leave(&store, &key, &elsewhere);
        assert!(!is_held(&store.claim(&key).unwrap()), "it may be a process of another machine of the same name");
    }

    #[test]
    fn a_heartbeat_in_the_future_is_watched_with_this_process_own_clock() {
        let (_folder, store, key) = store();
        let path = leave(&store, &key, &Owner { boot: "elsewhere".to_owned(), ..Owner::this_process().clone() });
        let future = SystemTime::now() + Duration::from_secs(100_000);
        set_beat(&path, future);
        assert!(!is_held(&store.claim(&key).unwrap()));
        let stand_still =
            || store.heartbeats.lock().unwrap().values_mut().for_each(|(_, until)| *until = Instant::now());
        stand_still();
        set_beat(&path, future + Duration::from_secs(1));
        assert!(!is_held(&store.claim(&key).unwrap()), "it has moved");
        stand_still();
        assert!(is_held(&store.claim(&key).unwrap()));
    }

    #[test]
    fn a_heartbeat_is_of_the_claims_own_file_and_by_its_servers_clock() {
        let (_folder, store, key) = store();
        let Claiming::Held(claim) = store.claim(&key).unwrap() else { panic!("taken") };
        let file = File::options().write(true).open(&claim.this.path).unwrap();
        set_beat(&claim.this.path, SystemTime::now() - Duration::from_secs(1000));
        store.disk.touch(&file, &claim.this.path).unwrap();
        let beat = fs::metadata(&claim.this.path).unwrap().modified().unwrap();
        assert!(store.clock().unwrap().duration_since(beat).unwrap() < PATIENCE);
    }

    #[test]
    fn an_owner_that_lost_its_claim_publishes_nothing_and_leaves_the_scratch_to_the_next() {
        use super::super::Publication;
        use super::super::record::tests::example;
        let (_folder, store, _) = store();
        let (mut first, second) = (example(&store, "key", "one"), example(&store, "key", "two"));
        let Claiming::Held(suspended) = store.claim(&first.key).unwrap() else { panic!("taken") };
        let scratch = store.scratch(&suspended, Scratch::Ordinary).unwrap();
        fs::write(scratch.join("checkpoint"), "3").unwrap();
        let staged = suspended.stage(b"a record that is about to be published").unwrap();
        set_beat(&suspended.this.path, SystemTime::now() - PATIENCE - Duration::from_secs(1));
        let Claiming::Held(claim) = store.claim(&first.key).unwrap() else { panic!("taken") };
        assert!(!staged.exists(), "what was to be published is gone");
        let taken = store.scratch(&claim, Scratch::Ordinary).unwrap();
        assert_eq!(fs::read_to_string(taken.join("checkpoint")).unwrap(), "3");
        assert!(fs::write(scratch.join("checkpoint"), "4").is_err(), "there is no such directory any more");
        // And now the suspended one continues.
        assert!(!suspended.is_lost());
        first.generation = 2;
        for published in [store.publish(&suspended, &first).map(drop), store.supersede(&suspended, &first)] {
            assert!(matches!(published, Err(StoreError::ClaimLost { .. })));
        }
        assert!(suspended.is_lost());
        assert!(matches!(store.scratch(&suspended, Scratch::Forced), Err(StoreError::ClaimLost { .. })));
        assert!(matches!(store.finish(suspended), Err(StoreError::ClaimLost { .. })));
        assert!(taken.exists());
        assert_eq!(store.publish(&claim, &second).unwrap(), Publication::Published);
        store.finish(claim).unwrap();
        assert!(!store.root.join("work").join(first.key.to_string()).exists());
    }

    #[test]
    fn a_claim_that_could_not_be_removed_does_not_keep_its_own_process_waiting() {
        let (_folder, store, key) = store();
        let Claiming::Held(claim) = store.claim(&key).unwrap() else { panic!("taken") };
        let (path, text) = (claim.this.path.clone(), claim.this.text.clone());
        drop(claim);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        assert!(is_held(&store.claim(&key).unwrap()));
    }

    #[test]
    fn an_error_while_looking_for_claims_is_no_claim_and_leaves_none_behind() {
        let folder = tempfile::tempdir().unwrap();
        let failing = Arc::new(AtomicUsize::new(usize::MAX));
        let key = Digest::of(b"key");
        // Each access to the claim's directory fails once, in its turn.
        for turn in 0..40 {
            let left = Arc::clone(&failing);
            left.store(usize::MAX, Ordering::SeqCst);
            let disk = Disk::failing(move |_, path| {
                let inside = path.components().any(|part| part.as_os_str() == "work");
                let is_it =
                    inside && left.load(Ordering::SeqCst) != usize::MAX && left.fetch_sub(1, Ordering::SeqCst) == 0;
                is_it.then(|| std::io::Error::from_raw_os_error(5))
            });
            let store = Store::open_on(disk, folder.path()).unwrap();
            failing.store(turn, Ordering::SeqCst);
            let claiming = store.claim(&key);
            failing.store(usize::MAX, Ordering::SeqCst);
            match claiming {
                Ok(claiming) => assert!(is_held(&claiming)),
                Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
            }
            assert!(is_held(&store.claim(&key).unwrap()), "turn {turn}");
        }
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
}
