//! What attention needs beside weights: rotary position embeddings (RoPE), the attention mask, the KV cache.

use std::sync::OnceLock;

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use super::kernels::{self, HeadCounts, Orders, Turns};
use super::nn::attend;

/// Position of a token on the rotary axes: time, height, width. Models with one axis read the first.
pub type Position = [usize; 3];

/// A filled place of a row: a token of the prompt, an image token, a token of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its place in its own sequence: it sees what comes before.
    pub order: usize,
    /// Which of several continuations of one beginning it belongs to, 0 being the beginning, which all of them see.
    pub branch: usize,
    /// Its rotary position.
    pub position: Position,
}

impl Slot {
    /// The place `order` of a sequence that is not a branch, at rotary position `position`.
    pub fn at(order: usize, position: usize) -> Self {
        Self { order, branch: 0, position: [position; 3] }
    }

    /// The places of a sequence of one axis.
    pub fn line(places: std::ops::Range<usize>) -> Vec<Option<Self>> {
        places.map(|place| Some(Self::at(place, place))).collect()
    }
}

/// What the layers need to know of slots.
#[derive(Clone, Debug)]
pub struct Attention {
    /// The rotations of the queries and of the new keys.
    pub rotary: Rotary,
    /// Which keys each query sees.
    pub mask: Mask,
}

impl Attention {
    /// What the layers need to know of the query at `place` alone, computed on the device of the weights.
    pub fn at(&self, place: usize) -> Self {
        Self { rotary: self.rotary.at(place), mask: Mask::of(self.mask.slots.at(place)) }
    }
}

/// Cosines and sines of rotary positions, 32 bits.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// Cosines and sines `[batch or 1, 1, length, head size]`, the first half of the sines negated.
    rotations: OnceLock<[Tensor<4>; 2]>,
    /// What they follow from, where they are looked up on the device.
    turns: Option<Turns>,
}

impl Rotary {
    /// The rotations at the positions of `slots`, rows of one length; `angles` gives a position's, half as many as a
    /// head has features.
    pub fn new(slots: &[Vec<Option<Slot>>], device: &Device, angles: impl Fn(Position) -> Vec<f32>) -> Self {
        let (mut cosine, mut sine) = (Vec::new(), Vec::new());
        for slot in slots.iter().flatten() {
            let angles = angles(slot.map_or([0; 3], |slot| slot.position));
            cosine.extend(angles.iter().chain(&angles).map(|angle| angle.cos()));
            sine.extend(angles.iter().map(|angle| -angle.sin()));
            sine.extend(angles.iter().map(|angle| angle.sin()));
        }
        let (rows, length) = (slots.len(), slots[0].len());
        let table = |values: Vec<f32>| {
            let size = values.len() / (rows * length);
            Tensor::from_data(TensorData::new(values, [rows, 1, length, size]), (device, DType::F32))
        };
        Self { rotations: OnceLock::from([table(cosine), table(sine)]), turns: None }
    }

    /// The rotations at the first positions of `slots`, rows of one length, looked up in `table`, which is
    /// `[positions, head size]`, cosines and sines side by side: what is uploaded is the positions.
    pub fn looked_up(table: Tensor<2>, slots: &[Vec<Option<Slot>>]) -> Self {
        let (rows, length, device) = (slots.len(), slots[0].len(), table.device());
        let position = |slot: &Option<Slot>| slot.map_or(0, |slot| slot.position[0]) as i32;
        let positions = slots.iter().flatten().map(position).collect();
        let positions = Tensor::from_data(TensorData::new::<i32, _>(positions, [rows, length]), (&device, DType::I32));
        let turns = Turns { table, positions, start: 0, length };
        Self { rotations: OnceLock::new(), turns: Some(turns) }
    }

    /// Those of the place `place` of every row.
    fn at(&self, place: usize) -> Self {
        match &self.turns {
            Some(turns) => {
                let turns = Turns { start: turns.start + place, length: 1, ..turns.clone() };
                Self { rotations: OnceLock::new(), turns: Some(turns) }
            }
            None => {
                let rotations = self.rotations().map(|table| table.narrow(2, place, 1));
                Self { rotations: OnceLock::from(rotations), turns: None }
            }
        }
    }

    /// Where they are looked up by a kernel.
    pub fn turns(&self) -> Option<&Turns> {
        self.turns.as_ref()
    }

