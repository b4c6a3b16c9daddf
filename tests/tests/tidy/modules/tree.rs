//! The modules of one crate, found from its root file, and the items that paths in them mean.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::source::{Import, Segments, Source, is_for_tests};

pub type ModuleId = usize;

const ROOT: ModuleId = 0;

/// The meaning of a path: an item, by the module that defines it, or a module itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Item(ModuleId),
    Module(ModuleId),
}

pub struct Module {
    /// From the root of the crate: `a::b`; empty for the root itself.
    pub path: String,
    pub file: PathBuf,
    parent: Option<ModuleId>,
    children: HashMap<String, Vec<ModuleId>>,
    pub source: Source,
}

pub struct Tree {
    pub modules: Vec<Module>,
    /// Whether modules that are compiled for tests only are among them.
    has_tests: bool,
}

/// Where the files of a module's children are sought.
struct Folders {
    /// For `mod name;`.
    children: PathBuf,
    /// For `#[path = "..."]`.
    written: PathBuf,
}

impl Tree {
    /// Reads the crate whose root is the file `root`, without what is compiled for tests only.
    pub fn read(root: &Path) -> Self {
        Self::read_from(root, false)
    }

    /// Reads the crate whose root is the file `root`, with its test modules.
    pub fn read_with_tests(root: &Path) -> Self {
        Self::read_from(root, true)
    }

    fn read_from(root: &Path, has_tests: bool) -> Self {
        let mut tree = Self { modules: Vec::new(), has_tests };
        let folder = root.parent().expect("a file is in a folder").to_owned();
        tree.read_file(root, String::new(), None, folder);
        tree
    }

