//! Variables of a service, from its files and from the stack.
//!
//! Files come first and the last one of them counts; `environment` replaces what they say. To docker/cli a value that is missing **or
//! empty** is that of the shell that deploys, if it has one; to compose-go only one that is missing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::leaf::{At, Item, ItemValue, Leaf};
use super::super::report::Outcome;
use super::super::stack::Variable;
use super::super::{Dialect, FileError, Source, variables};
use super::{Reader, excerpt};

/// A file of variables.
struct VariablesFile {
    name: At<String>,
    is_required: bool,
    /// Written as docker/cli reads it.
    is_raw: bool,
}

impl Reader<'_> {
    /// `env_file` and `environment`, by name.
    pub(super) fn environment(&mut self, service: &Item) -> Vec<Variable> {
        let mut found: BTreeMap<String, Variable> = BTreeMap::new();
        let files = service.get("env_file").map(|item| self.variables_files(item)).unwrap_or_default();
        let mut names: Vec<Leaf> = Vec::new();
        for file in files {
            names.push(file.name.leaf);
            let dialect = if file.is_raw { Dialect::Stack } else { self.dialect };
            for (name, value) in self.variables_of(service, &file.name, file.is_required, dialect) {
                let value = self.filled(&name, value);
                found.insert(name.clone(), Variable { name, value, leaf: file.name.leaf });
            }
        }
        if let Some(item) = service.get("environment") {
            let pairs = self.pairs(item);
            if !self.spend(item, pairs.len()) {
                return Vec::new();
            }
            for (name, value) in pairs {
                if self.is_compose() && matches!(item.value, ItemValue::List(_)) && name.ends_with(char::is_whitespace)
                {
                    self.mistake_at(
                        value.leaf,
                        format!("the variable '{}' ends with a blank", excerpt(name.trim_end())),
                    );
                }
                let leaf = value.leaf;
                let filled = self.filled(&name, value.value);
                if !self.is_compose() && filled.as_deref() == Some("") {
                    self.remark(
                        leaf,
                        Outcome::Converted,
                        "docker stack deploy fills an empty value from the shell that deploys, where that has the variable",
                    );
                }
                found.insert(name.clone(), Variable { name, value: filled, leaf });
            }
        }
        let used: BTreeSet<Leaf> = found.values().map(|variable| variable.leaf).collect();
        for leaf in names {
            if !used.contains(&leaf) {
                self.remark(
                    leaf,
                    Outcome::Converted,
                    "nothing of this file counts: it has no variables, or all are replaced",
                );
            }
        }
        found.into_values().collect()
    }

    /// A value, or that of the shell that deploys.
    fn filled(&self, name: &str, value: Option<String>) -> Option<String> {
        let from_shell = match &value {
            None => true,
            Some(value) => value.is_empty() && !self.is_compose(),
        };
        if from_shell { (self.lookup)(name).or(value) } else { value }
    }

    fn variables_files(&mut self, item: &Item) -> Vec<VariablesFile> {
        let plain = |name| VariablesFile { name, is_required: true, is_raw: false };
        if !matches!(item.value, ItemValue::List(_)) {
            return self.one_or_texts(item).into_iter().map(plain).collect();
        }
        let mut files = Vec::new();
        for item in item.items() {
            if !matches!(item.value, ItemValue::Map(_)) {
                files.extend(self.text(item).map(plain));
                continue;
            }
            let required = self.field(item, "required", Self::truth);
            let format = self.field(item, "format", Self::text);
            let is_raw = match format.as_ref().map(|format| format.value.as_str()) {
                None | Some("") => false,
                Some("raw") => true,
                Some(other) => {
                    self.mistake(
                        item,
                        format!("{}: found the format '{}', expected 'raw' or none", item.path, excerpt(other)),
                    );
                    false
                }
            };
            for leaf in required.map(|value| value.leaf).into_iter().chain(format.map(|value| value.leaf)) {
                self.remark(leaf, Outcome::Converted, "the file was read by it");
            }
            match self.field(item, "path", Self::text) {
                Some(name) => {
                    files.push(VariablesFile { name, is_required: required.is_none_or(|value| value.value), is_raw });
                }
                None => self.mistake(item, format!("{}: a file of variables needs 'path'", item.path)),
            }
        }
        files
    }

    /// The variables of a file, each name once.
    pub(super) fn variables_of(
        &mut self,
        item: &Item,
        file: &At<String>,
        is_required: bool,
        dialect: Dialect,
    ) -> BTreeMap<String, Option<String>> {
        let bytes = match self.files.read(self.files.root(), &file.value) {
            Ok(bytes) => bytes,
            Err(FileError::Read { source, .. }) if !is_required && source.kind() == std::io::ErrorKind::NotFound => {
                self.remark(file.leaf, Outcome::Converted, "the file is not there, and is not required");
                return BTreeMap::new();
            }
            Err(error) => {
                self.mistake_at(file.leaf, error.to_string());
                return BTreeMap::new();
            }
        };
        let source = match Source::of(&file.value, &bytes) {
            Ok(source) => source,
            Err(error) => {
                self.mistake_at(file.leaf, error.to_string());
                return BTreeMap::new();
            }
        };
        // The parser wants values that live as long as the function.
        let asked: BTreeMap<String, Option<String>> =
            names_in(source.text()).into_iter().map(|name| (name.to_owned(), (self.lookup)(name))).collect();
        let lookup = |name: &str| asked.get(name).and_then(Option::as_deref);
        match variables(&source, dialect, &lookup) {
            Ok(variables) => {
                let variables: BTreeMap<_, _> =
                    variables.into_iter().map(|variable| (variable.name, variable.value)).collect();
                if self.spend(item, variables.len()) { variables } else { BTreeMap::new() }
            }
            Err(mistake) => {
                self.push(mistake);
                BTreeMap::new()
            }
        }
    }
}

/// The names behind dollar signs.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split('$')
        .skip(1)
        .map(|rest| rest.strip_prefix('{').unwrap_or(rest))
        .map(|rest| &rest[..rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())])
        .filter(|name| !name.is_empty())
        .collect()
}
