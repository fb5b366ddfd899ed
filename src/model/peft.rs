//! Adapters as PEFT keeps them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! What is written is read by PEFT on transformers. A family's [`AdapterNames`] say by which names a tensor of its
//! decoder is written, and by which others it is read; LoRA outside the decoder is read if it changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::adapter::{Adapter, Change, LayerAdapter, Lora};
use super::files::{precision, read_object};
use super::shape::{AdapterNames, Shape};
use super::{AGAIN, ModelError, families, listed};
use crate::data::sniff::WrongContent;
use stic_engine::diagnostic::counted;

mod folder;
mod modules;
mod names;
mod settings;

pub use folder::{SETTINGS, TENSORS};
use names::{Names, PREFIX, Place, looks_wrapped, place};
use settings::MERGE;
pub use settings::Settings;

/// An adapter that was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The adapter.
    pub adapter: Adapter,
    /// What a person should know about what was read.
    pub notes: Vec<String>,
}

/// Reads the adapter in `folder` for a model of `shape`.
///
/// # Errors
/// When a file is missing or broken, a setting asks for what is not supported, or a tensor does not fit the decoder:
/// each such tensor is named, with what was expected and what was found.
pub fn read(folder: &Path, shape: &Shape, device: &Device) -> Result<Read, ModelError> {
    let settings = check(folder)?;
    let (path, bytes) = (folder.join(TENSORS), open_tensors(folder)?);
    parse(settings, &bytes, shape, device).map_err(|error| error.of(&path))
}

/// The settings of the adapter in `folder`, if both of its files exist and nothing beside them changes it. Tensors
/// are not looked at.
///
/// # Errors
/// When a file is missing, which names the directory that may be meant; when the settings ask for what is not
/// supported; when part of the adapter is in a file that is not read.
pub fn check(folder: &Path) -> Result<Settings, ModelError> {
    let path = folder.join(SETTINGS);
    if !path.is_file() {
        return Err(folder::no_adapter(folder, SETTINGS));
    }
    let mut settings = Settings::parse(&read_object(&path)?).map_err(|error| error.of(&path))?;
    if !folder.join(TENSORS).is_file() {
        return Err(folder::no_adapter(folder, TENSORS));
    }
    settings.notes.extend(folder::beside(folder)?);
    Ok(settings)
}

/// The bytes of the tensors of the adapter in `folder`.
///
/// # Errors
/// When they cannot be read.
pub fn open_tensors(folder: &Path) -> Result<Vec<u8>, ModelError> {
    let path = folder.join(TENSORS);
    fs::read(&path).map_err(|cause| ModelError::io(&path, &cause))
}

/// The file of the tensors of an adapter for a model of `shape`: equal adapters give equal bytes.
pub fn serialize(adapter: &Adapter, shape: &Shape) -> Vec<u8> {
    let written = shape.adapter_names.layers[0];
    let mut tensors: Vec<(String, TensorData)> = Vec::new();
    for (layer, LayerAdapter(changes)) in adapter.layers.iter().enumerate() {
        for (spec, change) in std::iter::zip(&shape.linears, changes) {
            for (factor, tensor) in change.iter().flat_map(Change::tensors) {
                let name = format!("{PREFIX}.{written}{layer}.{}.{factor}.weight", spec.path);
                tensors.push((name, tensor.to_data()));
            }
        }
    }
    let views = tensors.iter().map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.bytes()).expect("factors are 32-bit floats");
        (name, view)
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(format)).expect("names are distinct")
}

/// The file of the settings, as PEFT reads it since 0.14. `exclude` is the family's [`AdapterNames::exclude`].
pub fn settings_text(
    rank: usize,
    alpha: f64,
    targets: &[String],
    dropout: f64,
    base: &str,
    exclude: Option<&str>,
) -> String {
    // PEFT's own alpha is an integer.
    let alpha = if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) };
    let settings = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        // A tower may have modules of the same names.
        "exclude_modules": exclude,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": alpha,
        "lora_bias": false,
        "lora_dropout": dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    format!("{settings:#}\n")
}

