//! The format of a source: by extension, then by content.

use super::ParseError;
use super::encoding::unmarked_utf16;
use super::left_out::{FileKind, is_blank, kind_by_name};
use super::mailbox;

/// The supported formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// Markdown, with front matter and MDX as Docusaurus writes it.
    Markdown,
    /// Plain text.
    Text,
    /// HTML, any version.
    Html,
    /// PDF with a text layer.
    Pdf,
    /// Program text and configuration in a line-oriented language.
    SourceCode,
    /// One JSON value; an array of objects is many records.
    Json,
    /// One JSON value in each line.
    JsonLines,
    /// Delimited rows under a header row: comma, semicolon, tab or bar.
    Csv,
    /// A Jupyter notebook.
    Notebook,
    /// A mail, or a mailbox of them (mbox): each is a document.
    Mail,
    /// A web page saved as one file (MHTML).
    WebArchive,
    /// SVG.
    Drawing,
}

const MARKDOWN: &[&str] = &["md", "mdx", "markdown", "mdown", "mkd"];
const TEXT: &[&str] = &["txt", "text", "log", "rst", "adoc", "asciidoc", "org", "tex", "srt", "vtt"];
const HTML: &[&str] = &["html", "htm", "xhtml"];
const JSON_LINES: &[&str] = &["jsonl", "ndjson"];
const JSON: &[&str] = &["json", "geojson", "jsonc", "json5", "webmanifest"];
const CSV: &[&str] = &["csv", "tsv", "tab"];
const SOURCE_CODE: &[&str] = &[
    "rs",
    "py",
    "pyi",
    "js",
    "mjs",
    "cjs",
    "jsx",
    "ts",
    "tsx",
    "go",
    "java",
    "kt",
    "kts",
    "scala",
    "groovy",
    "gradle",
    "c",
    "h",
    "cc",
    "cpp",
    "cxx",
    "hh",
    "hpp",
    "cs",
    "fs",
    "swift",
    "m",
    "rb",
    "php",
    "pl",
    "pm",
    "lua",
    "r",
    "jl",
    "ex",
    "exs",
    "erl",
    "hs",
    "ml",
    "clj",
    "dart",
    "zig",
    "nim",
    "vue",
    "svelte",
    "sh",
    "bash",
    "zsh",
    "fish",
    "ps1",
    "bat",
    "cmd",
    "yaml",
    "yml",
    "toml",
    "ini",
    "cfg",
    "conf",
    "cnf",
    "properties",
    "env",
    "tf",
    "tfvars",
    "hcl",
    "nix",
    "sql",
    "proto",
    "graphql",
    "gql",
    "thrift",
    "xml",
    "xsd",
    "css",
    "scss",
    "less",
    "cmake",
    "mk",
    "dockerfile",
    "service",
    "socket",
    "timer",
    "mount",
    "target",
    "wgsl",
    "glsl",
    "asm",
    "s",
    "vim",
    "el",
    "rego",
    "cue",
    "jsonnet",
    "bzl",
    "diff",
    "patch",
];
const SOURCE_NAMES: &[&str] = &[
    "dockerfile",
    "containerfile",
    "makefile",
    "gnumakefile",
    "jenkinsfile",
    "vagrantfile",
    "gemfile",
    "rakefile",
    "procfile",
    "justfile",
    "caddyfile",
    "cmakelists.txt",
    "build.bazel",
    ".gitignore",
    ".dockerignore",
    ".editorconfig",
    ".env",
    ".bashrc",
    ".profile",
];
/// How much of a file's beginning [`MediaType::detect`] uses.
pub(super) const HEAD_BYTES: usize = 8 << 10;