    fn rotations(&self) -> [Tensor<4>; 2] {
        let look_up = || {
            let Turns { table, positions, start, length } = self.turns.clone().expect("rotations follow from turns");
            let ([_, size], [rows, _]) = (table.dims(), positions.dims());
            let places = positions.narrow(1, start, length).reshape([rows * length]);
            let found = table.select(0, places).reshape([rows, 1, length, size]);
            let [cosine, sine] = [0, size / 2].map(|start| found.clone().narrow(3, start, size / 2));
            [vec![cosine.clone(), cosine], vec![sine.clone().neg(), sine]].map(|halves| Tensor::cat(halves, 3))
        };
        self.rotations.get_or_init(look_up).clone()
    }

    /// Turns the heads of queries and keys.
    ///
    /// # Shapes
    /// - `query`: `[batch · length, heads · head size]`
    /// - `key`: `[batch · length, key heads · head size]`
    /// - returns: `[batch, heads, length, head size]` and `[batch, key heads, length, head size]`
    pub fn turn_both(&self, query: Tensor<2>, key: Tensor<2>) -> (Tensor<4>, Tensor<4>) {
        let [_, _, length, size] = self.rotations()[0].dims();
        let split = |rows: Tensor<2>| {
            let [count, features] = rows.dims();
            rows.reshape([count / length, length, features / size, size]).swap_dims(1, 2)
        };
        (self.turn(split(query)), self.turn(split(key)))
    }

    /// Turns each pair (i, i + half) of `heads`, `[batch, heads, length, head size]`.
    pub fn turn(&self, heads: Tensor<4>) -> Tensor<4> {
        let dtype = heads.dtype();
        let heads = heads.cast(DType::F32);
        let half = heads.dims()[3] / 2;
        let swapped = Tensor::cat(vec![heads.clone().narrow(3, half, half), heads.clone().narrow(3, 0, half)], 3);
        let [cosine, sine] = self.rotations();
        (heads * cosine + swapped * sine).cast(dtype)
    }
}

/// Which keys each query sees.
#[derive(Clone, Debug)]
pub struct Mask {
    /// What it follows from.
    pub slots: Slots,
    hidden: OnceLock<Tensor<4, Bool>>,
}

impl Mask {
    /// A query sees the keys of its own sequence up to itself, as far back as `window`, itself included. What is `None`
    /// among the queries sees all keys, so that it stays finite.
    ///
    /// - `group`: how many query heads a key head serves
    ///
    /// # Panics
    /// When rows differ in number or length.
    pub fn new(
        queries: &[Vec<Option<Slot>>],
        keys: &[Vec<Option<Slot>>],
        window: Option<usize>,
        group: usize,
        device: &Device,
    ) -> Self {
        assert_eq!(queries.len(), keys.len(), "keys for every row of queries");
        let (length, count) = (queries[0].len(), keys[0].len());
        assert!(queries.iter().all(|row| row.len() == length), "rows of one length");
        assert!(keys.iter().all(|row| row.len() == count), "rows of one length");
        let mask = Self::of(Slots::new(queries, keys, window, device));
        if *device == Device::flex() {
            // On the CPU a loop over all pairs costs less than the temporary tensors.
            let data = TensorData::new(hidden(queries, keys, window, group), [queries.len(), 1, group * length, count]);
            mask.hidden.get_or_init(|| Tensor::from_data(data, device));
        }
        mask
    }

    fn of(slots: Slots) -> Self {
        Self { slots, hidden: OnceLock::new() }
    }

    /// `true` where hidden: `[batch or 1, 1, length, keys]`, a row for each query, or on the CPU `[batch or 1, 1, group
    /// · length, keys]`, the rows repeated for every head of a group.
    pub fn hidden(&self) -> Tensor<4, Bool> {
        self.hidden.get_or_init(|| self.slots.hidden()).clone()
    }

    /// How many keys it speaks of: with a cache, as many of its slots are attended.
    pub fn keys(&self) -> usize {
        self.slots.keys.dims()[1]
    }

    /// What a kernel needs to know of it, unless it has branches.
    fn orders(&self) -> Option<Orders<'_>> {
        let Slots { queries, start, keys, window, branches, .. } = &self.slots;
        let orders = Orders { queries, start: *start, keys, window: *window };
        branches.is_none().then_some(orders)
    }
}

/// For every query of a group of heads and every key, row by row: whether it is hidden.
fn hidden(queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>], window: Option<usize>, group: usize) -> Vec<bool> {
    let window = window.unwrap_or(usize::MAX);
    let hides = |query: Option<Slot>, key: Option<Slot>| match (query, key) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(query), Some(key)) => {
            let other = key.branch != 0 && key.branch != query.branch;
            other || key.order > query.order || query.order - key.order >= window
        }
    };
    let mut hidden = Vec::with_capacity(queries.len() * group * queries[0].len() * keys[0].len());
    for (queries, keys) in std::iter::zip(queries, keys) {
        let start = hidden.len();
        for query in queries {
            hidden.extend(keys.iter().map(|key| hides(*query, *key)));
        }
        let end = hidden.len();
        for _ in 1..group {
            hidden.extend_from_within(start..end);
        }
    }
    hidden
}

