//! Plain English: the word list of CONTRIBUTING.md, held in messages, log lines, `--help`, the manual, comments and format
//! descriptions; and names in code that a search can find.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{CAIRN, clean, stdout};

/// Words that the list replaces, each with what it may be a part of.
const REPLACED: &[(&str, &[&str])] = &[
    (" is no ", &["there is no ", "There is no ", " is no longer ", " is no more ", " is no faster"]),
    (" are no ", &["there are no ", "There are no ", " are no collections yet", " are no longer ", " are no faster"]),
    ("whoever", &[]),
    ("Whoever", &[]),
    (" tells ", &[]),
    ("by itself", &[]),
    ("by themselves", &[]),
    ("taken back", &[]),
    ("takes back", &[]),
    ("taking back", &[]),
    ("take back", &[]),
    (" goes on", &[]),
    (" go on", &[]),
    (" anew", &["--begin-anew", "begin_anew"]),
    ("stands in the way", &[]),
    ("in step", &["in steps"]),
];

/// Words that comments and format descriptions replace in addition.
const REPLACED_IN_COMMENTS: &[(&str, &[&str])] = &[
    (" beside ", &[]),
    (" stands for ", &[]),
    (" stands in ", &[]),
    (" it is said", &[]),
    ("What the system said", &[]),
    ("who can mend it", &[]),
    ("Who can mend it", &[]),
];

/// Names in code that say nothing, have several meanings, or cannot be searched for; CONTRIBUTING.md says what to use.
const BANNED_TYPES: &[&str] = &[
    "Ahead", "Asked", "Asking", "Desk", "Door", "Doors", "Front", "Given", "Guard", "Held", "Kept", "Known", "Mending",
    "Place", "Prepared", "Question", "Reading", "Seen", "Shown", "Told", "Turn", "Turns", "Wanted", "Weigh", "What",
    "Wish",
];
const BANNED_FUNCTIONS: &[&str] = &[
    "asked", "given", "goes", "held", "hold", "keep", "keeps", "kept", "known", "look", "looks", "meant", "own", "put",
    "said", "say", "says", "see", "seen", "settle", "settled", "shown", "take", "taken", "takes", "tell", "tells",
    "told",
];
const BANNED_MODULES: &[&str] = &["door", "doors", "front", "guard", "look", "near", "place", "turns"];

/// Names above that stay, with the file and the reason.
const NAMES_THAT_STAY: &[(&str, &str, &str)] = &[
    ("put", "src/snapshot/bucket.rs", "the operation of an object store"),
    ("put", "src/store/update.rs", "the operation of a key-value store"),
    ("put", "src/gpu_helper/search.rs", "writes words into a buffer, as in `bytes::BufMut`"),
    ("take", "src/store/record.rs", "consumes bytes, as in a parser's cursor"),
    ("take", "src/gpu_helper/protocol.rs", "consumes bytes, as in a parser's cursor"),
    ("take", "src/base/setting.rs", "consumes a value, as serde's visitors do"),
];

/// The replaced words in a text.
fn found(text: &str) -> Vec<&'static str> {
    found_of(REPLACED, text)
}

