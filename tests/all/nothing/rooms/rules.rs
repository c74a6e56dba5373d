//! The rules: a room names what the table allows and all of it, pure rooms are pure, and files do
//! not import each other in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::source::{Module, Modules, Name};
use super::table::{May, Table};

/// Every difference between what the rooms name and what the table says they may name.
pub fn walls(table: &Table, modules: &Modules) -> Vec<String> {
    let mut faults = Vec::new();
    let rooms: BTreeSet<&String> = modules.keys().filter(|path| path.len() == 2).map(|path| &path[1]).collect();
    faults.extend(rooms.iter().filter(|room| !table.contains_key(**room)).map(|room| format!("{room} is not in the table")));
    faults.extend(table.keys().filter(|room| !rooms.contains(room)).map(|room| format!("there is no room {room}")));
    let mut named_by: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
    for (path, module) in modules {
        let shown = module.file.display();
        faults.extend(module.hidden.iter().map(|what| format!("{shown} hides what it names: {what}")));
        let Some(room) = path.get(1) else { continue };
        for named in named(module) {
            match named.get(1) {
                // The root as a whole, under whatever name: everything can be reached through it.
                None => faults.push(format!("{shown} names the crate's root")),
                Some(other) if other == room => {}
                Some(other) => {
                    named_by.entry(room).or_default().insert(other.clone());
                    let may = match table.get(room) {
                        Some(May::Name(rooms)) => rooms.contains(other),
                        Some(May::NameAll) => true,
                        None => false,
                    };
                    if !may {
                        faults.push(format!("{shown} names {}", named.join("::")));
                    }
                }
            }
        }
    }
    for (room, may) in table {
        let May::Name(rooms) = may else { continue };
        let unused = rooms.iter().filter(|other| !named_by.get(room).is_some_and(|named| named.contains(*other)));
        faults.extend(unused.map(|other| format!("{room} may name {other}, and does not")));
    }
    faults
}

/// Every path of ours that a module names, in imports and elsewhere.
fn named(module: &Module) -> BTreeSet<&Name> {
    let all = module.imports.iter().map(|import| &import.path).chain(&module.names);
    all.filter(|path| path.first().is_some_and(|first| first == "crate")).collect()
}

/// Clocks, sockets, tasks and the like in rooms that have none.
pub fn purity(rooms: &[&str], modules: &Modules) -> Vec<String> {
    let in_them = modules.iter().filter(|(path, _)| path.get(1).is_some_and(|room| rooms.contains(&room.as_str())));
    let faults = in_them.flat_map(|(_, module)| module.impure.iter().map(move |what| (module, what)));
    faults.map(|(module, what)| format!("{} is not pure: {what}", module.file.display())).collect()
}

/// Files that import each other in circles: each set of those that all reach one another. What a
/// file only passes on (`pub use`) it does not need itself; who uses it needs the file that
/// declares it. A module and what lies below it belong together: what a child uses of its parents
/// counts as no import.
pub fn circles(modules: &Modules) -> Vec<BTreeSet<PathBuf>> {
    let mut needs: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = BTreeMap::new();
    for (path, module) in modules {
        let mut needed = BTreeSet::new();
        for import in &module.imports {
            let is_used = import.name.as_ref().is_none_or(|name| module.words.contains(name));
            if import.is_public && !is_used || import.path.first().is_some_and(|first| first != "crate") {
                continue;
            }
            needed.extend(declaring(modules, &import.path, 0));
        }
        // A name's first word is of the crate, of a child, or of what a glob has brought in; other
        // imports are done.
        let globs = module.imports.iter().filter(|import| import.name.is_none()).map(|import| &import.path);
        let words = module.words.iter().map(|word| vec![word.clone()]);
        for name in module.names.iter().cloned().chain(words) {
            if name[0] == "crate" {
                needed.extend(declaring(modules, &name, 0));
                continue;
            }
            for base in [path].into_iter().chain(globs.clone()) {
                let whole: Name = base.iter().chain(&name).cloned().collect();
                let is_there = modules.contains_key(&whole[..=base.len()]) || base != path && has(modules, base, &name[0]);
                needed.extend(is_there.then(|| declaring(modules, &whole, 0)).flatten());
            }
        }
        let needed = needed.into_iter().filter(|other| !path.starts_with(other));
        let files = needed.filter_map(|module| modules.get(&module).map(|module| &module.file));
        needs.entry(&module.file).or_default().extend(files.filter(|file| **file != module.file));
    }
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = needs.keys().map(|file| (*file, reachable(&needs, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, all) in &reached {
        let circle: BTreeSet<PathBuf> =
            all.iter().filter(|other| reached[**other].contains(file)).map(|file| (*file).clone()).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// Whether a module declares a name or passes it on.
fn has(modules: &Modules, module: &Name, name: &String) -> bool {
    modules.get(module).is_some_and(|module| {
        module.items.contains(name) || module.imports.iter().any(|import| import.name.as_ref() == Some(name))
    })
}

/// All files that `from` needs, and those that these need.
fn reachable<'a>(needs: &BTreeMap<&'a PathBuf, BTreeSet<&'a PathBuf>>, from: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&PathBuf> = needs.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(needs.get(file).into_iter().flatten().copied());
        }
    }
    found
}

/// The module that declares what `path` names: followed through modules, `pub use` and aliases. A
/// glob's is the module itself.
fn declaring(modules: &Modules, path: &[String], depth: usize) -> Option<Name> {
    // Imports that lead to each other end somewhere.
    if depth > 16 {
        return None;
    }
    let mut at: Name = path.first().cloned().into_iter().collect();
    for (index, part) in path.iter().enumerate().skip(1) {
        let child: Name = at.iter().cloned().chain([part.clone()]).collect();
        if modules.contains_key(&child) {
            at = child;
            continue;
        }
        let module = modules.get(&at)?;
        if module.items.contains(part) {
            return Some(at);
        }
        let rest = &path[index + 1..];
        let follow = |target: &Name| {
            let further: Name = target.iter().chain(rest).cloned().collect();
            declaring(modules, &from_root(&at, modules, further), depth + 1)
        };
        if let Some(import) = module.imports.iter().find(|import| import.name.as_ref() == Some(part)) {
            return follow(&import.path);
        }
        let globs = module.imports.iter().filter(|import| import.name.is_none());
        for glob in globs {
            let target: Name = glob.path.iter().cloned().chain([part.clone()]).collect();
            let target = from_root(&at, modules, target);
            let declared = modules.get(&target[..target.len() - 1]).is_some_and(|module| module.items.contains(part));
            if declared {
                return follow(&target);
            }
        }
        // An enum's variant, an associated function: of what has been reached.
        return Some(at);
    }
    Some(at)
}

/// A path as an import in `module` means it: of a child, if there is one of that name.
fn from_root(module: &[String], modules: &Modules, path: Name) -> Name {
    let Some(first) = path.first() else { return path };
    let child: Name = module.iter().cloned().chain([first.clone()]).collect();
    if first != "crate" && modules.contains_key(&child) { module.iter().cloned().chain(path).collect() } else { path }
}
