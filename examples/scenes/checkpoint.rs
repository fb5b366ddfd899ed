//! The small model's shape, its initial values, and its directory: an ordinary Hugging Face `llava` checkpoint.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use stic::model::ModelError;
use stic::model::llava::Config;
use stic::train::optimizer::Parameters;
use stic_engine::draw::Draws;

use crate::picture::{CELL, SIDE};
use crate::vocabulary::{BEGIN, END, IMAGE, PAD, Vocabulary};

/// Features of the tower and of the decoder alike.
pub const HIDDEN: usize = 128;
/// Prefix of the decoder's tensors.
pub const DECODER: &str = "language_model.";
/// Prefix of the projector's tensors.
pub const PROJECTOR: &str = "multi_modal_projector.";
const TOWER: &str = "vision_tower.vision_model";

/// Pixels are taken to have this mean, of 1, in every channel.
const PIXEL_MEAN: f64 = 0.5;
/// Pixels are taken to have this standard deviation, of 1.
const PIXEL_DEVIATION: f64 = 0.25;

fn config(vocabulary: &Vocabulary) -> Value {
    let id = |token| vocabulary.id(token);
    json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "torch_dtype": "float16",
        "image_token_index": id(IMAGE),
        "image_seq_length": (SIDE / CELL).pow(2),
        "pad_token_id": id(PAD),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": true,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": false,
        "text_config": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "vocab_size": vocabulary.len(),
            "hidden_size": HIDDEN,
            "intermediate_size": 344,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "sliding_window": null,
            "max_position_embeddings": 512,
            "tie_word_embeddings": false,
            "bos_token_id": id(BEGIN),
            "eos_token_id": id(END),
            "pad_token_id": id(PAD),
            "torch_dtype": "float16",
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": SIDE,
            "patch_size": CELL,
            "num_channels": 3,
            "hidden_size": HIDDEN,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "projection_dim": HIDDEN,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "torch_dtype": "float16",
        },
    })
}

fn preprocessor() -> Value {
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": { "shortest_edge": SIDE },
        "resample": 3,
        "do_center_crop": true,
        "crop_size": { "height": SIDE, "width": SIDE },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": ([PIXEL_MEAN; 3]),
        "image_std": ([PIXEL_DEVIATION; 3]),
    })
}

/// A pixel's value as the tower reads it.
pub fn normalize(level: u8) -> f32 {
    ((f64::from(level) / 255.0 - PIXEL_MEAN) / PIXEL_DEVIATION) as f32
}

/// Writes everything but the weights into `folder`, and reads the configuration back.
///
/// # Errors
/// When a file cannot be written.
pub fn write_texts(folder: &Path, vocabulary: &Vocabulary) -> Result<Config, Box<dyn std::error::Error>> {
    fs::create_dir_all(folder)?;
    let id = |token| vocabulary.id(token);
    let generation = json!({
        "bos_token_id": id(BEGIN), "eos_token_id": id(END), "pad_token_id": id(PAD), "do_sample": false,
    });
    let processor = json!({
        "processor_class": "LlavaProcessor",
        "patch_size": CELL,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": IMAGE,
    });
    let special =
        json!({ "bos_token": BEGIN, "eos_token": END, "pad_token": PAD, "unk_token": crate::vocabulary::UNKNOWN });
    let texts = [
        ("config.json", config(vocabulary)),
        ("generation_config.json", generation),
        ("preprocessor_config.json", preprocessor()),
        ("processor_config.json", processor),
        ("special_tokens_map.json", special),
        ("tokenizer.json", vocabulary.tokenizer()),
        ("tokenizer_config.json", vocabulary.tokenizer_config()),
    ];
    for (name, value) in texts {
        fs::write(folder.join(name), format!("{}\n", serde_json::to_string_pretty(&value)?))?;
    }
    Ok(Config::read(folder)?)
}

