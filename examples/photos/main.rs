//! Makes the small `llava_next` checkpoint that `pipelines/photos.toml` runs: `cargo run --release --example photos`
//! writes `examples/photos/checkpoint`, or the directory given as the first argument.
//!
//! Its weights are drawn, not trained, so its text is meaningless. Everything else is as in LLaVA-1.6: pictures go
//! through tiles, unpadding and newline rows, the decoder is Mistral's with grouped queries, the tokenizer is built
//! like Llama's. A piece of text is one character, and what has no piece falls back to bytes, so any text can be
//! generated.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value, json};
use stic::model::llava::Config;
use stic_engine::draw::Draws;

/// Side of a tile in pixels: a third of LLaVA's, with the same patches.
const TILE: u32 = 112;
const PATCH: u32 = 14;
const VISION_LAYERS: usize = 3;
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos/checkpoint");
    let folder = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    fs::create_dir_all(&folder)?;

    let pieces = pieces();
    let image = pieces.len() as u32;
    write(&folder, "config.json", &config(image))?;
    write(
        &folder,
        "generation_config.json",
        &json!({ "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": UNKNOWN }),
    )?;
    write(&folder, "preprocessor_config.json", &preprocessor())?;
    write(&folder, "tokenizer.json", &tokenizer(&pieces))?;
    write(&folder, "tokenizer_config.json", &tokenizer_config(image))?;
    weights(&folder, &pieces)?;
    println!("wrote {}", folder.display());
    Ok(())
}

fn write(folder: &Path, name: &str, value: &Value) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join(name), serde_json::to_string_pretty(value)? + "\n")?;
    Ok(())
}

fn config(image: u32) -> Value {
    json!({
        "architectures": ["LlavaNextForConditionalGeneration"],
        "model_type": "llava_next",
        "image_token_index": image,
        "image_grid_pinpoints": pinpoints(),
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": false,
        "torch_dtype": "float16",
        "use_image_newline_parameter": true,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_act": "quick_gelu",
            "hidden_size": 64,
            "image_size": TILE,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": VISION_LAYERS,
            "patch_size": PATCH,
            "projection_dim": 64,
        },
        "text_config": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "hidden_size": 64,
            "intermediate_size": 128,
            "max_position_embeddings": 4096,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "sliding_window": null,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "vocab_size": image + 1,
        },
    })
}

/// Height and width of what tiles can cover, in the proportions of LLaVA-1.6's list.
fn pinpoints() -> Vec<[u32; 2]> {
    [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]].map(|[height, width]| [height * TILE, width * TILE]).to_vec()
}

fn preprocessor() -> Value {
    json!({
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "do_resize": true,
        "size": { "shortest_edge": TILE },
        "do_center_crop": true,
        "crop_size": { "height": TILE, "width": TILE },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": true,
        "do_pad": true,
        "resample": 3,
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "image_grid_pinpoints": pinpoints(),
    })
}

const UNKNOWN: u32 = 0;
const BEGIN: u32 = 1;
const END: u32 = 2;

/// The pieces by id: three special ones, 256 bytes, a blank and the other printable characters of ASCII.
fn pieces() -> Vec<String> {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let characters = ('!'..='~').map(String::from);
    special.into_iter().chain(bytes).chain(["▁".to_owned()]).chain(characters).collect()
}

fn tokenizer(pieces: &[String]) -> Value {
    let vocabulary: Map<String, Value> =
        pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [
            special(UNKNOWN, "<unk>"),
            special(BEGIN, "<s>"),
            special(END, "</s>"),
            special(pieces.len() as u32, "<image>"),
        ],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] },
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
                     { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [BEGIN], "tokens": ["<s>"] } },
        },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": [],
        },
    })
}

fn tokenizer_config(image: u32) -> Value {
    let special = |content: &str| {
        json!({ "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                "special": true })
    };
    json!({
        "tokenizer_class": "LlamaTokenizer",
        "processor_class": "LlavaNextProcessor",
        "add_bos_token": true,
        "add_eos_token": false,
        "legacy": true,
        "added_tokens_decoder": {
            UNKNOWN.to_string(): special("<unk>"),
            BEGIN.to_string(): special("<s>"),
            END.to_string(): special("</s>"),
            image.to_string(): special("<image>"),
        },
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "clean_up_tokenization_spaces": false,
        "model_max_length": 4096,
    })
}

/// Draws every tensor that the configuration asks for, and those of the tower's last layer, which LLaVA does not read
/// but every checkpoint has.
fn weights(folder: &Path, pieces: &[String]) -> Result<(), Box<dyn Error>> {
    let mut shapes = Config::read(folder)?.tensors();
    let last = format!("encoder.layers.{}.", VISION_LAYERS - 1);
    let unread: Vec<_> = shapes
        .iter()
        .filter(|(name, _)| name.contains("vision_tower") && name.contains("encoder.layers.0."))
        .map(|(name, shape)| (name.replace("encoder.layers.0.", &last), shape.clone()))
        .collect();
    shapes.extend(unread);
    for part in ["weight", "bias"] {
        shapes.push((format!("vision_tower.vision_model.post_layernorm.{part}"), vec![64]));
    }

    let tensors: Vec<_> = shapes.into_iter().map(|(name, shape)| (drawn(&name, &shape, pieces), name, shape)).collect();
    let views = tensors
        .iter()
        .map(|(bytes, name, shape)| Ok((name.clone(), TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    Ok(fs::write(folder.join("model.safetensors"), serialize(views, Some(metadata))?)?)
}

/// Norms are one, biases zero; embeddings have variance one and other weights 1 / inputs, so that activations keep
/// their size. The head is louder for blanks and small letters than for other pieces: then what is said can be printed.
fn drawn(name: &str, shape: &[usize], pieces: &[String]) -> Vec<u8> {
    let mut draws = Draws::new(SEED, "weights", name);
    let count: usize = shape.iter().product();
    let embeds = ["embed", "newline"].iter().any(|part| name.contains(part)) && !name.contains("patch_embedding");
    let inputs: usize = if embeds { 1 } else { shape[1..].iter().product() };
    let is_letter = |piece: &String| piece == "▁" || (piece.len() == 1 && piece.as_bytes()[0].is_ascii_lowercase());
    let value = |index: usize, draws: &mut Draws| {
        if name.ends_with("bias") {
            0.0
        } else if shape.len() == 1 && !embeds {
            1.0
        } else if name.contains("lm_head") {
            let loud = pieces.get(index / shape[1]).is_some_and(is_letter);
            draws.normal() / (inputs as f64).sqrt() * if loud { 3.0 } else { 0.5 }
        } else {
            draws.normal() / (inputs as f64).sqrt()
        }
    };
    (0..count).flat_map(|index| f16::from_f64(value(index, &mut draws)).to_le_bytes()).collect()
}
