//! One module as it is written: the names it declares, what it imports, and the paths that its code mentions.

use std::collections::HashSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path as written, without generic arguments: `crate::a::B` is `["crate", "a", "B"]`.
pub type Segments = Vec<String>;

pub struct Import {
    pub segments: Segments,
    /// The name it gets here; none for a glob.
    pub name: Option<String>,
    /// `pub use`, also with a restricted visibility: it passes an item on and does not use it.
    pub is_reexport: bool,
    pub line: usize,
}

pub struct Mention {
    pub segments: Segments,
    pub line: usize,
    pub is_macro: bool,
}

/// Everything that one module says, without what is compiled for tests only and without inline modules.
#[derive(Default)]
pub struct Source {
    pub names: HashSet<String>,
    pub macros: HashSet<String>,
    /// Macros that `#[macro_export]` puts at the root of the crate.
    pub exported_macros: HashSet<String>,
    pub imports: Vec<Import>,
    pub mentions: Vec<Mention>,
    /// Names of local variables: a lower-case name alone is one of these before it is a function.
    locals: HashSet<String>,
}

impl Source {
    /// Reads `items`, and leaves out the modules among them.
    pub fn of(items: &[syn::Item]) -> Self {
        let mut source = Self::default();
        for item in items {
            source.visit_item(item);
        }
        let Self { mentions, locals, .. } = &mut source;
        mentions.retain(|mention| match &mention.segments[..] {
            [name] => mention.is_macro || !locals.contains(name),
            _ => true,
        });
        source
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String], is_reexport: bool) {
        let line = line_of(tree);
        let mut add = |segments: Segments, name: Option<String>| {
            self.imports.push(Import { segments, name, is_reexport, line });
        };
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), is_reexport),
            syn::UseTree::Name(name) if name.ident == "self" => {
                add(before.to_vec(), before.last().cloned());
            }
            syn::UseTree::Name(name) => add(with(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                add(before.to_vec(), Some(name.rename.to_string()));
            }
            syn::UseTree::Rename(name) => add(with(&name.ident), Some(name.rename.to_string())),
            syn::UseTree::Glob(_) => add(before.to_vec(), None),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, is_reexport);
                }
            }
        }
    }

    fn mention(&mut self, segments: Segments, line: usize) {
        self.mentions.push(Mention { segments, line, is_macro: false });
    }

    /// The paths among the tokens of a macro's call or definition, or of an attribute.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(_) if !continues(&tokens[..at]) => {
                    at = self.path_of_tokens(&tokens, at, &[]);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Takes the path that begins at `at`, and the trees below it in `a::{b, c}`; returns where it ends.
    fn path_of_tokens(&mut self, tokens: &[TokenTree], mut at: usize, before: &[String]) -> usize {
        let line = tokens[at].span().start().line;
        let mut segments = before.to_vec();
        while let Some(TokenTree::Ident(name)) = tokens.get(at) {
            segments.push(name.to_string());
            at += 1;
            if !are_colons(&tokens[at..]) {
                break;
            }
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(_)) => at += 2,
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    let is_comma = |token: &TokenTree| is_mark(Some(token), ',');
                    for tree in inner.split(is_comma).filter(|tree| !tree.is_empty()) {
                        self.path_of_tokens(tree, 0, &segments);
                    }
                    return at + 3;
                }
                _ => break,
            }
        }
        let next_is = |mark: char| is_mark(tokens.get(at), mark);
        let called = is_group(tokens.get(at), Delimiter::Parenthesis);
        if segments.len() > 1 || is_upper(&segments[0]) || called || next_is('!') {
            let is_macro = next_is('!');
            self.mentions.push(Mention { segments, line, is_macro });
        }
        at
    }
}

/// Whether a name after `before` is a field, a method, a macro's variable or the rest of a path.
fn continues(before: &[TokenTree]) -> bool {
    let is = |at: usize, mark: char| {
        let token = before.len().checked_sub(at).and_then(|at| before.get(at));
        is_mark(token, mark)
    };
    // `..NAME` is a range.
    (is(1, '.') && !is(2, '.')) || (is(1, ':') && is(2, ':')) || is(1, '\'')
}

