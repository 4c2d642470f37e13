//! The borders between the parts: who may use whom, and which parts may name which dependency.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a part may use, besides [`OPEN`].
enum Uses {
    These(&'static [&'static str]),
    /// Every part above its own row, but these.
    AllAboveBut(&'static [&'static str]),
}
use Uses::{AllAboveBut, These};

/// Each part and what it may use, in reading order. Parts that do not exist yet have their rows too, so that they are
/// born with their borders.
const PARTS: &[(&str, Uses)] = &[
    // A program of its own, in a package of its own; nobody uses it, and it uses nobody.
    ("gpu_helper", These(&[])),
    ("base", These(&[])),
    ("telemetry", These(&[])),
    ("task", These(&[])),
    ("store", These(&["task"])),
    // Outgoing HTTP.
    ("fetch", These(&["task"])),
    // `fetch`: the keys of issuers.
    ("auth", These(&["task", "fetch"])),
    ("ingest", These(&[])),
    // `fetch`: models behind a URL.
    ("embed", These(&["task", "fetch"])),
    ("index", These(&["task"])),
    // Who may do what; what was done.
    ("policy", These(&["auth", "index"])),
    ("audit", These(&["store", "auth", "task"])),
    // The one way in. `index`: filters, which narrow what a call reaches.
    ("calls", These(&["auth", "policy", "audit", "index"])),
    // `index`: which language a document is in, which is told where its text is.
    ("extraction", These(&["ingest", "index", "task"])),
    ("collection", These(&["calls", "ingest", "extraction", "embed", "store", "index", "task"])),
    ("retrieval", These(&["calls", "collection", "index", "embed", "task"])),
    // `fetch`: buckets.
    ("snapshot", These(&["calls", "store", "collection", "fetch", "task"])),
    ("registry", These(&["store"])),
    // `task`: reporting progress to a slow client is a task of its own. `snapshot`: its tools.
    ("mcp", These(&["calls", "retrieval", "collection", "snapshot", "registry", "auth", "task"])),
    ("gateway", These(&["mcp", "calls", "registry", "auth", "fetch", "task"])),
    // What it reads of another node, `collection` copies: `Access::copy`.
    ("federation", These(&["calls", "store", "collection", "snapshot", "auth", "fetch", "task"])),
    ("deploy", These(&["snapshot", "fetch"])),
    // Off Docker Swarm: what it writes, `deploy` applies.
    ("migrate", These(&["deploy"])),
    ("operator", These(&["deploy", "registry", "fetch", "task"])),
    ("api", AllAboveBut(&["deploy", "migrate", "operator"])),
    ("config", AllAboveBut(&[])),
    ("app", AllAboveBut(&[])),
    ("cli", AllAboveBut(&[])),
];

/// Whether `part` may use `used`, another part.
fn may_use(part: &str, used: &str) -> bool {
    let place = |name: &str| PARTS.iter().position(|(known, _)| *known == name);
    let (Some(own), Some(other)) = (place(part), place(used)) else { return false };
    let named = match &PARTS[own].1 {
        These(parts) => parts.contains(&used),
        AllAboveBut(parts) => !parts.contains(&used),
    };
    other < own && (named || OPEN.contains(&used))
}

/// What every part may use.
const OPEN: &[&str] = &["base", "telemetry"];

/// Dependencies that every part may name: they have no state and no files, and what they do is done alike everywhere.
const EVERYWHERE: &[&str] = &["serde", "serde_json", "thiserror", "tracing", "parking_lot", "rustc_hash", "rustix"];

