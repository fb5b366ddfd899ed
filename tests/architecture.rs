//! What the compiler does not enforce: within each crate imports point one way, and the learning side does not know the
//! graph or the cache. Nested imports and test modules count, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Of the engine, what everybody may use.
const BASE: &[&str] = &["artifact", "device", "diagnostic", "digest", "draw"];
/// Of the engine, what joins nodes to it.
const CONTRACT: &[&str] = &["node", "parameters", "pool", "spec"];
/// The rest of the engine, which only commands know.
const ENGINE: &[&str] = &["event", "graph", "plan", "run", "schema", "store"];
const LEARNING: &[&str] = &["data", "eval", "model", "train"];

/// Each module's row names all that it may use; a new edge needs a decision, made here.
fn rows(folder: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let with = |groups: &[&[&'static str]]| groups.concat();
    BTreeMap::from_iter(match folder {
        "src" => vec![
            ("artifact", vec!["digest"]),
            ("device", vec![]),
            ("data", with(&[BASE])),
            ("model", with(&[BASE, &["data"]])),
            ("train", with(&[BASE, &["data", "model"]])),
            ("eval", with(&[BASE, &["data", "model"]])),
            ("nodes", with(&[BASE, LEARNING, CONTRACT])),
            ("cli", with(&[BASE, LEARNING, CONTRACT, ENGINE, &["nodes"]])),
        ],
        _ => vec![
            ("artifact", vec!["digest"]),
            ("diagnostic", vec![]),
            ("digest", vec![]),
            ("draw", vec![]),
            ("pool", vec![]),
            ("spec", with(&[BASE])),
            ("node", with(&[BASE, &["pool", "spec"]])),
            ("schema", with(&[BASE, &["node", "spec"]])),
            ("event", with(&[BASE, &["node"]])),
            ("graph", with(&[BASE, CONTRACT, &["event"]])),
            ("store", with(&[BASE, &["event", "node"]])),
            ("plan", with(&[BASE, CONTRACT, &["event", "graph", "store"]])),
            ("run", with(&[BASE, &["event", "graph", "node", "plan", "pool", "store"]])),
        ],
    })
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    let mut edges = 0;
    for folder in ["src", "src/engine"] {
        let rows = rows(folder);
        for (file, text) in sources(folder) {
            let module = top(&file);
            let allowed = rows.get(module.as_str()).unwrap_or_else(|| panic!("`{module}` has no row in this test"));
            for used in used_modules(&file, &text) {
                edges += 1;
                // A module of that name, not a type or a function of the crate's root.
                let known = rows.contains_key(used.as_str()) || CONTRACT.iter().chain(ENGINE).any(|name| *name == used);
                if known && used != module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{folder}/{}: `{module}` names `{used}`", file.display()));
                }
            }
        }
    }
    assert!(edges > 500, "only {edges} imports found: does the test still read the sources?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_data_side_does_not_name_burn() {
    let names_burn = |text: &str| paths(Path::new("data.rs"), text).iter().any(|path| path[0] == "burn");
    let wrong: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|(file, text)| ["artifact", "data", "device"].contains(&top(file).as_str()) && names_burn(text))
        .map(|(file, _)| file)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Where files are written: in the cache by its store, elsewhere by exports, and for locks of devices.
const WRITERS: &[&str] = &[
    "src/engine/store/",
    "src/cli/export.rs",
    "src/cli/lock.rs",
    "src/model/device/lock.rs",
    "src/nodes/adapter.rs",
    "src/nodes/export.rs",
];

#[test]
fn only_the_store_exports_and_locks_write_files() {
    let mut wrong = Vec::new();
    let mut of_writers = 0;
    for folder in ["src", "src/engine"] {
        let sources = sources(folder);
        let tests: Vec<PathBuf> = sources.iter().flat_map(|(file, text)| test_files(file, text)).collect();
        let is_test = |file: &Path| tests.iter().any(|test| file.with_extension("").starts_with(test));
        for (file, text) in sources.iter().filter(|(file, _)| !is_test(file)) {
            let (file, found) = (format!("{folder}/{}", file.display()), writes(text));
            match WRITERS.iter().any(|writer| file.starts_with(writer)) {
                true => of_writers += found.len(),
                false => wrong.extend(found.iter().map(|path| format!("{file}: `{path}`"))),
            }
        }
    }
    assert!(of_writers > 10, "only {of_writers} writes found: does the test still see them?");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn writes_are_seen_however_they_are_imported_and_those_of_tests_are_not() {
    let text = "
        use std::fs::{self, File, rename as put};
        fn save() {
            fs::write(\"a\", \"b\");
            let _ = std::fs::File::create(\"a\").or(File::options().open(\"a\")).map(|_| File::open(\"a\"));
            tensors.serialize_to_file(\"a\");
        }
        #[cfg(test)]
        mod tests {
            fn folder() { fs::create_dir(\"a\"); }
        }";
    let seen = ["std::fs::rename", "fs::write", "std::fs::File::create", "File::options", "serialize_to_file"];
    assert_eq!(writes(text), seen);
}

#[test]
fn modules_import_each_other_without_cycles() {
    // A file and the directory of its name are one module: `model/template`.
    let named = |path: &[String]| path[..path.len().min(2)].join("/");
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources("src") {
        let module = module(&file);
        // These are compiled for tests alone.
        let is_test = ["harness", "leaks", "tests", "toy"].contains(&module.last().unwrap().as_str());
        if is_test || !["model", "nodes", "train"].contains(&module[0].as_str()) {
            continue;
        }
        let mut found = Found { module: module.clone(), without_tests: true, paths: Vec::new() };
        found.visit_file(&syn::parse_file(&text).unwrap());
        let used = found.paths.into_iter().map(|path| match path[0].as_str() {
            "crate" => path[1..].to_vec(),
            _ => [module.clone(), path].concat(),
        });
        imports.entry(named(&module)).or_default().extend(used.map(|path| named(&path)));
    }
    let known: BTreeSet<String> = imports.keys().cloned().collect();
    for (own, used) in &mut imports {
        // What is no module of its own is in the file of the directory.
        let of = |name: &String| {
            if known.contains(name) { name.clone() } else { name.split('/').next().unwrap().to_owned() }
        };
        *used = used.iter().map(of).filter(|name| name != own && known.contains(name)).collect();
    }
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 100, "does the test still read the sources?");
    // What imports nothing that is left is in no cycle, and neither is what nothing imports that is left.
    let is_free = |imports: &BTreeMap<String, BTreeSet<String>>, name: &str| {
        imports[name].iter().all(|used| !imports.contains_key(used))
            || !imports.values().any(|used| used.contains(name))
    };
    while let Some(name) = imports.keys().find(|name| is_free(&imports, name)).cloned() {
        imports.remove(&name);
    }
    assert!(imports.is_empty(), "{imports:#?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    let files = ["src", "src/engine"].into_iter().flat_map(sources);
    let silent: Vec<PathBuf> = files.filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn nested_relative_and_quoted_imports_are_seen() {
    let text = "
        use crate::{data::{self, picture}, model};
        mod tests {
            use super::super::super::train::step;
            fn test() {
                let _ = crate::eval::vqa();
                assert!(stic_engine::store::open(), crate::graph::X);
            }
        }";
    let used = used_modules(Path::new("nodes/pair.rs"), text);
    assert_eq!(used, ["data", "data", "model", "train", "eval", "graph", "store"]);
}

/// What in `text`, but for its tests, writes, renames or removes files.
fn writes(text: &str) -> Vec<String> {
    let mut file = syn::parse_file(text).unwrap();
    file.items.retain(|item| !is_test(attributes(item)));
    let mut found = Found { module: Vec::new(), without_tests: false, paths: Vec::new() };
    found.visit_file(&file);
    let prefixes = ["write", "rename", "create", "copy", "hard_link", "remove", "set_permissions"];
    let is_write = |path: &[String]| match path {
        [root, ..] if root == "tempfile" => true,
        [.., file, name] if file == "File" => ["create", "create_new", "options"].contains(&name.as_str()),
        [.., module, name] if module == "fs" => prefixes.iter().any(|prefix| name.starts_with(prefix)),
        [.., name] => name == "OpenOptions" || name == "serialize_to_file",
        [] => false,
    };
    found.paths.iter().filter(|path| is_write(path)).map(|path| path.join("::")).collect()
}

/// The files of the modules that `text`, in `file`, declares for tests; without their extension.
fn test_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let name = file.file_stem().unwrap();
    let folder =
        if name == "mod" || name == "lib" { file.parent().unwrap().to_owned() } else { file.with_extension("") };
    let of_test = |item: syn::Item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
            Some(folder.join(module.ident.to_string()))
        }
        _ => None,
    };
    syn::parse_file(text).unwrap().items.into_iter().filter_map(of_test).collect()
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

/// (file below `folder`, text) of every source file but the crate roots; the engine is a directory of its own.
/// Crates of their own below `src`.
const CRATES: [&str; 2] = ["src/engine", "src/without-llvm"];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !CRATES.iter().any(|other| path.ends_with(other)) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
        .into_iter()
        .map(|file| (file.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&file).unwrap()))
        .filter(|(file, _)| file != Path::new("lib.rs") && file != Path::new("main.rs"))
        .collect()
}

/// The module at the top of its crate that `file` belongs to.
fn top(file: &Path) -> String {
    file.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The modules at the top of this crate or of the engine that `text` names, in order.
fn used_modules(file: &Path, text: &str) -> Vec<String> {
    let of_crate = |path: Vec<String>| match &path[..] {
        [root, module, ..] if root == "crate" || root == "stic_engine" => Some(module.clone()),
        _ => None,
    };
    paths(file, text).into_iter().filter_map(of_crate).collect()
}

/// The module that `file` is.
fn module(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let names = names.components().map(|name| name.as_os_str().to_str().unwrap().to_owned());
    names.filter(|name| name != "mod").collect()
}

/// All paths in `text`; those that climb begin with `crate`.
fn paths(file: &Path, text: &str) -> Vec<Vec<String>> {
    let mut found = Found { module: module(file), without_tests: false, paths: Vec::new() };
    found.visit_file(&syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    found.paths
}

struct Found {
    /// The module that the code stands in.
    module: Vec<String>,
    /// Whether modules of tests are passed over.
    without_tests: bool,
    paths: Vec<Vec<String>>,
}

impl Found {
    fn add(&mut self, path: Vec<String>) {
        let climbed = path.iter().take_while(|name| *name == "super").count();
        if climbed > 0 {
            let above = self.module.len().saturating_sub(climbed);
            self.paths.push([&["crate".to_owned()], &self.module[..above], &path[climbed..]].concat());
        } else if !path.is_empty() {
            self.paths.push(path);
        }
    }

    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| attribute.path().is_ident("cfg"));
        if is_test && self.without_tests {
            return;
        }
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(super)` imports nothing.
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, item: &'ast syn::ExprMethodCall) {
        self.paths.push(vec![item.method.to_string()]);
        syn::visit::visit_expr_method_call(self, item);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // What a macro is given need not be Rust; paths in it are found as text.
        let text = item.tokens.to_string().replace(' ', "");
        for root in ["crate::", "stic_engine::"] {
            for rest in text.split(root).skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                self.add(vec![root.trim_end_matches(':').to_owned(), name]);
            }
        }
    }
}
