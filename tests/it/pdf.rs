//! A small PDF writer: real files for the tests, with a text layer and nothing else.

use std::fmt::Write as _;

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
