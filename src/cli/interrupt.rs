//! SIGINT and SIGTERM: the first asks the run to end with the items in flight, the second ends the process at once.
//!
//! Ending at once is safe: the cache is written so that a process may die at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::voice::Exit;

/// Whether the run is to end, and why.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Interrupt {
    /// Listens from now on; `announce` is called at the first signal. Without a signal handler nothing is lost but the
    /// friendly ending.
    pub fn listen(announce: impl Fn() + Send + 'static) -> Self {
        let interrupt = Self::default();
        let (flag, signal) = (Arc::clone(&interrupt.flag), Arc::clone(&interrupt.signal));
        if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
            std::thread::spawn(move || {
                for received in signals.forever() {
                    if flag.swap(true, Ordering::SeqCst) {
                        low_level::exit(128 + received);
                    }
                    signal.store(received, Ordering::SeqCst);
                    announce();
                }
            });
        }
        interrupt
    }

    /// What the run looks at.
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// How an interrupted command ends.
    pub fn exit(&self) -> Exit {
        if self.signal.load(Ordering::SeqCst) == SIGTERM { Exit::Terminated } else { Exit::Interrupted }
    }
}