/// Places and branches of queries and keys as vectors on the device: a mask follows from them there, and so is not
/// uploaded.
#[derive(Clone, Debug)]
pub struct Slots {
    /// `[batch or 1, places]`: the places of the queries, [`Slots::ANY`] where there is none.
    pub queries: Tensor<2, Int>,
    /// The first of the places that counts.
    pub start: usize,
    /// How many of them do.
    pub length: usize,
    /// `[batch or 1, keys]`: the places of the keys, [`Slots::NONE`] where there is none.
    pub keys: Tensor<2, Int>,
    /// The branches of both, in the shapes of both, unless all are 0.
    pub branches: Option<[Tensor<2, Int>; 2]>,
    /// How far back a query sees, itself included.
    pub window: Option<usize>,
}

impl Slots {
    /// The place of a query that sees every key.
    pub const ANY: i32 = -1;
    /// The place of a key that no query sees.
    pub const NONE: i32 = i32::MAX;

    fn new(queries: &[Vec<Option<Slot>>], keys: &[Vec<Option<Slot>>], window: Option<usize>, device: &Device) -> Self {
        let vectors = |rows: &[Vec<Option<Slot>>], of: &dyn Fn(Option<Slot>) -> i32| {
            let values: Vec<i32> = rows.iter().flatten().map(|slot| of(*slot)).collect();
            Tensor::from_data(TensorData::new(values, [rows.len(), rows[0].len()]), (device, DType::I32))
        };
        let order = |none: i32| move |slot: Option<Slot>| slot.map_or(none, |slot| slot.order as i32);
        let branch = |slot: Option<Slot>| slot.map_or(0, |slot| slot.branch as i32);
        let branches = keys.iter().flatten().any(|key| branch(*key) != 0);
        Self {
            queries: vectors(queries, &order(Self::ANY)),
            start: 0,
            length: queries[0].len(),
            keys: vectors(keys, &order(Self::NONE)),
            branches: branches.then(|| [vectors(queries, &branch), vectors(keys, &branch)]),
            window,
        }
    }

    /// The query at `place` of every row.
    fn at(&self, place: usize) -> Self {
        Self { start: self.start + place, length: 1, ..self.clone() }
    }

    /// `[batch or 1, 1, length, keys]`.
    fn hidden(&self) -> Tensor<4, Bool> {
        let ([rows, count], length) = (self.keys.dims(), self.length);
        let pairs = |queries: &Tensor<2, Int>, keys: &Tensor<2, Int>| {
            let queries = queries.clone().narrow(1, self.start, length);
            let queries = queries.reshape([rows, length, 1]).expand([rows, length, count]);
            (queries, keys.clone().reshape([rows, 1, count]).expand([rows, length, count]))
        };
        let (query, key) = pairs(&self.queries, &self.keys);
        let mut hidden = key.clone().greater(query.clone());
        if let Some(window) = self.window {
            hidden = hidden.bool_or((query.clone() - key.clone()).greater_equal_elem(window.min(1 << 30) as i32));
        }
        if let Some([queries, keys]) = &self.branches {
            let (query, key) = pairs(queries, keys);
            hidden = hidden.bool_or(key.clone().not_equal_elem(0).bool_and(key.not_equal(query)));
        }
        let hidden = hidden.bool_and(query.not_equal_elem(Self::ANY)).bool_or(key.equal_elem(Self::NONE));
        hidden.reshape([rows, 1, length, count])
    }
}

/// Keys and values of one layer, allocated for the longest sequence to come.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// `[batch, key heads, capacity, head size]`.
    key: Tensor<4>,
    value: Tensor<4>,
    length: usize,
}

impl LayerCache {
    /// An empty cache for `batch` sequences of at most `capacity` positions.
    pub fn new([batch, heads, capacity, size]: [usize; 4], options: (&Device, DType)) -> Self {
        let empty = || Tensor::zeros([batch, heads, capacity, size], options);
        Self { key: empty(), value: empty(), length: 0 }
    }

    /// How many slots are filled.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no slot is filled.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many slots there are.
    pub fn capacity(&self) -> usize {
        self.key.dims()[2]
    }

