//! The kernels as operations of burn's CubeCL backend, and, deferred, of its fusion.

#![allow(clippy::too_many_arguments, reason = "those of the kernels")]

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::source::{self, LORA_LANES, SPAN, UNITS};

/// How heads lie side by side in a product, and how many positions a row of the batch has.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub queries: usize,
    pub keys: usize,
    pub size: usize,
    pub length: usize,
}

/// What changes a product: scale, rank, and where the outputs of each linear layer begin.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    pub scale: f32,
    pub count: usize,
    pub starts: [usize; 3],
}

/// Which draws: those of a linear layer (`salt`) below `threshold` drop out, and `scale` multiplies what stays.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub salt: u32,
    pub threshold: u32,
    pub scale: f32,
    pub length: usize,
    pub features: usize,
}

/// The operations. Shapes are those of the kernels in `source`.
#[backend_extension(Cube, Fusion)]
pub trait Kernels: Backend {
    #[fusion(dtype = rows, shape = rows)]
    fn one_rms_norm(rows: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    #[fusion(meta = |rows, _more, _weight, _epsilon| (rows.clone(), rows.clone()))]
    fn one_add_rms_norm(
        rows: FloatTensor<Self>,
        more: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = product, shape = Shape::new([product[0], product[1] / 2]))]
    fn one_swiglu(product: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(meta = turned)]
    fn one_rotate(
        product: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        start: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(meta = turned_into)]
    fn one_rotate_into(
        product: FloatTensor<Self>,
        table: FloatTensor<Self>,
        positions: IntTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        start: usize,
        filled: usize,
        heads: Heads,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = query, shape = Shape::new([query[0], query[1] * query[3]]))]
    fn one_attend(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        query_orders: IntTensor<Self>,
        key_orders: IntTensor<Self>,
        start: usize,
        count: usize,
        window: i32,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = first, shape = Shape::new([rows[0], first[0] * factors.count]))]
    fn one_lora_down(
        rows: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        factors: Factors,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = product, shape = product)]
    fn one_lora_up(
        product: FloatTensor<Self>,
        low: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        factors: Factors,
    ) -> FloatTensor<Self>;

    #[fusion(meta = |seeds, draw| {
        TensorSpec::new(Shape::new([seeds.shape[0] * draw.length, draw.features]), DType::F32)
    })]
    fn one_dropout(seeds: IntTensor<Self>, draw: Draw) -> FloatTensor<Self>;
}

fn turned(
    product: &TensorSpec,
    _table: &TensorSpec,
    _positions: &TensorSpec,
    _start: &usize,
    heads: &Heads,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let of = |count: usize| {
        let shape = Shape::new([product.shape[0] / heads.length, count, heads.length, heads.size]);
        TensorSpec::new(shape, product.dtype)
    };
    (of(heads.queries), of(heads.keys), of(heads.keys))
}

fn turned_into(
    product: &TensorSpec,
    table: &TensorSpec,
    positions: &TensorSpec,
    keys: &TensorSpec,
    values: &TensorSpec,
    start: &usize,
    _filled: &usize,
    heads: &Heads,
) -> (TensorSpec, TensorSpec, TensorSpec) {
    (turned(product, table, positions, start, heads).0, keys.clone(), values.clone())
}

/// With values that lie side by side in the last dimension.
fn in_rows(tensor: CubeTensor) -> CubeTensor {
    let last = tensor.meta.num_dims() - 1;
    if tensor.meta.strides()[last] == 1 && !tensor.meta.is_tiled() { tensor } else { into_contiguous(tensor) }
}

/// An uninitialized tensor on the device of `like`.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}

fn dims<const D: usize>(tensor: &CubeTensor) -> [usize; D] {
    std::array::from_fn(|axis| tensor.meta.shape()[axis])
}

fn element(tensor: &CubeTensor) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(tensor.dtype)
}

fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}

