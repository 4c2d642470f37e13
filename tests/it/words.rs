//! What users read is plain English: the word list of CONTRIBUTING.md, held in messages, log lines, `--help` and the manual.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{CAIRN, clean, stdout};

/// Words that the list replaces, each with what it may be a part of.
const REPLACED: &[(&str, &[&str])] = &[
    (" is no ", &["there is no ", "There is no ", " is no longer ", " is no more "]),
    (" are no ", &["there are no ", "There are no ", " are no collections yet"]),
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

/// The replaced words in a text.
fn found(text: &str) -> Vec<&'static str> {
    let spaced = format!(" {} ", text.replace('\n', " "));
    let stands_alone = |word: &str, parts: &[&str]| {
        let count = |part: &str| spaced.matches(part).count();
        count(word) > parts.iter().map(|part| count(part)).sum()
    };
    REPLACED.iter().filter(|(word, parts)| stands_alone(word, parts)).map(|(word, _)| *word).collect()
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
    file.ends_with("tests.rs") || file.ends_with("models_test.rs") || file.iter().any(|part| part == "tests")
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
    let mut wrong = Vec::new();
    for page in pages {
        let text = prose(&fs::read_to_string(&page).expect("readable"));
        wrong.extend(found(&text).into_iter().map(|word| format!("{}: '{word}'", page.display())));
    }
    assert!(wrong.is_empty(), "CONTRIBUTING.md has other words for these:\n{}", wrong.join("\n"));
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
    let code = "let a = 'x'; // \"is no text\"\nlet b: &'static str = \"one \\\n    two\"; f(\"three\");";
    assert_eq!(texts(code), ["one  two", "three"]);
}
