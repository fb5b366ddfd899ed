//! One process at a time on a device: another one waits until it ends.
//!
//! The lock is an advisory one on a file named for the physical device, in the user's directory for such files. The
//! system releases it when its owner ends, however that ends. Locks of this process are held until then, as the
//! models are that it loaded. Other users' processes are not seen.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a waiting process looks again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The locks that this process holds, by directory and device.
static HELD: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());

/// Takes the device at `place` for this process, in `folder`. While another process has it, `waiting` is called again and
/// again with what that one is, until it is free or `waiting` breaks off; then the answer is `false`.
///
/// # Errors
/// When the directory cannot be written to.
pub fn take(folder: &Path, place: &str, waiting: &mut dyn FnMut(&str) -> ControlFlow<()>) -> io::Result<bool> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let name: String = place.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let path = folder.join(format!("device-{name}.lock"));
    if HELD.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&path) {
        return Ok(true);
    }
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(cause)) => return Err(cause),
        }
        let mut owner = String::new();
        file.seek(SeekFrom::Start(0))?;
        // What is read may be of the owner before, or nothing yet.
        let _ = (&mut file).take(4096).read_to_string(&mut owner);
        if waiting(owner.trim()) == ControlFlow::Break(()) {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    // Whoever waits is told who has it; the lock does not depend on that.
    let _ =
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| writeln!(file, "{}", this_process()));
    HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(path, file);
    Ok(true)
}

/// Where the locks of this user's processes are.
pub fn folder() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || named("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let folder = named("XDG_RUNTIME_DIR").filter(|folder| folder.is_dir()).or_else(cache);
    folder.unwrap_or_else(std::env::temp_dir).join("stic")
}

/// `process 1234 (stic run p.toml)`.
fn this_process() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words: Vec<String> = std::iter::once(program).chain(arguments).take(4).collect();
    format!("process {} ({})", std::process::id(), words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another owner of the lock: `flock` locks belong to open files, so one of this process will do.
    fn another(folder: &Path, text: &str) -> File {
        let mut file = File::create(folder.join("device-pci_0000_01_00.0.lock")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.lock().unwrap();
        file
    }

    #[test]
    fn a_device_is_taken_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut never = |_: &str| -> ControlFlow<()> { panic!("nobody has it") };
        assert!(take(folder.path(), "cuda:0", &mut never).unwrap());
        assert!(take(folder.path(), "cuda:0", &mut never).unwrap(), "and again, in the same process");
        let mut other = File::open(folder.path().join("device-cuda_0.lock")).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        let mut owner = String::new();
        other.read_to_string(&mut owner).unwrap();
        assert!(owner.starts_with(&format!("process {} (", std::process::id())), "{owner}");
    }

    #[test]
    fn whoever_comes_second_waits_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut owner = Some(another(folder.path(), "process 7 (stic run a.toml)\n"));
        let mut heard = Vec::new();
        let taken = take(folder.path(), "pci 0000:01:00.0", &mut |by| {
            heard.push(by.to_owned());
            // As when the other process is killed: nobody unlocks.
            drop(owner.take());
            ControlFlow::Continue(())
        });
        assert!(taken.unwrap());
        assert_eq!(heard, ["process 7 (stic run a.toml)"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_is_killed_gives_its_device_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-cuda_3.lock");
        // `exec` leaves one process, which has the lock and says so.
        let script = "exec 9>>\"$0\"; flock -x 9 || exit 1; echo locked; exec sleep 600";
        let mut command = std::process::Command::new("sh");
        let mut other = command.args(["-c", script]).arg(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        other.stdout.as_mut().unwrap().read_exact(&mut said).expect("util-linux has flock");
        let mut asked = 0;
        let taken = take(folder.path(), "cuda:3", &mut |_| {
            asked += 1;
            if asked == 2 {
                other.kill().unwrap();
            }
            ControlFlow::Continue(())
        });
        other.wait().unwrap();
        assert!(taken.unwrap() && asked >= 2);
    }

    #[test]
    fn waiting_can_be_broken_off() {
        let folder = tempfile::tempdir().unwrap();
        let _owner = another(folder.path(), "");
        let mut asked = 0;
        let taken = take(folder.path(), "pci 0000:01:00.0", &mut |_| {
            asked += 1;
            if asked == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(!taken.unwrap());
    }
}
