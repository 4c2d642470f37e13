//! PDFs as programs make them, and a small PDF writer for the other tests: real files with a text layer and nothing else.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use cairn::ingest::{Limits, MediaType, Source, parse};

use crate::left_out::left_out;

/// A page's worth of text about one thing.
pub fn page_about(thing: &str) -> String {
    (1..=20)
        .map(|line| format!("Line {line} of this page tells what the crew should know about {thing}."))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A PDF with a page for each text; lines end where the text's do.
pub fn write(pages: &[&str]) -> Vec<u8> {
    let kids: String = (0..pages.len()).map(|page| format!("{} 0 R ", 4 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{kids}] /Count {} >>", pages.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
    ];
    for (page, text) in pages.iter().enumerate() {
        let escaped = text.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
        let lines: Vec<String> = escaped.lines().map(|line| format!("({line}) Tj")).collect();
        let content = format!("BT /F1 12 Tf 14 TL 72 720 Td {} ET", lines.join(" T* "));
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
            5 + 2 * page
        ));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    let mut file = "%PDF-1.4\n".to_owned();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in objects.iter().enumerate() {
        writeln!(table, "{:010} 00000 n ", file.len()).expect("strings take everything");
        write!(file, "{} 0 obj\n{object}\nendobj\n", number + 1).expect("strings take everything");
    }
    let start = file.len();
    let identity = "<00112233445566778899aabbccddeeff>";
    let trailer = format!("<< /Size {} /Root 1 0 R /ID [{identity} {identity}] >>", objects.len() + 1);
    format!("{file}{table}trailer\n{trailer}\nstartxref\n{start}\n%%EOF\n").into_bytes()
}

/// The same file, readable with a password only.
pub fn encrypt(file: &[u8], password: &str) -> Vec<u8> {
    use lopdf::encryption::{EncryptionState, EncryptionVersion, Permissions};
    let mut document = lopdf::Document::load_mem(file).expect("a PDF");
    let version = EncryptionVersion::V2 {
        document: &document,
        owner_password: password,
        user_password: password,
        key_length: 128,
        permissions: Permissions::all(),
    };
    let state = EncryptionState::try_from(version).expect("a key");
    document.encrypt(&state).expect("encrypts");
    let mut encrypted = Vec::new();
    document.save_to(&mut encrypted).expect("writes");
    encrypted
}

/// Words of `expected` that `found` has, in the same order.
fn words_in_order(expected: &[&str], found: &[&str]) -> usize {
    let mut before = vec![0; found.len() + 1];
    for word in expected {
        let mut row = vec![0; found.len() + 1];
        for (place, other) in found.iter().enumerate() {
            row[place + 1] = if word == other { before[place] + 1 } else { row[place].max(before[place + 1]) };
        }
        before = row;
    }
    before[found.len()]
}

/// Asserts that at least 98 of 100 words of `expected` are read, in order, and none as a replacement.
fn assert_reads(name: &str, file: &[u8], expected: &str) {
    let source = Source { name, media_type: MediaType::Pdf, bytes: file };
    let parsed = parse(&source, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found = &parsed.documents[0].text;
    assert!(!found.contains(char::REPLACEMENT_CHARACTER), "{name}: {found}");
    let (expected, found) =
        (expected.split_whitespace().collect::<Vec<_>>(), found.split_whitespace().collect::<Vec<_>>());
    let read = words_in_order(&expected, &found);
    assert!(read * 100 >= expected.len() * 98, "{name}: {read} of {} words: {found:?}", expected.len());
    assert!(found.len() * 98 <= expected.len() * 100, "{name}: {} words, not {}", found.len(), expected.len());
}

/// Files of Chromium, LibreOffice, TeX, WeasyPrint, cairo, ReportLab, fpdf2, groff and Ghostscript, beside the text that
/// went into them: one to three columns, drawn down or across, right to left, an Asian font that is not embedded, bitmap
/// fonts, a form.
#[test]
fn files_of_many_programs_are_read_in_the_order_of_their_text() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pdf");
    let mut files = 0;
    for entry in fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "pdf") {
            let expected = fs::read_to_string(path.with_extension("txt")).expect("its text");
            assert_reads(&path.display().to_string(), &fs::read(&path).expect("a file"), &expected);
            files += 1;
        }
    }
    assert_eq!(files, 15);
}

/// What groff and Ghostscript make today is read as pdftotext reads it.
#[test]
fn the_text_is_that_of_pdftotext() {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if let Some(missing) = ["groff", "gs", "pdftotext"].iter().find(|program| !has(program)) {
        left_out(&format!("{missing} is missing"));
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let body: String = (1..=40)
        .map(|number| {
            format!(
                ".PP\nRule {number}: the officer of the first affiliated office files a flow sheet before the sluice is opened, \
                 notes the difference of both gauges, and waits until it falls below \\fB{number}\\fP centimetres.\n"
            )
        })
        .collect();
    fs::write(folder.path().join("rules.ms"), format!(".TL\nRules of the lock\n.AU\nThe works office\n{body}"))
        .expect("written");
    fs::write(
        folder.path().join("rules.1"),
        format!(".TH RULES 1\n.SH NAME\nrules \\- of the lock\n.SH DESCRIPTION\n{body}"),
    )
    .expect("written");
    for (name, how) in [
        ("groff-ms.pdf", "groff -ms -Tpdf rules.ms > groff-ms.pdf"),
        ("groff-man.pdf", "groff -man -Tpdf rules.1 > groff-man.pdf"),
        ("times.pdf", "groff -ms -Tps rules.ms | gs -q -sDEVICE=pdfwrite -o times.pdf -"),
        (
            "helvetica.pdf",
            "groff -ms -fH -Tps rules.ms | gs -q -sDEVICE=pdfwrite -dCompatibilityLevel=1.3 -o helvetica.pdf -",
        ),
        ("plain.pdf", "groff -ms -Tps rules.ms | gs -q -sDEVICE=pdfwrite -dCompressPages=false -o plain.pdf -"),
    ] {
        let made = Command::new("sh").args(["-c", how]).current_dir(folder.path()).status().expect("sh");
        assert!(made.success(), "{how}");
        let path = folder.path().join(name);
        let text = Command::new("pdftotext").arg(&path).arg("-").output().expect("pdftotext");
        assert_reads(name, &fs::read(&path).expect("made"), &String::from_utf8(text.stdout).expect("UTF-8"));
    }
}
