//! A node's base model: whether its directory is sound, its digest, and the loaded model.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::device;
use super::folder::{self, hub_id};
use crate::device::DeviceChange;
use crate::model::contract::{ImageProcessor, ImageSettings, Model};
use crate::model::files::below;
use crate::model::processor::Processor;
use crate::model::room::Use;
use crate::model::template::{TEMPLATES, Template};
use crate::model::tokenizer::Tokenizer;
use crate::model::{ModelError, families, session};
use stic_engine::digest::Digest;
use stic_engine::node::{Context, Failure, FileDigests, FileProblem, Parameter, by_default};
use stic_engine::parameters;
use stic_engine::spec::parameter::{Class, Declaration, Declare, Fallback, Form, choice, resource};
use stic_engine::spec::{Reader, Resource, ResourceKind};

/// Models are declared under `[models]`.
pub const MODEL: ResourceKind = ResourceKind {
    table: "models",
    noun: "model",
    expected: "the directory of a checkpoint",
    // That a hub is named is reported with the command that downloads from it, once it is known that there is no such
    // directory.
    is_remote: folder::is_on_hub,
};

/// The files beside the weights that say what a model computes and how it reads and writes; a family may have more.
const FILES: [&str; 10] = [
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

parameters! {
    /// The parameters that say which model a node runs, and how.
    pub struct ModelParameters {
        /// The base model: a name under `[models]`
        source: Resource = resource(MODEL).named("model"),
        /// The chat template
        template: Option<&'static str> =
            choice(TEMPLATES.map(|name| (name, name))).optional("the model family's").resolved(),
        /// How pictures are prepared; the checkpoint says the rest
        images: ImageSettings = OfFamilies,
        /// The device that the node runs on: `"cuda:1"`, or `{ backend = …, dtype = … }`
        device: DeviceChange = device::own_device(),
    }
}

/// The image settings of all families, as parameters.
struct OfFamilies;

impl Declare for OfFamilies {
    type Value = ImageSettings;

    fn read(&self, table: &mut Reader<'_>, _: &'static str) -> Option<ImageSettings> {
        let mut settings = ImageSettings::new();
        for (name, values, _) in families::image_settings() {
            let choices: Vec<_> = values.into_iter().map(|value| (value, value)).collect();
            settings.extend(table.optional_choice(name, &choices).map(|value| (name, value)));
        }
        Some(settings)
    }

    fn declared(&self, _: &'static str, _: &'static str) -> Vec<Declaration> {
        let declared = |(name, values, help)| Declaration {
            name,
            form: Form::Choice(values),
            fallback: Fallback::Words("the checkpoint's"),
            class: Class::Function,
            help,
        };
        families::image_settings().into_iter().map(declared).collect()
    }

    /// None: they enter keys by what they resolve to.
    fn key_fields(&self, _: &'static str, _: &ImageSettings) -> Vec<Parameter> {
        Vec::new()
    }
}

impl ModelParameters {
    /// What is wrong with the model's directory, as far as that can be seen without reading weights, or else with what
    /// the other parameters ask of it.
    pub fn check_files(&self) -> Vec<FileProblem> {
        let problems = check_folder(&self.source);
        if problems.is_empty() { self.check_settings() } else { problems }
    }

    fn check_settings(&self) -> Vec<FileProblem> {
        let problem = |parameter: &str, ModelError { message, help, .. }: ModelError| FileProblem {
            parameter: parameter.to_owned(),
            message,
            help,
        };
        let named = self.template_name().and_then(|name| {
            // Of these, only the checkpoint's own can be missing.
            Template::named(name, &self.source.path)
        });
        let mut problems: Vec<FileProblem> = named.err().map(|error| problem("template", error)).into_iter().collect();
        for (&name, &value) in &self.images {
            let alone = ImageSettings::from([(name, value)]);
            problems.extend(image_processor(&self.source, &alone).err().map(|error| problem(name, error)));
        }
        problems
    }

    /// The name of the template: the written one, or that of the model's family.
    fn template_name(&self) -> Result<&'static str, ModelError> {
        let path = &self.source.path;
        self.template.map_or_else(|| families::of(path)?.default_template(path), Ok)
    }

    /// What the parameters resolve to, not how they are written: the model's digest, the template's name, and the image
    /// settings that differ from what the checkpoint does anyway.
    ///
    /// # Errors
    /// When a file of the model cannot be read or is broken.
    pub fn sources(&self, digests: &dyn FileDigests) -> Result<Vec<Parameter>, Failure> {
        let model = Parameter::function("model", digest(&self.source, digests)?);
        let mut list = vec![model, Parameter::function("template", self.template_name()?)];
        let own = image_processor(&self.source, &ImageSettings::new())?.settings();
        let used = image_processor(&self.source, &self.images)?.settings();
        let changed = used.into_iter().filter(|setting| !own.contains(setting));
        list.extend(changed.map(|(name, value)| Parameter::function(name, value)));
        Ok(list)
    }

    /// What it means that the image setting `parameter` is not in the key, for people.
    pub fn left_out(&self, parameter: &str) -> Option<String> {
        let settings = image_processor(&self.source, &ImageSettings::new()).ok()?.settings();
        settings.into_iter().find(|(name, _)| *name == parameter).and_then(|(_, value)| by_default(value))
    }

    /// The use of a model that generates about one picture at a time.
    pub fn generates(&self, processor: &Processor, batch_size: Option<usize>, max_new_tokens: usize) -> Use {
        // Few prompts are longer than the picture and so many tokens.
        const TEXT: usize = 256;
        let prompt = processor.images().most_image_tokens() + TEXT;
        Use::Generate { batch_size, prompt, max_new_tokens }
    }

    /// How the model reads and writes.
    ///
    /// # Errors
    /// When its files are broken.
    pub fn processor(&self, context: &dyn Context) -> Result<Processor, ModelError> {
        let processor = Processor::read(&self.source.path, self.template, &self.images)?;
        processor.notes.iter().for_each(|note| context.note(note));
        Ok(processor)
    }

    /// The model, loaded on the device of `context` for what it is `used` for, unless it is loaded already. No other
    /// process has the device then.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn load(&self, context: &dyn Context, used: Use) -> Result<Arc<dyn Model>, Failure> {
        let path = &self.source.path;
        let before = digest(&self.source, context.files())?;
        let choice = device::taken(context)?;
        let loaded = session::model(path, before, choice, used, &mut |doubt| context.note(doubt))?;
        // Edited while it was read, it is neither what it was nor what it is, and nobody may find it loaded.
        let after = digest(&self.source, context.files());
        if after.as_ref() != Ok(&before) {
            session::forget(choice);
            after?;
            return Err(Failure::environment(format!("{}: the model changed while it was loaded", path.display())));
        }
        loaded.notes().iter().for_each(|note| context.note(note));
        Ok(loaded)
    }
}

