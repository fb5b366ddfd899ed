//! What drops out of the inputs of adapters while they are trained.
//!
//! Whether a value drops out is an integer hash of the row's seed, the linear layer, the position and the feature: the
//! same on every device, in any order, and in any batch. A mask is requested twice, in the forward and the backward
//! pass, and is the same. On a GPU a kernel computes it, from the seeds of the rows. This module does not know losses.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand_core::RngCore;
use rayon::prelude::*;

use crate::model::adapter::{Change, LayerAdapter};
use crate::model::batch::Batch;
use crate::model::kernels::{self, Dropping};
use crate::model::shape::LinearSpec;
use stic_engine::draw::Draws;

/// What drops out of the inputs of A in one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// The share of values that drop out, of (0, 1).
    pub probability: f64,
    /// The node's seed.
    pub seed: u64,
    /// What names each row's draws: step and place in the batch.
    pub subjects: &'a [String],
}

/// The masks of one micro-batch.
#[derive(Debug)]
pub struct Masks {
    /// Two numbers a row.
    seeds: Vec<[u32; 2]>,
    /// The same on a device that computes the masks, `[rows, 2]`.
    uploaded: Option<Tensor<2, Int>>,
    device: Device,
    /// Positions a row.
    length: usize,
    /// Draws below it drop out.
    threshold: u32,
    /// What multiplies the values that stay.
    scale: f32,
}

impl Masks {
    /// Those of `dropout` for `batch`.
    pub fn new(dropout: &Dropout<'_>, batch: &Batch) -> Self {
        let [rows, length, _] = batch.input.hidden.dims();
        assert_eq!(dropout.subjects.len(), rows, "a subject for every row");
        Self::of_rows(dropout, length, &batch.input.hidden.device())
    }

    fn of_rows(dropout: &Dropout<'_>, length: usize, device: &Device) -> Self {
        let seed = |subject: &String| {
            let mut draws = Draws::new(dropout.seed, "dropout", subject);
            // 31 bits each, so that they are the same number as signed integers of 32 bits.
            [draws.next_u32() >> 1, draws.next_u32() >> 1]
        };
        let seeds: Vec<[u32; 2]> = dropout.subjects.iter().map(seed).collect();
        let uploaded = kernels::on(device).then(|| {
            let values = seeds.iter().flatten().map(|seed| *seed as i32).collect();
            Tensor::from_data(TensorData::new::<i32, _>(values, [seeds.len(), 2]), (device, DType::I32))
        });
        Self {
            seeds,
            uploaded,
            device: device.clone(),
            length,
            threshold: (dropout.probability * 2f64.powi(32)).round().min(f64::from(u32::MAX)) as u32,
            scale: (1.0 / (1.0 - dropout.probability)) as f32,
        }
    }

    /// `layer`, the one with this index, with what drops out.
    pub fn of(&self, layer: &LayerAdapter, index: usize, linears: &[LinearSpec]) -> LayerAdapter {
        let mut layer = layer.clone();
        for (linear, (spec, change)) in std::iter::zip(linears, &mut layer.0).enumerate() {
            if let Some(Change::Lora(lora)) = change {
                lora.dropout = Some(self.mask([index, linear], spec.shape[1]));
            }
        }
        layer
    }

    /// What multiplies the inputs, `features` wide, of a linear layer given by its decoder layer and its place there: 0
    /// where a value drops out, `1 / (1 − probability)` where it stays: `[rows · length, features]`.
    fn mask(&self, [layer, linear]: [usize; 2], features: usize) -> Tensor<2> {
        assert!(self.length * features <= u32::MAX as usize, "a row's values are counted in 32 bits");
        let salt = ((layer << 8) | linear) as u32 + 1;
        let Self { threshold, scale, length, .. } = *self;
        let dropping = Dropping { salt, threshold, scale, length, features };
        if let Some(mask) = self.uploaded.as_ref().and_then(|seeds| kernels::dropout(seeds, dropping)) {
            return mask;
        }
        let mut kept = vec![0f32; self.seeds.len() * length * features];
        let (a_row, a_part) = (length * features, features.max(1 << 14));
        for (row, seed) in std::iter::zip(kept.chunks_mut(a_row), &self.seeds) {
            let keys = keys(*seed, salt);
            row.par_chunks_mut(a_part).enumerate().for_each(|(part, kept)| {
                for (place, kept) in (part * a_part..).zip(kept) {
                    *kept = if draw(keys, place as u32) >= threshold { scale } else { 0.0 };
                }
            });
        }
        let data = TensorData::new(kept, [self.seeds.len() * length, features]);
        Tensor::from_data(data, (&self.device, DType::F32))
    }
}

/// A row's keys for one linear layer.
fn keys([first, second]: [u32; 2], salt: u32) -> [u32; 2] {
    [mixed(first ^ salt), mixed(second.wrapping_add(salt.wrapping_mul(0x9e37_79b9)))]
}

/// The draw for a place in a row: position · features + feature.
fn draw([first, second]: [u32; 2], place: u32) -> u32 {
    mixed(mixed(mixed(place ^ first).wrapping_add(second)) ^ first)
}