fn are_colons(tokens: &[TokenTree]) -> bool {
    tokens.len() > 1 && tokens[..2].iter().all(|token| is_mark(Some(token), ':'))
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_group(token: Option<&TokenTree>, delimiter: Delimiter) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
}

fn is_upper(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
}

fn line_of_path(path: &syn::Path) -> usize {
    path.segments.first().map_or(0, |first| first.ident.span().start().line)
}

fn line_of(tree: &syn::UseTree) -> usize {
    let span = match tree {
        syn::UseTree::Path(path) => path.ident.span(),
        syn::UseTree::Name(name) => name.ident.span(),
        syn::UseTree::Rename(name) => name.ident.span(),
        syn::UseTree::Glob(glob) => glob.star_token.spans[0],
        syn::UseTree::Group(group) => group.brace_token.span.join(),
    };
    span.start().line
}

fn segments_of(path: &syn::Path) -> Segments {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// Whether the attributes say that this is compiled for tests or for documentation only.
pub fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        let condition = || attribute.parse_args::<syn::Meta>().ok();
        attribute.path().is_ident("test")
            || (is_cfg && condition().and_then(|meta| holds(&meta)) == Some(false))
    })
}

/// Whether a condition holds in a build that is no test; unknown for features and targets.
fn holds(condition: &syn::Meta) -> Option<bool> {
    if condition.path().is_ident("test") || condition.path().is_ident("doc") {
        return Some(false);
    }
    let list = condition.require_list().ok()?;
    let parse = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
    let parts: Vec<Option<bool>> = list.parse_args_with(parse).ok()?.iter().map(holds).collect();
    let decided = |by: bool| parts.contains(&Some(by)).then_some(by);
    let all_are = |value: bool| parts.iter().all(|part| *part == Some(value)).then_some(value);
    match () {
        () if list.path.is_ident("not") => parts.first().copied().flatten().map(|holds| !holds),
        () if list.path.is_ident("all") => decided(false).or_else(|| all_are(true)),
        () if list.path.is_ident("any") => decided(true).or_else(|| all_are(false)),
        () => None,
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::TraitAlias(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<&syn::Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::TraitAlias(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        syn::Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_for_tests(attributes_of(item)) {
            return;
        }
        self.names.extend(name_of(item).map(ToString::to_string));
        match item {
            syn::Item::Mod(_) => {}
            syn::Item::Use(import) => {
                let is_reexport = !matches!(import.vis, syn::Visibility::Inherited);
                if import.leading_colon.is_none() {
                    self.import(&import.tree, &[], is_reexport);
                }
            }
            syn::Item::Macro(definition) if definition.ident.is_some() => {
                let name = definition.ident.iter().map(ToString::to_string);
                if definition
                    .attrs
                    .iter()
                    .any(|attribute| attribute.path().is_ident("macro_export"))
                {
                    self.exported_macros.extend(name.clone());
                }
                self.macros.extend(name);
                self.tokens(definition.mac.tokens.clone());
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        let name = pattern.ident.to_string();
        if is_upper(&name) {
            self.mention(vec![name], pattern.ident.span().start().line);
        } else {
            self.locals.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.mention(segments_of(path), line_of_path(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = line_of_path(&call.path);
        self.mentions.push(Mention { segments: segments_of(&call.path), line, is_macro: true });
        self.tokens(call.tokens.clone());
    }

    /// `#[serde(default = "crate::a::b")]` names a path in a string.
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        if attribute.path().is_ident("cfg") {
            return;
        }
        for token in list.tokens.clone() {
            let TokenTree::Literal(literal) = token else { continue };
            let line = literal.span().start().line;
            let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { continue };
            if let Ok(path) = text.parse::<syn::Path>() {
                self.mention(segments_of(&path), line);
            }
        }
        self.tokens(list.tokens.clone());
    }
}