fn image_processor(model: &Resource, settings: &ImageSettings) -> Result<Box<dyn ImageProcessor>, ModelError> {
    families::image_processor(&model.path, settings)
}

/// What is wrong with the directory of `model`, as far as that can be seen without reading weights.
pub fn check_folder(model: &Resource) -> Vec<FileProblem> {
    let problem = |message: String, help: Option<String>| {
        vec![FileProblem { parameter: format!("models.{}.source", model.name), message, help }]
    };
    let folder = &model.path;
    if model.source.is_empty() {
        // That it is missing is reported already.
        return Vec::new();
    }
    if !folder.exists() {
        let (message, help) = absent(model);
        return problem(message, Some(help));
    }
    if let Some((message, help)) = another(model) {
        return problem(message, help);
    }
    if model.revision.is_some() {
        return vec![FileProblem {
            parameter: format!("models.{}.revision", model.name),
            message: format!("`revision` does not apply to `{}`, which is a directory", folder.display()),
            help: Some("remove it: a directory is identified by its contents".to_owned()),
        }];
    }
    checked(model).map_or_else(Vec::new, |(message, help)| problem(message, help))
}

/// What is wrong with the files in a model's directory: message and help. Many nodes may have one model; it is looked
/// at once, until a file in it changes.
fn checked(model: &Resource) -> Option<(String, Option<String>)> {
    type Stamp = Vec<(OsString, u64, Option<SystemTime>)>;
    type Wrong = Option<(String, Option<String>)>;
    static CHECKED: Mutex<BTreeMap<PathBuf, (Stamp, Wrong)>> = Mutex::new(BTreeMap::new());
    let folder = &model.path;
    let of = |entry: DirEntry| {
        let metadata = std::fs::metadata(entry.path()).ok();
        let size = metadata.as_ref().map_or(0, Metadata::len);
        (entry.file_name(), size, metadata.and_then(|metadata| metadata.modified().ok()))
    };
    let mut stamp: Stamp = std::fs::read_dir(folder).into_iter().flatten().flatten().map(of).collect();
    stamp.sort();
    let known = |all: &BTreeMap<PathBuf, (Stamp, Wrong)>| all.get(folder).filter(|(known, _)| *known == stamp).cloned();
    if let Some((_, found)) = CHECKED.lock().ok().and_then(|all| known(&all)) {
        return found;
    }
    let check = || {
        families::of(folder)?.check(folder)?;
        Tokenizer::check(folder)?;
        image_processor(model, &ImageSettings::new()).map(drop)
    };
    let found = check().err().map(|error: ModelError| (error.message, error.help));
    if let Ok(mut all) = CHECKED.lock() {
        all.insert(folder.clone(), (stamp, found.clone()));
    }
    found
}

