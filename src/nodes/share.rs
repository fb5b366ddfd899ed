//! `fraction` as a parameter: which share of the items a node takes.

use crate::artifact::ItemId;
use crate::diagnostic::counted;
use crate::draw::Draws;
use crate::node::{Failure, Parameter, by_default};
use crate::spec::Reader;

/// `fraction = [a, b]`: an item is kept when a ≤ u < b, u being the item's own number of [0, 1). It depends on the
/// pipeline's seed and the item alone, so that [0, 0.5] and [0.5, 1] complement each other in any two nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fraction([f64; 2]);

const WHOLE: [f64; 2] = [0.0, 1.0];

impl Fraction {
    /// Reads `fraction`; by default all items are kept.
    pub fn read(table: &mut Reader<'_>) -> Self {
        Self(table.interval("fraction", WHOLE, 0.0..=1.0))
    }

    /// Whether `id` is kept.
    pub fn keeps(&self, pipeline_seed: u64, id: &ItemId) -> bool {
        let Self([low, high]) = *self;
        let share = || Draws::new(pipeline_seed, "share", id.as_str()).uniform();
        !self.draws() || (low..high).contains(&share())
    }

    /// Whether the pipeline's seed matters.
    pub fn draws(&self) -> bool {
        self.0 != WHOLE
    }

    /// Fails when none of `all` items is kept: a result without rows is nobody's wish.
    ///
    /// # Errors
    /// See there.
    pub fn check_kept(&self, kept: usize, all: usize) -> Result<(), Failure> {
        let Self([low, high]) = self;
        match (kept, all) {
            (1.., _) => Ok(()),
            (0, 0) => Err(Failure::node("there is nothing to work on: no picture comes in")),
            (0, _) => {
                Err(Failure::node(format!("`fraction = [{low}, {high}]` takes none of {}", counted(all, "picture")))
                    .help("widen `fraction`, or sample more pictures: few of them may all fall to the other share"))
            }
        }
    }

    /// What it means that `parameter` is left out, if it is this one.
    pub fn left_out(parameter: &str) -> Option<String> {
        if parameter == "fraction" { by_default(WHOLE.to_vec()) } else { None }
    }

    /// The parameter, where it differs from its default.
    pub fn parameter(&self) -> Option<Parameter> {
        self.draws().then(|| Parameter::selection("fraction", self.0.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn complements_take_every_item_once() {
        let (first, second) = (Fraction([0.0, 0.3]), Fraction([0.3, 1.0]));
        let ids: Vec<ItemId> = (0..2000u32).map(|n| ItemId::new(Digest::of(&n.to_le_bytes()))).collect();
        assert!(ids.iter().all(|id| first.keeps(42, id) != second.keeps(42, id)));
        let kept = ids.iter().filter(|id| first.keeps(42, id)).count();
        assert!((540..660).contains(&kept), "{kept}");
        assert!(ids.iter().all(|id| Fraction(WHOLE).keeps(42, id)));
    }

    #[test]
    fn a_share_that_takes_nothing_is_a_failure() {
        let told = |kept, all| Fraction([0.0, 0.01]).check_kept(kept, all).err().map(|failure| failure.to_string());
        assert_eq!(told(1, 5), None);
        assert_eq!(told(0, 5).as_deref(), Some("`fraction = [0, 0.01]` takes none of 5 pictures"));
        assert_eq!(told(0, 0).as_deref(), Some("there is nothing to work on: no picture comes in"));
    }

    /// What changes here gives every cached pipeline other items: raise the versions of the kinds that take shares.
    #[test]
    fn shares_are_what_they_were() {
        let share = |n: u8| (Draws::new(42, "share", ItemId::new(Digest::of(&[n])).as_str()).uniform() * 1000.0) as u32;
        assert_eq!([0, 1, 2, 3, 4].map(share), [55, 746, 396, 419, 748]);
    }
}
