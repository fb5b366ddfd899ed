//! The files in and around an adapter's directory: the directory that is meant, and state that belongs to the adapter
//! but is not in its file.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::data::sniff::WrongContent;
use crate::model::ModelError;
use crate::model::files::below;
use stic_engine::diagnostic::counted;

/// The name of the settings' file.
pub const SETTINGS: &str = "adapter_config.json";
/// The name of the tensors' file.
pub const TENSORS: &str = "adapter_model.safetensors";

/// What the original LLaVA repository writes beside an adapter: the projector, trained in full.
const BESIDE: [&str; 4] =
    ["non_lora_trainables.bin", "non_lora_trainables.safetensors", "mm_projector.bin", "mm_projector.safetensors"];

/// That `folder` holds no adapter because it has no `missing`, and which directory is meant.
pub(super) fn no_adapter(folder: &Path, missing: &str) -> ModelError {
    let shown = folder.display();
    if folder.is_file() {
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return ModelError::new(format!("{shown}: a file, not an adapter's directory"))
            .help(format!("name the directory that contains it, `{}`", parent.display()));
    }
    if !folder.is_dir() {
        return ModelError::new(format!("{shown}: no such directory"))
            .help(format!("an adapter is a directory with `{SETTINGS}` and `{TENSORS}`"));
    }
    let error = ModelError::new(format!("{shown}: `{missing}` not found"));
    let near = below(folder, SETTINGS).into_iter().map(|path| folder.join(path));
    let near = near.filter(|path| path.join(TENSORS).is_file()).map(|path| format!("`{}`", path.display()));
    let near: Vec<String> = near.collect();
    match near.as_slice() {
        [] if folder.join("adapter_model.bin").is_file() => error.help(
            "pickled adapters (`adapter_model.bin`) are not read: save the adapter with `safe_serialization=True`",
        ),
        [] if missing == SETTINGS && folder.join("config.json").is_file() => {
            error.help("this looks like a whole model, which is named as `source` under `[models]`")
        }
        [] => error.help(format!("an adapter's directory holds `{SETTINGS}` and `{TENSORS}`")),
        [only] => error.help(format!("there is an adapter in {only}: name that directory")),
        several => {
            let reported = &several[..several.len().min(4)];
            let more = if reported.len() < several.len() { ", …" } else { "" };
            error.help(format!("there are adapters in {}{more}: name one of these directories", reported.join(", ")))
        }
    }
}

/// Checks what belongs to the adapter in `folder` and is stored beside it. Returns notes.
///
/// # Errors
/// When it changes the model: that is not read, and without it the adapter would be another one.
pub(super) fn beside(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut notes = Vec::new();
    for name in BESIDE {
        let path = folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(ModelError::io(&path, &cause)),
        };
        let count = match SafeTensors::deserialize(&bytes) {
            Ok(file) => file.len(),
            Err(_) if is_empty_pickle(&bytes) => 0,
            Err(_) if WrongContent::is_pickle(&bytes) => {
                let shown = path.display();
                return Err(ModelError::new(format!("{shown}: more of the adapter, in a pickle, which is not read")).help(
                    format!(
                        "without it the adapter would be another one; if it holds the projector as the base model has it, \
                         move it away; else write its tensors into the base checkpoint: in Python, \
                         `torch.load(\"{name}\", weights_only=True)` gives them by name"
                    ),
                ));
            }
            Err(cause) => {
                let found = WrongContent::instead_of_tensors(&bytes);
                return Err(ModelError::content(
                    &path,
                    found,
                    format_args!("truncated or of no known format: {cause}"),
                ));
            }
        };
        if count > 0 {
            let replaced = counted(count, "tensor");
            return Err(ModelError::new(format!("{}: replaces {replaced} of the base model", path.display())).help(
                "only LoRA of the language model is read, and without them the adapter would be another one: write them \
                 into the base checkpoint, or move the file away if they are as the base model has them",
            ));
        }
        notes.push(format!("left out `{name}`, which holds no tensors"));
    }
    Ok(notes)
}

/// Whether a pickle of PyTorch is without a single tensor: what trainings of LoRA alone leave. Pickles name what makes
/// a tensor out of its storage.
fn is_empty_pickle(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    const MOST: usize = 1 << 14;
    WrongContent::is_pickle(bytes)
        && bytes.len() <= MOST
        && ![&b"_rebuild"[..], b"Storage", b"_reconstruct"].into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "{}").expect("written");
        }
    }

    fn advice(folder: &Path) -> String {
        let help = no_adapter(folder, SETTINGS).help.expect("a remedy");
        help.replace(&format!("{}/", folder.display()), "")
    }

    #[test]
    fn the_folder_that_is_meant_is_named() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = folder.path();
        assert_eq!(advice(root), "an adapter's directory holds `adapter_config.json` and `adapter_model.safetensors`");
        touch(root, &["config.json"]);
        assert!(advice(root).starts_with("this looks like a whole model"));
        touch(root, &["checkpoint-500/adapter_config.json", "checkpoint-500/adapter_model.safetensors"]);
        assert_eq!(advice(root), "there is an adapter in `checkpoint-500`: name that directory");
        touch(root, &["checkpoint-1000/adapter_config.json", "checkpoint-1000/adapter_model.safetensors"]);
        touch(root, &["good/adapter_config.json", "good/adapter_model.safetensors", "empty/adapter_config.json"]);
        assert_eq!(
            advice(root),
            "there are adapters in `checkpoint-1000`, `checkpoint-500`, `good`: name one of these directories"
        );
        let file = root.join("config.json");
        assert_eq!(advice(&file), format!("name the directory that contains it, `{}`", root.display()));
        let hub = tempfile::tempdir().expect("a directory");
        touch(hub.path(), &["snapshots/0f4a/adapter_config.json", "snapshots/0f4a/adapter_model.safetensors"]);
        assert_eq!(advice(hub.path()), "there is an adapter in `snapshots/0f4a`: name that directory");
    }

    #[test]
    fn state_beside_an_adapter_is_harmless_when_it_is_empty_and_refused_when_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("non_lora_trainables.bin");
        assert_eq!(beside(folder.path()), Ok(Vec::new()));
        for empty in [
            &include_bytes!("../../../tests/reference/peft/empty.bin")[..],
            include_bytes!("../../../tests/reference/peft/empty_old.bin"),
        ] {
            fs::write(&path, empty).expect("written");
            assert_eq!(
                beside(folder.path()).expect("harmless"),
                ["left out `non_lora_trainables.bin`, which holds no tensors"]
            );
        }
        fs::write(&path, include_bytes!("../../../tests/reference/peft/projector.bin")).expect("written");
        let error = beside(folder.path()).expect_err("refused");
        assert!(
            error.message.ends_with("non_lora_trainables.bin: more of the adapter, in a pickle, which is not read")
        );
        assert!(error.help.expect("a remedy").contains("torch.load"));
        fs::write(&path, b"version https://git-lfs.github.com/spec/v1\n").expect("written");
        assert!(beside(folder.path()).expect_err("refused").message.contains("a Git LFS pointer"));

        fs::remove_file(&path).expect("removed");
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).expect("fits");
        let bytes = safetensors::serialize([("model.mm_projector.0.bias", view)], None).expect("serialises");
        fs::write(folder.path().join("non_lora_trainables.safetensors"), bytes).expect("written");
        let message = beside(folder.path()).expect_err("refused").message;
        assert!(message.ends_with("non_lora_trainables.safetensors: replaces 1 tensor of the base model"), "{message}");
    }
}
