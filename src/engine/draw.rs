//! Random draws as a function of (seed, purpose, subject), never of a stream that others share.
//!
//! Order, batching, sharding and resuming therefore cannot change what an item draws. This module does not know what
//! is drawn.

use rand_core::RngCore;

/// Draws for one subject: an unbounded sequence determined by (seed, purpose, subject).
pub struct Draws(blake3::OutputReader);

impl Draws {
    /// Draws of `seed` for `purpose` (for example `"share"`) and `subject` (for example an item id).
    pub fn new(seed: u64, purpose: &str, subject: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("stic draw v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        hasher.update(subject.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// A number of [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An integer of 0 … `count` − 1, without bias.
    ///
    /// # Panics
    /// When `count` is zero.
    pub fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "nothing to draw from");
        let count = count as u64;
        let limit = u64::MAX - u64::MAX % count;
        loop {
            let value = self.next_u64();
            if value < limit {
                return (value % count) as usize;
            }
        }
    }

    /// A number of the standard normal distribution (Box and Muller's transform).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts `values` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

impl RngCore for Draws {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_purpose_and_subject_alone() {
        let first = |seed, purpose, subject| Draws::new(seed, purpose, subject).next_u64();
        assert_eq!(first(1, "share", "a"), first(1, "share", "a"));
        assert_ne!(first(1, "share", "a"), first(2, "share", "a"));
        assert_ne!(first(1, "share", "a"), first(1, "prompt", "a"));
        assert_ne!(first(1, "share", "ab"), first(1, "sharea", "b"));
    }

    #[test]
    fn uniform_draws_fill_the_unit_interval() {
        let mut draws = Draws::new(7, "test", "");
        let values: Vec<f64> = (0..10_000).map(|_| draws.uniform()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut draws = Draws::new(7, "test", "");
        let values: Vec<f64> = (0..20_000).map(|_| draws.normal()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
