//! The product's code as a tree of modules, parsed: what each declares and names. What is compiled
//! for tests only is left out, wherever it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree};

/// Rust files by their path below `src`.
pub type Sources = BTreeMap<PathBuf, String>;

/// A path as it is named somewhere, from the crate's root on (`["crate", "mail", "uid"]`), or of
/// another crate.
pub type Name = Vec<String>;

/// A `use`: what it brings in, under which name, and whether for others too.
#[derive(Debug, Clone)]
pub struct Import {
    pub path: Name,
    /// `None`: all that there is (`*`).
    pub name: Option<String>,
    pub is_public: bool,
}

/// One module.
#[derive(Debug, Default)]
pub struct Module {
    /// The file it stands in: several modules may share one.
    pub file: PathBuf,
    /// What it declares, modules included.
    pub items: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Paths in its code, those of its imports left out.
    pub names: BTreeSet<Name>,
    /// Single words in its code, imports left out.
    pub words: BTreeSet<String>,
    /// What code without side effects cannot hold, such as `.await`.
    pub impure: BTreeSet<String>,
    /// What hides from this test what it names.
    pub hidden: BTreeSet<String>,
}

/// All modules by their path from the root on: `["crate", "mail"]`.
pub type Modules = BTreeMap<Name, Module>;

/// Reads the library from its `lib.rs` on.
pub fn read(sources: &Sources) -> Result<Modules, String> {
    let mut reader = Reader { sources, modules: Modules::new(), seen: BTreeSet::new(), of_tests: BTreeSet::new() };
    reader.file(Path::new("lib.rs"), vec!["crate".to_owned()])?;
    // The program is not the library.
    reader.seen.insert("main.rs".into());
    let lost = sources.keys().find(|file| !reader.seen.contains(*file) && !reader.is_of_tests(file));
    match lost {
        Some(file) => Err(format!("{} belongs to no module", file.display())),
        None => Ok(reader.modules),
    }
}

struct Reader<'a> {
    sources: &'a Sources,
    modules: Modules,
    seen: BTreeSet<PathBuf>,
    /// Files that a module compiled for tests only stands in; those below them are its children.
    of_tests: BTreeSet<PathBuf>,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, path: Name) -> Result<(), String> {
        let text = self.sources.get(file).ok_or_else(|| format!("there is no {}", file.display()))?;
        let parsed = syn::parse_file(text).map_err(|error| format!("{}: {error}", file.display()))?;
        self.seen.insert(file.to_owned());
        self.module(file, path, &parsed.items)
    }

    fn module(&mut self, file: &Path, path: Name, items: &[Item]) -> Result<(), String> {
        let mut looker = Looker { path: path.clone(), module: Module { file: file.to_owned(), ..Module::default() } };
        for item in items {
            let attributes = attributes(item);
            if let Item::Mod(child) = item {
                let name = child.ident.to_string();
                let path: Name = path.iter().cloned().chain([name.clone()]).collect();
                let named = self.file_of(file, &path, attributes);
                if is_for_tests(attributes) {
                    self.of_tests.extend(child.content.is_none().then_some(named));
                    continue;
                }
                looker.module.items.insert(name);
                match &child.content {
                    Some((_, items)) => self.module(file, path, items)?,
                    None if path.len() > 2 && !named.starts_with(&path[1]) => {
                        looker.module.hidden.insert(format!("a module of another room's file {}", named.display()));
                    }
                    None => self.file(&named, path)?,
                }
            } else if !is_for_tests(attributes) {
                looker.module.items.extend(declared(item));
                looker.visit_item(item);
            }
        }
        self.modules.insert(path, looker.module);
        Ok(())
    }

    /// The file of a module without a body (the Rust reference, "Module source filenames").
    fn file_of(&self, parent: &Path, path: &[String], attributes: &[Attribute]) -> PathBuf {
        let explicit = attributes.iter().find(|attribute| attribute.path().is_ident("path")).and_then(|attribute| {
            let Meta::NameValue(pair) = &attribute.meta else { return None };
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
            Some(normalised(&parent.parent().unwrap_or(Path::new("")).join(text.value())))
        });
        explicit.unwrap_or_else(|| {
            let folder: PathBuf = path[1..].iter().collect();
            let (alone, in_folder) = (folder.with_extension("rs"), folder.join("mod.rs"));
            if self.sources.contains_key(&in_folder) { in_folder } else { alone }
        })
    }

    fn is_of_tests(&self, file: &Path) -> bool {
        self.of_tests.iter().any(|test| {
            let folder = if test.ends_with("mod.rs") { test.parent().map(Path::to_owned) } else { Some(test.with_extension("")) };
            file == test || folder.is_some_and(|folder| file.starts_with(folder))
        })
    }
}

