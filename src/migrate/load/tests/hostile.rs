//! Circles, bombs, files that are not there or elsewhere: an error with its place, in bounded time.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn circles_name_each_step() {
    let files = [
        ("a.yml", "services:\n  a: {image: x, extends: {file: b.yml, service: b}}\n"),
        ("b.yml", "services:\n  b: {extends: {file: a.yml, service: a}}\n"),
    ];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/a.yml:2:26: services.a.extends: services extend one another in a circle: a (DIR/a.yml:2:26) extends b (DIR/b.yml:2:16) extends a"
    );
    let files = [("a.yml", "include: [b.yml]\n"), ("b.yml", "include: [c.yml]\n"), ("c.yml", "include: [b.yml]\n")];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/c.yml:1:11: files include one another in a circle: DIR/b.yml includes DIR/c.yml includes DIR/b.yml"
    );
    let files = [("a.yml", "services:\n  web: {extends: bass}\n  base: {image: x}\n")];
    assert_eq!(
        refusal(&files, &["a.yml"], Dialect::Compose),
        "DIR/a.yml:2:18: services.web.extends: DIR/a.yml has no service bass; did you mean base?"
    );
}

/// Runs something that has to end soon.
fn soon<T>(run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    result
}

#[test]
fn chains_of_files_and_services_are_bounded() {
    let names: Vec<String> = (0..70).map(|number| format!("f{number}.yml")).collect();
    let nested: Vec<String> =
        (1..=70).map(|number| format!("include: [f{number}.yml]\nservices: {{s{number}: {{image: x}}}}\n")).collect();
    let mut files: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(nested.iter().map(String::as_str)).collect();
    files.push(("f70.yml", "services: {}\n"));
    assert!(
        refusal(&files, &["f0.yml"], Dialect::Compose).ends_with("more than 16 files include one another in a row")
    );
    let wide =
        format!("include: [{}]\n", (1..70).map(|number| format!("g{number}.yml")).collect::<Vec<_>>().join(", "));
    let wide_names: Vec<String> = (1..70).map(|number| format!("g{number}.yml")).collect();
    let mut files: Vec<(&str, &str)> = wide_names.iter().map(|name| (name.as_str(), "services: {}\n")).collect();
    files.push(("a.yml", &wide));
    assert!(refusal(&files, &["a.yml"], Dialect::Compose).ends_with("more than 64 files up to here"));
    let chain: String = (0..40).map(|number| format!("  s{number}: {{extends: s{}}}\n", number + 1)).collect();
    let chain = format!("services:\n{chain}  s40: {{image: x}}\n");
    assert!(
        refusal(&[("a.yml", &chain)], &["a.yml"], Dialect::Compose)
            .ends_with("more than 16 services extend one another in a row")
    );
    // Each file includes the next one twice.
    let doubled: Vec<String> = (1..=16).map(|number| format!("include: [d{number}.yml, d{number}.yml]\n")).collect();
    let doubled_names: Vec<String> = (0..16).map(|number| format!("d{number}.yml")).collect();
    let mut files: Vec<(&str, &str)> =
        doubled_names.iter().map(String::as_str).zip(doubled.iter().map(String::as_str)).collect();
    files.push(("d16.yml", "services: {a: {image: x}}\n"));
    let found = soon(|| loaded(&files, &["d0.yml"], Dialect::Compose));
    assert!(found.expect_err("refused").contains("included more than"));
}

#[test]
fn copies_are_bounded() {
    let large = (0..50_000).map(|number| format!("A{number}=1")).collect::<Vec<_>>().join(", ");
    let services: String = (0..60).map(|number| format!("  s{number}: {{extends: base}}\n")).collect();
    let text = format!("services:\n  base: {{image: x, environment: [{large}]}}\n{services}");
    let message = soon(|| refusal(&[("a.yml", &text)], &["a.yml"], Dialect::Compose));
    assert!(message.contains("more than 1000000 values"), "{message}");
}

#[test]
fn long_lists_are_merged_in_linear_time() {
    let list = |from: usize| (from..from + 40_000).map(|number| format!("x{number}")).collect::<Vec<_>>().join(", ");
    let ports =
        (0..30).map(|number| format!("'{}-{}:1-65000'", number, number + 64_999)).collect::<Vec<_>>().join(", ");
    for dialect in [Dialect::Stack, Dialect::Compose] {
        let text = |from| {
            format!(
                "services: {{web: {{image: x, cap_add: [{}], environment: [{}], labels: [{}]}}}}\n",
                list(from),
                list(from),
                list(from)
            )
        };
        let (a, b) = (text(0), text(20_000));
        soon(|| loaded(&[("a.yml", &a), ("b.yml", &b)], &["a.yml", "b.yml"], dialect)).expect("loaded");
        let (a, b) =
            (format!("services: {{web: {{image: x, ports: [{ports}]}}}}\n"), "services: {web: {ports: ['1:1']}}\n");
        let found = soon(|| loaded(&[("a.yml", &a), ("b.yml", b)], &["a.yml", "b.yml"], dialect));
        assert!(found.expect_err("refused").contains("more than 200000 entries"));
    }
}

