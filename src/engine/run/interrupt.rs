//! Asking a run to end. It does not know who asks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Asks a run to end, and knows how many nodes are about to.
///
/// Nothing new is begun once it is set. A node that runs as a whole and looks has noticed, and may have something to
/// keep, such as a training's checkpoint; finished items are kept as they come. One that computes something long does
/// not look: whoever owns the process may end it when no node [is ending](Interrupt::ending) any more, since the cache
/// can be left at any moment.
#[derive(Debug, Default)]
pub struct Interrupt {
    set: AtomicBool,
    ending: AtomicUsize,
}

impl Interrupt {
    /// Asks. Returns whether it was asked before.
    pub fn set(&self) -> bool {
        self.set.swap(true, Ordering::SeqCst)
    }

    /// Whether the run is to end.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// How many nodes that may have something to keep have noticed, and have not ended yet.
    pub fn ending(&self) -> usize {
        self.ending.load(Ordering::SeqCst)
    }
}

/// What one node knows of an interrupt.
pub struct Noticing<'a> {
    interrupt: &'a Interrupt,
    /// Whether the node may have something to keep.
    keeps: bool,
    noticed: AtomicBool,
}

impl<'a> Noticing<'a> {
    /// A node that has not noticed anything, and that may have something to keep (`keeps`) when it does.
    pub fn new(interrupt: &'a Interrupt, keeps: bool) -> Self {
        Self { interrupt, keeps, noticed: AtomicBool::new(false) }
    }

    /// Whether the run is to end; the node is taken to be ending from then on, until this is dropped.
    pub fn look(&self) -> bool {
        let is_set = self.interrupt.is_set();
        if is_set && self.keeps && !self.noticed.swap(true, Ordering::SeqCst) {
            self.interrupt.ending.fetch_add(1, Ordering::SeqCst);
        }
        is_set
    }
}

impl Drop for Noticing<'_> {
    fn drop(&mut self) {
        if *self.noticed.get_mut() {
            self.interrupt.ending.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ending_from_its_first_look_until_it_has_ended() {
        let interrupt = Interrupt::default();
        let [one, two, items] = [true, true, false].map(|keeps| Noticing::new(&interrupt, keeps));
        assert!(!one.look() && !interrupt.set() && interrupt.set());
        assert!(one.look() && one.look());
        assert!(items.look());
        assert_eq!(interrupt.ending(), 1, "of the others one has not looked and one has nothing to keep");
        drop((one, two, items));
        assert_eq!(interrupt.ending(), 0);
    }
}
