//! Named volumes.

use super::super::leaf::{Item, ItemValue};
use super::super::stack::Volume;
use super::super::{Dialect, Value};
use super::Reader;
use super::forms::named_leaves;

impl Reader<'_> {
    /// A volume by its key.
    pub(super) fn volume(&mut self, key: &str, item: &Item) -> Volume {
        let (name, external) = self.name_and_external(item, "volume");
        if self.dialect == Dialect::Stack && external.is_some_and(|external| external.value) {
            for other in ["driver", "driver_opts", "labels"] {
                if let Some(other_item) = item.get(other).filter(|item| !is_empty(item)) {
                    let message =
                        format!("{}: an external volume has no '{other}'; remove it, or 'external'", item.path);
                    self.mistake(other_item, message);
                }
            }
        }
        Volume {
            key: key.to_owned(),
            empty: self.empty(item),
            name,
            external,
            driver: self.field(item, "driver", Self::text),
            driver_options: item.get("driver_opts").map(|item| self.labels(item)).unwrap_or_default(),
            labels: item.get("labels").map(|item| self.labels(item)).unwrap_or_default(),
            cluster: item.get("x-cluster-spec").map(|item| named_leaves("x-cluster-spec", item)).unwrap_or_default(),
        }
    }
}

/// Whether there is nothing in it.
fn is_empty(item: &Item) -> bool {
    match &item.value {
        ItemValue::NoItems(_) | ItemValue::NoKeys(_) => true,
        ItemValue::Scalar(scalar) => matches!(&scalar.value, Value::Null) || scalar.value == Value::Text(String::new()),
        ItemValue::List(_) | ItemValue::Map(_) => false,
    }
}
