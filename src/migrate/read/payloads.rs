//! Configs and secrets with their bytes.

use super::super::leaf::{At, Item};
use super::super::report::Outcome;
use super::super::stack::Payload;
use super::Reader;

impl Reader<'_> {
    /// A config or secret by its key.
    ///
    /// * `kind`: `config` or `secret`.
    pub(super) fn payload(&mut self, key: &str, item: &Item, kind: &str) -> Payload {
        let (name, external) = self.name_and_external(item, kind);
        let is_external = external.is_some_and(|external| external.value);
        let driver = self.field(item, "driver", Self::text);
        let file = self.field(item, "file", Self::some_text);
        let text = item.get("content").filter(|_| kind == "config" && self.is_compose());
        let text = text.and_then(|item| self.text(item));
        let variable = item.get("environment").filter(|_| self.is_compose()).and_then(|item| self.text(item));
        let sources = usize::from(file.is_some()) + usize::from(text.is_some()) + usize::from(variable.is_some());
        let empty = self.empty(item);
        if sources == 0 && !is_external && driver.is_none() {
            let keys = match (self.is_compose(), kind) {
                (false, _) => "'file' or 'external: true'",
                (true, "config") => "'file', 'content', 'environment' or 'external: true'",
                (true, _) => "'file', 'environment' or 'external: true'",
            };
            self.mistake(item, format!("{}: a {kind} needs {keys}", item.path));
        }
        if sources > 1 {
            self.mistake(item, format!("{}: the {kind} has two sources; leave one of them", item.path));
        }
        if let (Some(_), Some(file), false) = (&driver, &file, is_external) {
            self.mistake_at(file.leaf, "'driver' and 'file' exclude each other; remove one of them");
        }
        let content = match (file, text, variable) {
            (Some(file), _, _) if is_external => {
                let reason = "it is external, and the file is not read";
                self.remark(file.leaf, Outcome::Dropped, reason);
                None
            }
            (Some(file), _, _) => self.content(&file),
            (None, Some(text), _) => Some(text.map(String::into_bytes)),
            (None, None, Some(variable)) => {
                let value = (self.lookup)(&variable.value);
                if value.is_none() {
                    let reason = format!("the value is that of the variable {}, which is not known", variable.value);
                    self.remark(variable.leaf, Outcome::NeedsInput, reason);
                }
                value.map(|value| At::new(value.into_bytes(), variable.leaf))
            }
            (None, None, None) => None,
        };
        Payload {
            key: key.to_owned(),
            empty,
            name,
            external,
            content,
            template_driver: self.field(item, "template_driver", Self::text),
            driver,
            driver_options: item.get("driver_opts").map(|item| self.labels(item)).unwrap_or_default(),
            labels: item.get("labels").map(|item| self.labels(item)).unwrap_or_default(),
        }
    }

    fn content(&mut self, file: &At<String>) -> Option<At<Vec<u8>>> {
        match self.files.read(self.files.root(), &file.value) {
            Ok(bytes) => Some(At::new(bytes, file.leaf)),
            Err(error) => {
                self.mistake_at(file.leaf, error.to_string());
                None
            }
        }
    }
}
