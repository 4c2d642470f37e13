//! Health checks.

use super::super::Value;
use super::super::leaf::{At, Item, ItemValue};
use super::super::report::Outcome;
use super::super::stack::{HealthCheck, Test};
use super::Reader;

impl Reader<'_> {
    /// `healthcheck`.
    pub(super) fn health_check(&mut self, item: &Item) -> Option<HealthCheck> {
        if !self.is_map(item) {
            return None;
        }
        let disabled = self.field(item, "disable", Self::truth);
        if let Some(disabled) = disabled.filter(|disabled| !disabled.value) {
            self.remark(disabled.leaf, Outcome::Converted, "false is the default");
        }
        let disabled = disabled.filter(|disabled| disabled.value);
        let mut check = HealthCheck {
            test: item.get("test").and_then(|test| self.test(test)),
            interval: self.field(item, "interval", Self::duration),
            timeout: self.field(item, "timeout", Self::duration),
            retries: self.field(item, "retries", Self::number),
            start_period: self.field(item, "start_period", Self::duration),
            start_interval: self.field(item, "start_interval", Self::duration),
        };
        if let Some(disabled) = disabled {
            if let Some(test) = item.get("test").filter(|_| check.test.is_some()) {
                match self.dialect {
                    super::Dialect::Stack => self.mistake(
                        test,
                        format!("{}: 'test' and 'disable: true' exclude each other; remove one of them", item.path),
                    ),
                    super::Dialect::Compose => self.remark_all(test, Outcome::Dropped, "'disable: true' counts"),
                }
            }
            check.test = Some(Test::Disabled(disabled.leaf));
        }
        Some(check)
    }

    fn test(&mut self, item: &Item) -> Option<Test> {
        let items = match &item.value {
            ItemValue::Scalar(At { value: Value::Null, .. }) | ItemValue::NoItems(_) => {
                self.nothing(item);
                return None;
            }
            ItemValue::Scalar(At { .. }) => return self.text(item).map(|text| Test::Shell(None, text)),
            ItemValue::List(items) => items,
            _ => {
                self.wrong(item, "a line, or a list that begins with CMD, CMD-SHELL or NONE");
                return None;
            }
        };
        let mut words: Vec<At<String>> = items.iter().filter_map(|item| self.text(item)).collect();
        if words.len() != items.len() {
            return None;
        }
        let first = words.remove(0);
        match first.value.as_str() {
            "NONE" => {
                for word in words {
                    self.remark(word.leaf, Outcome::Dropped, "there is no test after NONE");
                }
                Some(Test::Disabled(first.leaf))
            }
            "CMD" if !words.is_empty() => Some(Test::Program(first.leaf, words)),
            "CMD-SHELL" if !words.is_empty() => {
                let line = words.remove(0);
                for word in words {
                    self.remark(
                        word.leaf,
                        Outcome::Dropped,
                        "a word behind the line of CMD-SHELL is $0, $1 and so on to the shell; write it into the line",
                    );
                }
                Some(Test::Shell(Some(first.leaf), line))
            }
            "CMD" | "CMD-SHELL" => {
                self.mistake(item, format!("{}: nothing to run after {}", item.path, first.value));
                None
            }
            _ if self.is_compose() => {
                self.mistake(item, format!("{}: the list has to begin with CMD, CMD-SHELL or NONE", item.path));
                None
            }
            // The engine knows no such test, says so in its log, and runs none.
            _ => {
                let reason = "a list that does not begin with CMD, CMD-SHELL or NONE is not a test to Docker's engine, \
                              which ran none";
                for word in words {
                    self.remark(word.leaf, Outcome::Dropped, reason);
                }
                self.remark(first.leaf, Outcome::Dropped, reason);
                Some(Test::Disabled(first.leaf))
            }
        }
    }
}
