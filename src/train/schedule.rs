//! The learning rate over the steps: a linear warm-up from zero, then a decay, as transformers schedules it.
//!
//! The first step has rate zero whenever there is a warm-up. This module does not know what the rate is applied to.

use std::f64::consts::PI;

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Half a cosine wave, from the peak to zero at the last step's end.
    #[default]
    Cosine,
    /// A straight line from the peak to zero.
    Linear,
    /// The peak throughout.
    Constant,
}

impl Schedule {
    /// The names in a pipeline file.
    pub const NAMES: [(&str, Self); 3] =
        [("cosine", Self::Cosine), ("linear", Self::Linear), ("constant", Self::Constant)];
}

/// The learning rate of every step of one training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRate {
    schedule: Schedule,
    peak: f64,
    warmup: usize,
    total: usize,
}

impl LearningRate {
    /// A training of `total` steps, of which the share `warmup_ratio`, rounded up, warms up to `peak`.
    pub fn new(schedule: Schedule, peak: f64, warmup_ratio: f64, total: usize) -> Self {
        Self { schedule, peak, warmup: (total as f64 * warmup_ratio).ceil() as usize, total }
    }

    /// The rate of `step`, counted from zero.
    pub fn at(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }

    /// The share of the peak at `step`. Past the end it stays where the decay ended.
    pub fn factor(&self, step: usize) -> f64 {
        if step < self.warmup {
            return step as f64 / self.warmup as f64;
        }
        let decaying = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / decaying).min(1.0);
        match self.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Schedule::Linear => 1.0 - progress,
            Schedule::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: Schedule, ratio: f64, total: usize) -> Vec<f64> {
        let rate = LearningRate::new(schedule, 1.0, ratio, total);
        (0..total).map(|step| rate.factor(step)).collect()
    }

    #[test]
    fn the_paper_s_two_stages_warm_up_for_23_and_3_steps() {
        assert_eq!(LearningRate::new(Schedule::Cosine, 1e-7, 0.03, 762).warmup, 23);
        assert_eq!(LearningRate::new(Schedule::Cosine, 2e-5, 0.03, 78).warmup, 3);
        assert_eq!(factors(Schedule::Cosine, 0.03, 78)[..4], [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
    }

    #[test]
    fn the_cosine_passes_half_in_the_middle_and_ends_near_zero() {
        // 8 steps, 2 of warm-up: 0, 1/2, then (1 + cos(π·k/6)) / 2 for k = 0 … 5.
        let expected = [0.0, 0.5, 1.0, 0.933_012_701_892, 0.75, 0.5, 0.25, 0.066_987_298_108];
        for (found, expected) in factors(Schedule::Cosine, 0.25, 8).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-11, "{found} {expected}");
        }
    }

    #[test]
    fn the_line_falls_evenly_and_the_constant_does_not() {
        assert_eq!(factors(Schedule::Linear, 0.2, 5), [0.0, 1.0, 0.75, 0.5, 0.25]);
        assert_eq!(factors(Schedule::Constant, 0.2, 5), [0.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn without_a_warm_up_the_first_step_has_the_full_rate() {
        assert_eq!(factors(Schedule::Linear, 0.0, 4), [1.0, 0.75, 0.5, 0.25]);
    }

    #[test]
    fn the_cosine_does_not_rise_again_past_its_end() {
        assert_eq!(LearningRate::new(Schedule::Cosine, 1.0, 0.0, 4).factor(6), 0.0);
    }
}
