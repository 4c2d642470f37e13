//! `include`: the parts of a stack that other files describe, each set of them with its own folder and variables.
//!
//! compose-go, `loader/include.go`. What is included is loaded on its own first, and what the including file says of the same thing counts
//! more.

use std::collections::HashMap;
use std::path::Path as FilePath;

use super::super::env_file::variables;
use super::super::leaf::Path;
use super::super::source::{Mistake, Position, Source};
use super::super::yaml::{Entry, Node, Value};
use super::reset::{self, Removal};
use super::shape::{self, Keyed, as_text, key};
use super::{DEPTH_MAX, Dialect, FileOfStack, INCLUDES_MAX, LoadError, Loader, Scope, compose, folders};

/// The sections that are included.
const SECTIONS: [&str; 7] = ["services", "jobs", "volumes", "networks", "secrets", "configs", "models"];

/// One item of `include`.
struct Part<'n> {
    at: &'n Position,
    files: Vec<(&'n str, &'n Position)>,
    folder: Option<&'n str>,
    env_files: Option<Vec<(&'n str, &'n Position)>>,
}

impl Loader {
    /// A document with what it includes.
    pub(super) fn with_includes(
        &mut self,
        document: Node,
        scope: &Scope,
        real: &FilePath,
        start: &Position,
        removals: &[Removal],
    ) -> Result<Node, LoadError> {
        let Node { value, at, tag } = document;
        let Value::Map(mut sections) = value else { return Ok(Node { value, at, tag }) };
        let Some(place) = sections.iter().position(|entry| entry.key == "include") else {
            return Ok(Node { value: Value::Map(sections), at, tag });
        };
        let include = sections.remove(place).node;
        let path = key(&Path::default(), "include");
        self.notes.resolve(&include, &path, "resolved: what the file describes is here");
        let mut found = Keyed::new(sections);
        let items = match &include.value {
            Value::Null => &[][..],
            Value::List(items) => items,
            _ => {
                return Err(Mistake {
                    at: include.at,
                    message: "include: found no list, expected a list of files".to_owned(),
                }
                .into());
            }
        };
        for item in items {
            let part = part(item)?;
            let model = self.included(&part, scope, real, start)?;
            self.import(model, &mut found, removals)?;
        }
        Ok(Node { value: Value::Map(found.entries), at, tag })
    }

    fn included(
        &mut self,
        part: &Part<'_>,
        scope: &Scope,
        real: &FilePath,
        start: &Position,
    ) -> Result<Node, LoadError> {
        let depth = scope.depth + 1;
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} files include one another in a row");
            return Err(Mistake { at: part.at.clone(), message }.into());
        }
        self.includes += 1;
        if self.includes > INCLUDES_MAX {
            return Err(Mistake {
                at: part.at.clone(),
                message: format!("files are included more than {INCLUDES_MAX} times"),
            }
            .into());
        }
        let mut chain = scope.chain.clone();
        chain.push((real.to_owned(), start.clone()));
        let mut sources = Vec::new();
        for (name, at) in &part.files {
            let (source, real) = self.read_named(&scope.folder, name, at)?;
            if let Some(first) = chain.iter().position(|(file, _)| *file == real) {
                let steps: Vec<&str> = chain[first..].iter().map(|(_, start)| &*start.file).collect();
                let message = format!(
                    "files include one another in a circle: {} includes {}",
                    steps.join(" includes "),
                    source.name()
                );
                return Err(Mistake { at: (*at).clone(), message }.into());
            }
            let documents = Node::documents(&source).map_err(LoadError::Mistakes)?;
            for document in &documents {
                self.spend(document, at)?;
            }
            sources.push(FileOfStack { start: super::start_of(&source), real, documents });
        }
        let folder = match (part.folder, part.files.first()) {
            (Some(folder), _) => folders::joined(&scope.folder, FilePath::new(folder)),
            (None, Some((first, _))) => {
                let file = folders::joined(&scope.folder, FilePath::new(first));
                file.parent().map(FilePath::to_owned).unwrap_or_default()
            }
            (None, None) => scope.folder.clone(),
        };
        let variables = self.variables_of(part, scope, &folder)?;
        self.model(sources, &Scope { folder, variables, chain, depth })
    }

    /// The variables of the including file, and behind them those of the item's own files, or of `.env` in its folder.
    fn variables_of(
        &mut self,
        part: &Part<'_>,
        scope: &Scope,
        folder: &FilePath,
    ) -> Result<HashMap<String, String>, LoadError> {
        let mut sources: Vec<Source> = Vec::new();
        match &part.env_files {
            None => {
                if let Some(source) = super::unasked(&self.files, folder, &self.folder)? {
                    // The stack's own was named already.
                    if !folder.as_os_str().is_empty() {
                        let message = "docker compose reads this file for what is included from its folder, and so its variables are used";
                        self.notes.warn(&super::start_of(&source), message);
                    }
                    sources.push(source);
                }
            }
            Some(files) => {
                for (name, at) in files.iter().filter(|(name, _)| *name != "/dev/null") {
                    sources.push(self.read_named(&scope.folder, name, at)?.0);
                }
            }
        }
        let mut own = HashMap::new();
        for source in sources {
            let known = own.clone();
            let lookup = |name: &str| scope.variables.get(name).or_else(|| known.get(name)).map(String::as_str);
            own.extend(super::with_values(variables(&source, Dialect::Compose, &lookup)?));
        }
        let mut all = scope.variables.clone();
        for (name, value) in own {
            all.entry(name).or_insert(value);
        }
        Ok(all)
    }

    /// Adds the sections of an included model to those of a file.
    fn import(&mut self, model: Node, found: &mut Keyed, removals: &[Removal]) -> Result<(), LoadError> {
        let Value::Map(sections) = model.value else { return Ok(()) };
        for section in sections {
            let path = key(&Path::default(), &section.key);
            if !SECTIONS.contains(&section.key.as_str()) {
                let reason = "docker compose includes services, networks, volumes, configs and secrets of a file, and nothing else of it";
                match section.key.starts_with("x-") || matches!(section.key.as_str(), "version" | "name") {
                    true => self.notes.resolve(&section.node, &path, reason),
                    false => self.notes.drop(&section.node, &path, reason),
                }
                continue;
            }
            let Some(own) = found.get_mut(&section.key) else {
                found.push(section);
                continue;
            };
            let (Value::Map(theirs), Value::Map(ours)) = (&section.node.value, &mut own.node.value) else {
                self.notes.replace(&section.node, &path, &own.node.at);
                continue;
            };
            if theirs.is_empty() {
                self.notes.resolve(&section.node, &path, "it is empty");
            }
            let mut all = Keyed::new(std::mem::take(ours));
            for entry in theirs {
                import_entry(entry.clone(), &mut all, &path, removals, &mut self.notes)?;
            }
            own.node.value = Value::Map(all.entries);
        }
        Ok(())
    }
}

