//! SIGINT, SIGTERM and SIGHUP: the first asks the run to stop, the second exits immediately.
//!
//! Nodes save their progress when asked to stop. If they are in a long computation and do not react within
//! [`PATIENCE`], the process exits without them. That is safe: the cache survives a crash at any moment, and only the
//! items in flight are lost. A training with unsaved steps reacts between two layers.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::ui::Exit;
use stic_engine::run;

/// How long nodes may take to react to a signal.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How often to check whether the nodes that reacted have stopped.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the run was asked to stop, and by which signal.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    run: Arc<run::Interrupt>,
    signal: Arc<AtomicI32>,
    /// Whether the run has started.
    begun: Arc<AtomicBool>,
    /// Whether the run has ended; locked while exiting or printing the summary.
    ended: Arc<Mutex<bool>>,
}

impl Interrupt {
    /// Listens for signals from now on. One before [`Interrupt::run`] exits immediately. `announce` is called at the
    /// first signal after that, `give_up` before exiting without the run.
    pub fn listen(announce: impl Fn() + Send + 'static, give_up: impl Fn() + Send + 'static) -> Self {
        let interrupt = Self::default();
        if let Ok(mut signals) = Signals::new(signals()) {
            let listener = interrupt.clone();
            let mut give_up = Some(give_up);
            std::thread::spawn(move || {
                for received in signals.forever() {
                    if listener.run.set() || !listener.begun.load(Ordering::SeqCst) {
                        low_level::exit(128 + received);
                    }
                    listener.signal.store(received, Ordering::SeqCst);
                    announce();
                    if let Some(give_up) = give_up.take() {
                        let waiting = listener.clone();
                        std::thread::spawn(move || waiting.wait(received, &give_up));
                    }
                }
            });
        }
        interrupt
    }

    /// Exits if the run has not stopped in time.
    fn wait(&self, signal: i32, give_up: &dyn Fn()) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE || self.run.stopping() > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
        if !*self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            give_up();
            // Do not cut a line of standard output short.
            let _out = std::io::stdout().lock();
            low_level::exit(128 + signal);
        }
    }

    /// The flag that the run, which starts now, checks.
    pub fn run(&self) -> &run::Interrupt {
        self.begun.store(true, Ordering::SeqCst);
        &self.run
    }

    /// Marks the run as ended: signals no longer exit the process.
    pub fn run_ended(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// The exit code of an interrupted command.
    pub fn exit(&self) -> Exit {
        match self.signal.load(Ordering::SeqCst) {
            SIGTERM => Exit::Terminated,
            #[cfg(unix)]
            SIGHUP => Exit::HungUp,
            _ => Exit::Interrupted,
        }
    }
}

/// The signals that stop a run. SIGHUP is not among them if it was ignored from the start, as under `nohup`.
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    if !ignores(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether this process was started with `signal` ignored, if the system tells.
#[cfg(unix)]
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Makes a write beyond the file size limit (`ulimit -f`) fail, as on a full disk, instead of killing the process.
pub fn ignore_file_size_signal() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}