/// The message and help on a model whose directory does not exist.
fn absent(model: &Resource) -> (String, String) {
    // The pipeline file's directory, which precedes `source`.
    let steps = Path::new(&model.source).components().count();
    let home = model.path.ancestors().nth(steps).unwrap_or(Path::new(""));
    let Some((id, revision)) = hub_id(&model.source).filter(|(id, _)| {
        // An existing directory was meant, and the name in it misspelt.
        id.split('/').next().is_none_or(|org| org.is_empty() || !home.join(org).is_dir())
    }) else {
        let folder = model.path.display();
        let help = format!(
            "`source` names a directory with a Hugging Face checkpoint, relative to the pipeline file; `hf download ORG/NAME \
             --local-dir {folder}` downloads one"
        );
        return (format!("{folder}: no such directory"), help);
    };
    // The authors' own checkpoints are in a layout that is not read; those of `llava-hf` are conversions of them.
    let converted = id.strip_prefix("liuhaotian/").filter(|name| name.starts_with("llava-v1."));
    let converted = converted.map(|name| format!("llava-hf/{}-hf", name.replace("llava-v1.5", "llava-1.5")));
    let (wanted, revision) = match &converted {
        Some(id) => (id, None),
        None => (&id, revision.or(model.revision.clone())),
    };
    let name = wanted.rsplit('/').next().unwrap_or_default();
    let home = if model.source.contains("://") { Path::new("") } else { home };
    let folder = Path::new("models").join(name);
    let option = revision.map(|revision| format!(" --revision {revision}")).unwrap_or_default();
    let it = if converted.is_some() { "its conversion to the layout of Hugging Face" } else { "it" };
    let help = format!(
        "download {it} with `hf download {wanted}{option} --local-dir {}`, then write `source = \"{}\"`",
        home.join(&folder).display(),
        folder.display()
    );
    let why = match converted {
        Some(_) => "and LLaVA's original layout is not supported yet",
        None => "and downloads from a hub are not supported yet",
    };
    (format!("`{id}` is not a directory here, {why}"), help)
}

