//! SIGINT, SIGTERM and SIGHUP: the first asks the run to end, the second ends the process at once.
//!
//! A node that is asked ends with what is worth keeping. One that computes something long does not hear: the process then
//! ends without it after [`PATIENCE`]. Ending at once is safe, since the cache is written so that a process may die at any
//! moment; what it costs are the items in flight.

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

/// How long after a signal the run may go on that has not taken notice of it.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How often it is looked whether the nodes that have taken notice have ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the run is to end, and why.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    run: Arc<run::Interrupt>,
    signal: Arc<AtomicI32>,
    /// Whether there is a run to be asked.
    begun: Arc<AtomicBool>,
    /// Whether the run has ended; locked by whoever ends the process, or tells what the run came to.
    ended: Arc<Mutex<bool>>,
}

impl Interrupt {
    /// Listens from now on; a signal before [`Interrupt::run`] ends the process at once. `announce` is called at the first
    /// signal after it, `give_up` before the process ends without the run. Without a signal handler nothing is lost but
    /// the friendly ending.
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

    /// Ends the process when the run has not ended in time.
    fn wait(&self, signal: i32, give_up: &dyn Fn()) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE || self.run.ending() > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
        if !*self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            give_up();
            // No line of standard output is cut short.
            let _out = std::io::stdout().lock();
            low_level::exit(128 + signal);
        }
    }

    /// What the run, which begins now, looks at.
    pub fn run(&self) -> &run::Interrupt {
        self.begun.store(true, Ordering::SeqCst);
        &self.run
    }

    /// The run has ended: the process ends by itself.
    pub fn run_ended(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// How an interrupted command ends.
    pub fn exit(&self) -> Exit {
        match self.signal.load(Ordering::SeqCst) {
            SIGTERM => Exit::Terminated,
            #[cfg(unix)]
            SIGHUP => Exit::HungUp,
            _ => Exit::Interrupted,
        }
    }
}

/// The signals that ask a run to end. A process that was told to outlive its terminal, as by `nohup`, does.
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    if !ignores(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether this process was begun with `signal` ignored, where the system tells.
#[cfg(unix)]
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A file that would grow beyond what the user may write (`ulimit -f`) fails the write, as a full disk does, in place of
/// ending the process.
pub fn fail_writes_that_are_too_long() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}
