//! What attention needs beside weights: rotations, masks, the KV cache.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

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
    /// The place `order` of a sequence that goes on by itself, at rotary position `position`.
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

/// Cosines and sines of rotary positions, 32 bits.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `[batch or 1, 1, length, head size]`.
    cosine: Tensor<4>,
    /// The same shape; the first half negated.
    sine: Tensor<4>,
}

impl Rotary {
    /// The rotations at the positions of `slots`, rows of one length; `angles` gives a position's, half as many as a head
    /// has features.
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
        Self { cosine: table(cosine), sine: table(sine) }
    }

    /// Turns each pair (i, i + half) of `heads`, `[batch, heads, length, head size]`.
    pub fn turn(&self, heads: Tensor<4>) -> Tensor<4> {
        let dtype = heads.dtype();
        let heads = heads.cast(DType::F32);
        let half = heads.dims()[3] / 2;
        let swapped = Tensor::cat(vec![heads.clone().narrow(3, half, half), heads.clone().narrow(3, 0, half)], 3);
        (heads * self.cosine.clone() + swapped * self.sine.clone()).cast(dtype)
    }
}

/// Which keys each query sees.
#[derive(Clone, Debug)]
pub struct Mask {
    /// `[batch or 1, 1, group · length, keys]`, `true` where hidden, a row for each query of a group of heads.
    pub hidden: Tensor<4, Bool>,
}

impl Mask {
    /// A query sees the keys of its own sequence up to itself, as far back as `window`, itself included. What is `None`
    /// among the queries sees all keys that are there, so that it stays finite.
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
        let window = window.unwrap_or(usize::MAX);
        let hides = |query: Option<Slot>, key: Option<Slot>| match (query, key) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(query), Some(key)) => {
                let other = key.branch != 0 && key.branch != query.branch;
                other || key.order > query.order || query.order - key.order >= window
            }
        };
        let mut hidden = Vec::with_capacity(queries.len() * group * length * count);
        for (queries, keys) in std::iter::zip(queries, keys) {
            assert!(queries.len() == length && keys.len() == count, "rows of one length");
            let start = hidden.len();
            for query in queries {
                hidden.extend(keys.iter().map(|key| hides(*query, *key)));
            }
            for _ in 1..group {
                hidden.extend_from_within(start..start + length * count);
            }
        }
        let data = TensorData::new(hidden, [queries.len(), 1, group * length, count]);
        Self { hidden: Tensor::from_data(data, device) }
    }

    /// How many keys it speaks of: with a cache, as many of its slots are attended.
    pub fn keys(&self) -> usize {
        self.hidden.dims()[3]
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

    /// Appends, in place while nobody else holds the tensors, and gives keys and values of the first `keys` slots.
    pub fn append(&mut self, key: Tensor<4>, value: Tensor<4>, keys: usize) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, length, size] = key.dims();
        let slots = self.length..self.length + length;
        assert!(slots.end <= keys && keys <= self.capacity(), "the mask covers what the cache holds");
        let range = [0..batch, 0..heads, slots, 0..size];
        self.key.inplace(|cached| cached.slice_assign(range.clone(), key));
        self.value.inplace(|cached| cached.slice_assign(range, value));
        self.length += length;
        let seen = [0..batch, 0..heads, 0..keys, 0..size];
        (self.key.clone().slice(seen.clone()), self.value.clone().slice(seen))
    }
}
