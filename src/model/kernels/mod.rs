//! Parts of a decoder layer as one kernel each, for tensors on a GPU.
//!
//! Every function gives `None` where there is no kernel: on the CPU, without the cargo feature `kernels` (which every
//! GPU backend implies), and where a gradient is wanted. The caller then composes tensor operations, which are
//! differentiable; the kernels equal them up to rounding. Norms, softmax and adapters are in 32 bits either way.
//! `tests` compares all of them. This module does not know models.

// Without the feature, arguments are not looked at.
#![cfg_attr(not(feature = "kernels"), allow(unused_variables))]

#[cfg(feature = "kernels")]
mod cube;
#[cfg(feature = "kernels")]
mod source;
#[cfg(test)]
mod tests;

use burn::tensor::{Device, Int, Tensor};

#[cfg(feature = "kernels")]
use burn::backend::Dispatch;
#[cfg(feature = "kernels")]
use cube::{Draw, Factors, Heads, Kernels};

/// More rows than these are multiplied by an adapter's factors as matrices.
pub const FEW_ROWS: usize = 64;

/// The most linear layers that [`lora`] changes at once.
pub const MOST_FACTORS: usize = 3;

/// The most features of a head that [`attend`] takes.
pub const MOST_HEAD_FEATURES: usize = 256;

/// Whether kernels run on `device`.
pub fn on(device: &Device) -> bool {
    cfg!(feature = "kernels") && !device.is_autodiff() && *device != Device::flex()
}

/// Root-mean-square norm: `rows / √(mean square + epsilon)`, rounded, times `weight`.
///
/// # Shapes
/// - `rows`: `[rows, features]`; returns the same
/// - `weight`: `[features]`, of the same dtype
pub fn rms_norm(rows: &Tensor<2>, weight: &Tensor<1>, epsilon: f64) -> Option<Tensor<2>> {
    #[cfg(feature = "kernels")]
    if on(&rows.device()) && !weight.is_autodiff() {
        let (rows, weight) = (rows.clone().into_dispatch(), weight.clone().into_dispatch());
        return Some(Tensor::from_dispatch(Dispatch::one_rms_norm(rows, weight, epsilon as f32)));
    }
    None
}

/// `rows + more`, and its [`rms_norm`].
pub fn add_rms_norm(
    rows: &Tensor<2>,
    more: &Tensor<2>,
    weight: &Tensor<1>,
    epsilon: f64,
) -> Option<(Tensor<2>, Tensor<2>)> {
    #[cfg(feature = "kernels")]
    if on(&rows.device()) && on(&more.device()) && !weight.is_autodiff() {
        let (rows, more) = (rows.clone().into_dispatch(), more.clone().into_dispatch());
        let found = Dispatch::one_add_rms_norm(rows, more, weight.clone().into_dispatch(), epsilon as f32);
        return Some((Tensor::from_dispatch(found.0), Tensor::from_dispatch(found.1)));
    }
    None
}

/// `silu(gate) · up`.
///
/// # Shapes
/// - `product`: `[rows, 2 · features]`: gate and up side by side
/// - returns: `[rows, features]`
pub fn swiglu(product: &Tensor<2>) -> Option<Tensor<2>> {
    #[cfg(feature = "kernels")]
    if on(&product.device()) {
        return Some(Tensor::from_dispatch(Dispatch::one_swiglu(product.clone().into_dispatch())));
    }
    None
}

/// Rotations by position, on the device.
#[derive(Clone, Debug)]
pub struct Turns {
    /// `[positions, head size]`: the cosines of a position's angles, then their sines; 32 bits.
    pub table: Tensor<2>,
    /// `[batch or 1, places]`: the position of each place of a row.
    pub positions: Tensor<2, Int>,
    /// The first place that counts.
    pub start: usize,
    /// How many do.
    pub length: usize,
}

/// How many heads lie side by side in a product: of queries, and of keys and of values.
#[derive(Clone, Copy, Debug)]
pub struct HeadCounts {
    /// Of queries.
    pub queries: usize,
    /// Of keys, and as many of values.
    pub keys: usize,
}

#[cfg(feature = "kernels")]
impl HeadCounts {
    fn of(self, turns: &Turns) -> Heads {
        Heads { queries: self.queries, keys: self.keys, size: turns.table.dims()[1], length: turns.length }
    }
}

/// Turns queries and keys, and lays out queries, keys and values by head.
///
/// # Shapes
/// - `product`: `[batch · length, features]`: queries, keys and values side by side
/// - returns: `[batch, heads, length, head size]` and twice `[batch, key heads, length, head size]`
pub fn rotate(product: &Tensor<2>, turns: &Turns, counts: HeadCounts) -> Option<[Tensor<4>; 3]> {
    #[cfg(feature = "kernels")]
    if on(&product.device()) {
        let Turns { table, positions, start, .. } = turns.clone();
        let (product, table) = (product.clone().into_dispatch(), table.into_dispatch());
        let found = Dispatch::one_rotate(product, table, positions.into_dispatch(), start, counts.of(turns));
        return Some([found.0, found.1, found.2].map(Tensor::from_dispatch));
    }
    None
}

