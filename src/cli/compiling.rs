//! Says that a GPU's kernels are compiled and tuned, when that takes a while: without it, a first run seems to hang.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::model::tuning::{Made, made, note};

/// How often to look.
const LOOK: Duration = Duration::from_millis(250);
/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is said how far it is.
const EVERY: Duration = Duration::from_secs(15);

/// Watches as long as it lives.
pub struct Compiling {
    _until: Option<Sender<()>>,
}

impl Compiling {
    /// Prints by `say` what there is to say.
    pub fn watch(say: impl Fn(&str) + Send + 'static) -> Self {
        if !cfg!(feature = "kernels") {
            return Self { _until: None };
        }
        let (until, ended) = channel();
        std::thread::spawn(move || {
            let mut said = Said::default();
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                said.look(made(), Instant::now(), &note).iter().for_each(|line| say(line));
            }
        });
        Self { _until: Some(until) }
    }
}

/// What was said when.
#[derive(Default)]
struct Said {
    began: Option<Instant>,
    last: Option<(Instant, Made)>,
    tuning: bool,
}

impl Said {
    fn look(&mut self, now: Made, time: Instant, note: &dyn Fn() -> Option<String>) -> Vec<String> {
        if now == Made::default() {
            return Vec::new();
        }
        let began = *self.began.get_or_insert(time);
        let mut lines = Vec::new();
        match self.last {
            None if time - began >= PATIENCE => {
                lines.push(
                    if now.tuned > 0 { "compiling and tuning kernels, once" } else { "compiling kernels" }.to_owned(),
                );
                lines.extend(note().map(|note| format!("note: {note}")));
                self.tuning = now.tuned > 0;
            }
            Some((said, then)) if time - said >= EVERY && now != then => {
                let once = if !self.tuning && now.tuned > 0 { "compiling and tuning kernels, once: " } else { "" };
                self.tuning |= now.tuned > 0;
                lines.push(format!("{once}{} kernels compiled, {} operations tuned", now.compiled, now.tuned));
            }
            _ => return lines,
        }
        self.last = Some((time, now));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_how_far_it_is_now_and_then() {
        let start = Instant::now();
        let mut said = Said::default();
        let mut look = |compiled, tuned, seconds| {
            let note = || Some("nothing is kept".to_owned());
            said.look(Made { compiled, tuned }, start + Duration::from_secs(seconds), &note).join("; ")
        };
        assert_eq!(look(0, 0, 0), "");
        assert_eq!(look(1, 0, 5), "", "it has just begun");
        assert_eq!(look(2, 0, 6), "compiling kernels; note: nothing is kept");
        assert_eq!(look(9, 2, 7), "");
        assert_eq!(look(40, 3, 21), "compiling and tuning kernels, once: 40 kernels compiled, 3 operations tuned");
        assert_eq!(look(40, 3, 80), "", "nothing happens any more");
        assert_eq!(look(41, 4, 99), "41 kernels compiled, 4 operations tuned");
    }
}
