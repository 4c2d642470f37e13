//! The models of a node: a set that is opened once, and passed to all parts that embed.
//!
//! Invariants: names are unique; the built-in model is always there and first. A set never changes after it was opened.

use std::fmt;
use std::sync::{Arc, LazyLock};

use super::{EmbedError, Embedder, ModelInfo, StaticModel, static_model};

/// Name of the model a collection gets when its creator names none.
pub const DEFAULT_MODEL: &str = static_model::NAME;

/// The models a node has, by name.
pub struct Models {
    /// The facts of the built-in model, which is loaded by the first embedding rather than at the start, as that takes
    /// milliseconds.
    built_in_info: ModelInfo,
    built_in: LazyLock<Arc<dyn Embedder>>,
    others: Vec<Arc<dyn Embedder>>,
}

impl Models {
    /// The set with the model that needs no files: the built-in table.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            built_in_info: static_model::info(),
            built_in: LazyLock::new(|| Arc::new(StaticModel::built_in())),
            others: Vec::new(),
        }
    }

    /// The set with another model. A model whose name is in use is left out.
    #[must_use]
    pub fn with(mut self, model: Arc<dyn Embedder>) -> Self {
        if self.info(&model.info().name).is_none() {
            self.others.push(model);
        }
        self
    }

    /// The names of the models, the default first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.built_in_info).chain(self.others.iter().map(|model| model.info())).map(|info| &*info.name)
    }

    /// The facts of a model without loading it, or `None` when there is no such model.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&ModelInfo> {
        if self.is_built_in(name) {
            return Some(&self.built_in_info);
        }
        self.others.iter().map(|model| model.info()).find(|info| info.name == name)
    }

    /// Whether the model answers without loading anything first.
    #[must_use]
    pub fn is_loaded(&self, name: &str) -> bool {
        match self.is_built_in(name) {
            true => LazyLock::get(&self.built_in).is_some(),
            false => self.info(name).is_some(),
        }
    }

    /// The model, loaded on first use (a few milliseconds for the built-in one).
    ///
    /// # Errors
    /// [`EmbedError::Unknown`], which lists the existing models.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Embedder>, EmbedError> {
        if self.is_built_in(name) {
            return Ok(&self.built_in);
        }
        let found = self.others.iter().find(|model| model.info().name == name);
        found.ok_or_else(|| self.unknown(name))
    }

    /// That the set has no model of this name.
    #[must_use]
    pub fn unknown(&self, name: &str) -> EmbedError {
        EmbedError::Unknown { model: name.to_owned(), known: self.names().map(str::to_owned).collect() }
    }

    /// A collection whose creation record is damaged has no model name: the default model is the best guess, and
    /// without any every search by meaning would fail.
    fn is_built_in(&self, name: &str) -> bool {
        name.is_empty() || name == self.built_in_info.name
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::testing::Switched;

    #[test]
    fn a_set_has_its_models_by_name_each_once() {
        let (one, two) = (Switched::new("other", 4), Switched::new("other", 8));
        let models = Models::built_in().with(one).with(two).with(Switched::new(DEFAULT_MODEL, 3));
        assert_eq!(models.names().collect::<Vec<_>>(), [DEFAULT_MODEL, "other"]);
        assert_eq!(models.info("other").map(|info| info.dimensions), Some(4), "the first of a name stays");
        assert_eq!(models.info(DEFAULT_MODEL).map(|info| info.dimensions), Some(256));
        assert!(!models.is_loaded(DEFAULT_MODEL) && models.is_loaded("other") && !models.is_loaded("missing"));
        assert_eq!(models.get("").expect("the default").info().name, DEFAULT_MODEL);
        assert!(models.is_loaded(DEFAULT_MODEL));
        let missing = models.get("missing").err().expect("unknown").to_string();
        assert_eq!(missing, "there is no model 'missing'; this node has static-minilm-256, other");
    }
}
