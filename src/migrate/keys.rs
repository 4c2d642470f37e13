//! The table of keys: what becomes of each key that a stack file or a Compose file may have.
//!
//! The table is `keys.tsv`, whose columns are those of [`Key`]. In a path `*` is any key of a map, `[]` any item of a list, and `**` at its end
//! the key before it with all that is below.
//!
//! Invariants: each leaf of the Compose Specification's schema and of Docker's has a row. A fate is the usual one; where a value asks for more
//! than Kubernetes has, what becomes of that value is worse.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::LazyLock;

use serde::Serialize;

use super::leaf::{Path, Segment};
use super::{Dialect, Outcome};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The objects do what it says.
    Converted,
    /// The objects do something like it.
    Approximated,
    /// A person has to decide or to provide something.
    NeedsInput,
    /// Nothing in the objects says it.
    Dropped,
    /// Docker reads the file and ignores the key, and so does Cairn.
    Ignored,
    /// Docker refuses the file, and so does Cairn.
    Refused,
}

impl Fate {
    /// What the report has of it. What is refused has not got into a report at all.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Converted => Outcome::Converted,
            Self::Approximated => Outcome::Approximated,
            Self::NeedsInput => Outcome::NeedsInput,
            Self::Dropped | Self::Ignored | Self::Refused => Outcome::Dropped,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converted => "converted",
            Self::Approximated => "approximated",
            Self::NeedsInput => "needs input",
            Self::Dropped => "dropped",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        })
    }
}

impl FromStr for Fate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "converted" => Self::Converted,
            "approximated" => Self::Approximated,
            "needs_input" => Self::NeedsInput,
            "dropped" => Self::Dropped,
            "ignored" => Self::Ignored,
            "refused" => Self::Refused,
            _ => return Err(()),
        })
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Such as `services.*.ports[].target`.
    pub path: &'static str,
    /// In a file for `docker stack deploy`.
    pub stack: Fate,
    /// In a file for `docker compose`.
    pub compose: Fate,
    /// The field of Kubernetes, or the kind of object; nothing where there is none.
    pub target: &'static str,
    /// Why, where the fate is not a good one; a sentence for the report.
    pub note: &'static str,
}

/// A field whose name begins with `x-`.
static OF_THE_USER: Key = Key {
    path: "x-**",
    stack: Fate::Converted,
    compose: Fate::Converted,
    target: "",
    note: "A field of your own: Docker reads nothing from it. What anchors repeat of it is reported where it is used.",
};
/// A list or a map without anything in it, or a null, where the schemas have more.
static EMPTY: Key = Key {
    path: "",
    stack: Fate::Converted,
    compose: Fate::Converted,
    target: "",
    note: "It is empty, which says the same as leaving it out.",
};

const IGNORED_BY_STACK: &str = "`docker stack deploy` ignores it, so the service never had it.";
const IGNORED_BY_COMPOSE: &str = "`docker compose` ignores it, so the service never had it.";
const REFUSED_BY_STACK: &str = "`docker stack deploy` refuses a file that has it.";
const REFUSED_BY_COMPOSE: &str = "`docker compose` refuses a file that has it.";

impl Key {
    /// What becomes of it.
    #[must_use]
    pub fn fate(&self, dialect: Dialect) -> Fate {
        match dialect {
            Dialect::Stack => self.stack,
            Dialect::Compose => self.compose,
        }
    }

    /// Why. Never empty, unless it is converted.
    #[must_use]
    pub fn reason(&self, dialect: Dialect) -> &'static str {
        match (self.fate(dialect), dialect) {
            (Fate::Ignored, Dialect::Stack) => IGNORED_BY_STACK,
            (Fate::Ignored, Dialect::Compose) => IGNORED_BY_COMPOSE,
            (Fate::Refused, Dialect::Stack) => REFUSED_BY_STACK,
            (Fate::Refused, Dialect::Compose) => REFUSED_BY_COMPOSE,
            _ => self.note,
        }
    }

    /// The steps of its path: keys, `*`, `[]` and `**`.
    pub(super) fn steps(&self) -> impl Iterator<Item = &'static str> {
        steps(self.path)
    }
}

/// The steps of a pattern: `a.b[].c` has `a`, `b`, `[]` and `c`.
fn steps(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('.').filter(|part| !part.is_empty()).flat_map(|part| {
        let name = part.trim_end_matches("[]");
        let items = (part.len() - name.len()) / 2;
        Some(name).filter(|name| !name.is_empty()).into_iter().chain(std::iter::repeat_n("[]", items))
    })
}

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| include_str!("keys.tsv").lines().map(row).collect());

