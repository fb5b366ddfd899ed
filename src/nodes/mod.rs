//! The kinds of node, one per file. They connect the engine's contract to data, model, training and evaluation.

pub mod adapter;
mod conditions;
mod corrupt;
mod describe;
pub mod device;
mod dpo;
mod evaluate;
mod export;
pub mod folder;
pub mod formats;
#[cfg(test)]
mod harness;
mod import;
pub mod infuse;
mod labels;
mod listing;
mod model;
mod operations;
mod pair;
mod pictured;
mod prompts;
mod sample;
mod sft;
mod share;
mod source_check;
mod synonyms;
mod training;

use std::sync::Arc;

use stic_engine::node::{Kinds, NodeKind};
use stic_engine::spec::Declared;

pub use corrupt::CorruptKind;
pub use describe::{DESCRIBE, MISLEAD, ResponseKind};
pub use dpo::DpoKind;
pub use evaluate::EvaluateKind;
pub use export::export;
pub use import::FileImporter;
pub use infuse::InfuseKind;
pub use pair::PairKind;
pub use sample::SampleKind;
pub use sft::SftKind;
pub use share::name_items;

/// The kinds of node, and the importer of files.
pub fn kinds() -> Kinds {
    let kinds: Vec<Arc<dyn NodeKind>> = vec![
        Arc::new(SampleKind),
        Arc::new(DESCRIBE),
        Arc::new(CorruptKind),
        Arc::new(MISLEAD),
        Arc::new(PairKind),
        Arc::new(DpoKind),
        Arc::new(InfuseKind),
        Arc::new(SftKind),
        Arc::new(EvaluateKind),
    ];
    Kinds::new(kinds).with_importer(Arc::new(FileImporter)).with_declared(Declared {
        resources: &[model::MODEL],
        pools: &[device::DEVICES],
        synonyms: synonyms::SYNONYMS,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use stic_engine::spec::{Folders, Mistakes, Reader, Resource, Scope, syntax};

    /// The keys of `kind` that are known after its parameters were read from `text`.
    fn known(kind: &dyn NodeKind, text: &str) -> Vec<String> {
        let mistakes = Mistakes::default();
        let models =
            [Resource { table: "models", name: "m".into(), source: "m".into(), path: "m".into(), revision: None }];
        let folders = Folders::of(Path::new(""));
        let scope = Scope::new(&folders, &models, &mistakes);
        let table = syntax::parse(text).root;
        let mut reader = Reader::new(&scope, &table, "node `n`");
        let _ = kind.read(&mut reader, &|_| false);
        let mut known = reader.known();
        known.sort();
        known
    }

    #[test]
    fn the_kinds_fit_together() {
        assert_eq!(kinds().conflicts(), Vec::<String>::new());
    }

    #[test]
    fn the_known_keys_of_a_kind_are_all_of_them_whatever_is_written() {
        for name in kinds().names() {
            let kinds = kinds();
            let kind = kinds.get(name).unwrap().as_ref();
            let all = known(kind, "");
            let mut declared: Vec<&str> = kind.declared().iter().map(|declaration| declaration.name).collect();
            declared.sort_unstable();
            assert_eq!(all, declared, "{name}: what is read is what is declared");
            assert!(!all.is_empty() && !all.contains(&"judge".to_owned()), "{name}: {all:?}");
            // A value of any type, alone or with all other keys, makes no key known or unknown.
            for value in ["1", "0.5", "true", "\"m\"", "[]", "[1, 2]", "[\"a\"]", "{ file = \"x\" }", "{}", "[{}]"] {
                for key in &all {
                    assert_eq!(known(kind, &format!("{key} = {value}\n")), all, "{name}: {key} = {value}");
                }
                let text: String = all.iter().map(|key| format!("{key} = {value}\n")).collect();
                assert_eq!(known(kind, &text), all, "{name}: all = {value}");
            }
        }
    }
}