#[test]
fn many_removals_take_linear_time() {
    let keys: String = (0..30_000).map(|number| format!("A{number}: x, ")).collect();
    let resets: String = (0..30_000).map(|number| format!("A{number}: !reset x, ")).collect();
    let a = format!("services: {{web: {{image: x, environment: {{{keys}}}}}}}\n");
    let b = format!("services: {{web: {{environment: {{{resets}}}}}}}\n");
    let found =
        soon(|| loaded(&[("a.yml", &a), ("b.yml", &b)], &["a.yml", "b.yml"], Dialect::Compose)).expect("loaded");
    assert_eq!(json_of(&found.tree), json!({"services": {"web": {"image": "x"}}}));
}

#[test]
fn broken_files_are_refused_with_their_place() {
    for dialect in [Dialect::Stack, Dialect::Compose] {
        for (text, expected) in [
            ("", "DIR/a.yml:1:1: found nothing, expected a map with services"),
            ("- a\n", "DIR/a.yml:1:1: found a list, expected a map with services"),
            ("---\nnull\n", "DIR/a.yml:2:1: found nothing, expected a map with services"),
            ("a: [1\n", "DIR/a.yml:"),
        ] {
            let message = refusal(&[("a.yml", text)], &["a.yml"], dialect);
            assert!(message.starts_with(expected), "{dialect:?} {text:?}: {message}");
        }
        let large = "#".repeat((4 << 20) + 1);
        assert!(refusal(&[("a.yml", &large)], &["a.yml"], dialect).contains("expected at most 4194304"));
        let bomb = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, number| {
            let before = number - 1;
            text + &format!("a{number}: &a{number} [*a{before}, *a{before}]\n")
        });
        assert!(refusal(&[("a.yml", &bomb)], &["a.yml"], dialect).contains("more than 200000 values"));
    }
    for (text, expected) in [
        ("services: {web: {extends: [a]}}\n", "services.web.extends: found a list, expected"),
        ("services: {web: {extends: {file: a.yml}}}\n", "services.web.extends"),
        ("services: {web: {extends: {file: [x], service: a}}}\n", "services.web.extends.file: found a list, expected"),
        ("include: b.yml\n", "include: found text, expected"),
        ("include: [3]\n", "include[0]: found a whole number, expected"),
        ("include: [{path: []}]\n", "include"),
        (
            "include: [{path: a.yml, project_directory: 3}]\n",
            "include[0].project_directory: found a whole number, expected",
        ),
    ] {
        let message = refusal(&[("a.yml", text)], &["a.yml"], Dialect::Compose);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    // Sections of another kind than they should be are for the check of the schema, not for a panic.
    for text in [
        "services: [a]\n",
        "services: 3\n",
        "services: {web: 3}\n",
        "services: {web: {ports: 3, environment: 3}}\n",
        "networks: [a]\n",
    ] {
        for other in ["services: {web: {ports: [80], environment: {A: 1}}}\nnetworks: {a: {}}\n", text] {
            for dialect in [Dialect::Stack, Dialect::Compose] {
                let _ = loaded(&[("a.yml", text), ("b.yml", other)], &["a.yml", "b.yml"], dialect);
                let _ = loaded(&[("a.yml", other), ("b.yml", text)], &["a.yml", "b.yml"], dialect);
            }
        }
    }
}

#[test]
fn files_elsewhere_are_not_read() {
    let outside = folder(&[("secret.yml", "services: {base: {image: x}}\n")]);
    let secret = outside.path().join("secret.yml");
    let secret = secret.to_str().expect("UTF-8");
    let extends = |name: &str| format!("services: {{web: {{extends: {{file: \"{name}\", service: base}}}}}}\n");
    for name in [
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        secret,
        "link.yml",
        "sub",
        "pipe",
        "none.yml",
        "a\\0b",
        "",
    ] {
        for text in [
            extends(name),
            format!("include: [\"{name}\"]\n"),
            format!("include: [{{path: a2.yml, env_file: \"{name}\"}}]\n"),
        ] {
            let folder = folder(&[("a.yml", &text), ("a2.yml", "services: {}\n"), ("sub/x", "")]);
            std::os::unix::fs::symlink(secret, folder.path().join("link.yml")).expect("a link");
            rustix::fs::mknodat(
                rustix::fs::CWD,
                folder.path().join("pipe"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .expect("a pipe");
            let message = soon(|| loaded_in(folder.path(), &["a.yml"], Dialect::Compose)).expect_err("refused");
            assert!(message.starts_with("DIR/a.yml:1:"), "{name}: {message}");
            let expected = match name {
                "link.yml" => "is outside the stack's folder",
                "sub" | "pipe" | "" => "is not a regular file",
                "none.yml" => "cannot read",
                name if name.contains('\\') => "cannot read",
                _ => "is outside the stack's folder",
            };
            assert!(message.contains(expected), "{name}: {message}");
        }
    }
    let folder = folder(&[("a.yml", &extends(secret))]);
    let request = Request { allow_outside: true, ..request(folder.path(), &["a.yml"], Some(Dialect::Compose)) };
    load(&request).expect("allowed");
}
