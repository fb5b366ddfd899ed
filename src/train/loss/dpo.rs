//! Direct preference optimization with STIC's regularizer.
//!
//! Equation 4.1 of <https://arxiv.org/abs/2405.19716>: equation 7 of <https://arxiv.org/abs/2305.18290> for each pair,
//! less `chosen_weight` times the chosen response's log-probability, so that a preferred response does not become less
//! likely while its rival falls faster.

use serde::{Deserialize, Serialize};

/// Log-probabilities of a pair, summed over the tokens of each response, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// The preferred response.
    pub chosen: f64,
    /// The rejected response.
    pub rejected: f64,
}

/// The loss and its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dpo {
    /// λ of the paper, β of DPO: how far the policy is held to the reference.
    pub beta: f64,
    /// α of the paper: the weight of the regularizer.
    pub chosen_weight: f64,
}

/// The terms of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// `ln(1 + exp(−z))`, `z` being [`PairLoss::margin`].
    pub dpo: f64,
    /// `−chosen_weight · log p(chosen)`.
    pub regularizer: f64,
    /// `beta · (policy − reference)` of the chosen response.
    pub reward_chosen: f64,
    /// The same of the rejected one.
    pub reward_rejected: f64,
    /// `∂loss/∂log p` of the chosen response, that is of each of its tokens.
    pub weight_chosen: f64,
    /// The same of the rejected one.
    pub weight_rejected: f64,
}

impl PairLoss {
    /// What is minimized.
    pub fn loss(&self) -> f64 {
        self.dpo + self.regularizer
    }

    /// `z`: by how much the chosen response's reward exceeds the rejected one's.
    pub fn margin(&self) -> f64 {
        self.reward_chosen - self.reward_rejected
    }

    /// Whether the chosen response has the greater reward; at the first step both are zero, and it has not.
    pub fn right(&self) -> bool {
        self.reward_chosen > self.reward_rejected
    }
}

impl Dpo {
    /// The loss of one pair under `policy`, held to `reference`.
    pub fn pair(&self, policy: Sums, reference: Sums) -> PairLoss {
        let reward_chosen = self.beta * (policy.chosen - reference.chosen);
        let reward_rejected = self.beta * (policy.rejected - reference.rejected);
        let z = reward_chosen - reward_rejected;
        // ln(1 + exp(−z)) and σ(−z), written so that no exponential overflows.
        let small = (-z.abs()).exp();
        let dpo = small.ln_1p() + (-z).max(0.0);
        let sigmoid = if z >= 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
        PairLoss {
            dpo,
            regularizer: -self.chosen_weight * policy.chosen,
            reward_chosen,
            reward_rejected,
            weight_chosen: -self.beta * sigmoid - self.chosen_weight,
            weight_rejected: self.beta * sigmoid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Dpo = Dpo { beta: 0.1, chosen_weight: 1.0 / 1024.0 };

    fn pair(dpo: Dpo, [pc, pr, rc, rr]: [f64; 4]) -> PairLoss {
        dpo.pair(Sums { chosen: pc, rejected: pr }, Sums { chosen: rc, rejected: rr })
    }

    #[test]
    fn golden_values_hold() {
        let golden = [
            ([-100.0, -150.0, -110.0, -140.0], [0.126928, 0.097656, 0.224584, 1.0, -1.0]),
            ([-50.0, -60.0, -50.0, -60.0], [std::f64::consts::LN_2, 0.048828, 0.741975, 0.0, 0.0]),
            ([-200.0, -180.0, -210.0, -170.0], [0.126928, 0.195312, 0.322241, 1.0, -1.0]),
            ([-1024.0, -900.0, -1030.0, -905.0], [0.644397, 1.0, 1.644397, 0.6, 0.5]),
            ([-80.5, -120.25, -90.75, -100.5], [0.048587, 0.078613, 0.127201, 1.025, -1.975]),
        ];
        for (sums, expected) in golden {
            let found = pair(PAPER, sums);
            let found = [found.dpo, found.regularizer, found.loss(), found.reward_chosen, found.reward_rejected];
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{sums:?}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_margin_of_ln_3_leaves_a_quarter_of_doubt() {
        // By hand: σ(−ln 3) = 1/4, so the loss is −ln(3/4) and the weights are ∓β/4 (less α).
        let found = pair(Dpo { beta: 0.5, chosen_weight: 0.25 }, [2.0 * 3f64.ln() - 8.0, -4.0, -8.0, -4.0]);
        assert!((found.dpo - (4.0f64 / 3.0).ln()).abs() < 1e-15);
        assert!((found.weight_chosen + 0.125 + 0.25).abs() < 1e-15);
        assert!((found.weight_rejected - 0.125).abs() < 1e-15);
    }

    #[test]
    fn before_the_first_step_the_weights_are_half_beta_and_nothing_is_right() {
        let found = pair(PAPER, [-50.0, -60.0, -50.0, -60.0]);
        assert_eq!((found.weight_chosen, found.weight_rejected), (-0.05 - 1.0 / 1024.0, 0.05));
        assert!(!found.right());
    }

    #[test]
    fn the_weights_are_the_derivatives_of_the_loss() {
        let step = 1e-5;
        for sums in [[-30.0, -40.0, -35.0, -38.0], [-90.0, -20.0, -10.0, -20.0], [-1.0, -600.0, -2.0, -3.0]] {
            let found = pair(PAPER, sums);
            for (index, weight) in [found.weight_chosen, found.weight_rejected].into_iter().enumerate() {
                let at = |delta: f64| {
                    let mut moved = sums;
                    moved[index] += delta;
                    pair(PAPER, moved).loss()
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - weight).abs() < 1e-8, "{sums:?} {index}: {slope} {weight}");
            }
        }
    }

    #[test]
    fn extreme_margins_stay_finite() {
        for sums in [[0.0, -1e6, 0.0, 0.0], [-1e6, 0.0, 0.0, 0.0]] {
            let found = pair(PAPER, sums);
            assert!(found.loss().is_finite() && found.weight_chosen.is_finite(), "{found:?}");
        }
        assert!((pair(PAPER, [-1e6, 0.0, 0.0, 0.0]).dpo - 1e5).abs() < 1e-6);
    }
}
