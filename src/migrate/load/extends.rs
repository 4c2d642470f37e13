//! `extends`: a service that begins as a copy of another one, in this file or in another.
//!
//! compose-go, `loader/extends.go`. What a service copies is merged before files are, so that a later file cannot extend a service of an
//! earlier one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use super::super::leaf::Path;
use super::super::source::{Mistake, Position};
use super::super::yaml::{Entry, Node, Value};
use super::reset::{self, Removal};
use super::shape::{self, as_text, key};
use super::{DEPTH_MAX, FileOfStack, LoadError, Loader, Replaced, Scope, compose, folders};
use crate::base::tree::nearest;

/// The services of a file, and those of them that are resolved.
pub(super) struct Group {
    /// As messages name the file.
    file: Position,
    /// What it is on the disk.
    real: PathBuf,
    /// The folder that `file` is relative to, below the stack's.
    folder: PathBuf,
    section: String,
    services: Vec<Entry>,
    places: HashMap<String, usize>,
    removals: Vec<Removal>,
    /// What was noted of each service when the file was read; it is the stack's where the service is used.
    notes: RefCell<HashMap<String, Vec<Replaced>>>,
    resolved: RefCell<HashMap<String, Rc<Node>>>,
}

/// The files that services of one scope extend.
#[derive(Default)]
pub(super) struct Bases(HashMap<PathBuf, Rc<Group>>);

/// Services that extend one another, from the first on.
type Chain = Vec<(PathBuf, String, Position)>;

impl Group {
    fn new(
        file: Position,
        real: PathBuf,
        folder: PathBuf,
        section: &str,
        services: Vec<Entry>,
        removals: Vec<Removal>,
    ) -> Self {
        let places = services.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
        let section = section.to_owned();
        Self {
            file,
            real,
            folder,
            section,
            services,
            places,
            removals,
            notes: RefCell::default(),
            resolved: RefCell::default(),
        }
    }

    fn get(&self, name: &str) -> Option<&Node> {
        self.places.get(name).map(|place| &self.services[*place].node)
    }
}

impl Loader {
    /// Resolves the services of a document.
    pub(super) fn with_extends(
        &mut self,
        document: Node,
        scope: &Scope,
        source: &FileOfStack,
        removals: &[Removal],
        bases: &mut Bases,
    ) -> Result<Node, LoadError> {
        let Node { value, at, tag } = document;
        let Value::Map(mut sections) = value else { return Ok(Node { value, at, tag }) };
        for section in sections.iter_mut().filter(|entry| matches!(entry.key.as_str(), "services" | "jobs")) {
            let has_extends = shape::entries(&section.node).iter().any(|service| service.node.get("extends").is_some());
            let Value::Map(services) = &mut section.node.value else { continue };
            if !has_extends {
                continue;
            }
            let services = std::mem::take(services);
            let (file, real) = (source.start.clone(), source.real.clone());
            let group = Group::new(file, real, scope.folder.clone(), &section.key, services, removals.to_vec());
            let group = Rc::new(group);
            let mut resolved = Vec::with_capacity(group.services.len());
            for entry in &group.services {
                let node = self.resolve(&group, &entry.key, scope, bases, &Vec::new())?;
                resolved.push(Entry { node: (*node).clone(), ..entry.clone() });
            }
            section.node.value = Value::Map(resolved);
        }
        Ok(Node { value: Value::Map(sections), at, tag })
    }