impl MediaType {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Markdown,
        Self::Text,
        Self::Html,
        Self::Pdf,
        Self::SourceCode,
        Self::Json,
        Self::JsonLines,
        Self::Csv,
        Self::Notebook,
        Self::Mail,
        Self::WebArchive,
        Self::Drawing,
    ];

    /// The MIME type, for example `text/markdown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Markdown => "text/markdown",
            Self::Text => "text/plain",
            Self::Html => "text/html",
            Self::Pdf => "application/pdf",
            Self::SourceCode => "text/x-source-code",
            Self::Json => "application/json",
            Self::JsonLines => "application/jsonl",
            Self::Csv => "text/csv",
            Self::Notebook => "application/x-ipynb+json",
            Self::Mail => "message/rfc822",
            Self::WebArchive => "multipart/related",
            Self::Drawing => "image/svg+xml",
        }
    }

    /// Parses a MIME type with or without parameters (`text/html; charset=utf-8`), in upper or lower case; `None` when
    /// the format is not supported.
    #[must_use]
    pub fn from_mime(mime: &str) -> Option<Self> {
        let essence = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Some(match essence.as_str() {
            "text/markdown" | "text/x-markdown" | "text/mdx" => Self::Markdown,
            "text/plain" => Self::Text,
            "text/html" | "application/xhtml+xml" => Self::Html,
            "application/pdf" | "application/x-pdf" => Self::Pdf,
            "application/json" | "text/json" => Self::Json,
            "application/jsonl" | "application/x-ndjson" | "application/ndjson" | "application/x-jsonlines" => {
                Self::JsonLines
            }
            "text/csv" | "text/tab-separated-values" => Self::Csv,
            "application/x-ipynb+json" => Self::Notebook,
            "message/rfc822" => Self::Mail,
            "multipart/related" | "application/x-mimearchive" => Self::WebArchive,
            "image/svg+xml" => Self::Drawing,
            "application/javascript"
            | "text/javascript"
            | "application/yaml"
            | "text/yaml"
            | "application/x-yaml"
            | "application/toml"
            | "application/sql"
            | "application/xml"
            | "text/xml"
            | "text/css" => Self::SourceCode,
            other if other.starts_with("text/x-") => Self::SourceCode,
            _ => return None,
        })
    }

    /// Decides by the extension of `name`, then by `head`: the first 8 KiB, or the whole content.
    ///
    /// # Errors
    /// [`ParseError::Binary`] when the bytes are neither text nor PDF, [`ParseError::UnknownType`] when the name is
    /// that of an unsupported format, [`ParseError::Empty`] when there is nothing. Each has a
    /// [`file_kind`](ParseError::file_kind).
    pub fn detect(name: &str, head: &[u8]) -> Result<Self, ParseError> {
        if starts_as_pdf(head) {
            return Ok(Self::Pdf);
        }
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
        let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
        // By the name first: most Office documents start like ZIP archives.
        let binary = binary_kind(head);
        if let Some(kind) = kind_by_name(&file, extension, head, binary.is_none()) {
            return Err(ParseError::UnknownType { kind });
        }
        if let Some((looks_like, kind)) = binary {
            return Err(ParseError::Binary { looks_like, kind });
        }
        if head.len() < HEAD_BYTES && is_blank(head) {
            return Err(ParseError::Empty);
        }
        if mailbox::is_one(head) {
            return Ok(Self::Mail);
        }
        let is = |list: &[&str]| list.contains(&extension);
        if SOURCE_NAMES.contains(&file.as_str()) || file.starts_with("dockerfile.") {
            return Ok(Self::SourceCode);
        }
        match () {
            () if is(MARKDOWN) => Ok(Self::Markdown),
            () if is(TEXT) => Ok(Self::Text),
            () if is(HTML) => Ok(Self::Html),
            () if extension == "pdf" => Ok(Self::Pdf),
            () if is(JSON_LINES) => Ok(Self::JsonLines),
            () if is(JSON) => Ok(Self::Json),
            () if is(CSV) => Ok(Self::Csv),
            () if extension == "ipynb" => Ok(Self::Notebook),
            () if extension == "eml" => Ok(Self::Mail),
            () if is(&["mhtml", "mht"]) => Ok(Self::WebArchive),
            () if extension == "svg" => Ok(Self::Drawing),
            () if is(SOURCE_CODE) => Ok(Self::SourceCode),
            () => Ok(by_content(head)),
        }
    }
}

/// Whether a PDF header is within the first KiB, where readers accept it.
fn starts_as_pdf(head: &[u8]) -> bool {
    let head = &head[..head.len().min(1024)];
    head.starts_with(b"%PDF-") || (head.contains(&0) && head.windows(5).any(|window| window == b"%PDF-"))
}