/// Reads the bytes of an adapter's tensors.
///
/// # Errors
/// As [`read`].
pub fn parse(settings: Settings, bytes: &[u8], shape: &Shape, device: &Device) -> Result<Read, ModelError> {
    let Settings { rank, alpha, modules, mut notes, .. } = settings;
    let file = tensors(bytes)?;
    let Sorted { factors, unused, others, notes: renamed } = Sorted::of(&file, shape.adapter_names)?;
    modules.check(factors.values().map(|factor| factor.plain.as_str()))?;

    let mut problems = others.clone();
    let (mut misfits, mut is_other_dtype) = (!others.is_empty(), false);
    for (&(layer, linear, factor), Factor { name, view, .. }) in &factors {
        let [outputs, inputs] = shape.linears[linear].shape;
        let expected = if factor == 'A' { [rank, inputs] } else { [outputs, rank] };
        if layer >= shape.layers {
            misfits = true;
            problems.push(format!("tensor `{name}`: the model has {} layers", shape.layers));
        } else if view.shape() != expected {
            misfits = true;
            problems.push(format!("tensor `{name}`: expected {expected:?}, found {:?}", view.shape()));
        } else if precision(view.dtype()).is_none() {
            is_other_dtype = true;
            problems.push(format!("tensor `{name}`: expected f32, f16 or bf16, found {:?}", view.dtype()));
        } else if !factors.contains_key(&(layer, linear, if factor == 'A' { 'B' } else { 'A' })) {
            problems.push(format!("tensor `{name}`: its other factor is missing"));
        }
    }
    if factors.is_empty() && problems.is_empty() {
        problems.push("no LoRA of the language model".to_owned());
    }
    if problems.len() == others.len() {
        none_outside(&others, &file)?;
    }
    if !problems.is_empty() {
        let (message, help) = if misfits {
            ("the adapter does not fit the model", "the adapter was made for another model")
        } else if is_other_dtype {
            (
                "the adapter has tensors of a dtype that is not read",
                "convert the adapter: in Python, `model.float()` before PEFT's `save_pretrained`",
            )
        } else {
            (
                "the adapter is incomplete",
                "copy its file again, or save the adapter again with PEFT's `save_pretrained`",
            )
        };
        return Err(ModelError::new(format!("{message}{}", listed(&problems))).help(help));
    }
    let change = |layer: usize, linear: usize| {
        let tensor = |factor| {
            let Factor { view, .. } = factors.get(&(layer, linear, factor))?;
            let stored = precision(view.dtype()).expect("checked");
            let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), stored);
            Some(Tensor::from_data(data, (device, DType::F32)))
        };
        let scale = alpha / rank as f64;
        Some(Change::Lora(Lora { scale, a: tensor('A')?, b: tensor('B')?, dropout: None }))
    };
    let linears = 0..shape.linears.len();
    let layer = |layer| LayerAdapter(linears.clone().map(|linear| change(layer, linear)).collect());
    let adapter = Adapter {
        rank,
        alpha,
        targets: targets_of(&factors, shape.adapter_names),
        layers: (0..shape.layers).map(layer).collect(),
    };
    notes.extend(renamed);
    if unused > 0 {
        let left_out = counted(unused, "tensor");
        notes.push(format!("left out {left_out} of the vision tower's adapter, which changes nothing"));
    }
    Ok(Read { adapter, notes })
}

/// The tensors in `bytes`, the content of an adapter's file.
///
/// # Errors
/// When it is no safetensors file: says what it is.
pub fn tensors(bytes: &[u8]) -> Result<SafeTensors<'_>, ModelError> {
    SafeTensors::deserialize(bytes).map_err(|cause| match WrongContent::instead_of_tensors(bytes) {
        Some(WrongContent { what, help }) => ModelError::new(what).help(help),
        None => ModelError::new(format!("truncated or not a safetensors file: {cause}")).help(AGAIN),
    })
}

/// The modules of the decoder that the adapter in `bytes` is for, in the order of a layer: those of the first family
/// whose names all its tensors have.
///
/// # Errors
/// When it is no safetensors file, or holds more than LoRA of the decoder, or of modules that `settings` leave out.
pub fn targets(settings: &Settings, bytes: &[u8]) -> Result<Vec<String>, ModelError> {
    let file = tensors(bytes)?;
    let (names, Sorted { factors, .. }) = recognize(&file)?;
    settings.modules.check(factors.values().map(|factor| factor.plain.as_str()))?;
    if factors.is_empty() {
        return Err(ModelError::new("no LoRA of the language model"));
    }
    Ok(targets_of(&factors, names))
}

