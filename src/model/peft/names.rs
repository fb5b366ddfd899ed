//! The names of an adapter's tensors: PEFT's, those that training libraries make of them, and what they say.
//!
//! A model that was compiled or distributed for training prefixes its parts' names with the wrapper's, and a file
//! written from it by hand has too. Where leaving such a part out is unambiguous, that is done and said.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::shape::AdapterNames;
use crate::model::{ModelError, listed};

/// PEFT's prefix of the model's own names.
pub(super) const PREFIX: &str = "base_model.model";

/// Parts of names that wrappers add, and whose they are. No module of a model is called so.
const WRAPPERS: [(&str, &str); 5] = [
    ("_checkpoint_wrapped_module", "activation checkpointing"),
    ("_forward_module", "a distributed strategy"),
    ("_fsdp_wrapped_module", "FSDP"),
    ("_orig_mod", "torch.compile"),
    ("module", "DDP or DeepSpeed"),
];

/// What a tensor is for.
pub(super) enum Place {
    /// A factor of a linear layer of the decoder: number of the layer, place among its linear layers, letter.
    Decoder(usize, usize, char),
    /// A factor of a module outside the decoder.
    Outside(char),
}

/// PEFT's names of a file's tensors.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Names {
    /// From a name in the file to PEFT's.
    pub plain: BTreeMap<String, String>,
    /// Notes on what was removed or prefixed.
    pub notes: Vec<String>,
}

impl Names {
    /// # Errors
    /// When the file holds several adapters, or two of its tensors get the same name.
    pub fn read<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, ModelError> {
        let mut found = Self::default();
        let (mut wrappers, mut adapters, mut bare) = (BTreeSet::new(), BTreeSet::new(), false);
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        // In a fixed order, so that of several duplicates the same is reported every time.
        for name in written.into_iter().collect::<BTreeSet<_>>() {
            let mut parts: Vec<&str> = name.split('.').collect();
            parts.retain(|part| match WRAPPERS.iter().find(|(wrapper, _)| wrapper == part) {
                Some(wrapper) => {
                    wrappers.insert(*wrapper);
                    false
                }
                None => true,
            });
            // A factor in memory has its adapter's name behind it.
            let factor = parts.iter().position(|part| part.starts_with("lora_"));
            if let Some(at) = factor
                && parts.len() == at + 3
            {
                adapters.insert(parts.remove(at + 1));
            }
            let mut plain = parts.join(".");
            if factor.is_some() && !plain.starts_with(PREFIX) {
                bare = true;
                plain = format!("{PREFIX}.{plain}");
            }
            if let Some(other) = taken.insert(plain.clone(), name) {
                return Err(ModelError::new(format!("the tensors `{other}` and `{name}` are both `{plain}`"))
                    .help("keep one of them, as PEFT's `save_pretrained` writes it"));
            }
            found.plain.insert(name.to_owned(), plain);
        }
        if adapters.len() > 1 {
            let names: Vec<String> = adapters.iter().map(|name| format!("`{name}`")).collect();
            return Err(ModelError::new(format!("the file holds several adapters{}", listed(&names)))
                .help("save one: `model.save_pretrained(DIR, selected_adapters=[NAME])`"));
        }
        for (wrapper, whose) in wrappers {
            found.notes.push(format!("removed `{wrapper}.`, which {whose} adds, from the tensor names"));
        }
        for adapter in adapters {
            found.notes.push(format!("removed the adapter's name, `.{adapter}`, from the tensor names"));
        }
        if bare {
            found.notes.push(format!("prefixed the tensor names with `{PREFIX}.`"));
        }
        Ok(found)
    }

    /// Whether the file has PEFT's own names.
    pub fn are_plain(&self) -> bool {
        self.notes.is_empty()
    }
}

/// What the tensor with PEFT's name `name` is for in a family with `names`; `None` when it is none that is read.
pub(super) fn place(name: &str, names: &AdapterNames) -> Option<Place> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('.')?.strip_suffix(".weight")?;
    let (module, factor) = rest.rsplit_once(".lora_")?;
    let factor = match factor {
        "A" => 'A',
        "B" => 'B',
        _ => return None,
    };
    if names.outside.iter().any(|part| module.contains(part)) {
        return Some(Place::Outside(factor));
    }
    let inner = names.layers.iter().find_map(|prefix| module.strip_prefix(prefix))?;
    let (layer, path) = inner.split_once('.')?;
    let linear = names.linears.iter().position(|(_, known)| *known == path)?;
    Some(Place::Decoder(layer.parse().ok()?, linear, factor))
}

/// Whose work names are that cannot be read, where they show it.
pub(super) fn looks_wrapped<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|name| {
        name.split('.').any(|part| part.starts_with("_fsdp") || part.starts_with("_flat_param") || part == "_orig_mod")
            || name.contains("_wrapped_module")
            || name.contains("_orig_mod")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight";

    #[test]
    fn wrappers_adapter_names_and_a_missing_prefix_are_understood_and_reported() {
        for (written, note) in [
            (PLAIN, None),
            (
                "_orig_mod.base_model.model.model.language_model.layers.1._orig_mod.self_attn.q_proj.lora_A.weight",
                Some("removed `_orig_mod.`, which torch.compile adds, from the tensor names"),
            ),
            (
                "module.base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight",
                Some("removed `module.`, which DDP or DeepSpeed adds, from the tensor names"),
            ),
            (
                "base_model.model.model.language_model.layers.1._fsdp_wrapped_module.self_attn.q_proj.lora_A.weight",
                Some("removed `_fsdp_wrapped_module.`, which FSDP adds, from the tensor names"),
            ),
            (
                "base_model.model.model.language_model.layers.1._checkpoint_wrapped_module.self_attn.q_proj.lora_A.weight",
                Some(
                    "removed `_checkpoint_wrapped_module.`, which activation checkpointing adds, from the tensor names",
                ),
            ),
            (
                "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.default.weight",
                Some("removed the adapter's name, `.default`, from the tensor names"),
            ),
            (
                "model.language_model.layers.1.self_attn.q_proj.lora_A.weight",
                Some("prefixed the tensor names with `base_model.model.`"),
            ),
        ] {
            let names = Names::read([written]).expect("understood");
            assert_eq!(names.plain[written], PLAIN);
            assert_eq!(names.notes, note.map(str::to_owned).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let wrapped = format!("_orig_mod.{PLAIN}");
        for written in [[PLAIN, wrapped.as_str()], [wrapped.as_str(), PLAIN]] {
            let error = Names::read(written).expect_err("refused");
            assert_eq!(error.message, format!("the tensors `{wrapped}` and `{PLAIN}` are both `{PLAIN}`"));
        }
        let of = |adapter: &str| format!("base_model.model.layers.0.q_proj.lora_A.{adapter}.weight");
        let error = Names::read([of("good").as_str(), of("bad").as_str()]).expect_err("refused");
        // Both get the same name, too.
        assert!(error.message.contains("are both"), "{error}");
        let error = Names::read([of("good").as_str(), of("bad").replace("lora_A", "lora_B").as_str()]);
        assert_eq!(error.expect_err("refused").message, "the file holds several adapters\n  `bad`\n  `good`");
    }
}
