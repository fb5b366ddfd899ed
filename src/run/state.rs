//! The states of a node in a run, and their one transition function. It does not know what makes anything happen.

use crate::event::How;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// So many of its inputs are not there yet.
    Waiting(usize),
    /// Its inputs are there; it is being looked up.
    Deciding,
    /// Its result is not in the cache: it is to run.
    Ready,
    /// It runs.
    Running,
    /// Its result is there.
    Done(How),
    /// It failed.
    Failed,
    /// It is not reached in this run.
    Skipped,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// One of its inputs is there.
    Input,
    /// One of its inputs is lost after all: an object turned out to be damaged.
    InputLost,
    /// It was looked up and is not in the cache.
    Missing,
    /// It was looked up, or waited for, and is in the cache.
    Found,
    /// A worker took it.
    Taken,
    /// Its worker could not begin, since an input was lost.
    Returned,
    /// Its result was made.
    Made,
    /// Its own result is lost after all.
    Lost,
    /// It cannot be done.
    Fail,
    /// It will not be reached: something above it failed, or the run ends.
    Skip,
}

impl State {
    /// The state after `signal`.
    ///
    /// # Panics
    /// When `signal` cannot happen in this state: the scheduler is wrong then.
    #[must_use]
    pub fn after(self, signal: Signal) -> Self {
        match (self, signal) {
            (Self::Waiting(1), Signal::Input) => Self::Deciding,
            (Self::Waiting(missing), Signal::Input) if missing > 1 => Self::Waiting(missing - 1),
            (Self::Waiting(missing), Signal::InputLost) => Self::Waiting(missing + 1),
            (Self::Ready | Self::Deciding, Signal::InputLost) => Self::Waiting(1),
            (Self::Deciding, Signal::Missing) => Self::Ready,
            (Self::Running, Signal::Returned) => Self::Deciding,
            (Self::Deciding | Self::Running, Signal::Found) => Self::Done(How::Hit),
            (Self::Ready, Signal::Taken) => Self::Running,
            (Self::Running, Signal::Made) => Self::Done(How::Run),
            (Self::Done(_), Signal::Lost) => Self::Deciding,
            (Self::Deciding | Self::Running, Signal::Fail) => Self::Failed,
            (Self::Waiting(_) | Self::Deciding | Self::Ready | Self::Running, Signal::Skip) => Self::Skipped,
            (state, signal) => unreachable!("{signal:?} cannot happen to a node that is {state:?}"),
        }
    }

    /// Whether nothing more happens to the node unless an object is lost.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed | Self::Skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(state: State, signals: &[Signal]) -> State {
        signals.iter().fold(state, |state, signal| state.after(*signal))
    }

    #[test]
    fn a_node_is_decided_when_its_last_input_is_there() {
        assert_eq!(walk(State::Waiting(2), &[Signal::Input]), State::Waiting(1));
        assert_eq!(walk(State::Waiting(2), &[Signal::Input, Signal::Input, Signal::Found]), State::Done(How::Hit));
    }

    #[test]
    fn a_lost_input_sends_its_consumer_back_and_its_maker_to_work() {
        use Signal::{Input, InputLost, Lost, Made, Missing, Returned, Taken};
        assert_eq!(walk(State::Deciding, &[Missing, Taken, Returned, InputLost]), State::Waiting(1));
        assert_eq!(walk(State::Waiting(1), &[Input, Missing, Taken, Made]), State::Done(How::Run));
        assert_eq!(walk(State::Done(How::Hit), &[Lost, Missing, Taken, Made]), State::Done(How::Run));
    }

    #[test]
    #[should_panic(expected = "cannot happen")]
    fn a_failed_node_stays_failed() {
        let _ = State::Failed.after(Signal::Made);
    }
}