/// `a/../b` is `b`.
fn normalised(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            part => whole.push(part),
        }
        whole
    })
}

/// Whether this is compiled for tests only: `#[cfg(test)]`, or `test` as one of several conditions
/// that must all be met.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => {
                let parts = list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated);
                parts.is_ok_and(|parts| parts.iter().any(needs_test))
            }
            _ => false,
        }
    }
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.filter_map(|attribute| attribute.parse_args::<Meta>().ok()).any(|meta| needs_test(&meta))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn declared(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(item) => item.ident.to_string(),
        Item::Enum(item) => item.ident.to_string(),
        Item::Fn(item) => item.sig.ident.to_string(),
        Item::Macro(item) => item.ident.as_ref()?.to_string(),
        Item::Static(item) => item.ident.to_string(),
        Item::Struct(item) => item.ident.to_string(),
        Item::Trait(item) => item.ident.to_string(),
        Item::TraitAlias(item) => item.ident.to_string(),
        Item::Type(item) => item.ident.to_string(),
        Item::Union(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// Looks at one module's code.
struct Looker {
    path: Name,
    module: Module,
}

/// Skips what is compiled for tests only, and descends into everything else.
macro_rules! skip_tests {
    ($($visit:ident($node:ty)),* $(,)?) => {
        $(fn $visit(&mut self, node: &'ast $node) {
            if !is_for_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Looker {
    skip_tests! {
        visit_arm(syn::Arm), visit_field(syn::Field), visit_field_value(syn::FieldValue), visit_impl_item_const(syn::ImplItemConst),
        visit_impl_item_fn(syn::ImplItemFn), visit_item_fn(syn::ItemFn), visit_item_impl(syn::ItemImpl), visit_local(syn::Local),
        visit_trait_item_fn(syn::TraitItemFn), visit_variant(syn::Variant), visit_expr_block(syn::ExprBlock),
    }

    /// Modules within functions are of no use to anybody; those of modules have been taken out.
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if !is_for_tests(&node.attrs) {
            self.module.hidden.insert(format!("the module {} within a function", node.ident));
        }
    }

    fn visit_item_extern_crate(&mut self, node: &'ast syn::ItemExternCrate) {
        self.module.hidden.insert(format!("extern crate {}", node.ident));
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        if is_for_tests(&node.attrs) {
            return;
        }
        let is_public = !matches!(node.vis, syn::Visibility::Inherited);
        let mut found = Vec::new();
        flatten(&node.tree, &mut Vec::new(), &mut found);
        for (path, name) in found {
            self.impurities(&path);
            let path = self.absolute(path);
            self.module.imports.push(Import { path, name, is_public });
        }
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        self.name(node.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if node.path.segments.last().is_some_and(|segment| segment.ident == "include") {
            self.module.hidden.insert("include!".to_owned());
        }
        visit::visit_macro(self, node);
        self.tokens(node.tokens.clone());
    }

    /// Derives and serde name functions in their attributes, some in quotes.
    fn visit_meta_list(&mut self, node: &'ast syn::MetaList) {
        visit::visit_meta_list(self, node);
        self.tokens(node.tokens.clone());
    }

    fn visit_expr_await(&mut self, node: &'ast syn::ExprAwait) {
        self.module.impure.insert(".await".to_owned());
        visit::visit_expr_await(self, node);
    }

    fn visit_expr_async(&mut self, node: &'ast syn::ExprAsync) {
        self.module.impure.insert("async".to_owned());
        visit::visit_expr_async(self, node);
    }

    fn visit_expr_closure(&mut self, node: &'ast syn::ExprClosure) {
        self.module.impure.extend(node.asyncness.map(|_| "async".to_owned()));
        visit::visit_expr_closure(self, node);
    }

    fn visit_signature(&mut self, node: &'ast syn::Signature) {
        self.module.impure.extend(node.asyncness.map(|_| "async".to_owned()));
        visit::visit_signature(self, node);
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        if node.method == "elapsed" {
            self.module.impure.insert(".elapsed".to_owned());
        }
        visit::visit_expr_method_call(self, node);
    }
}

impl Looker {
    fn name(&mut self, path: Name) {
        self.impurities(&path);
        self.module.words.extend(path.first().cloned());
        if path.len() > 1 {
            let path = self.absolute(path);
            self.module.names.insert(path);
        }
    }

    /// Clocks, sockets, tasks, threads, files: by where they come from, and clocks by what asks
    /// them.
    fn impurities(&mut self, path: &[String]) {
        const CRATES: [&str; 8] = ["tokio", "futures", "hyper", "reqwest", "socket2", "axum", "rdkafka", "zookeeper_client"];
        const STD: [&str; 6] = ["net", "thread", "fs", "process", "os", "env"];
        let at = |index: usize| path.get(index).map_or("", String::as_str);
        let is_std = at(0) == "std" && STD.contains(&at(1));
        let is_clock = path.len() > 1 && path.last().is_some_and(|last| last == "now" || last.starts_with("now_"));
        if CRATES.contains(&at(0)) && path.len() > 1 || is_std || is_clock {
            self.module.impure.insert(path.join("::"));
        }
    }

    /// The path from the crate's root on, where it begins with `crate`, `self` or `super`; as it is
    /// otherwise.
    fn absolute(&self, path: Name) -> Name {
        let mut base = self.path.clone();
        let mut rest = &path[..];
        match path.first().map(String::as_str) {
            Some("crate") => return path,
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            _ => return path,
        }
        while rest.first().is_some_and(|part| part == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        base
    }

    /// Paths in what only a macro understands.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |index: usize, punctuation: char| matches!(tokens.get(index), Some(TokenTree::Punct(punct)) if punct.as_char() == punctuation);
        let mut index = 0;
        while index < tokens.len() {
            match &tokens[index] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => self.quoted(&literal.to_string()),
                TokenTree::Ident(ident) => {
                    let mut path = vec![ident.to_string()];
                    let after_dot = index > 0 && is(index - 1, '.');
                    while is(index + 1, ':') && is(index + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(index + 3) else { break };
                        path.push(next.to_string());
                        index += 3;
                    }
                    match (path[0].as_str(), after_dot) {
                        ("await" | "elapsed", true) => drop(self.module.impure.insert(format!(".{}", path[0]))),
                        ("async", _) => drop(self.module.impure.insert("async".to_owned())),
                        _ => self.name(path),
                    }
                    // `crate::{a, b}` within a macro: the group's words are not followed.
                    if is(index + 1, ':') && is(index + 2, ':') && matches!(tokens.get(index + 3), Some(TokenTree::Group(_))) {
                        self.module.hidden.insert("a group of imports within a macro".to_owned());
                    }
                }
                TokenTree::Punct(_) => {}
            }
            index += 1;
        }
    }

    fn quoted(&mut self, literal: &str) {
        let text = literal.trim_matches('"');
        if ["crate::", "super::", "self::"].iter().any(|beginning| text.starts_with(beginning)) && !text.contains(' ') {
            self.name(text.split("::").map(str::to_owned).collect());
        }
    }
}

/// Each leaf of a tree of imports, with the name it gets.
fn flatten(tree: &UseTree, before: &mut Name, found: &mut Vec<(Name, Option<String>)>) {
    let with = |name: String, before: &Name| before.iter().cloned().chain([name]).collect::<Name>();
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => found.push((before.clone(), before.last().cloned())),
        UseTree::Name(name) => found.push((with(name.ident.to_string(), before), Some(name.ident.to_string()))),
        UseTree::Rename(rename) if rename.ident == "self" => found.push((before.clone(), Some(rename.rename.to_string()))),
        UseTree::Rename(rename) => found.push((with(rename.ident.to_string(), before), Some(rename.rename.to_string()))),
        UseTree::Glob(_) => found.push((before.clone(), None)),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, found)),
    }
}
