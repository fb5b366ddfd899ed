//! The kernels, in CubeCL's dialect of Rust, which becomes WGSL, SPIR-V, CUDA C++ or MSL.
//!
//! They compute in 32 bits and round where the composed operations round. A cube has [`UNITS`] units, which is what
//! every device has; sums go through shared memory, since subgroups differ from device to device.

#![allow(clippy::too_many_arguments, reason = "tensors, their sizes and constants of the compilation")]

use cubecl::prelude::*;

/// Units of a cube.
pub const UNITS: u32 = 256;
/// Keys that a cube attends to.
pub const SPAN: usize = 128;
/// Units that share a key.
const LANES: usize = 8;
/// Units that share a row of B.
pub const LORA_LANES: usize = 8;

/// Far below any score, and finite.
const HIDDEN: f32 = -1e30;

/// The sum of every unit's value.
#[cube]
fn sum_of_units(value: f32, #[comptime] units: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut active = CUBE_DIM;
    while active > 1 {
        active /= 2;
        if UNIT_POS < active {
            let other = shared[(UNIT_POS + active) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
    }
    shared[0]
}

/// RMS norm, a cube a row. `rows`: `[rows, features]`; `output`: the same, contiguous.
#[cube(launch)]
pub fn rms_norm<E: Float>(
    rows: &Tensor<E>,
    weight: &Tensor<E>,
    output: &mut Tensor<E>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let features = output.shape(1);
    if row < output.shape(0) {
        let from = row * rows.stride(0);
        let mut sum = f32::new(0.0);
        let mut place = UNIT_POS as usize;
        while place < features {
            let value = f32::cast_from(rows[from + place]);
            sum += value * value;
            place += units;
        }
        let mean = sum_of_units(sum, units) / f32::cast_from(features as u32);
        let scale = f32::new(1.0) / (mean + epsilon).sqrt();
        let mut place = UNIT_POS as usize;
        while place < features {
            let normal = E::cast_from(f32::cast_from(rows[from + place]) * scale);
            output[row * features + place] = E::cast_from(f32::cast_from(normal) * f32::cast_from(weight[place]));
            place += units;
        }
    }
}

/// `sum = rows + more`, and its RMS norm.
#[cube(launch)]
pub fn add_rms_norm<E: Float>(
    rows: &Tensor<E>,
    more: &Tensor<E>,
    weight: &Tensor<E>,
    total: &mut Tensor<E>,
    output: &mut Tensor<E>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    let features = output.shape(1);
    if row < output.shape(0) {
        let from = row * rows.stride(0);
        let and = row * more.stride(0);
        let to = row * features;
        let mut sum = f32::new(0.0);
        let mut place = UNIT_POS as usize;
        while place < features {
            let value = E::cast_from(f32::cast_from(rows[from + place]) + f32::cast_from(more[and + place]));
            total[to + place] = value;
            let value = f32::cast_from(value);
            sum += value * value;
            place += units;
        }
        let mean = sum_of_units(sum, units) / f32::cast_from(features as u32);
        let scale = f32::new(1.0) / (mean + epsilon).sqrt();
        let mut place = UNIT_POS as usize;
        while place < features {
            // Written by this very unit.
            let normal = E::cast_from(f32::cast_from(total[to + place]) * scale);
            output[to + place] = E::cast_from(f32::cast_from(normal) * f32::cast_from(weight[place]));
            place += units;
        }
    }
}

/// `silu(gate) · up` of `product`, `[rows, gate and up side by side]`, a unit a value.
#[cube(launch)]
pub fn swiglu<E: Float>(product: &Tensor<E>, output: &mut Tensor<E>, #[define(E)] _dtype: ElemType) {
    let width = output.shape(1);
    let place = ABSOLUTE_POS;
    if place < output.shape(0) * width {
        let from = place / width * product.stride(0) + place % width;
        let gate = f32::cast_from(product[from]);
        let gate = E::cast_from(gate / (f32::new(1.0) + (-gate).exp()));
        output[place] = E::cast_from(f32::cast_from(gate) * f32::cast_from(product[from + width]));
    }
}

/// Turns the heads of queries and keys, and lays out queries, keys and values by head, a unit for each pair (i, i +
/// half) of a head.
///
/// - `product`: `[batch · length, queries, keys and values side by side]`
/// - `table`: `[positions, cosines and sines]`
/// - `positions`: `[batch or 1, positions]`, of which those from `start` on count
/// - `query`: `[batch, heads, length, size]`, contiguous
/// - `keys`, `values`: `[batch, key heads, capacity, size]`, written from the slot `filled` on
#[cube(launch)]
pub fn rotate<E: Float>(
    product: &Tensor<E>,
    table: &Tensor<f32>,
    positions: &Tensor<i32>,
    query: &mut Tensor<E>,
    keys: &mut Tensor<E>,
    values: &mut Tensor<E>,
    start: u32,
    filled: u32,
    #[define(E)] _dtype: ElemType,
) {
    let heads = query.shape(1);
    let length = query.shape(2);
    let half = query.shape(3) / 2;
    let key_heads = keys.shape(1);
    let all = heads + 2 * key_heads;
    let item = ABSOLUTE_POS;
    if item < query.shape(0) * length * all * half {
        let row = item / (all * half);
        let head = item / half % all;
        let pair = item % half;
        let batch = row / length;
        let place = row % length;
        let from = row * product.stride(0) + head * 2 * half + pair;
        let low = f32::cast_from(product[from]);
        let high = f32::cast_from(product[from + half]);
        let slot = filled as usize + place;
        if head < heads + key_heads {
            // One row of positions may be for all of the batch.
            let own = batch % positions.shape(0) * positions.stride(0) + start as usize + place;
            let angle = u32::cast_from(positions[own]) as usize * table.stride(0) + pair;
            let cosine = table[angle];
            let sine = table[angle + half];
            let turned_low = E::cast_from(low * cosine - high * sine);
            let turned_high = E::cast_from(high * cosine + low * sine);
            if head < heads {
                let to = ((batch * heads + head) * length + place) * 2 * half + pair;
                query[to] = turned_low;
                query[to + half] = turned_high;
            } else {
                let to = batch * keys.stride(0) + (head - heads) * keys.stride(1) + slot * keys.stride(2) + pair;
                keys[to] = turned_low;
                keys[to + half] = turned_high;
            }
        } else {
            let head = head - heads - key_heads;
            let to = batch * values.stride(0) + head * values.stride(1) + slot * values.stride(2) + pair;
            values[to] = E::cast_from(low);
            values[to + half] = E::cast_from(high);
        }
    }
}

/// Attention of one query a row over [`SPAN`] slots of the cache, a cube for each span, few heads of one key head, and
/// row.
///
/// - `query`: `[batch, heads, 1, size]`, contiguous
/// - `keys`, `values`: `[batch, key heads, capacity, size]`
/// - `query_orders`: `[batch or 1, places]`, of which the one at `start` counts
/// - `key_orders`: `[batch or 1, slots]`
/// - `parts`: `[batch · heads, spans, size + 2]`: weighted values, the largest score, the sum of the weights
/// - `count`: how many slots are filled
/// - `together`: how many heads of a group a cube computes
#[cube(launch)]
pub fn attend_spans<E: Float>(
    query: &Tensor<E>,
    keys: &Tensor<E>,
    values: &Tensor<E>,
    query_orders: &Tensor<i32>,
    key_orders: &Tensor<i32>,
    parts: &mut Tensor<f32>,
    start: u32,
    count: u32,
    window: i32,
    scale: f32,
    #[comptime] together: usize,
    #[comptime] size: usize,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let span = CUBE_POS_X as usize;
    let first = CUBE_POS_Y as usize * together;
    let batch = CUBE_POS_Z as usize;
    let heads = query.shape(1);
    let head = batch * heads + first;
    let key_head = first / (heads / keys.shape(1));
    let from = span * SPAN;
    let end = count as usize;

    let mut queries = Shared::<[f32]>::new_slice(together * size);
    let mut scores = Shared::<[f32]>::new_slice(together * SPAN);
    let mut sums = Shared::<[f32]>::new_slice(together * units);
    let mut largest = Shared::<[f32]>::new_slice(together);

    let mut place = unit;
    while place < together * size {
        queries[place] = f32::cast_from(E::cast_from(f32::cast_from(query[head * size + place]) * scale));
        place += units;
    }
    sync_cube();

    let order = query_orders[batch % query_orders.shape(0) * query_orders.stride(0) + start as usize];
    let orders = batch % key_orders.shape(0) * key_orders.stride(0);
    let at_once = comptime!(units / LANES);
    let lane = unit % LANES;
    let mut pass = 0usize;
    while pass < SPAN {
        let slot = from + pass + unit / LANES;
        let mut own = Array::<f32>::new(together);
        #[unroll]
        for index in 0..together {
            own[index] = 0.0;
        }
        if slot < end {
            let key = batch * keys.stride(0) + key_head * keys.stride(1) + slot * keys.stride(2);
            let mut feature = lane;
            while feature < size {
                let value = f32::cast_from(keys[key + feature]);
                #[unroll]
                for index in 0..together {
                    own[index] += value * queries[index * size + feature];
                }
                feature += LANES;
            }
        }
        #[unroll]
        for index in 0..together {
            sums[index * units + unit] = own[index];
        }
        sync_cube();
        if unit < at_once * together {
            let index = unit / at_once;
            let key = unit % at_once;
            let mut score = f32::new(0.0);
            for lane in 0..LANES {
                score += sums[index * units + key * LANES + lane];
            }
            let slot = from + pass + key;
            if slot < end {
                let other = key_orders[orders + slot];
                // As `Slots::hidden`: -1 sees every key, and the largest number is seen by none.
                let late = other > order || order - other >= window;
                if other == 2147483647 || (order != -1 && late) {
                    score = f32::new(HIDDEN);
                }
            }
            scores[index * SPAN + pass + key] = score;
        }
        sync_cube();
        pass += at_once;
    }

    // The largest score, then the sum of the weights: 32 units for each head.
    let index = unit / 32;
    let helper = unit % 32;
    if index < together {
        let mut most = f32::new(HIDDEN);
        let mut key = helper;
        while key < SPAN {
            if from + key < end {
                most = max(most, scores[index * SPAN + key]);
            }
            key += 32;
        }
        sums[unit] = most;
    }
    sync_cube();
    if unit < together {
        let mut most = f32::new(HIDDEN);
        for helper in 0..32usize {
            most = max(most, sums[unit * 32 + helper]);
        }
        largest[unit] = most;
    }
    sync_cube();
    if index < together {
        let mut sum = f32::new(0.0);
        let mut key = helper;
        while key < SPAN {
            let mut weight = f32::new(0.0);
            if from + key < end {
                weight = (scores[index * SPAN + key] - largest[index]).exp();
            }
            scores[index * SPAN + key] = weight;
            sum += weight;
            key += 32;
        }
        sums[unit] = sum;
    }
    sync_cube();
    let spans = parts.shape(1);
    let width = comptime!(size + 2);
    if unit < together {
        let mut sum = f32::new(0.0);
        for helper in 0..32usize {
            sum += sums[unit * 32 + helper];
        }
        let to = ((head + unit) * spans + span) * width + size;
        parts[to] = largest[unit];
        parts[to + 1] = sum;
    }
    sync_cube();

    // A unit for each feature, as often as there is room.
    let copies = comptime!(units / size);
    let feature = unit % size;
    let copy = unit / size;
    if copy < copies {
        let mut own = Array::<f32>::new(together);
        #[unroll]
        for index in 0..together {
            own[index] = 0.0;
        }
        let mut key = copy;
        while key < SPAN {
            let slot = from + key;
            if slot < end {
                let at = batch * values.stride(0) + key_head * values.stride(1) + slot * values.stride(2) + feature;
                let value = f32::cast_from(values[at]);
                #[unroll]
                for index in 0..together {
                    own[index] += value * scores[index * SPAN + key];
                }
            }
            key += copies;
        }
        #[unroll]
        for index in 0..together {
            sums[index * units + unit] = own[index];
        }
    }
    sync_cube();
    if unit < size {
        #[unroll]
        for index in 0..together {
            let mut total = f32::new(0.0);
            for copy in 0..copies {
                total += sums[index * units + copy * size + unit];
            }
            parts[((head + index) * spans + span) * width + unit] = total;
        }
    }
}

/// Joins the spans of [`attend_spans`], a cube for each row and head. `output`: `[batch, heads · size]`, contiguous.
#[cube(launch)]
pub fn attend_joined<E: Float>(
    parts: &Tensor<f32>,
    output: &mut Tensor<E>,
    #[comptime] size: usize,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let head = CUBE_POS;
    if head < parts.shape(0) {
        let spans = parts.shape(1);
        let width = comptime!(size + 2);
        let from = head * spans * width;
        let mut most = f32::new(HIDDEN);
        for span in 0..spans {
            most = max(most, parts[from + span * width + size]);
        }
        let mut weights = f32::new(0.0);
        for span in 0..spans {
            let at = from + span * width + size;
            weights += parts[at + 1] * (parts[at] - most).exp();
        }
        let mut feature = UNIT_POS as usize;
        while feature < size {
            let mut sum = f32::new(0.0);
            for span in 0..spans {
                let at = from + span * width;
                sum += parts[at + feature] * (parts[at + size] - most).exp();
            }
            output[head * size + feature] = E::cast_from(sum / weights);
            feature += units;
        }
    }
}

/// `x · Aᵀ` in 32 bits for up to three A of one rank, a cube for each row of them and a few rows of x.
///
/// - `rows`: `[rows, in]`
/// - `first`, `second`, `third`: `[rank, in]`
/// - `output`: `[rows, matrices · rank]`, contiguous
#[cube(launch)]
pub fn lora_down<E: Float>(
    rows: &Tensor<E>,
    first: &Tensor<f32>,
    second: &Tensor<f32>,
    third: &Tensor<f32>,
    output: &mut Tensor<f32>,
    #[comptime] at_once: usize,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let column = CUBE_POS_X as usize;
    let start = CUBE_POS_Y as usize * at_once;
    let count = rows.shape(0);
    let inputs = rows.shape(1);
    let rank = first.shape(0);
    let matrix = column / rank;
    let own = column % rank;
    let mut sums = Shared::<[f32]>::new_slice(at_once * units);
    let mut sum = Array::<f32>::new(at_once);
    #[unroll]
    for index in 0..at_once {
        sum[index] = 0.0;
    }
    let mut input = unit;
    while input < inputs {
        let mut factor = first[own * first.stride(0) + input];
        if matrix == 1 {
            factor = second[own * second.stride(0) + input];
        }
        if matrix == 2 {
            factor = third[own * third.stride(0) + input];
        }
        #[unroll]
        for index in 0..at_once {
            if start + index < count {
                sum[index] += factor * f32::cast_from(rows[(start + index) * rows.stride(0) + input]);
            }
        }
        input += units;
    }
    #[unroll]
    for index in 0..at_once {
        sums[index * units + unit] = sum[index];
    }
    sync_cube();
    let mut active = comptime!(units as u32 / 2).runtime();
    while active > 0 {
        if UNIT_POS < active {
            #[unroll]
            for index in 0..at_once {
                let other = sums[index * units + unit + active as usize];
                sums[index * units + unit] += other;
            }
        }
        sync_cube();
        active /= 2;
    }
    if unit < at_once && start + unit < count {
        let columns = output.shape(1);
        output[(start + unit) * columns + column] = sums[unit * units];
    }
}

/// `product + scale · (x · Aᵀ) · Bᵀ`, where B is that of the linear layer that an output belongs to; [`LORA_LANES`]
/// units for each output.
///
/// - `product`: `[rows, out]`, of linear layers side by side
/// - `low`: `[rows, matrices · rank]`, contiguous
/// - `first`, `second`, `third`: `[out, rank]`, for the outputs from `start_…` to `end_…`
/// - `output`: as `product`, contiguous
#[cube(launch)]
pub fn lora_up<E: Float>(
    product: &Tensor<E>,
    low: &Tensor<f32>,
    first: &Tensor<f32>,
    second: &Tensor<f32>,
    third: &Tensor<f32>,
    output: &mut Tensor<E>,
    starts: Sequence<u32>,
    scale: f32,
    #[comptime] units: usize,
    #[define(E)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % LORA_LANES;
    let row = CUBE_POS_Y as usize;
    let place = CUBE_POS_X as usize * comptime!(units / LORA_LANES) + unit / LORA_LANES;
    let outputs = output.shape(1);
    let rank = first.shape(1);
    let from = row * low.shape(1);
    let mut sums = Shared::<[f32]>::new_slice(units);
    let mut sum = f32::new(0.0);
    let mut change = lane;
    while change < rank {
        if place >= starts[0] as usize && place < starts[0] as usize + first.shape(0) {
            sum += low[from + change] * first[(place - starts[0] as usize) * first.stride(0) + change];
        } else if place >= starts[1] as usize && place < starts[1] as usize + second.shape(0) {
            sum += low[from + rank + change] * second[(place - starts[1] as usize) * second.stride(0) + change];
        } else if place >= starts[2] as usize && place < starts[2] as usize + third.shape(0) {
            sum += low[from + 2 * rank + change] * third[(place - starts[2] as usize) * third.stride(0) + change];
        }
        change += LORA_LANES;
    }
    sums[unit] = sum;
    sync_cube();
    if lane == 0 && place < outputs {
        let mut total = f32::new(0.0);
        for lane in 0..LORA_LANES {
            total += sums[unit + lane];
        }
        let change = E::cast_from(total * scale);
        let value = f32::cast_from(product[row * product.stride(0) + place]) + f32::cast_from(change);
        output[row * outputs + place] = E::cast_from(value);
    }
}

/// What multiplies the inputs of an adapter: 0 where a value drops out, `scale` elsewhere; the draws of
/// `train::dropout`. `seeds`: `[rows, 2]`; `output`: `[rows · length, features]`, contiguous.
#[cube(launch)]
pub fn dropout(seeds: &Tensor<i32>, output: &mut Tensor<f32>, salt: u32, threshold: u32, scale: f32) {
    let place = ABSOLUTE_POS;
    if place < output.shape(0) * output.shape(1) {
        let a_row = output.shape(0) / seeds.shape(0) * output.shape(1);
        let row = place / a_row * seeds.stride(0);
        let first = mixed(u32::cast_from(seeds[row]) ^ salt);
        let second = mixed(u32::cast_from(seeds[row + 1]) + salt * 0x9e37_79b9u32);
        let drawn = mixed(mixed(mixed((place % a_row) as u32 ^ first) + second) ^ first);
        if drawn >= threshold {
            output[place] = scale;
        } else {
            output[place] = 0.0;
        }
    }
}

/// The finaliser of MurmurHash3.
#[cube]
fn mixed(value: u32) -> u32 {
    let value = (value ^ (value >> 16u32)) * 0x85eb_ca6bu32;
    let value = (value ^ (value >> 13u32)) * 0xc2b2_ae35u32;
    value ^ (value >> 16u32)
}
