//! Interrupts a run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Interrupts a run, and counts the nodes that still have something to save.
///
/// Once it is set, nothing new starts. A node that runs as a whole may save a checkpoint when it sees the interrupt;
/// finished items are saved as they come. A node in the middle of a long computation does not look, so the process may
/// exit as soon as [no node is stopping](Interrupt::stopping): the cache stays valid at any moment.
#[derive(Debug, Default)]
pub struct Interrupt {
    set: AtomicBool,
    stopping: AtomicUsize,
}

impl Interrupt {
    /// Interrupts. Returns whether it was interrupted before.
    pub fn set(&self) -> bool {
        self.set.swap(true, Ordering::SeqCst)
    }

    /// Whether the run is to end.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// How many nodes have seen the interrupt, may have something to save, and have not ended yet.
    pub fn stopping(&self) -> usize {
        self.stopping.load(Ordering::SeqCst)
    }
}

/// One node's view of an [`Interrupt`].
pub struct NodeInterrupt<'a> {
    interrupt: &'a Interrupt,
    /// Whether the node may have something to save.
    saves: bool,
    seen: AtomicBool,
}

impl<'a> NodeInterrupt<'a> {
    /// For a node that may have something to save, or not.
    pub fn new(interrupt: &'a Interrupt, saves: bool) -> Self {
        Self { interrupt, saves, seen: AtomicBool::new(false) }
    }

    /// Whether the run is interrupted; the node counts as stopping from then on, until this is dropped.
    pub fn is_set(&self) -> bool {
        let is_set = self.interrupt.is_set();
        if is_set && self.saves && !self.seen.swap(true, Ordering::SeqCst) {
            self.interrupt.stopping.fetch_add(1, Ordering::SeqCst);
        }
        is_set
    }
}

impl Drop for NodeInterrupt<'_> {
    fn drop(&mut self) {
        if *self.seen.get_mut() {
            self.interrupt.stopping.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_stopping_from_its_first_look_until_it_has_ended() {
        let interrupt = Interrupt::default();
        let [one, two, items] = [true, true, false].map(|saves| NodeInterrupt::new(&interrupt, saves));
        assert!(!one.is_set() && !interrupt.set() && interrupt.set());
        assert!(one.is_set() && one.is_set());
        assert!(items.is_set());
        assert_eq!(interrupt.stopping(), 1, "of the others one has not looked and one has nothing to save");
        drop((one, two, items));
        assert_eq!(interrupt.stopping(), 0);
    }
}