fn import_entry(
    mut entry: Entry,
    all: &mut Keyed,
    section: &Path,
    removals: &[Removal],
    notes: &mut super::Notes,
) -> Result<(), Mistake> {
    let path = key(section, &entry.key);
    let Some(own) = all.get_mut(&entry.key) else {
        all.push(entry);
        return Ok(());
    };
    if shape::fingerprint(&own.node) == shape::fingerprint(&entry.node) {
        notes.resolve(&entry.node, &path, &format!("{} says the same", own.node.at));
        return Ok(());
    }
    if !reset::apply(removals, &mut entry.node, &path, notes) {
        return Ok(());
    }
    let ours = std::mem::replace(&mut own.node, shape::node(Value::Null, &own.at));
    let at = ours.at.clone();
    own.node = compose::merge(entry.node, ours, &path, notes)?;
    own.node.at = at;
    Ok(())
}

fn part(item: &Node) -> Result<Part<'_>, Mistake> {
    let mistake = |node: &Node, expected: &str| Mistake {
        at: node.at.clone(),
        message: format!("include: found {}, expected {expected}", node.value),
    };
    if let Some(name) = as_text(item) {
        return Ok(Part { at: &item.at, files: vec![(name, &item.at)], folder: None, env_files: None });
    }
    let Some(path) = item.get("path") else { return Err(mistake(item, "a file, or a map with `path`")) };
    let files = names(path).ok_or_else(|| mistake(path, "a file or a list of files"))?;
    let folder = match item.get("project_directory") {
        None => None,
        Some(folder) => {
            Some(as_text(folder).ok_or_else(|| mistake(folder, "a folder"))?).filter(|folder| !folder.is_empty())
        }
    };
    let env_files = match item.get("env_file") {
        None => None,
        Some(list) => {
            Some(names(list).ok_or_else(|| mistake(list, "a file or a list of files"))?).filter(|list| !list.is_empty())
        }
    };
    if files.is_empty() {
        return Err(mistake(path, "at least one file"));
    }
    Ok(Part { at: &item.at, files, folder, env_files })
}

/// A name, or a list of names.
fn names(node: &Node) -> Option<Vec<(&str, &Position)>> {
    match &node.value {
        Value::Text(name) => Some(vec![(name, &node.at)]),
        Value::List(items) => items.iter().map(|item| Some((as_text(item)?, &item.at))).collect(),
        _ => None,
    }
}