/// Every other dependency, and the parts that may name it, so that each can be replaced in one place. One without a row fails.
const ALLOWED_IN: &[(&str, &[&str])] = &[
    ("blake3", &["base", "store", "index", "snapshot", "auth", "deploy", "migrate"]),
    ("jiff", &["base", "deploy", "cli"]),
    ("getrandom", &["store", "fetch", "snapshot", "auth"]),
    ("tracing_subscriber", &["telemetry"]),
    ("prometheus_client", &["telemetry"]),
    // `store`: sled writes to it.
    ("log", &["telemetry", "store"]),
    // `store`: it announces positions to followers; it starts nothing and waits for nobody.
    (
        "tokio",
        &[
            "task",
            "store",
            "extraction",
            "index",
            "collection",
            "fetch",
            "snapshot",
            "mcp",
            "deploy",
            "api",
            "app",
            "cli",
        ],
    ),
    ("tokio_util", &["task", "mcp", "api"]),
    ("crossbeam_channel", &["task"]),
    ("crc32c", &["store"]),
    // `migrate`: archives and layers of container images, as for `flate2` and `tar`.
    ("zstd", &["store", "index", "migrate"]),
    ("half", &["store", "embed", "index", "collection", "gpu_helper"]),
    ("bytemuck", &["embed"]),
    ("numkong", &["embed", "index"]),
    ("unicode_normalization", &["ingest", "embed", "index"]),
    ("unicode_properties", &["embed"]),
    ("unicode_segmentation", &["index"]),
    ("frostem", &["index"]),
    ("whatlang", &["index"]),
    ("levenshtein_automata", &["index"]),
    ("tantivy_fst", &["index"]),
    ("memmap2", &["index"]),
    ("quick_cache", &["index", "collection", "retrieval", "mcp"]),
    ("arc_swap", &["index", "collection", "auth"]),
    ("libc", &["extraction", "index", "gpu_helper"]),
    ("mimalloc", &["main"]),
    ("futures_util", &["task", "collection", "snapshot", "api"]),
    ("async_trait", &["snapshot"]),
    ("bytes", &["fetch", "snapshot", "cli"]),
    ("http_body", &["fetch", "api"]),
    ("http_body_util", &["fetch", "snapshot", "deploy"]),
    ("hyper_util", &["fetch", "api"]),
    ("httpdate", &["fetch"]),
    ("ipnet", &["fetch"]),
    ("rustls_native_certs", &["fetch"]),
    ("webpki_roots", &["fetch"]),
    // The services that libraries take in place of a client of their own.
    ("tower_service", &["fetch", "deploy", "api"]),
    ("tower_layer", &["api"]),
    ("tower_http", &["api"]),
    ("age", &["snapshot"]),
    ("base64", &["auth", "mcp", "deploy", "migrate"]),
    // Of arguments and answers: the schemas of tools, those of REST, and that of the manifests' settings.
    ("schemars", &["mcp", "api", "deploy"]),
    ("multer", &["api"]),
    ("form_urlencoded", &["api"]),
    // `deploy`: the folders that a bundle takes documents from.
    ("ignore", &["deploy", "cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("sled", &["store"]),
    ("usearch", &["index"]),
    ("wgpu", &["gpu_helper"]),
    ("pollster", &["gpu_helper"]),
    ("seccompiler", &["gpu_helper", "extraction"]),
    ("landlock", &["extraction"]),
    ("postcard", &["extraction", "retrieval"]),
    ("tantivy", &["index"]),
    ("safetensors", &["embed"]),
    ("html5ever", &["ingest"]),
    ("hayro_syntax", &["ingest"]),
    ("hayro_font", &["ingest"]),
    ("hayro_cmap", &["ingest"]),
    ("skrifa", &["ingest"]),
    ("flate2", &["ingest", "migrate"]),
    ("weezl", &["ingest"]),
    ("pulldown_cmark", &["ingest"]),
    ("csv", &["ingest"]),
    ("chardetng", &["ingest"]),
    ("encoding_rs", &["ingest"]),
    ("mail_parser", &["ingest"]),
    ("memchr", &["deploy", "ingest", "retrieval"]),
    ("url", &["ingest", "fetch"]),
    ("serde_yaml", &["ingest", "deploy", "migrate"]),
    // With the place of each value, which the one above has not.
    ("granit_parser", &["migrate"]),
    // `operator`: the same types, for a client.
    ("k8s_openapi", &["deploy", "migrate", "operator"]),
    ("strsim", &["base"]),
    // The key of a kubeconfig.
    ("secrecy", &["deploy"]),
    ("kube", &["deploy", "operator"]),
    // The type of a request that the client passes on (deploy), and of its head as the protocol library hands it on (mcp).
    ("http", &["fetch", "deploy", "mcp", "cli"]),
    // The transports (sockets, pipes) are the API's; the protocol is mcp's.
    ("rmcp", &["mcp", "api"]),
    ("axum", &["api"]),
    ("hyper", &["fetch", "api"]),
    ("object_store", &["snapshot"]),
    ("quick_xml", &["snapshot"]),
    ("hyper_rustls", &["fetch"]),
    ("ring", &["snapshot", "auth", "deploy"]),
    ("rcgen", &["auth"]),
    ("rustls", &["fetch", "auth"]),
    ("tokio_rustls", &["api"]),
    ("tar", &["snapshot", "deploy", "migrate"]),
    ("minisign", &["deploy"]),
    ("systemd_journal_logger", &["telemetry"]),
    ("sd_notify", &["app"]),
    ("rpassword", &["cli"]),
    // `base`: settings as a tree with lines. `ingest`: front matter.
    ("toml", &["base", "config", "ingest"]),
    ("clap", &["cli"]),
    ("anyhow", &["app", "cli"]),
];

/// The files that may hold unsafe code; in all others the compiler refuses it (`unsafe_code` in Cargo.toml).
const UNSAFE: &[&str] = &[
    "base/prefetch.rs",
    "extraction/allocator.rs",
    "extraction/child.rs",
    "extraction/sandbox.rs",
    "gpu_helper/unchecked.rs",
    "index/gpu/process.rs",
    "index/vector/column.rs",
];

/// Program text of a part.
struct Part {
    name: String,
    files: Vec<(PathBuf, String)>,
}

fn parts() -> Vec<Part> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut parts: Vec<Part> = Vec::new();
    for file in files(&root) {
        let inside = file.strip_prefix(&root).expect("a file below src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let name = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
        // The crate's own root and the program only put the parts together.
        if name == "lib" || name == "main" {
            continue;
        }
        let code = code(&fs::read_to_string(&file).expect("readable"));
        match parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.files.push((file, code)),
            None => parts.push(Part { name, files: vec![(file, code)] }),
        }
    }
    parts
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Text without comments: a link in a comment is no use.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start() {
        comment if comment.starts_with("//") => "",
        _ => line.split_once(" // ").map_or(line, |(code, _)| code),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands first after each `crate::`, groups opened: `crate::{a::b, c}` names a and c.
fn used_parts(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (place, _) in code.match_indices("crate::") {
        let before = code[..place].chars().next_back();
        if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
            continue;
        }
        let rest = &code[place + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(group_heads(group)),
            None => used.extend(identifier(rest)),
        }
    }
    used
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// First names of the members of a `use` group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut at_head) = (Vec::new(), 0usize, true);
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            letter if at_head && !letter.is_whitespace() => {
                heads.extend(identifier(&group[place..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// Whether code names a crate in a path: `name::`, not within a longer name.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(place, _)| {
        let before = code[..place].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    })
}

#[test]
fn parts_use_only_what_stands_above_them() {
    let mut wrong = Vec::new();
    for part in parts() {
        if !PARTS.iter().any(|(name, _)| *name == part.name) {
            wrong.push(format!("{}: no row says what this part may use", part.name));
        }
        for (file, code) in &part.files {
            // Other names after `crate::` are macros and constants of the crate's root.
            let used = used_parts(code).into_iter().filter(|used| PARTS.iter().any(|(name, _)| name == used));
            wrong.extend(
                used.filter(|used| *used != part.name && !may_use(&part.name, used))
                    .map(|used| format!("{} uses {used} in {}", part.name, file.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_dependency_is_named_only_where_allowed() {
    let mut wrong = Vec::new();
    for part in parts() {
        for (name, parts) in ALLOWED_IN {
            let named = part.files.iter().filter(|(_, code)| names_crate(code, name));
            wrong.extend(
                named
                    .filter(|_| !parts.contains(&part.name.as_str()))
                    .map(|(file, _)| format!("{name} belongs to {parts:?}, named in {}", file.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_dependency_has_a_row() {
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("Cargo.toml");
    let helper: toml::Table = include_str!("../../src/gpu_helper/Cargo.toml").parse().expect("Cargo.toml");
    let names = |manifest: &toml::Table| -> BTreeSet<String> {
        manifest["dependencies"].as_table().expect("a table").keys().map(|name| name.replace('-', "_")).collect()
    };
    let known: BTreeSet<String> =
        ALLOWED_IN.iter().map(|(name, _)| *name).chain(EVERYWHERE.iter().copied()).map(str::to_owned).collect();
    assert_eq!(known.len(), ALLOWED_IN.len() + EVERYWHERE.len(), "a dependency has two rows");
    let all: BTreeSet<String> = names(&manifest).union(&names(&helper)).cloned().collect();
    let without: Vec<&String> = all.difference(&known).collect();
    let gone: Vec<&String> = known.difference(&all).collect();
    assert!(without.is_empty(), "no row says which parts may name {without:?}");
    assert!(gone.is_empty(), "rows of what is no dependency: {gone:?}");
}

/// How often `super::` is said in a row, beyond what the modules that are open at that place and the file's own stand for: more than that
/// leaves the part, where `crate::` has to be said.
fn leaves_part(code: &str, depth: usize) -> Option<usize> {
    let (mut braces, mut inner): (usize, Vec<usize>) = (0, Vec::new());
    for (number, line) in code.lines().enumerate() {
        let supers = line.match_indices("super::").filter(|(at, _)| !line[..*at].ends_with("super::"));
        let most = supers.map(|(at, _)| {
            let mut rest = &line[at..];
            let mut count = 0;
            while let Some(next) = rest.strip_prefix("super::") {
                (rest, count) = (next, count + 1);
            }
            // `pub(in super::super)`, `use super::super as`
            count
                + usize::from(rest.starts_with("super") && !rest[5..].starts_with(|next: char| next.is_alphanumeric()))
        });
        if most.max().is_some_and(|most| most >= depth + inner.len()) {
            return Some(number + 1);
        }
        let text = line.trim_start();
        let text = text.strip_prefix("pub(crate) ").or_else(|| text.strip_prefix("pub ")).unwrap_or(text);
        if text.starts_with("mod ") && line.trim_end().ends_with('{') {
            inner.push(braces);
        }
        for letter in line.chars() {
            match letter {
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if inner.last() == Some(&braces) {
                        inner.pop();
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[test]
fn no_part_is_left_by_super() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for part in parts() {
        for (file, code) in &part.files {
            let depth = file.strip_prefix(&root).expect("a file below src").iter().count();
            wrong.extend(leaves_part(code, depth).map(|line| format!("{}:{line}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "`super` leaves the part; name it by `crate::`:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = |file: &PathBuf| changes_lint(&fs::read_to_string(file).expect("readable"), "unsafe_code");
    let found: Vec<String> = files(&root)
        .iter()
        .filter(|file| allowed(file))
        .map(|file| file.strip_prefix(&root).expect("a file below src").display().to_string())
        .collect();
    assert_eq!(found, UNSAFE);
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("Cargo.toml");
    assert_eq!(manifest["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("deny"));
    let members = manifest["workspace"]["members"].as_array().expect("members").iter();
    let folders = members.map(|member| member.as_str().expect("a folder"));
    for folder in folders.chain(["."]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&path).expect("readable").parse().expect("a manifest");
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{}: [lints] workspace = true", path.display());
    }
}

/// Whether an attribute names a lint, alone or in a list: `allow(…)`, `expect(…)`, `cfg_attr(…, allow(…))` and the like.
fn changes_lint(text: &str, lint: &str) -> bool {
    let code = code(text);
    code.match_indices('#').any(|(at, _)| {
        let rest = code[at + 1..].trim_start_matches('!').trim_start();
        let Some(attribute) = rest.strip_prefix('[') else { return false };
        let mut depth = 1;
        let end = attribute.find(|letter: char| {
            depth += i32::from(letter == '[') - i32::from(letter == ']');
            depth == 0
        });
        attribute[..end.unwrap_or(attribute.len())]
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .any(|word| word == lint)
    })
}

#[test]
fn a_lint_is_seen_in_every_attribute_that_changes_it() {
    for text in [
        "#![allow(unsafe_code)]",
        "#[expect(unsafe_code, reason = \"it is [safe]\")]\nfn f() {}",
        "#[allow(\n    dead_code,\n    unsafe_code,\n)]",
        "#[cfg_attr(test, allow(unsafe_code))]",
        "#![ warn( unsafe_code ) ]",
    ] {
        assert!(changes_lint(text, "unsafe_code"), "{text}");
    }
    for text in
        ["// #![allow(unsafe_code)]", "let unsafe_code = 1;", "#[allow(unsafe_code_more)]\nfn f(unsafe_code: u8) {}"]
    {
        assert!(!changes_lint(text, "unsafe_code"), "{text}");
    }
}

/// Otherwise `make lint` checks every library twice, which takes minutes.
#[test]
fn the_fuzz_targets_are_built_of_the_same_libraries() {
    let (own, fuzz): (toml::Table, toml::Table) = (
        include_str!("../../Cargo.lock").parse().expect("Cargo.lock"),
        include_str!("../fuzz/Cargo.lock").parse().expect("Cargo.lock"),
    );
    let packages = |lock: &toml::Table| -> BTreeSet<String> {
        let packages = lock["package"].as_array().expect("packages").iter();
        packages.map(|package| format!("{} {}", package["name"], package["version"]).replace('"', "")).collect()
    };
    let (own, fuzz) = (packages(&own), packages(&fuzz));
    let of_fuzzing = ["arbitrary ", "cairn-fuzz ", "libfuzzer-sys "];
    let others: Vec<&String> =
        fuzz.difference(&own).filter(|package| of_fuzzing.iter().all(|name| !package.starts_with(name))).collect();
    assert!(
        others.is_empty(),
        "tests/fuzz/Cargo.lock names {others:?}, Cargo.lock does not: copy Cargo.lock to tests/fuzz/Cargo.lock, and run \
         `cargo metadata --manifest-path tests/fuzz/Cargo.toml`, which adds what only the fuzz targets need"
    );
    let release = |manifest: &str| -> toml::Table {
        let manifest: toml::Table = manifest.parse().expect("Cargo.toml");
        let mut release = manifest["profile"]["release"].as_table().expect("a profile").clone();
        // Debug assertions of Cairn's own code.
        release.remove("package");
        release
    };
    assert_eq!(
        release(include_str!("../../Cargo.toml")),
        release(include_str!("../fuzz/Cargo.toml")),
        "the profile `release` of tests/fuzz/Cargo.toml is that of Cargo.toml"
    );
}

#[test]
fn a_super_that_leaves_is_seen() {
    assert_eq!(leaves_part("use super::Lsn;", 1), Some(1), "out of src/part.rs");
    assert_eq!(leaves_part("use super::Lsn;", 2), None, "out of src/part/file.rs into the part");
    assert_eq!(leaves_part("\nuse super::super::Lsn;", 2), Some(2));
    assert_eq!(leaves_part("mod tests {\n    use super::super::x;\n}", 2), None);
    assert_eq!(leaves_part("mod tests {\n    use super::super::super::x;\n}", 2), Some(2));
    assert_eq!(leaves_part("mod tests {\n}\nuse super::super::x;", 2), Some(3));
    assert_eq!(leaves_part("pub(in super::super) fn f() {}", 2), Some(1));
    assert_eq!(leaves_part("fn f() { if a { super::b() } }", 2), None);
}

#[test]
fn the_table_is_read_as_it_is_meant() {
    for (part, used, allowed) in [
        ("store", "task", true),
        ("store", "base", true),
        ("telemetry", "base", true),
        ("base", "telemetry", false),
        ("store", "index", false),
        ("mcp", "store", false),
        ("api", "store", true),
        ("api", "deploy", false),
        ("cli", "app", true),
        ("app", "cli", false),
    ] {
        assert_eq!(may_use(part, used), allowed, "{part} using {used}");
    }
}

#[test]
fn uses_are_seen_in_every_form() {
    let text = "use crate::store::{Lsn, Log};\nuse crate::{index::{self, vector}, task};\nlet x = crate::embed::load();\n\
                // crate::cli\n    //! [`crate::app`]\nlet y = 1; // crate::api\nother_crate::mcp::x();\npub(crate) fn f() {}";
    let used: Vec<String> = used_parts(&code(text)).into_iter().collect();
    assert_eq!(used, ["embed", "index", "store", "task"]);
    assert!(names_crate("let a = sled::open(p);", "sled"));
    assert!(!names_crate("assled::open(); my::sled::open();", "sled"));
}

/// The modules of `cairn install`, each of which may use those before it.
const INSTALL: &[&str] = &[
    "arguments",
    "choices",
    "machine",
    "lasting",
    "staged",
    "prepared",
    "connection",
    "service",
    "pod",
    "bundle",
    "show",
];

#[test]
fn an_installation_is_a_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/install");
    let place = |name: &str| INSTALL.iter().position(|known| *known == name);
    let mut wrong = Vec::new();
    for file in files(&folder) {
        let inside = file.strip_prefix(&folder).expect("a file below the folder");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let name = first.strip_suffix(".rs").unwrap_or(&first);
        let Some(own) = place(name) else {
            wrong.push(format!("{name} has no place in the line"));
            continue;
        };
        let code = code(&fs::read_to_string(&file).expect("readable"));
        // What is in a folder belongs to its module.
        let is_module = inside.iter().count() == 1;
        let start = if is_module { "super::" } else { "crate::cli::install::" };
        for (at, _) in code.match_indices(start) {
            let used = identifier(&code[at + start.len()..]).unwrap_or_default();
            if place(&used).is_some_and(|other| other >= own) {
                wrong.push(format!("{name} uses {used}, which is not before it"));
            }
        }
        if is_module && code.contains("use super::{") {
            wrong.push(format!("{name} uses the verbs themselves"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