fn row(line: &'static str) -> Key {
    let mut columns = line.split('\t');
    let mut column = || columns.next().expect("a test reads the table");
    Key {
        path: column(),
        stack: column().parse().expect("a test reads the table"),
        compose: column().parse().expect("a test reads the table"),
        target: column(),
        note: column(),
    }
}

/// All rows, sorted by path.
#[must_use]
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// A node of the tree of all rows.
#[derive(Default)]
struct Branch {
    below: HashMap<&'static str, Branch>,
    /// The row that ends here.
    row: Option<usize>,
    /// The row of all that is here and below.
    whole: Option<usize>,
}

static TREE: LazyLock<Branch> = LazyLock::new(|| {
    let mut root = Branch::default();
    for (number, key) in keys().iter().enumerate() {
        let (mut branch, mut is_whole) = (&mut root, false);
        for step in key.steps() {
            match step {
                "**" => is_whole = true,
                _ => branch = branch.below.entry(step).or_default(),
            }
        }
        *(if is_whole { &mut branch.whole } else { &mut branch.row }) = Some(number);
    }
    root
});

/// The row of a leaf. A field of the user's own (`x-…`), and a list or a map with nothing in it, have rows that are not in the table.
#[must_use]
pub fn key_of(path: &Path) -> Option<&'static Key> {
    let mut branch = &*TREE;
    let mut whole = None;
    for segment in &path.0 {
        let next = match segment {
            Segment::Index(_) => branch.below.get("[]"),
            Segment::Key(key) => branch.below.get(key.as_str()).or_else(|| branch.below.get("*")),
        };
        let Some(next) = next else {
            let is_own = matches!(segment, Segment::Key(key) if key.starts_with("x-"));
            return whole.or(is_own.then_some(&OF_THE_USER));
        };
        branch = next;
        whole = branch.whole.map(|number| &keys()[number]).or(whole);
    }
    let row = branch.row.map(|number| &keys()[number]);
    row.or(whole).or((!branch.below.is_empty()).then_some(&EMPTY))
}

/// Whether a program knows a key at a place.
pub(super) fn is_known(path: &Path, dialect: Dialect) -> bool {
    fn any(branch: &Branch, dialect: Dialect) -> bool {
        let rows = [branch.row, branch.whole];
        rows.into_iter().flatten().any(|number| keys()[number].fate(dialect) != Fate::Refused)
            || branch.below.values().any(|below| any(below, dialect))
    }
    let mut branch = &*TREE;
    for segment in &path.0 {
        let next = match segment {
            Segment::Index(_) => branch.below.get("[]"),
            Segment::Key(key) => branch.below.get(key.as_str()).or_else(|| branch.below.get("*")),
        };
        match next {
            Some(next) => branch = next,
            None => return branch.whole.is_some_and(|number| keys()[number].fate(dialect) != Fate::Refused),
        }
    }
    any(branch, dialect)
}

/// The rows that a text finds: part of a path, or keys in it with the names of the user's own (`services.web.ports`).
#[must_use]
pub fn matching(text: &str) -> Vec<&'static Key> {
    let text = text.trim().to_lowercase();
    let wanted: Vec<&str> = steps(&text).collect();
    let has = |key: &Key| {
        let have: Vec<&str> = key.steps().collect();
        key.path.contains(&text) || (0..have.len()).any(|start| is_prefix(&wanted, &have[start..]))
    };
    keys().iter().filter(|key| has(key)).collect()
}

/// Whether steps are the first ones of a row's. A name of the user's own counts only after a key, or else any name would be a service's.
fn is_prefix(wanted: &[&str], have: &[&str]) -> bool {
    let Some(first) = have.first().filter(|first| !["*", "[]", "**"].contains(first)) else { return false };
    if wanted.first() != Some(first) {
        return false;
    }
    for (place, step) in wanted.iter().enumerate() {
        match have.get(place) {
            Some(&"**") => return true,
            Some(&"*") if *step != "[]" => {}
            Some(other) if other == step => {}
            _ => return false,
        }
    }
    true
}