/// The format of text whose name does not tell.
fn by_content(head: &[u8]) -> MediaType {
    let head = String::from_utf8_lossy(&head[..head.len().min(4096)]);
    let start = head.trim_start_matches('\u{feff}').trim_start();
    let lower: String = start.chars().take(15).collect::<String>().to_ascii_lowercase();
    let json = |line: &str| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let mut lines = start.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        MediaType::Html
    } else if is_mail(&head) {
        MediaType::Mail
    } else if lower.starts_with("<svg") || (lower.starts_with("<?xml") && start.contains("<svg")) {
        MediaType::Drawing
    } else if first.starts_with('{') && json(first) && lines.next().is_some_and(|line| line.starts_with('{')) {
        MediaType::JsonLines
    } else if first.starts_with("{\"") || first.starts_with("[{") || matches!(first, "{" | "[") {
        MediaType::Json
    } else if first.starts_with("#!") {
        MediaType::SourceCode
    } else if first == "---" || first.starts_with("# ") || start.lines().any(|line| line.starts_with("## ")) {
        MediaType::Markdown
    } else {
        MediaType::Text
    }
}

/// Whether a text starts with the header lines of a mail, including a sender and a date or number. Mail folders have
/// files without extensions.
fn is_mail(head: &str) -> bool {
    let is_field = |line: &str| {
        line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    let header: Vec<&str> = head.lines().take_while(|line| is_field(line) || line.starts_with([' ', '\t'])).collect();
    let has = |name: &str| {
        header.iter().any(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
    };
    header.first().is_some_and(|line| is_field(line))
        && has("From:")
        && (has("Message-ID:") || (has("Date:") && has("Subject:")))
}

/// Signatures of common formats: offset, bytes, name, kind. The first match counts.
const SIGNATURES: &[(usize, &[u8], &str, FileKind)] = &[
    (30, b"[Content_Types].xml", "an Office document", FileKind::Office),
    (30, b"mimetypeapplication/epub", "an EPUB file", FileKind::Book),
    (30, b"mimetypeapplication/", "an OpenDocument file", FileKind::Office),
    (0, b"\x7fELF", "an ELF program", FileKind::Program),
    (0, b"PK\x03\x04", "a ZIP archive or an Office document", FileKind::Archive),
    (0, b"PK\x05\x06", "a ZIP archive", FileKind::Archive),
    (0, b"\xd0\xcf\x11\xe0", "an old Office document", FileKind::Office),
    (0, b"{\\rtf", "an RTF document", FileKind::Office),
    (0, b"\x89PNG", "a PNG image", FileKind::Image),
    (0, b"\xff\xd8\xff", "a JPEG image", FileKind::Image),
    (0, b"GIF8", "a GIF image", FileKind::Image),
    (0, b"II*\0", "a TIFF image", FileKind::Image),
    (0, b"MM\0*", "a TIFF image", FileKind::Image),
    (0, b"\x1f\x8b", "gzip data", FileKind::Archive),
    (0, b"BZh", "bzip2 data", FileKind::Archive),
    (0, b"\xfd7zXZ", "xz data", FileKind::Archive),
    (0, b"\x28\xb5\x2f\xfd", "zstd data", FileKind::Archive),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", FileKind::Archive),
    (0, b"Rar!\x1a", "a RAR archive", FileKind::Archive),
    (257, b"ustar", "a tar archive", FileKind::Archive),
    (0, b"SQLite format 3\0", "an SQLite database", FileKind::Data),
    (0, b"\xca\xfe\xba\xbe", "a Java class or Mach-O program", FileKind::Program),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O program", FileKind::Program),
    (0, b"\0asm", "a WebAssembly module", FileKind::Program),
    (0, b"MZ\x90\0", "a Windows program", FileKind::Program),
    (4, b"ftyp", "an MP4 video", FileKind::Media),
    (0, b"OggS", "an Ogg file", FileKind::Media),
    (0, b"ID3\x03", "an MP3 file", FileKind::Media),
    (0, b"ID3\x04", "an MP3 file", FileKind::Media),
    (8, b"WEBP", "a WebP image", FileKind::Image),
    (8, b"WAVE", "a WAV file", FileKind::Media),
    (0, b"wOF2", "a web font", FileKind::Font),
    (0, b"PAR1", "a Parquet file", FileKind::Data),
    (0, b"%!PS", "a PostScript file", FileKind::Print),
];

/// How many bytes are searched for a NUL, which text never has.
const NUL_WINDOW: usize = 8192;

/// The common name and kind of `bytes` that are not text; `None` for text, including UTF-16 and UTF-32.
pub(super) fn binary_kind(bytes: &[u8]) -> Option<(&'static str, FileKind)> {
    let marks: [&[u8]; 3] = [&[0xff, 0xfe], &[0xfe, 0xff], &[0, 0, 0xfe, 0xff]];
    if marks.iter().any(|mark| bytes.starts_with(mark)) {
        return None;
    }
    let window = &bytes[..bytes.len().min(NUL_WINDOW)];
    let printable = !window.contains(&0) && std::str::from_utf8(&window[..window.len().min(64)]).is_ok();
    for (offset, signature, name, kind) in SIGNATURES {
        // Letters may also start a text ("BZh", "MZ"): they count only if something unprintable follows.
        let letters = signature.iter().all(u8::is_ascii_alphanumeric) || *offset > 0;
        if bytes.get(*offset..).is_some_and(|rest| rest.starts_with(signature)) && !(letters && printable) {
            return Some((name, *kind));
        }
    }
    (window.contains(&0) && unmarked_utf16(window).is_none()).then_some(("binary data", FileKind::Unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_decide_first() {
        for (name, expected) in [
            ("docs/a.MDX", MediaType::Markdown),
            ("a.b/README", MediaType::Text),
            ("x.tsv", MediaType::Csv),
            ("src/main.rs", MediaType::SourceCode),
            ("deploy/Dockerfile", MediaType::SourceCode),
            ("corpus.jsonl", MediaType::JsonLines),
            ("page.htm", MediaType::Html),
            ("broken.pdf", MediaType::Pdf),
        ] {
            assert_eq!(MediaType::detect(name, b"plain words").expect("text"), expected, "{name}");
        }
    }

    #[test]
    fn content_decides_without_an_extension() {
        for (head, expected) in [
            (&b"%PDF-1.7\n"[..], MediaType::Pdf),
            (b"\n<!DOCTYPE html><p>", MediaType::Html),
            (b"{\"a\":1}\n{\"a\":2}\n", MediaType::JsonLines),
            (b"{\n  \"a\": 1\n}", MediaType::Json),
            (b"#!/bin/sh\n", MediaType::SourceCode),
            (b"# Title\n\ntext", MediaType::Markdown),
            (b"BZhang wrote this", MediaType::Text),
            (
                b"Return-Path: <a@site.example>\nFrom: a@site.example\nMessage-ID: <1@site.example>\n\nx",
                MediaType::Mail,
            ),
            (b"From: here to there\n\nx", MediaType::Text),
            (b"<?xml version='1.0'?>\n<svg></svg>", MediaType::Drawing),
            (b"\0\0\xfe\xff\0\0\0a", MediaType::Text),
            (b"\xff\xfea\0", MediaType::Text),
        ] {
            assert_eq!(MediaType::detect("upload", head).expect("readable"), expected, "{head:?}");
        }
    }

    #[test]
    fn binaries_are_named() {
        for (head, name) in [
            (&b"\x7fELF\x02\x01"[..], "an ELF program"),
            (b"PK\x03\x04\x14\0", "a ZIP archive or an Office document"),
            (b"\x89PNG\r\n\x1a\n", "a PNG image"),
            (b"a\0\0\0", "binary data"),
        ] {
            let found = MediaType::detect("notes.txt", head);
            assert!(matches!(found, Err(ParseError::Binary { looks_like, .. }) if looks_like == name), "{found:?}");
        }
        assert!(matches!(MediaType::detect("a.docx", b""), Err(ParseError::UnknownType { .. })));
    }

    #[test]
    fn mime_types_survive_a_round_trip() {
        use MediaType::{
            Csv, Drawing, Html, Json, JsonLines, Mail, Markdown, Notebook, Pdf, SourceCode, Text, WebArchive,
        };
        for media_type in
            [Markdown, Text, Html, Pdf, SourceCode, Json, JsonLines, Csv, Notebook, Mail, WebArchive, Drawing]
        {
            assert_eq!(MediaType::from_mime(media_type.as_str()), Some(media_type));
        }
        assert_eq!(MediaType::from_mime("Text/HTML; charset=utf-8"), Some(Html));
        assert_eq!(MediaType::from_mime("image/png"), None);
    }
}