/// So many cubes, in two dimensions where one has too few places.
fn cubes(count: usize) -> CubeCount {
    let wide = count.min(1 << 15);
    CubeCount::Static(wide as u32, count.div_ceil(wide.max(1)) as u32, 1)
}

/// A unit for each value.
fn cubes_of_values(count: usize) -> CubeCount {
    cubes(count.div_ceil(UNITS as usize))
}

/// A tensor that may be written: itself, where nobody else holds it, or a copy.
fn writable(tensor: CubeTensor) -> CubeTensor {
    if tensor.can_mut() && tensor.is_nonoverlapping() { tensor } else { tensor.copy() }
}

fn launch_rotate(
    product: CubeTensor,
    table: CubeTensor,
    positions: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    [start, filled]: [usize; 2],
    heads: Heads,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let product = in_rows(product);
    let Heads { queries, keys: key_heads, size, length } = heads;
    let [rows, _] = dims(&product);
    let query = empty(&product, [rows / length, queries, length, size], product.dtype);
    source::rotate::launch(
        &product.client.clone(),
        cubes_of_values(rows * (queries + 2 * key_heads) * (size / 2)),
        units(),
        product.clone().into_tensor_arg(),
        in_rows(table).into_tensor_arg(),
        in_rows(positions).into_tensor_arg(),
        query.clone().into_tensor_arg(),
        keys.clone().into_tensor_arg(),
        values.clone().into_tensor_arg(),
        start as u32,
        filled as u32,
        element(&product),
    );
    (query, keys, values)
}

impl Kernels for CubeBackend {
    fn one_rms_norm(rows: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        let rows = in_rows(rows);
        let shape: [usize; 2] = dims(&rows);
        let output = empty(&rows, shape, rows.dtype);
        source::rms_norm::launch(
            &output.client,
            cubes(shape[0]),
            units(),
            rows.into_tensor_arg(),
            in_rows(weight).into_tensor_arg(),
            output.clone().into_tensor_arg(),
            epsilon,
            UNITS as usize,
            element(&output),
        );
        output
    }

    fn one_add_rms_norm(
        rows: CubeTensor,
        more: CubeTensor,
        weight: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor) {
        let rows = in_rows(rows);
        let shape: [usize; 2] = dims(&rows);
        let (total, output) = (empty(&rows, shape, rows.dtype), empty(&rows, shape, rows.dtype));
        source::add_rms_norm::launch(
            &output.client,
            cubes(shape[0]),
            units(),
            rows.into_tensor_arg(),
            in_rows(more).into_tensor_arg(),
            in_rows(weight).into_tensor_arg(),
            total.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            epsilon,
            UNITS as usize,
            element(&output),
        );
        (total, output)
    }

    fn one_swiglu(product: CubeTensor) -> CubeTensor {
        let product = in_rows(product);
        let [rows, both] = dims(&product);
        let output = empty(&product, [rows, both / 2], product.dtype);
        source::swiglu::launch(
            &output.client,
            cubes_of_values(rows * both / 2),
            units(),
            product.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            element(&output),
        );
        output
    }

    fn one_rotate(
        product: CubeTensor,
        table: CubeTensor,
        positions: CubeTensor,
        start: usize,
        heads: Heads,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [rows, _] = dims(&product);
        let of_keys = || empty(&product, [rows / heads.length, heads.keys, heads.length, heads.size], product.dtype);
        let (keys, values) = (of_keys(), of_keys());
        launch_rotate(product, table, positions, keys, values, [start, 0], heads)
    }

    fn one_rotate_into(
        product: CubeTensor,
        table: CubeTensor,
        positions: CubeTensor,
        keys: CubeTensor,
        values: CubeTensor,
        start: usize,
        filled: usize,
        heads: Heads,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        launch_rotate(product, table, positions, writable(keys), writable(values), [start, filled], heads)
    }