/// The table for the documentation, in sections.
#[must_use]
pub fn markdown() -> String {
    let sections: [(&str, &[&str]); 5] = [
        ("The file", &["version", "name", "include", "jobs", "models"]),
        ("Services", &["services"]),
        ("Networks", &["networks"]),
        ("Volumes", &["volumes"]),
        ("Configs and secrets", &["configs", "secrets"]),
    ];
    let mut text = String::new();
    for (title, roots) in sections {
        let _ = writeln!(text, "### {title}\n");
        text.push_str("| Key | Stack file | Compose file | Becomes | Note |\n|---|---|---|---|---|\n");
        let is_here = |key: &&Key| key.steps().next().is_some_and(|root| roots.contains(&root));
        for key in keys().iter().filter(is_here) {
            let target = if key.target.is_empty() { String::new() } else { format!("`{}`", cell(key.target)) };
            let (path, note) = (cell(key.path), cell(key.note));
            let _ = writeln!(text, "| `{path}` | {} | {} | {target} | {note} |", key.stack, key.compose);
        }
        text.push('\n');
    }
    text
}

/// Text of a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Keys of older formats, which neither schema has: 2.x `volume_driver`, and what files without `version` had.
    const OLDER: [&str; 5] = [
        "services.*.dockerfile",
        "services.*.log_driver",
        "services.*.log_opt.**",
        "services.*.net",
        "services.*.volume_driver",
    ];

    fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
        schema.get(key).and_then(Value::as_array).into_iter().flatten()
    }

    fn map<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        schema.get(key).and_then(Value::as_object).into_iter().flatten()
    }

    /// The paths at which a schema has something that is not a list or a map.
    fn leaves(root: &Value, schema: &Value, path: &str, into: &mut BTreeSet<String>) {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = root.pointer(reference.trim_start_matches('#')).expect("the schema has what it names");
            return leaves(root, target, path, into);
        }
        let mut has_more = false;
        for alternative in ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|key| list(schema, key)) {
            if alternative.get("type").or(alternative.get("$ref")).is_some() {
                has_more = true;
                leaves(root, alternative, path, into);
            }
        }
        let dot = if path.is_empty() { "" } else { "." };
        for (name, below) in map(schema, "properties") {
            has_more = true;
            leaves(root, below, &format!("{path}{dot}{name}"), into);
        }
        for (_, below) in map(schema, "patternProperties").filter(|(pattern, _)| *pattern != "^x-") {
            has_more = true;
            leaves(root, below, &format!("{path}{dot}*"), into);
        }
        if let Some(below) = schema.get("items") {
            has_more = true;
            leaves(root, below, &format!("{path}[]"), into);
        }
        let types: Vec<&Value> = match schema.get("type") {
            Some(Value::Array(types)) => types.iter().collect(),
            Some(one) => vec![one],
            None => vec![],
        };
        if !has_more || types.iter().any(|kind| *kind != "object" && *kind != "array") {
            into.insert(path.to_owned());
        }
    }

    fn all_leaves() -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for text in [include_str!("schema/compose-spec.json"), include_str!("schema/config_schema_v3.13.json")] {
            let root: Value = serde_json::from_str(text).expect("JSON");
            leaves(&root, &root, "", &mut all);
        }
        all
    }

    /// A path of the input that a pattern describes.
    fn path_of(pattern: &str) -> Path {
        let segment = |step: &str| match step {
            "[]" => Segment::Index(3),
            "*" => Segment::Key("some-name".to_owned()),
            key => Segment::Key(key.to_owned()),
        };
        Path(steps(pattern).map(segment).collect())
    }

    #[test]
    fn each_leaf_of_both_schemas_has_a_row_and_each_row_is_such_a_leaf() {
        let mut unused: BTreeSet<&str> = keys().iter().map(|key| key.path).collect();
        let all = all_leaves();
        assert_eq!(all.len(), 745);
        for leaf in &all {
            let key = key_of(&path_of(leaf)).unwrap_or_else(|| panic!("{leaf} has no row"));
            let covers = key.path.strip_suffix(".**").is_some_and(|whole| leaf.starts_with(whole));
            assert!(key.path == leaf || covers, "{leaf} has the row {}", key.path);
            unused.remove(key.path);
        }
        assert_eq!(unused, BTreeSet::from(OLDER));
    }

    #[test]
    fn the_table_is_sorted_and_says_why() {
        for line in include_str!("keys.tsv").lines() {
            assert_eq!(line.split('\t').count(), 5, "{line}");
        }
        assert!(keys().is_sorted_by(|one, other| one.path < other.path));
        for key in keys().iter().chain([&OF_THE_USER, &EMPTY]) {
            for dialect in [Dialect::Stack, Dialect::Compose] {
                let is_good = key.fate(dialect) == Fate::Converted;
                assert!(is_good || !key.reason(dialect).is_empty(), "{} needs a note", key.path);
            }
            assert!(key.note.is_empty() || key.note.ends_with('.'), "{}", key.path);
            let has_target = !matches!(key.stack, Fate::Converted | Fate::Approximated | Fate::NeedsInput)
                && !matches!(key.compose, Fate::Converted | Fate::Approximated | Fate::NeedsInput);
            assert!(!has_target || key.target.is_empty(), "{} goes nowhere", key.path);
        }
    }

    /// `UnsupportedProperties`, `DeprecatedProperties` and `ForbiddenProperties` of docker/cli 29.9.3, `cli/compose/types/types.go`; `depends_on`
    /// is in none, and is read by nothing. Two are used all the same: `restart` is the policy where `deploy` has none
    /// (`cli/compose/convert/service.go`).
    #[test]
    fn what_docker_stack_deploy_ignores_or_forbids_has_that_fate() {
        let stack = |name: &str| key_of(&path_of(&format!("services.*.{name}"))).expect("a row").stack;
        for name in [
            "build",
            "cgroupns_mode",
            "cgroup_parent",
            "devices[]",
            "domainname",
            "external_links[]",
            "ipc",
            "links[]",
            "mac_address",
            "network_mode",
            "pid",
            "privileged",
            "security_opt[]",
            "shm_size",
            "userns_mode",
            "container_name",
            "expose[]",
            "depends_on[]",
        ] {
            assert_eq!(stack(name), Fate::Ignored, "{name}");
        }
        assert_eq!(stack("restart"), Fate::Converted);
        for name in [
            "extends",
            "volume_driver",
            "volumes_from[]",
            "cpu_quota",
            "cpu_shares",
            "cpuset",
            "mem_limit",
            "memswap_limit",
        ] {
            assert_eq!(stack(name), Fate::Refused, "{name}");
        }
    }

    #[test]
    fn a_leaf_finds_its_row() {
        let path = |path: &str| key_of(&path_of(path)).map(|key| key.path);
        assert_eq!(path("services.web.ports[].target"), Some("services.*.ports[].target"));
        assert_eq!(path("services.web.build"), Some("services.*.build.**"));
        assert_eq!(path("services.web.build.args.A"), Some("services.*.build.**"));
        assert_eq!(path("services.web.pre_start[].image"), Some("services.*.pre_start[].**"));
        assert_eq!(path("services.web.labels.x-own"), Some("services.*.labels.*"));
        assert_eq!(path("services.x-web.image"), Some("services.*.image"));
        assert_eq!(path("x-common.image"), Some("x-**"));
        assert_eq!(path("services.web.deploy.x-own[].a"), Some("x-**"));
        assert_eq!(path("volumes.data.x-cluster-spec.group"), Some("volumes.*.x-cluster-spec.**"));
        assert_eq!(path("services.web.deploy.resources"), Some(""));
        assert_eq!(path("networks.front"), Some("networks.*"));
        assert_eq!(path("services.web.nothing"), None);
        assert_eq!(path("services.web.image.more"), None);
        assert_eq!(path("nothing"), None);
    }

    #[test]
    fn rows_are_found_by_part_of_their_path() {
        let paths = |text: &str| matching(text).iter().map(|key| key.path).collect::<Vec<_>>();
        assert_eq!(paths("stop_"), ["services.*.stop_grace_period", "services.*.stop_signal"]);
        assert_eq!(paths("services.web.tty"), ["services.*.tty"]);
        assert_eq!(paths("build.args"), ["services.*.build.**"]);
        assert_eq!(paths("Placement.Constraints"), ["services.*.deploy.placement.constraints[]"]);
        assert_eq!(paths("healthcheck.test"), ["services.*.healthcheck.test", "services.*.healthcheck.test[]"]);
        assert_eq!(matching("").len(), keys().len());
        assert!(paths("nothing-like-it").is_empty());
    }

    #[test]
    fn the_documentation_has_each_row_once() {
        let text = markdown();
        for key in keys() {
            assert_eq!(text.matches(&format!("| `{}` |", key.path)).count(), 1, "{}", key.path);
        }
        let is_whole = |line: &&str| line.starts_with('|') && line.replace("\\|", "").matches('|').count() != 6;
        assert_eq!(text.lines().find(is_whole), None);
    }
}