/// Names and shapes of all tensors of the checkpoint: those that the model reads, and the tower's last layer and norm,
/// which belong to the file but come after the feature.
pub fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Config { feature_layer: -1, ..config.clone() }.tensors();
    for name in ["weight", "bias"] {
        tensors.push((format!("{TOWER}.post_layernorm.{name}"), vec![config.vision.hidden]));
    }
    tensors
}

/// Initial values. The decoder's embedding has unit variance and its matrices keep it, which a reader of this size
/// needs to form; the tower's are PyTorch's defaults.
pub fn initial(config: &Config, seed: u64, device: &Device) -> Parameters {
    let mut parameters = Parameters::new();
    for (name, shape) in tensors(config) {
        let count = shape.iter().product();
        let inputs: usize = shape[1..].iter().product();
        let mut draws = Draws::new(seed, "initial", &name);
        let norm = name.contains("norm") || name.contains("layrnorm");
        let mut fill = |value: &mut dyn FnMut(&mut Draws) -> f64| {
            (0..count).map(|_| value(&mut draws) as f32).collect::<Vec<f32>>()
        };
        let values = if norm {
            let value = if name.ends_with("weight") { 1.0 } else { 0.0 };
            fill(&mut |_| value)
        } else if name.contains("embed_tokens") {
            fill(&mut Draws::normal)
        } else if name.contains("lm_head") || name.contains("class_embedding") || name.contains("position_embedding") {
            fill(&mut |draws| 0.02 * draws.normal())
        } else if name.starts_with(DECODER) {
            fill(&mut |draws| draws.normal() / (inputs as f64).sqrt())
        } else if name.ends_with("bias") {
            fill(&mut |_| 0.0)
        } else {
            let bound = 1.0 / (inputs as f64).sqrt();
            fill(&mut |draws| draws.between(-bound, bound))
        };
        parameters.insert(name, Tensor::from_floats(values.as_slice(), device));
    }
    parameters
}

/// Writes `parameters` into `folder` as `model.safetensors`, 16 bits a number.
///
/// # Errors
/// When the file cannot be written.
pub fn write_weights(
    folder: &Path,
    config: &Config,
    parameters: &Parameters,
) -> Result<(), Box<dyn std::error::Error>> {
    let stored: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(config)
        .into_iter()
        .map(|(name, shape)| {
            let bytes = numbers(&parameters[&name]).into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes());
            let bytes = bytes.collect();
            (name, shape, bytes)
        })
        .collect();
    let views =
        stored.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(views, Some(metadata), &folder.join("model.safetensors"))?;
    Ok(())
}

/// Writes `parameters` as they are, for a later start.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, parameters: &Parameters) -> Result<(), Box<dyn std::error::Error>> {
    let stored: Vec<(&String, Vec<u8>)> = parameters
        .iter()
        .map(|(name, tensor)| (name, numbers(tensor).into_iter().flat_map(f32::to_le_bytes).collect()))
        .collect();
    let views =
        stored.iter().map(|(name, bytes)| Ok((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let unfinished = path.with_extension("unfinished");
    safetensors::serialize_to_file(views, None, &unfinished)?;
    fs::rename(unfinished, path)?;
    Ok(())
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// When there is no such file.
pub fn load(path: &Path, device: &Device) -> Result<Parameters, Box<dyn std::error::Error>> {
    let bytes = fs::read(path)?;
    let stored = safetensors::SafeTensors::deserialize(&bytes)?;
    let tensors = stored.iter().map(|(name, view)| {
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        (name.to_owned(), Tensor::from_floats(values.as_slice(), device))
    });
    Ok(tensors.collect())
}

fn numbers(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().try_to_vec().expect("numbers of 32 bits")
}

/// The model of `parameters`.
///
/// # Errors
/// When a tensor is missing.
pub fn model(config: &Config, parameters: &Parameters) -> Result<stic::model::llava::Llava, ModelError> {
    stic::model::llava::Llava::build(config, &mut parameters.clone())
}