    fn one_attend(
        query: CubeTensor,
        keys: CubeTensor,
        values: CubeTensor,
        query_orders: CubeTensor,
        key_orders: CubeTensor,
        start: usize,
        count: usize,
        window: i32,
    ) -> CubeTensor {
        let query = into_contiguous(query);
        let [batch, heads, _, size]: [usize; 4] = dims(&query);
        let [_, key_heads, ..]: [usize; 4] = dims(&keys);
        let group = heads / key_heads;
        let together = (1..=4).rev().find(|count| group % count == 0).unwrap_or(1);
        let spans = count.div_ceil(SPAN);
        let parts = empty(&query, [batch * heads, spans, size + 2], DType::F32);
        let output = empty(&query, [batch, heads * size], query.dtype);
        let of = element(&query);
        source::attend_spans::launch(
            &output.client,
            CubeCount::Static(spans as u32, (heads / together) as u32, batch as u32),
            units(),
            query.into_tensor_arg(),
            in_rows(keys).into_tensor_arg(),
            in_rows(values).into_tensor_arg(),
            in_rows(query_orders).into_tensor_arg(),
            in_rows(key_orders).into_tensor_arg(),
            parts.clone().into_tensor_arg(),
            start as u32,
            count as u32,
            window,
            (size as f64).powf(-0.5) as f32,
            together,
            size,
            UNITS as usize,
            of,
        );
        source::attend_joined::launch(
            &output.client,
            cubes(batch * heads),
            units(),
            parts.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            size,
            UNITS as usize,
            of,
        );
        output
    }

    fn one_lora_down(
        rows: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        third: CubeTensor,
        factors: Factors,
    ) -> CubeTensor {
        let rows = in_rows(rows);
        let ([count, _], [rank, _]): ([usize; 2], [usize; 2]) = (dims(&rows), dims(&first));
        let output = empty(&rows, [count, rank * factors.count], DType::F32);
        let at_once = count.next_power_of_two().min(8);
        let of = element(&rows);
        source::lora_down::launch(
            &output.client,
            CubeCount::Static((rank * factors.count) as u32, count.div_ceil(at_once) as u32, 1),
            units(),
            rows.into_tensor_arg(),
            in_rows(first).into_tensor_arg(),
            in_rows(second).into_tensor_arg(),
            in_rows(third).into_tensor_arg(),
            output.clone().into_tensor_arg(),
            at_once,
            UNITS as usize,
            of,
        );
        output
    }

    fn one_lora_up(
        product: CubeTensor,
        low: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        third: CubeTensor,
        factors: Factors,
    ) -> CubeTensor {
        let product = in_rows(product);
        let [rows, outputs]: [usize; 2] = dims(&product);
        let output = empty(&product, [rows, outputs], product.dtype);
        let mut starts = SequenceArg::<u32>::new();
        factors.starts.into_iter().for_each(|start| starts.push(start as u32));
        source::lora_up::launch(
            &output.client,
            CubeCount::Static(outputs.div_ceil(UNITS as usize / LORA_LANES) as u32, rows as u32, 1),
            units(),
            product.into_tensor_arg(),
            into_contiguous(low).into_tensor_arg(),
            in_rows(first).into_tensor_arg(),
            in_rows(second).into_tensor_arg(),
            in_rows(third).into_tensor_arg(),
            output.clone().into_tensor_arg(),
            starts,
            factors.scale,
            UNITS as usize,
            element(&output),
        );
        output
    }

    fn one_dropout(seeds: CubeTensor, draw: Draw) -> CubeTensor {
        let seeds = in_rows(seeds);
        let Draw { salt, threshold, scale, length, features } = draw;
        let [rows, _]: [usize; 2] = dims(&seeds);
        let output = empty(&seeds, [rows * length, features], DType::F32);
        source::dropout::launch(
            &output.client,
            cubes_of_values(rows * length * features),
            units(),
            seeds.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            salt,
            threshold,
            scale,
        );
        output
    }
}