/// As [`rotate`], keys and values going into the caches from the slot `filled` on: in place, while nobody else holds
/// them.
///
/// # Shapes
/// - `keys`, `values`: `[batch, key heads, capacity, head size]`
/// - returns: the queries
pub fn rotate_into(
    product: &Tensor<2>,
    turns: &Turns,
    counts: HeadCounts,
    [keys, values]: [&mut Tensor<4>; 2],
    filled: usize,
) -> Option<Tensor<4>> {
    #[cfg(feature = "kernels")]
    if on(&product.device()) {
        let Turns { table, positions, start, .. } = turns.clone();
        let (product, table) = (product.clone().into_dispatch(), table.into_dispatch());
        let (mut query, mut new_keys) = (None, None);
        keys.inplace(|keys| {
            values.inplace(|values| {
                let (keys, values) = (keys.into_dispatch(), values.into_dispatch());
                let (positions, heads) = (positions.into_dispatch(), counts.of(turns));
                let found = Dispatch::one_rotate_into(product, table, positions, keys, values, start, filled, heads);
                query = Some(Tensor::from_dispatch(found.0));
                new_keys = Some(Tensor::from_dispatch(found.1));
                Tensor::from_dispatch(found.2)
            });
            new_keys.take().expect("the keys with the new ones")
        });
        return query;
    }
    None
}

/// The places of queries and of cached keys: a query sees the keys up to its own place.
#[derive(Clone, Copy, Debug)]
pub struct Orders<'a> {
    /// `[batch or 1, places]`; -1 sees every key.
    pub queries: &'a Tensor<2, Int>,
    /// The query's place in them.
    pub start: usize,
    /// `[batch or 1, slots]`; `i32::MAX` is seen by no query.
    pub keys: &'a Tensor<2, Int>,
    /// How far back a query sees, itself included.
    pub window: Option<usize>,
}

/// Attention of one query a row over the first `count` slots of a cache, grouped by key heads, with the softmax in 32
/// bits.
///
/// # Shapes
/// - `query`: `[batch, heads, 1, head size]`
/// - `keys`, `values`: `[batch, key heads, capacity, head size]`
/// - returns: `[batch, heads · head size]`
pub fn attend(
    query: &Tensor<4>,
    keys: &Tensor<4>,
    values: &Tensor<4>,
    orders: Orders<'_>,
    count: usize,
) -> Option<Tensor<2>> {
    let [_, _, length, size] = query.dims();
    #[cfg(feature = "kernels")]
    if length == 1 && size <= MOST_HEAD_FEATURES && on(&query.device()) && on(&keys.device()) {
        let [query, keys, values] = [query, keys, values].map(|tensor| tensor.clone().into_dispatch());
        let places = [orders.queries, orders.keys].map(|tensor| tensor.clone().into_dispatch());
        let ([query_orders, key_orders], start) = (places, orders.start);
        let window = orders.window.map_or(i32::MAX, |window| window.min(1 << 30) as i32);
        return Some(Tensor::from_dispatch(Dispatch::one_attend(
            query,
            keys,
            values,
            query_orders,
            key_orders,
            start,
            count,
            window,
        )));
    }
    None
}

/// What an adapter adds to one of several linear layers whose outputs lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Where the outputs of the linear layer begin.
    pub start: usize,
    /// `[rank, in]`, 32 bits.
    pub a: &'a Tensor<2>,
    /// `[out, rank]`, 32 bits.
    pub b: &'a Tensor<2>,
}

/// `product + scale · (rows · Aᵀ) · Bᵀ` for few rows, one to [`MOST_FACTORS`] changes of one rank.
///
/// # Shapes
/// - `rows`: `[rows, in]`
/// - `product`: `[rows, out]`, the outputs of all linear layers; returns the same
pub fn lora(rows: &Tensor<2>, product: &Tensor<2>, changes: &[Change<'_>], scale: f64) -> Option<Tensor<2>> {
    #[cfg(feature = "kernels")]
    {
        let first = changes.first()?;
        let alike = changes.iter().all(|change| change.a.dims() == first.a.dims() && on(&change.a.device()));
        let few = rows.dims()[0] <= FEW_ROWS && changes.len() <= MOST_FACTORS;
        let tensors = [rows, product].into_iter().chain(changes.iter().map(|change| change.b));
        if few && alike && tensors.into_iter().all(|tensor| on(&tensor.device())) {
            // What is not there begins beyond the last output.
            let beyond = product.dims()[1];
            let of = |index: usize| changes.get(index).unwrap_or(first);
            let starts = std::array::from_fn(|index| changes.get(index).map_or(beyond, |change| change.start));
            let factors = Factors { scale: scale as f32, count: changes.len(), starts };
            let [a, b, c] = std::array::from_fn(|index| of(index).a.clone().into_dispatch());
            let low = Dispatch::one_lora_down(rows.clone().into_dispatch(), a, b, c, factors);
            let [a, b, c] = std::array::from_fn(|index| of(index).b.clone().into_dispatch());
            let changed = Dispatch::one_lora_up(product.clone().into_dispatch(), low, a, b, c, factors);
            return Some(Tensor::from_dispatch(changed));
        }
    }
    None
}

/// The mask of one linear layer in training with dropout.
#[derive(Clone, Copy, Debug)]
pub struct Dropping {
    /// Which linear layer.
    pub salt: u32,
    /// Draws below it drop out.
    pub threshold: u32,
    /// What multiplies the values that stay.
    pub scale: f32,
    /// Positions a row.
    pub length: usize,
    /// Features a position.
    pub features: usize,
}

/// What multiplies the inputs of a linear layer's adapter, `[rows · length, features]`, 32 bits.
///
/// # Shapes
/// - `seeds`: `[rows, 2]`, 31 bits each
pub fn dropout(seeds: &Tensor<2, Int>, dropping: Dropping) -> Option<Tensor<2>> {
    #[cfg(feature = "kernels")]
    if on(&seeds.device()) {
        let Dropping { salt, threshold, scale, length, features } = dropping;
        let draw = Draw { salt, threshold, scale, length, features };
        return Some(Tensor::from_dispatch(Dispatch::one_dropout(seeds.clone().into_dispatch(), draw)));
    }
    None
}