/// The names of the first family whose decoder has all tensors of the adapter in `bytes`.
///
/// # Errors
/// When it is no safetensors file, or holds more than LoRA of the decoder.
pub fn names(bytes: &[u8]) -> Result<&'static AdapterNames, ModelError> {
    Ok(recognize(&tensors(bytes)?)?.0)
}

fn recognize<'a>(file: &SafeTensors<'a>) -> Result<(&'static AdapterNames, Sorted<'a>), ModelError> {
    let mut refused = None;
    for names in families::adapter_names() {
        let sorted = Sorted::of(file, names)?;
        match none_outside(&sorted.others, file) {
            Ok(()) => return Ok((names, sorted)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.expect("a family"))
}

/// The names of the linear layers that `factors` are of, in the order of a layer.
fn targets_of(factors: &BTreeMap<(usize, usize, char), Factor<'_>>, names: &AdapterNames) -> Vec<String> {
    let adapted: BTreeSet<usize> = factors.keys().map(|(_, linear, _)| *linear).collect();
    adapted.into_iter().map(|linear| names.linears[linear].0.to_owned()).collect()
}

/// A factor of the decoder's LoRA.
struct Factor<'a> {
    /// Its name in the file.
    name: String,
    /// PEFT's name.
    plain: String,
    view: TensorView<'a>,
}

/// The tensors of an adapter's file by what they are for.
struct Sorted<'a> {
    /// By number of the layer, place among its linear layers, and letter.
    factors: BTreeMap<(usize, usize, char), Factor<'a>>,
    /// How many are of modules outside the decoder. They change nothing.
    unused: usize,
    /// The problems with those that are for something else.
    others: Vec<String>,
    /// How names were understood.
    notes: Vec<String>,
}

impl<'a> Sorted<'a> {
    fn of(file: &SafeTensors<'a>, family: &AdapterNames) -> Result<Self, ModelError> {
        let names = Names::read(file.names())?;
        let mut sorted = Self { factors: BTreeMap::new(), unused: 0, others: Vec::new(), notes: names.notes };
        for (name, view) in file.tensors() {
            let plain = &names.plain[&name];
            match place(plain, family) {
                Some(Place::Outside('B')) if !is_zero(&view) => {
                    return Err(ModelError::new(format!("the adapter changes the vision tower: `{name}` is not zero"))
                        .help(format!("only adapters of the language model are read; {MERGE}")));
                }
                Some(Place::Outside(_)) => sorted.unused += 1,
                Some(Place::Decoder(layer, linear, factor)) => {
                    let plain = plain.clone();
                    let other = sorted.factors.insert((layer, linear, factor), Factor { name, plain, view });
                    if let Some(other) = other {
                        return Err(ModelError::new(format!(
                            "`{}` occurs twice, under names of two versions",
                            other.name
                        ))
                        .help("keep one of them, as PEFT's `save_pretrained` writes it"));
                    }
                }
                None => {
                    sorted.others.push(format!("tensor `{name}`: not LoRA of a linear layer of the language model"));
                }
            }
        }
        Ok(sorted)
    }
}

/// That nothing in `file` is for something else than the decoder; `outside` is what is.
fn none_outside(outside: &[String], file: &SafeTensors<'_>) -> Result<(), ModelError> {
    if outside.is_empty() {
        return Ok(());
    }
    let help = if looks_wrapped(file.names()) {
        "these look like the names of torch.compile or FSDP: gather the whole state and save the unwrapped model with \
         PEFT's `save_pretrained`"
            .to_owned()
    } else {
        format!("only LoRA of these layers is read, which `target_modules` can name; {MERGE}")
    };
    let message = format!("the adapter changes more than the language model's linear layers{}", listed(outside));
    Err(ModelError::new(message).help(help))
}