fn found_of(replaced: &[(&'static str, &[&str])], text: &str) -> Vec<&'static str> {
    let spaced = format!(" {} ", text.replace('\n', " "));
    let stands_alone = |word: &str, parts: &[&str]| {
        let count = |part: &str| spaced.matches(part).count();
        count(word) > parts.iter().map(|part| count(part)).sum()
    };
    replaced.iter().filter(|(word, parts)| stands_alone(word, parts)).map(|(word, _)| *word).collect()
}

fn files(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

fn is_of_tests(file: &Path) -> bool {
    file.ends_with("tests.rs")
        || file.to_string_lossy().ends_with("_test.rs")
        || file.iter().any(|part| part == "tests")
}

/// The texts of a program, without those of its tests and of attributes for the compiler.
fn texts(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code);
    let (mut texts, mut letters) = (Vec::new(), code.char_indices().peekable());
    while let Some((at, letter)) = letters.next() {
        let rest = &code[at..];
        if rest.starts_with("//") {
            while letters.next_if(|(_, letter)| *letter != '\n').is_some() {}
        } else if rest.starts_with("#[expect(") || rest.starts_with(".expect(") || rest.starts_with("expect_err(") {
            while letters.next_if(|(_, letter)| *letter != '\n').is_some() {}
        } else if letter == '\'' {
            // A letter, or a lifetime.
            let escaped = letters.next_if(|(_, letter)| *letter == '\\').is_some();
            let _ = letters.next();
            if escaped || letters.peek().is_some_and(|(_, letter)| *letter == '\'') {
                while letters.next().is_some_and(|(_, letter)| letter != '\'') {}
            }
        } else if letter == '"' {
            let mut text = String::new();
            while let Some((_, letter)) = letters.next().filter(|(_, letter)| *letter != '"') {
                text.push(letter);
                if letter == '\\' {
                    text.pop();
                    let _ = letters.next();
                    // A line that continues.
                    while letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
                    text.push(' ');
                }
            }
            texts.push(text);
        }
    }
    texts
}

#[test]
fn messages_are_plain_english() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let mut wrong = Vec::new();
    for file in all.iter().filter(|file| !is_of_tests(file)) {
        for text in texts(&fs::read_to_string(file).expect("readable")) {
            wrong.extend(found(&text).into_iter().map(|word| format!("{}: '{word}' in {text:?}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md has other words for these:\n{}", wrong.join("\n"));
}

/// What a page says in its own words: without fenced blocks and code spans, which show output, options and names.
fn prose(page: &str) -> String {
    let outside: Vec<&str> = page.split("```").step_by(2).collect();
    let words: Vec<&str> = outside.iter().flat_map(|part| part.split('`').step_by(2)).collect();
    words.join("` `")
}

#[test]
fn the_manual_is_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_manual = fs::read_dir(root.join("docs")).expect("readable").map(|entry| entry.expect("readable").path());
    let mut pages: Vec<PathBuf> = of_manual.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    assert!(pages.len() > 20, "{} pages", pages.len());
    pages.extend(["README.md", "ARCHITECTURE.md"].map(|name| root.join(name)));
    pages.extend(["store", "snapshot"].map(|part| root.join("src").join(part).join("FORMAT.md")));
    let unreleased = |page: &str| {
        let versions = page
            .split("\n## [")
            .filter(|version| version.lines().next().is_some_and(|line| line.ends_with("unreleased")));
        versions.collect::<String>()
    };
    let changes = unreleased(&fs::read_to_string(root.join("CHANGELOG.md")).expect("readable"));
    assert!(changes.len() > 1_000, "{changes}");
    let rules = fs::read_to_string(root.join("CONTRIBUTING.md")).expect("readable");
    // Without the table of words itself.
    let rules: String = rules.lines().filter(|line| !line.starts_with('|')).map(|line| format!("{line}\n")).collect();
    let mut wrong = Vec::new();
    for (page, text) in [("CHANGELOG.md", changes), ("CONTRIBUTING.md", rules)] {
        wrong.extend(found(&prose(&text)).into_iter().map(|word| format!("{page}: '{word}'")));
    }
    for page in pages {
        let text = prose(&fs::read_to_string(&page).expect("readable"));
        wrong.extend(found(&text).into_iter().map(|word| format!("{}: '{word}'", page.display())));
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md has other words for these:\n{}", wrong.join("\n"));
}

/// The comments of a program: consecutive lines as one text, without code spans and blocks.
fn comments(code: &str) -> Vec<(usize, String)> {
    let mut texts: Vec<(usize, String)> = Vec::new();
    let mut follows = false;
    for (index, line) in code.lines().enumerate() {
        let line = line.trim_start();
        let text = ["///", "//!", "//"].iter().find_map(|mark| line.strip_prefix(mark));
        match (text, texts.last_mut()) {
            (Some(text), Some((_, last))) if follows => {
                last.push('\n');
                last.push_str(text.trim_start());
            }
            (Some(text), _) => texts.push((index + 1, text.trim_start().to_owned())),
            (None, _) => {}
        }
        follows = text.is_some();
    }
    texts.into_iter().map(|(line, text)| (line, prose(&text))).collect()
}

/// The files of the program, with their path below the repository.
fn program_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    files(&root.join("src"), &mut all);
    all.iter()
        .map(|file| {
            let path = file.strip_prefix(root).expect("below the repository").to_str().expect("UTF-8").to_owned();
            (path, fs::read_to_string(file).expect("readable"))
        })
        .collect()
}

#[test]
fn comments_are_plain_english() {
    let read = program_files();
    assert!(read.len() > 200, "{} files", read.len());
    let mut wrong = Vec::new();
    for (path, code) in read {
        for (line, text) in comments(&code) {
            let all = found(&text).into_iter().chain(found_of(REPLACED_IN_COMMENTS, &text));
            wrong.extend(all.map(|word| format!("{path}:{line}: '{word}'")));
        }
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md has other words for these:\n{}", wrong.join("\n"));
}

/// Files whose doc comments are the descriptions that clients get, in which code spans would be markup.
const DESCRIPTIONS: &[&str] = &["src/mcp/answers.rs", "src/mcp/arguments.rs"];

/// Words with underscores: names in code, which belong into code spans. Elsewhere a rename left them, in a sentence that
/// was about the thing and not about its name. Targets of links, and keys after a dot, are names.
fn names_in(text: &str) -> Vec<String> {
    let mut without_links = String::new();
    for (index, part) in text.split("](").enumerate() {
        without_links.push_str(if index == 0 { part } else { part.split_once(')').map_or("", |(_, rest)| rest) });
    }
    let is_of_name = |letter: char| letter.is_alphanumeric() || ['_', '.', '/', ':', '-'].contains(&letter);
    without_links
        .split(|letter: char| !is_of_name(letter))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter(|word| {
            let parts: Vec<&str> = word.split('_').collect();
            let is_lower = |part: &&str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_lowercase());
            parts.len() > 1 && parts.iter().all(is_lower)
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn names_in_comments_are_in_code_spans() {
    let mut wrong = Vec::new();
    for (path, code) in program_files() {
        if DESCRIPTIONS.contains(&path.as_str()) {
            continue;
        }
        for (line, text) in comments(&code) {
            wrong.extend(names_in(&text).into_iter().map(|name| format!("{path}:{line}: {name}")));
        }
    }
    assert!(wrong.is_empty(), "a name of code belongs into a code span; a word does not:\n{}", wrong.join("\n"));
    assert_eq!(names_in("the last_record, [one](two_three) and vm.memfd_noexec; held_by."), ["last_record", "held_by"]);
}

/// The names that a program defines: (`fn`, `type` or `mod`, name).
fn defined(code: &str) -> Vec<(&'static str, &str)> {
    let mut names = Vec::new();
    for line in code.lines() {
        let mut words = line.split_whitespace().peekable();
        while words
            .next_if(|word| word.starts_with("pub") || ["const", "async", "unsafe", "in"].contains(word))
            .is_some()
        {}
        let sort = match words.next() {
            Some("fn") => "fn",
            Some("struct" | "enum" | "trait" | "type" | "union") => "type",
            Some("mod") => "mod",
            _ => continue,
        };
        let name = words.next().unwrap_or_default();
        let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
        names.push((sort, &name[..end]));
    }
    names
}

#[test]
fn names_can_be_searched_for() {
    let read = program_files();
    let is_banned = |(sort, name): &(&str, &str)| match *sort {
        "fn" => BANNED_FUNCTIONS.contains(name),
        "type" => BANNED_TYPES.contains(name),
        _ => BANNED_MODULES.contains(name),
    };
    let stays = |path: &str, name: &str| NAMES_THAT_STAY.iter().any(|(stay, file, _)| *stay == name && path == *file);
    let mut wrong = Vec::new();
    for (path, code) in read.iter().filter(|(path, _)| !is_of_tests(Path::new(path))) {
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code);
        let banned = defined(code).into_iter().filter(is_banned).filter(|(_, name)| !stays(path, name));
        wrong.extend(banned.map(|(sort, name)| format!("{path}: {sort} {name}")));
    }
    assert!(wrong.is_empty(), "use the field's term for these, see CONTRIBUTING.md:\n{}", wrong.join("\n"));
    for (name, file, _) in NAMES_THAT_STAY {
        let code = read.iter().find(|(path, _)| path == file).map_or("", |(_, code)| code);
        assert!(defined(code).iter().any(|(_, defined)| defined == name), "{file} has no {name} any more");
    }
}

#[test]
fn help_is_plain_english() {
    let help = |arguments: &[&str]| {
        let output = clean(Command::new(CAIRN)).args(arguments).arg("--help").output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}");
        stdout(&output)
    };
    let verbs = |text: &str| -> Vec<String> {
        let commands = text.split("Commands:\n").nth(1).unwrap_or_default();
        let lines = commands.lines().take_while(|line| line.starts_with("  "));
        let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(str::to_owned).collect()
    };
    let main = help(&[]);
    let mut pages = vec![("cairn".to_owned(), main.clone())];
    for verb in verbs(&main) {
        let page = help(&[&verb]);
        for inner in verbs(&page) {
            pages.push((format!("cairn {verb} {inner}"), help(&[&verb, &inner])));
        }
        pages.push((format!("cairn {verb}"), page));
    }
    assert!(pages.len() > 30, "{} pages", pages.len());
    let wrong: Vec<String> = pages
        .iter()
        .flat_map(|(name, page)| found(page).into_iter().map(move |word| format!("{name}: '{word}'")))
        .collect();
    assert!(wrong.is_empty(), "CONTRIBUTING.md has other words for these:\n{}", wrong.join("\n"));
}

#[test]
fn words_are_found_and_parts_of_others_are_not() {
    assert_eq!(found("this is no file"), [" is no "]);
    assert_eq!(found("there is no file, and it is no longer there"), Vec::<&str>::new());
    assert_eq!(found("there is no file; it is no file"), [" is no "]);
    assert_eq!(found("it is rebuilt by itself"), ["by itself"]);
    assert_eq!(prose("a `b` c\n```\nd\n```\ne"), "a ` ` c\n` `\ne");
    assert_eq!(
        comments("/// one\n//  two `three`\nlet a = 1; // four\n// five"),
        [(1, "one\ntwo ` `".to_owned()), (4, "five".to_owned())]
    );
    assert_eq!(
        defined("pub(super) async fn tell(a: u8) {\n    struct Told;\nlet fn_name = 1;\npub mod turns;"),
        [("fn", "tell"), ("type", "Told"), ("mod", "turns")]
    );
    let code = "let a = 'x'; // \"is no text\"\nlet b: &'static str = \"one \\\n    two\"; f(\"three\");";
    assert_eq!(texts(code), ["one  two", "three"]);
}