/// The finaliser of MurmurHash3.
fn mixed(value: u32) -> u32 {
    let value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny::device;

    const LENGTH: usize = 96;
    const FEATURES: usize = 128;

    fn masks(probability: f64, subjects: &[&str], device: &Device) -> Masks {
        let subjects: Vec<String> = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        Masks::of_rows(&Dropout { probability, seed: 1, subjects: &subjects }, LENGTH, device)
    }

    fn values(mask: Tensor<2>) -> Vec<f32> {
        mask.try_into_vec_as().unwrap()
    }

    fn dropped(mask: Tensor<2>) -> Vec<bool> {
        values(mask).into_iter().map(|value| value == 0.0).collect()
    }

    #[test]
    fn the_expected_share_drops_out_and_the_rest_is_scaled() {
        for probability in [0.05, 0.25, 0.5, 0.9] {
            let masks = masks(probability, &["1 0", "1 1"], &Device::flex());
            let (mut count, mut all) = (0, 0);
            for layer in 0..8 {
                for value in values(masks.mask([layer, 0], FEATURES)) {
                    assert!(value == 0.0 || (f64::from(value) - 1.0 / (1.0 - probability)).abs() < 1e-6);
                    count += usize::from(value == 0.0);
                    all += 1;
                }
            }
            // Four standard deviations.
            let (share, sigma) = (count as f64 / all as f64, (probability * (1.0 - probability) / all as f64).sqrt());
            assert!((share - probability).abs() < 4.0 * sigma, "{share} of {probability}");
        }
    }

    #[test]
    fn draws_of_rows_steps_layers_linears_and_neighbors_are_independent() {
        let first = masks(0.5, &["1 0", "1 1"], &Device::flex());
        let later = masks(0.5, &["2 0", "2 1"], &Device::flex());
        let base = dropped(first.mask([3, 2], FEATURES));
        let count = LENGTH * FEATURES;
        let shifted = |by: usize| base.iter().cycle().skip(by).copied().take(2 * count).collect::<Vec<_>>();
        let mut others = vec![
            dropped(first.mask([4, 2], FEATURES)),
            dropped(first.mask([3, 3], FEATURES)),
            dropped(first.mask([2, 3], FEATURES)),
            dropped(later.mask([3, 2], FEATURES)),
            // The other row, the next feature, the next position, and far ones.
            shifted(count),
        ];
        others.extend([1, 2, 3, 4, 8, 64, FEATURES, 2 * FEATURES, 17 * FEATURES + 5].map(shifted));
        for (index, other) in others.iter().enumerate() {
            let alike = std::iter::zip(&base, other).filter(|(a, b)| a == b).count() as f64;
            let deviation = (alike - count as f64) / (count as f64 / 2.0).sqrt();
            assert!(deviation.abs() < 4.0, "{index}: {alike} of {} are alike, {deviation} deviations", 2 * count);
        }
        // Every feature and every position: the largest of some hundred deviations.
        let rows: Vec<&[bool]> = base.chunks(FEATURES).collect();
        let by_feature = (0..FEATURES).map(|feature| rows.iter().map(|row| row[feature]).collect::<Vec<_>>());
        for line in by_feature.chain(rows.iter().map(|row| row.to_vec())) {
            let ones = line.iter().filter(|dropped| **dropped).count() as f64;
            let deviation = (ones - line.len() as f64 / 2.0) / (line.len() as f64 / 4.0).sqrt();
            assert!(deviation.abs() < 4.5, "{ones} of {}", line.len());
        }
    }

    #[test]
    fn a_place_s_draw_depends_on_neither_the_length_nor_the_other_rows() {
        let (pair, alone) = (masks(0.3, &["1 0", "1 1"], &Device::flex()), masks(0.3, &["1 1"], &Device::flex()));
        let longer = Masks { length: LENGTH + 32, ..masks(0.3, &["1 1"], &Device::flex()) };
        let found = dropped(alone.mask([0, 6], FEATURES));
        assert_eq!(dropped(pair.mask([0, 6], FEATURES))[LENGTH * FEATURES..], found);
        assert_eq!(dropped(longer.mask([0, 6], FEATURES))[..LENGTH * FEATURES], found);
    }

    #[test]
    fn every_device_draws_the_same_bits() {
        let (there, here) = (masks(0.25, &["1 0", "7 3"], &device()), masks(0.25, &["1 0", "7 3"], &Device::flex()));
        for place in [[0, 0], [31, 6]] {
            for features in [1, 7, FEATURES] {
                assert_eq!(values(there.mask(place, features)), values(here.mask(place, features)));
            }
        }
    }

    #[test]
    fn the_draws_are_these() {
        // What changes them changes the results of training with dropout.
        let drawn: Vec<u32> = (0..4).map(|place| draw(keys([1, 2], 3), place)).collect();
        assert_eq!(drawn, DRAWN);
    }

    const DRAWN: [u32; 4] = [807_378_121, 3_032_589_518, 3_589_854_166, 754_748_671];
}