    fn read_file(
        &mut self,
        file: &Path,
        path: String,
        parent: Option<ModuleId>,
        children: PathBuf,
    ) -> Option<ModuleId> {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| {
            panic!("{}:{}: {error}", file.display(), error.span().start().line)
        });
        if !self.has_tests && is_for_tests(&parsed.attrs) {
            return None;
        }
        let written = file.parent().expect("a file is in a folder").to_owned();
        Some(self.add(file, path, parent, &parsed.items, &Folders { children, written }))
    }

    fn add(
        &mut self,
        file: &Path,
        path: String,
        parent: Option<ModuleId>,
        items: &[syn::Item],
        folders: &Folders,
    ) -> ModuleId {
        let id = self.modules.len();
        let source = Source::of(items);
        self.modules.push(Module {
            path,
            file: file.to_owned(),
            parent,
            children: HashMap::new(),
            source,
        });
        for item in items {
            if let syn::Item::Mod(child) = item
                && (self.has_tests || !is_for_tests(&child.attrs))
                && let Some(found) = self.add_child(id, child, folders)
            {
                self.modules[id].children.entry(child.ident.to_string()).or_default().push(found);
            }
        }
        id
    }

    fn add_child(
        &mut self,
        parent: ModuleId,
        child: &syn::ItemMod,
        folders: &Folders,
    ) -> Option<ModuleId> {
        let name = child.ident.to_string();
        let above = &self.modules[parent];
        let path =
            if above.path.is_empty() { name.clone() } else { format!("{}::{name}", above.path) };
        let file = above.file.clone();
        if let Some((_, items)) = &child.content {
            let folder = folders.children.join(&name);
            let folders = Folders { children: folder.clone(), written: folder };
            return Some(self.add(&file, path, Some(parent), items, &folders));
        }
        if let Some(written) = written_path(&child.attrs) {
            let file = folders.written.join(written);
            let folder = file.parent().expect("a file is in a folder").to_owned();
            return self.read_file(&file, path, Some(parent), folder);
        }
        let folder = folders.children.join(&name);
        let beside = folders.children.join(format!("{name}.rs"));
        let file = if beside.exists() { beside } else { folder.join("mod.rs") };
        self.read_file(&file, path, Some(parent), folder)
    }

    /// The items and modules that `segments` may mean in `module`: none where it leads out of the crate.
    pub fn resolve(&self, module: ModuleId, segments: &Segments, is_macro: bool) -> Vec<Target> {
        let found = self.walk(module, segments, &mut Vec::new());
        match &segments[..] {
            [name] if is_macro && found.is_empty() => self.macros_in_scope(name),
            _ => found,
        }
    }

    fn walk(
        &self,
        module: ModuleId,
        segments: &[String],
        pending: &mut Vec<(ModuleId, String)>,
    ) -> Vec<Target> {
        let mut found: Vec<Target> = Vec::new();
        for (at, name) in segments.iter().enumerate() {
            let next = match (name.as_str(), at) {
                ("crate", 0) => vec![Target::Module(ROOT)],
                ("self", 0) => vec![Target::Module(module)],
                ("super", 0) => self.above(&[Target::Module(module)]),
                ("super", _) => self.above(&found),
                (_, 0) => self.lookup(module, name, pending),
                _ => found.iter().flat_map(|target| self.member(*target, name, pending)).collect(),
            };
            let is_last = at + 1 == segments.len();
            found = preferring(next, is_last);
        }
        found
    }

    fn above(&self, targets: &[Target]) -> Vec<Target> {
        let modules = targets.iter().filter_map(|target| match target {
            Target::Module(module) => self.modules[*module].parent,
            Target::Item(_) => None,
        });
        modules.map(Target::Module).collect()
    }

    /// A variant or an associated item belongs to its type.
    fn member(
        &self,
        target: Target,
        name: &str,
        pending: &mut Vec<(ModuleId, String)>,
    ) -> Vec<Target> {
        match target {
            Target::Item(_) => vec![target],
            Target::Module(module) => self.lookup(module, name, pending),
        }
    }

    /// The meanings of `name` alone in `module`: declared there, imported by name, or through a glob.
    fn lookup(
        &self,
        module: ModuleId,
        name: &str,
        pending: &mut Vec<(ModuleId, String)>,
    ) -> Vec<Target> {
        let key = (module, name.to_owned());
        if pending.contains(&key) {
            return Vec::new();
        }
        pending.push(key);
        let Module { source, children, .. } = &self.modules[module];
        let mut found = Vec::new();
        if source.names.contains(name) || source.macros.contains(name) {
            found.push(Target::Item(module));
        }
        found.extend(children.get(name).into_iter().flatten().map(|child| Target::Module(*child)));
        let named = |import: &&Import| import.name.as_deref() == Some(name);
        for import in source.imports.iter().filter(named) {
            found.extend(self.walk(module, &import.segments, pending));
        }
        if module == ROOT {
            let exports = |at: &ModuleId| self.modules[*at].source.exported_macros.contains(name);
            found.extend((0..self.modules.len()).filter(exports).map(Target::Item));
        }
        if found.is_empty() {
            for glob in source.imports.iter().filter(|import| import.name.is_none()) {
                for target in self.walk(module, &glob.segments, pending) {
                    if let Target::Module(from) = target {
                        found.extend(self.lookup(from, name, pending));
                    }
                }
            }
        }
        pending.pop();
        found
    }

    /// A macro that no import names is in scope by the order of the text.
    fn macros_in_scope(&self, name: &str) -> Vec<Target> {
        let defines = |at: &ModuleId| self.modules[*at].source.macros.contains(name);
        (0..self.modules.len()).filter(defines).map(Target::Item).collect()
    }
}

/// A name may be a module and a function at once: the last segment means the item, all before it the module.
fn preferring(targets: Vec<Target>, items: bool) -> Vec<Target> {
    let is_item = |target: &Target| matches!(target, Target::Item(_));
    let preferred: Vec<Target> =
        targets.iter().copied().filter(|target| is_item(target) == items).collect();
    if preferred.is_empty() { targets } else { preferred }
}

fn written_path(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find(|attribute| attribute.path().is_ident("path")).and_then(|attribute| {
        match &attribute.meta.require_name_value().ok()?.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        }
    })
}
