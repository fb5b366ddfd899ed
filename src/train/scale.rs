//! Dynamic loss scaling, for gradients in f16.
//!
//! f16 loses values below 6e-8 and overflows above 65,504. So the loss is multiplied by a power of two before the
//! backward pass and gradients are divided by it after; the power adapts to overflows. This module does not know what
//! is scaled.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

/// The loss scale and when it changes, as `torch.amp.GradScaler`, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    scale: f64,
    /// Steps without an overflow since the scale was last changed.
    clean: u32,
}

/// `init_scale`.
const INITIAL: f64 = 65_536.0;
/// `growth_interval`: after so many steps without an overflow the scale doubles.
const GROWTH_INTERVAL: u32 = 2000;
/// Below this, what overflows is not due to the scale.
const LEAST: f64 = 1.0;

impl LossScale {
    /// The scale that a training in `dtype` starts with; `None` where nothing need be scaled.
    pub fn of(dtype: DType) -> Option<Self> {
        (dtype == DType::F16).then_some(Self { scale: INITIAL, clean: 0 })
    }

    /// What the loss is multiplied by.
    pub fn factor(self) -> f64 {
        self.scale
    }

    /// The scale after a step that did not overflow.
    #[must_use]
    pub fn after_step(self) -> Self {
        let clean = self.clean + 1;
        if clean < GROWTH_INTERVAL { Self { clean, ..self } } else { Self { scale: 2.0 * self.scale, clean: 0 } }
    }

    /// The scale after a step that overflowed and was left out; `None` when a smaller one would not help.
    #[must_use]
    pub fn after_overflow(self) -> Option<Self> {
        (self.scale > LEAST).then_some(Self { scale: self.scale / 2.0, clean: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_floats_of_five_exponent_bits_are_scaled() {
        assert_eq!(LossScale::of(DType::F16).map(LossScale::factor), Some(65_536.0));
        assert_eq!([DType::F32, DType::BF16].map(LossScale::of), [None, None]);
    }

    #[test]
    fn the_scale_halves_at_an_overflow_and_doubles_after_2000_steps_without_one() {
        let start = LossScale::of(DType::F16).unwrap();
        let halved = start.after_overflow().unwrap();
        assert_eq!(halved.factor(), 32_768.0);
        let almost = (0..1999).fold(halved, |scale, _| scale.after_step());
        assert_eq!(almost.factor(), 32_768.0);
        assert_eq!(almost.after_step().factor(), 65_536.0);
        // An overflow resets the count.
        let again = almost.after_overflow().unwrap().after_step();
        assert_eq!(again.factor(), 16_384.0);
    }

    #[test]
    fn there_is_an_end_to_overflows() {
        let mut scale = LossScale::of(DType::F16);
        let mut count = 0;
        while let Some(now) = scale {
            scale = now.after_overflow();
            count += 1;
        }
        assert_eq!(count, 17);
    }
}