/// The message and help on a directory or file that is near a checkpoint, but not one.
fn another(model: &Resource) -> Option<(String, Option<String>)> {
    let folder = &model.path;
    let name = folder.display();
    let source = Path::new(&model.source);
    if !folder.is_dir() {
        let parent =
            source.parent().filter(|_| folder.parent().is_some_and(|parent| parent.join("config.json").is_file()));
        let help = match parent {
            Some(parent) if parent.as_os_str().is_empty() => "write `source = \".\"`".to_owned(),
            Some(parent) => format!("write `source = \"{}\"`", parent.display()),
            None => "`source` names a directory with a Hugging Face checkpoint".to_owned(),
        };
        return Some((format!("`{name}` is a file where the directory of a checkpoint is expected"), Some(help)));
    }
    if folder.join("config.json").exists() {
        return None;
    }
    let adapter = |path: PathBuf| {
        let file = if path.as_os_str().is_empty() { source.to_owned() } else { source.join(path) };
        let help = "name the base model's directory as `source`, and the adapter in a node: \
                    `inputs.adapter = { file = \"FILE\" }`";
        Some(help.replace("FILE", &file.display().to_string()))
    };
    if folder.join("adapter_config.json").exists() {
        return Some((format!("`{name}` contains an adapter, not a model"), adapter(PathBuf::new())));
    }
    let found = below(folder, "config.json");
    if !found.is_empty() {
        let help = folder::written("source", &model.source, &found);
        return Some((format!("`{name}` contains no checkpoint, but a directory in it does"), help));
    }
    let found = below(folder, "adapter_config.json").into_iter().next()?;
    Some((format!("`{name}` contains adapters, not a model"), adapter(found)))
}

/// The digest of all that determines what `model` computes: names and contents of its files, not its place.
///
/// # Errors
/// When a file cannot be read.
fn digest(model: &Resource, digests: &dyn FileDigests) -> Result<Digest, Failure> {
    let own = families::of(&model.path).map_or(&[][..], |family| family.files());
    let names = FILES.iter().chain(own);
    let mut files: Vec<PathBuf> = names.map(|name| model.path.join(name)).filter(|path| path.is_file()).collect();
    files.extend(weights(&model.path));
    let mut fields = Vec::new();
    for (path, digest) in std::iter::zip(&files, digests.files(&files)) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fields.push((name, digest.map_err(|cause| Failure::io(path, &cause))?.into()));
    }
    Ok(Digest::of_fields("stic model v1", &fields))
}

/// The files of weights in `folder`, by name.
fn weights(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors") && path.is_file())
        .collect();
    paths.sort();
    paths
}

