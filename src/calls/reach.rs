//! What a call may see and change.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::index::filter::Filter;

/// What a call may see and change: everything, until a rule narrows it. For the caller, a collection outside of it does
/// not exist.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    collections: Option<Arc<BTreeSet<String>>>,
    documents: Option<Arc<Filter>>,
}

impl Reach {
    /// Keeps only collections with these names that were within reach before.
    pub fn narrow_to(&mut self, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().filter(|name| self.admits(name)).collect();
        self.collections = Some(Arc::new(names));
    }

    /// Keeps only documents that match `filter` and were within reach before.
    pub fn narrow_by(&mut self, filter: Filter) {
        self.documents = Some(Arc::new(match self.documents.take() {
            Some(before) => Filter::And(vec![Arc::unwrap_or_clone(before), filter]),
            None => filter,
        }));
    }

    /// Whether a collection of that name is within reach.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        self.collections.as_ref().is_none_or(|names| names.contains(name))
    }

    /// The filter that documents must match; `None` when all are within reach.
    #[must_use]
    pub fn documents(&self) -> Option<&Filter> {
        self.documents.as_deref()
    }

    /// Combines a filter of the caller with this reach.
    #[must_use]
    pub fn filter(&self, asked: Option<&Filter>) -> Option<Filter> {
        match (self.documents(), asked) {
            (None, asked) => asked.cloned(),
            (Some(own), None) => Some(own.clone()),
            (Some(own), Some(asked)) => Some(Filter::And(vec![own.clone(), asked.clone()])),
        }
    }
}