    /// A service of a group with what it extends.
    fn resolve(
        &mut self,
        group: &Rc<Group>,
        name: &str,
        scope: &Scope,
        bases: &mut Bases,
        chain: &Chain,
    ) -> Result<Rc<Node>, LoadError> {
        if let Some(node) = group.resolved.borrow().get(name) {
            return Ok(Rc::clone(node));
        }
        self.notes.replaced.extend(group.notes.borrow_mut().remove(name).unwrap_or_default());
        let Some(service) = group.get(name) else {
            return Err(Mistake { at: group.file.clone(), message: format!("there is no service {name}") }.into());
        };
        let path = key(&key(&Path::default(), &group.section), name);
        let node = Rc::new(match service.get("extends") {
            None => service.clone(),
            Some(extends) => self.extended(group, name, service, extends, &path, scope, bases, chain)?,
        });
        group.resolved.borrow_mut().insert(name.to_owned(), Rc::clone(&node));
        Ok(node)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a recursion, split from it for its length")]
    fn extended(
        &mut self,
        group: &Rc<Group>,
        name: &str,
        service: &Node,
        extends: &Node,
        path: &Path,
        scope: &Scope,
        bases: &mut Bases,
        chain: &Chain,
    ) -> Result<Node, LoadError> {
        let extends_path = key(path, "extends");
        let mistake =
            |at: &Position, message: String| Mistake { at: at.clone(), message: format!("{extends_path}: {message}") };
        let (of, file) = match &extends.value {
            Value::Text(of) => (of.as_str(), None),
            Value::Map(_) => {
                let of = extends.get("service").and_then(as_text);
                let of =
                    of.ok_or_else(|| mistake(&extends.at, "found no `service`, expected the name of one".to_owned()))?;
                (of, extends.get("file").filter(|file| file.value != Value::Null))
            }
            other => {
                let message = format!("found {other}, expected the name of a service, or a map with `service`");
                return Err(mistake(&extends.at, message).into());
            }
        };
        let mut chain = chain.clone();
        let here = (group.real.clone(), name.to_owned(), extends.at.clone());
        if let Some(first) = chain.iter().position(|(real, service, _)| (real, service) == (&here.0, &here.1)) {
            let steps: Vec<String> =
                chain[first..].iter().map(|(_, service, at)| format!("{service} ({at})")).collect();
            let message =
                format!("services extend one another in a circle: {} extends {name}", steps.join(" extends "));
            return Err(mistake(&extends.at, message).into());
        }
        chain.push(here);
        if chain.len() > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} services extend one another in a row");
            return Err(mistake(&extends.at, message).into());
        }
        let base = match file {
            None => Rc::clone(group),
            Some(file) => {
                let Some(file_name) = as_text(file) else {
                    return Err(mistake(&file.at, format!("found {}, expected the name of a file", file.value)).into());
                };
                self.base(group, file_name, &file.at, scope, bases)?
            }
        };
        if base.get(of).is_none() {
            let names = base.services.iter().map(|entry| entry.key.as_str());
            let near = nearest(of, names).map_or(String::new(), |name| format!("; did you mean {name}?"));
            let message = format!("{} has no service {of}{near}", base.file.file);
            return Err(mistake(&extends.at, message).into());
        }
        let source = self.resolve(&base, of, scope, bases, &chain)?;
        let reason = format!("resolved: the service begins as {of} at {}", source.at);
        self.notes.resolve(extends, &extends_path, &reason);
        let own = Node { value: without(service, "extends"), at: service.at.clone(), tag: None };
        if source.value == Value::Null {
            return Ok(own);
        }
        self.spend(&source, &extends.at)?;
        let mut copy = (*source).clone();
        let is_left = reset::apply(&group.removals, &mut copy, path, &mut self.notes);
        let mut merged = match (is_left, shape::is_bare(&own)) {
            (false, _) => own,
            (true, true) => copy,
            (true, false) => compose::merge(copy, own, path, &mut self.notes)?,
        };
        // The result is where the service is, whatever it begins as.
        merged.at = service.at.clone();
        Ok(merged)
    }

    /// The services of another file.
    fn base(
        &mut self,
        group: &Group,
        name: &str,
        at: &Position,
        scope: &Scope,
        bases: &mut Bases,
    ) -> Result<Rc<Group>, LoadError> {
        let target = self.files.root().join(&group.folder).join(name);
        let real = target.canonicalize().unwrap_or(target);
        if let Some(found) = bases.0.get(&real) {
            return Ok(Rc::clone(found));
        }
        let (source, real) = self.read_named(&group.folder, name, at)?;
        let start = super::start_of(&source);
        let documents = Node::documents(&source).map_err(LoadError::Mistakes)?;
        let folder = folders::joined(&group.folder, FilePath::new(name));
        let folder = folder.parent().map(FilePath::to_owned).unwrap_or_default();
        let (mut merged, mut removals): (Option<Node>, Vec<Removal>) = (None, Vec::new());
        // Only the services that are used count, so that notes of the others are not the stack's.
        let before = self.notes.replaced.len();
        for document in documents {
            self.spend(&document, at)?;
            let mut document = super::map_of(Some(document), &start)?;
            removals = reset::removals(&mut document, &mut self.notes);
            self.interpolate(&mut document, &scope.variables)?;
            folders::rebase(&mut document, &folder);
            merged = Some(match merged.take() {
                None => document,
                Some(mut before) => match reset::apply(&removals, &mut before, &Path::default(), &mut self.notes) {
                    true => compose::merge(before, document, &Path::default(), &mut self.notes)?,
                    false => document,
                },
            });
        }
        let mut notes: HashMap<String, Vec<Replaced>> = HashMap::new();
        for replaced in self.notes.replaced.split_off(before) {
            if let (Some("services"), Some(service)) = (replaced.written.path.key(0), replaced.written.path.key(1)) {
                notes.entry(service.to_owned()).or_default().push(replaced);
            }
        }
        let services = merged.and_then(|mut document| {
            let Value::Map(entries) = &mut document.value else { return None };
            let place = entries.iter().position(|entry| entry.key == "services")?;
            match entries.swap_remove(place).node.value {
                Value::Map(services) => Some(services),
                _ => None,
            }
        });
        let Some(services) = services else {
            let message = format!("{} has no services that could be extended", start.file);
            return Err(Mistake { at: at.clone(), message }.into());
        };
        let mut found = Group::new(start, real.clone(), folder, "services", services, removals);
        found.notes = RefCell::new(notes);
        let found = Rc::new(found);
        bases.0.insert(real, Rc::clone(&found));
        Ok(found)
    }
}

fn without(service: &Node, name: &str) -> Value {
    let entries = shape::entries(service).iter().filter(|entry| entry.key != name);
    Value::Map(entries.cloned().collect())
}