/// `bytes`, the content of an adapter's file, with PEFT's own names of tensors, and what had to be changed for it.
///
/// # Errors
/// When it is no safetensors file, or what its names say is ambiguous.
pub fn plain(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, Vec<String>), ModelError> {
    let file = tensors(bytes)?;
    let names = Names::read(file.names())?;
    if names.are_plain() {
        return Ok((Cow::Borrowed(bytes), Vec::new()));
    }
    let views = file.tensors().into_iter().map(|(name, view)| (&names.plain[&name], view));
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let written = safetensors::serialize(views, Some(format)).expect("names are distinct");
    Ok((Cow::Owned(written), names.notes))
}

/// Whether every value is zero, of either sign.
fn is_zero(view: &TensorView<'_>) -> bool {
    let size = view.dtype().bitsize() / 8;
    view.data().chunks_exact(size).all(|value| {
        let (sign, rest) = value.split_last().expect("a value has bytes");
        sign & 0x7f == 0 && rest.iter().all(|byte| *byte == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{llama, tiny};

    fn shape() -> Shape {
        let text = llama::Config {
            hidden: 8,
            intermediate: 6,
            layers: 2,
            heads: 2,
            key_value_heads: 1,
            head_size: 4,
            ..tiny::text()
        };
        tiny::config(text).shape()
    }

    fn some_settings() -> Settings {
        Settings { rank: 2, alpha: 4.0, ..Settings::default() }
    }

    /// An adapter file of these tensors, all of one value.
    fn file(tensors: &[(&str, [usize; 2], f32)]) -> Vec<u8> {
        let data: Vec<Vec<u8>> =
            tensors.iter().map(|(_, [rows, columns], value)| value.to_le_bytes().repeat(rows * columns)).collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), data).expect("fits")));
        safetensors::serialize(views, None).expect("serializes")
    }

    fn read_bytes(tensors: &[(&str, [usize; 2], f32)]) -> Result<Read, ModelError> {
        parse(some_settings(), &file(tensors), &shape(), &Device::flex())
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let device = Device::flex();
        let targets = |name: &str| ["q_proj", "down_proj"].contains(&name);
        let adapter = Adapter::initial(&shape(), 2, 4.0, targets, 1, &device);
        let folder = tempfile::tempdir().expect("a directory");
        let bytes = serialize(&adapter, &shape());
        fs::write(folder.path().join(TENSORS), &bytes).expect("written");
        let settings = settings_text(2, 4.0, &adapter.targets, 0.05, "some/model", None);
        fs::write(folder.path().join(SETTINGS), settings).expect("written");
        let settings = check(folder.path()).expect("sound");
        assert_eq!((settings.dropout, settings.base.as_deref()), (0.05, Some("some/model")));
        let found = read(folder.path(), &shape(), &device).expect("read");
        assert_eq!(found.adapter.targets, adapter.targets);
        assert_eq!((found.adapter.rank, found.adapter.alpha, found.notes.len()), (2, 4.0, 0));
        assert_eq!(serialize(&found.adapter, &shape()), bytes);
    }

    #[test]
    fn the_family_of_an_adapter_is_known_by_its_tensors() {
        let of = |path: &str| {
            let [a, b] = ["A", "B"].map(|factor| format!("base_model.model.{path}.lora_{factor}.weight"));
            names(&file(&[(&a, [2, 8], 0.5), (&b, [8, 2], 0.5)])).expect("known").exclude
        };
        assert_eq!(of("language_model.model.layers.0.self_attn.q_proj"), Some(".*vision_tower.*"));
        assert_eq!(of("speaker.blocks.0.mix.query"), Some("eye.*"));
    }

    #[test]
    fn every_generation_of_names_is_read() {
        for prefix in [
            "language_model.model.layers",
            "model.language_model.layers",
            "model.language_model.model.layers",
            "language_model.layers",
            "model.layers",
            "layers",
        ] {
            let [a, b] =
                ["A", "B"].map(|factor| format!("base_model.model.{prefix}.1.self_attn.v_proj.lora_{factor}.weight"));
            let adapter = read_bytes(&[(&a, [2, 8], 0.5), (&b, [4, 2], 0.25)]).expect("read").adapter;
            assert_eq!(adapter.targets, ["v_proj"]);
            assert!(adapter.layers[0].0[2].is_none());
            let rows = Tensor::ones([1, 8], &Device::flex());
            let change = adapter.layers[1].0[2].as_ref().expect("adapted").forward(&rows);
            // 8 · 0.5 in each of two ranks, by 0.25, scaled by 4 / 2.
            assert_eq!(change.into_data().try_to_vec::<f32>().expect("floats"), [4.0; 4]);
        }
    }

    #[test]
    fn an_adapter_of_the_tower_is_left_out_when_it_is_zero_and_refused_when_not() {
        let [a, b] = ["A", "B"].map(|factor| {
            format!("base_model.model.model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.lora_{factor}.weight")
        });
        let (c, d) = (
            "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
            "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
        );
        let with = |value| read_bytes(&[(&a, [2, 3], 1.0), (&b, [3, 2], value), (c, [2, 8], 1.0), (d, [6, 2], 1.0)]);
        let adapter = with(-0.0).expect("read");
        assert_eq!(adapter.notes, ["left out 2 tensors of the vision tower's adapter, which changes nothing"]);
        let message = with(1e-30).expect_err("refused").message;
        assert_eq!(message, format!("the adapter changes the vision tower: `{b}` is not zero"));
    }

    #[test]
    fn an_adapter_of_another_model_names_every_tensor_that_does_not_fit() {
        let name = |layer: usize, path: &str, factor: &str| {
            format!("base_model.model.language_model.model.layers.{layer}.{path}.lora_{factor}.weight")
        };
        let error = read_bytes(&[
            (&name(0, "mlp.up_proj", "A"), [2, 9], 1.0),
            (&name(0, "mlp.up_proj", "B"), [6, 2], 1.0),
            (&name(1, "self_attn.q_proj", "A"), [2, 8], 1.0),
            (&name(7, "self_attn.q_proj", "A"), [2, 8], 1.0),
            ("base_model.model.lm_head.weight", [10, 8], 1.0),
        ])
        .expect_err("refused");
        let lines: Vec<&str> = error.message.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "the adapter does not fit the model",
                "tensor `base_model.model.lm_head.weight`: not LoRA of a linear layer of the language model",
                "tensor `base_model.model.language_model.model.layers.0.mlp.up_proj.lora_A.weight`: expected [2, 8], found [2, 9]",
                "tensor `base_model.model.language_model.model.layers.1.self_attn.q_proj.lora_A.weight`: its other factor is missing",
                "tensor `base_model.model.language_model.model.layers.7.self_attn.q_proj.lora_A.weight`: the model has 2 layers",
            ]
        );
        assert_eq!(error.help.as_deref(), Some("the adapter was made for another model"));

        let incomplete = read_bytes(&[(&name(0, "mlp.up_proj", "A"), [2, 8], 1.0)]).expect_err("refused");
        let empty = read_bytes(&[]).expect_err("refused");
        for error in [incomplete, empty] {
            assert!(error.message.starts_with("the adapter is incomplete\n"), "{error}");
            assert!(error.help.is_some_and(|help| help.starts_with("copy its file again")));
        }
        let names = [name(0, "mlp.up_proj", "A"), name(0, "mlp.up_proj", "B")];
        let zeros = [0; 128];
        let view = |rows, columns| TensorView::new(Dtype::F64, vec![rows, columns], &zeros[..8 * rows * columns]);
        let views = [(&names[0], view(2, 8).expect("fits")), (&names[1], view(6, 2).expect("fits"))];
        let bytes = safetensors::serialize(views, None).expect("serializes");
        let error = parse(some_settings(), &bytes, &shape(), &Device::flex()).expect_err("refused");
        assert!(error.message.starts_with("the adapter has tensors of a dtype that is not read\n"), "{error}");
        assert!(error.help.is_some_and(|help| help.starts_with("convert the adapter")));

        let error = read_bytes(&[
            (&name(0, "mlp.up_proj", "A"), [2, 8], 1.0),
            (&name(0, "mlp.up_proj", "B"), [6, 2], 1.0),
            ("base_model.model.multi_modal_projector.linear_1.lora_A.weight", [2, 8], 1.0),
        ])
        .expect_err("refused");
        assert!(
            error.message.starts_with("the adapter changes more than the language model's linear layers"),
            "{error}"
        );
    }
}