    /// Forgets the slots from `length` on, which then are written again.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// One cache per layer out of those of several batches of one length, concatenated along the batch.
    pub fn join(parts: Vec<Vec<Self>>) -> Vec<Self> {
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let rest: Vec<Vec<Self>> = parts.collect();
        if rest.is_empty() {
            return first;
        }
        let mut rest: Vec<_> = rest.into_iter().map(Vec::into_iter).collect();
        let join_layer = |first: Self| {
            let length = first.length;
            let (mut keys, mut values) = (vec![first.key], vec![first.value]);
            for cache in rest.iter_mut().filter_map(Iterator::next) {
                assert_eq!(cache.length, length, "caches of one length are joined");
                keys.push(cache.key);
                values.push(cache.value);
            }
            Self { key: Tensor::cat(keys, 0), value: Tensor::cat(values, 0), length }
        };
        first.into_iter().map(join_layer).collect()
    }

    /// Appends, in place while nobody else holds the tensors.
    pub fn append(&mut self, key: Tensor<4>, value: Tensor<4>) {
        let [batch, heads, length, size] = key.dims();
        let slots = self.length..self.length + length;
        assert!(slots.end <= self.capacity(), "the cache holds what is appended");
        let range = [0..batch, 0..heads, slots, 0..size];
        self.key.inplace(|cached| cached.slice_assign(range.clone(), key));
        self.value.inplace(|cached| cached.slice_assign(range, value));
        self.length += length;
    }

    /// Turns the queries and keys of `product`, which has queries, keys and values side by side, and appends keys and
    /// values; gives the queries, or `None` where there is no kernel for it.
    pub fn append_turned(&mut self, product: &Tensor<2>, rotary: &Rotary, counts: HeadCounts) -> Option<Tensor<4>> {
        let turns = rotary.turns()?;
        assert!(self.length + turns.length <= self.capacity(), "the cache holds what is appended");
        let caches = [&mut self.key, &mut self.value];
        let query = kernels::rotate_into(product, turns, counts, caches, self.length)?;
        self.length += turns.length;
        Some(query)
    }

    /// Attention of `query`, whose own keys have been appended, over the slots that `mask` speaks of.
    ///
    /// # Shapes
    /// - `query`: `[batch, heads, length, head size]`
    /// - returns: `[batch · length, heads · head size]`
    pub fn attend(&self, query: Tensor<4>, mask: &Mask) -> Tensor<2> {
        let [batch, heads, size] = [0, 1, 3].map(|axis| self.key.dims()[axis]);
        let keys = mask.keys();
        assert!(self.length <= keys && keys <= self.capacity(), "the mask covers what the cache holds");
        let one = |orders| kernels::attend(&query, &self.key, &self.value, orders, self.length);
        if let Some(rows) = mask.orders().and_then(one) {
            return rows;
        }
        let seen = |cached: &Tensor<4>| cached.clone().slice([0..batch, 0..heads, 0..keys, 0..size]);
        in_rows(attend(query, seen(&self.key), seen(&self.value), Some(mask.hidden())))
    }
}

/// The heads of a position side by side, `[batch · length, heads · head size]`, out of
/// `[batch, heads, length, head size]`.
pub fn in_rows(heads: Tensor<4>) -> Tensor<2> {
    let [batch, count, length, size] = heads.dims();
    heads.swap_dims(1, 2).reshape([batch * length, count * size])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(mask: Tensor<4, Bool>) -> Vec<bool> {
        mask.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_mask_is_the_same_by_pairs_on_the_host_and_by_vectors_on_the_device() {
        let slot = |order: usize, branch: usize| Some(Slot { order, branch, position: [order; 3] });
        let line: Vec<Option<Slot>> = Slot::line(0..9);
        let filled_up = [line[..6].to_vec(), vec![None; 3]].concat();
        let beginning = (0..4).map(|order| slot(order, 0));
        let answers = [1, 1, 2, 2].into_iter().enumerate().map(|(place, branch)| slot(4 + place % 2, branch));
        let branched: Vec<_> = beginning.chain(answers).chain([None]).collect();
        let rows = [line, filled_up, branched];
        for window in [None, Some(1), Some(3)] {
            for group in [1, 4] {
                for places in [0..9, 5..9] {
                    let queries: Vec<_> = rows.iter().map(|row| row[places.clone()].to_vec()).collect();
                    let mask = Mask::new(&queries, &rows, window, group, &Device::flex());
                    assert_eq!(mask.hidden().dims(), [3, 1, group * places.len(), 9]);
                    let repeated = mask.slots.hidden().repeat(&[1, 1, group, 1]);
                    assert_eq!(bits(mask.hidden()), bits(repeated), "window {window:?}, group {group}");
                    let one: Vec<_> = queries.iter().map(|row| row[1..2].to_vec()).collect();
                    let one = Mask::new(&one, &rows, window, group, &Device::flex());
                    let repeated = Mask::of(mask.slots.at(1)).hidden().repeat(&[1, 1, group, 1]);
                    assert_eq!(bits(repeated), bits(one.hidden()));
                }
            }
        }
    }
}