impl From<ModelError> for Failure {
    fn from(ModelError { message, help, environment }: ModelError) -> Self {
        if environment { Self::Environment { message, help } } else { Self::Node { message, help } }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::toy;

    struct Contents;

    impl FileDigests for Contents {
        fn file(&self, path: &Path) -> std::io::Result<Digest> {
            Digest::of_file(path)
        }

        fn files(&self, paths: &[PathBuf]) -> Vec<std::io::Result<Digest>> {
            paths.iter().map(|path| self.file(path)).collect()
        }
    }

    fn source(path: &Path) -> Resource {
        Resource {
            table: "models",
            name: "base".to_owned(),
            source: "m".to_owned(),
            path: path.to_owned(),
            revision: None,
        }
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    #[test]
    fn a_checkpoint_in_the_authors_layout_is_named_with_its_conversion() {
        for (id, converted) in [
            ("liuhaotian/llava-v1.5-7b", "llava-hf/llava-1.5-7b-hf"),
            ("liuhaotian/llava-v1.6-vicuna-13b", "llava-hf/llava-v1.6-vicuna-13b-hf"),
            ("liuhaotian/llava-v1.6-mistral-7b", "llava-hf/llava-v1.6-mistral-7b-hf"),
        ] {
            let model = Resource { source: id.to_owned(), ..source(&Path::new("pipelines").join(id)) };
            let (message, help) = absent(&model);
            assert!(message.contains(id) && message.contains("layout"), "{message}");
            let name = converted.trim_start_matches("llava-hf/");
            let command = format!("`hf download {converted} --local-dir pipelines/models/{name}`");
            assert!(help.contains(&command) && help.contains(&format!("`source = \"models/{name}\"`")), "{help}");
        }
    }

    #[test]
    fn a_model_s_digest_is_that_of_its_files_wherever_they_lie() {
        let files = [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "weights")];
        let digest = |folder: &tempfile::TempDir| digest(&source(folder.path()), &Contents).unwrap();
        let (first, second) = (folder(&files), folder(&files));
        assert_eq!(digest(&first), digest(&second));
        fs::write(second.path().join("README.md"), "about").unwrap();
        assert_eq!(digest(&first), digest(&second), "what is not read does not count");
        fs::write(second.path().join("model.safetensors"), "other weights").unwrap();
        assert_ne!(digest(&first), digest(&second));
    }

    #[test]
    fn an_image_setting_is_named_where_it_is_not_the_checkpoint_s() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
        let of = |folder: &str| {
            let source = source(&root.join(folder));
            ModelParameters { source, template: None, images: ImageSettings::new(), device: DeviceChange::default() }
        };
        let named = |folder: &str, settings: &[(&'static str, &'static str)]| -> Vec<String> {
            let images = settings.iter().copied().collect();
            let list = ModelParameters { images, ..of(folder) }.sources(&Contents).unwrap();
            list[2..].iter().map(|parameter| format!("{} {}", parameter.name, parameter.value)).collect()
        };
        assert_eq!(named("llava_next", &[]), [""; 0]);
        assert_eq!(named("llava_next", &[("anyres_rule", "huggingface")]), [""; 0], "what is done anyway");
        assert_eq!(named("llava_next", &[("anyres_rule", "checkpoint")]), [""; 0]);
        assert_eq!(named("llava_next", &[("anyres_rule", "original")]), ["anyres_rule \"original\""]);
        assert_eq!(named("llava", &[("anyres_rule", "original")]), [""; 0], "another mode has no tiles");
        let padded = [("anyres_rule", "original"), ("image_mode", "pad")];
        assert_eq!(named("llava_next", &padded), ["image_mode \"pad\""]);
        let left_out = |parameter| of("llava_next").left_out(parameter).unwrap();
        assert!(left_out("anyres_rule").contains("huggingface") && left_out("image_mode").contains("anyres"));
    }

    #[test]
    fn an_image_setting_that_the_model_s_family_lacks_is_refused_by_name() {
        let toys = tempfile::tempdir().unwrap();
        toy::checkpoint(toys.path());
        let llava = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/llava");
        let check = |folder: &Path, setting| {
            let images = ImageSettings::from([setting]);
            ModelParameters { source: source(folder), template: None, images, device: DeviceChange::default() }
                .check_files()
        };
        assert!(check(toys.path(), ("detail", "high")).is_empty());
        let problem = check(toys.path(), ("image_mode", "crop")).remove(0);
        assert_eq!(
            (&*problem.parameter, &*problem.message),
            ("image_mode", "the model has no image setting `image_mode`")
        );
        assert!(problem.help.unwrap().contains("`detail`"));
        let problem = check(&llava, ("detail", "high")).remove(0);
        assert!(problem.parameter == "detail" && problem.help.unwrap().contains("`image_mode` and `anyres_rule`"));
    }

    #[test]
    fn a_file_that_one_family_reads_is_part_of_the_digest_of_its_models_alone() {
        let changes = |folder: &Path| {
            let before = digest(&source(folder), &Contents).unwrap();
            fs::write(folder.join("eye.json"), r#"{ "low": 2 }"#).unwrap();
            digest(&source(folder), &Contents).unwrap() != before
        };
        let toys = tempfile::tempdir().unwrap();
        toy::checkpoint(toys.path());
        assert!(changes(toys.path()));
        assert!(!changes(folder(&[("config.json", r#"{"model_type": "llava"}"#)]).path()));
    }

    #[test]
    fn what_a_folder_lacks_is_named() {
        let message = |folder: &Path| check_folder(&source(folder))[0].message.clone();
        assert!(message(Path::new("/nowhere/at/all")).ends_with("no such directory"));
        assert!(message(folder(&[]).path()).contains("config.json"));
        assert!(message(folder(&[("config.json", r#"{"model_type": "gpt2"}"#)]).path()).contains("gpt2"));
    }
}
