//! Files that are not documents: their kinds, so that anyone who adds a folder can summarise what was left out.

use super::{MediaType, ParseError, detect, drawing};

/// The kind of a file without readable content, or that no parser here supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A document of an office program: it has text, but is not supported.
    Office,
    /// An electronic book: likewise.
    Book,
    /// A page description for printers: PostScript, XPS, DVI, DjVu.
    Print,
    /// A picture, or a drawing without words.
    Image,
    /// Sound or video.
    Media,
    /// An archive, a compressed file or a disk image.
    Archive,
    /// Machine code: a program, a library, an object file.
    Program,
    /// A font.
    Font,
    /// A database or a table in a binary format.
    Data,
    /// A part of a web page that was saved with all its parts.
    PageAsset,
    /// Written by a program for a program: minified code, a source map.
    Generated,
    /// Nothing in it but white space.
    Empty,
    /// Bytes that are not text, of an unknown format.
    Unknown,
}

impl FileKind {
    /// The name for `count` files of this kind, without the number: "Office documents".
    #[must_use]
    pub fn label(self, count: usize) -> &'static str {
        let (one, many) = match self {
            Self::Office => ("Office document", "Office documents"),
            Self::Book => ("electronic book", "electronic books"),
            Self::Print => ("PostScript or other print file", "PostScript or other print files"),
            Self::Image => ("picture", "pictures"),
            Self::Media => ("audio or video file", "audio or video files"),
            Self::Archive => ("archive", "archives"),
            Self::Program => ("compiled program", "compiled programs"),
            Self::Font => ("font", "fonts"),
            Self::Data => ("database", "databases"),
            Self::PageAsset => ("part of a saved web page", "parts of saved web pages"),
            Self::Generated => ("minified or generated file", "minified or generated files"),
            Self::Empty => ("file without text", "files without text"),
            Self::Unknown => ("binary file", "binary files"),
        };
        if count == 1 { one } else { many }
    }

    /// Whether such a file has text that its owner may miss.
    #[must_use]
    pub fn has_text(self) -> bool {
        match self {
            Self::Office | Self::Book | Self::Print => true,
            Self::Image
            | Self::Media
            | Self::Archive
            | Self::Program
            | Self::Font
            | Self::Data
            | Self::PageAsset
            | Self::Generated
            | Self::Empty
            | Self::Unknown => false,
        }
    }
}

/// Why the file `name` with the content `bytes` (all of them) is not a document: the error that [`super::parse`] or
/// [`MediaType::detect`] would return, with its kind. `None`: it should be read, and errors then are failures.
///
/// Cost: one pass at most; nothing is parsed.
#[must_use]
pub fn left_out(name: &str, bytes: &[u8]) -> Option<(FileKind, ParseError)> {
    let error = match MediaType::detect(name, &bytes[..bytes.len().min(detect::HEAD_BYTES)]) {
        Err(error) => error,
        Ok(_) if is_blank(bytes) => ParseError::Empty,
        Ok(MediaType::Json) if matches!(bytes.trim_ascii(), b"{}" | b"[]" | b"null" | b"\"\"") => ParseError::Empty,
        Ok(MediaType::Drawing) if !drawing::has_words(bytes) => {
            ParseError::Binary { looks_like: "a drawing without words", kind: FileKind::Image }
        }
        Ok(MediaType::SourceCode) if is_minified(name, bytes) => ParseError::UnknownType { kind: FileKind::Generated },
        Ok(_) => return None,
    };
    error.file_kind().map(|kind| (kind, error))
}

/// Minimum average bytes in each line of a minified script or style sheet.
const MINIFIED_LINE_BYTES: usize = 500;

/// Whether a script or style sheet has lines that nobody would write.
pub(super) fn is_minified(name: &str, bytes: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let is_web = [".js", ".mjs", ".cjs", ".css"].iter().any(|end| name.ends_with(end));
    let lines = || memchr::memchr_iter(b'\n', bytes).count() + 1;
    is_web && bytes.len() > 4 * MINIFIED_LINE_BYTES && bytes.len() / lines() > MINIFIED_LINE_BYTES
}

/// Whether there is only white space, possibly after a byte order mark.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// The web pages that the file `path` may have been saved with, best guess first; empty when it is not in a folder for
/// the parts of a page. Browsers save `Page.html` with `Page_files/`. If one of these pages exists, the file is a
/// [`FileKind::PageAsset`]; otherwise the folder has such a name for other reasons.
#[must_use]
pub fn pages_saved_with(path: &str) -> Vec<String> {
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
    let stems = folders.filter_map(|folder| {
        let suffix = PAGE_FOLDERS.iter().find(|suffix| folder.ends_with(**suffix))?;
        folder.strip_suffix(suffix).filter(|stem| !stem.is_empty() && !stem.ends_with('/'))
    });
    stems.flat_map(|stem| ["html", "htm", "xhtml"].map(|extension| format!("{stem}.{extension}"))).collect()
}

/// Suffixes that browsers in several languages give the folder of a saved page.
const PAGE_FOLDERS: &[&str] = &[
    "_files",
    ".files",
    "-files",
    "-Dateien",
    "_fichiers",
    "_archivos",
    "_arquivos",
    "_ficheiros",
    "_bestanden",
    "_pliki",
    "_soubory",
    "_elemei",
    "_tiedostot",
    "-filer",
    "_dosyalar",
];

/// Extensions of unsupported formats. Detection by content would name them less precisely, and some of them are text
/// that is not a document.
const UNREAD: &[(FileKind, &[&str])] = &[
    (
        FileKind::Office,
        &[
            "docx", "docm", "dotx", "doc", "dot", "xlsx", "xlsm", "xlsb", "xltx", "xls", "pptx", "pptm", "ppsx",
            "potx", "ppt", "pps", "odt", "ott", "ods", "odp", "odg", "fodt", "fods", "fodp", "rtf", "pages", "numbers",
            "key", "vsdx", "vsd", "pub", "one", "msg", "wpd", "hwp", "hwpx",
        ],
    ),
    (FileKind::Book, &["epub", "mobi", "azw", "azw3", "fb2"]),
    (FileKind::Print, &["ps", "eps", "xps", "oxps", "dvi", "djvu", "djv"]),
    (
        FileKind::Image,
        &[
            "png", "apng", "jpg", "jpeg", "jpe", "gif", "webp", "avif", "heic", "heif", "bmp", "tif", "tiff", "ico",
            "icns", "psd", "xcf", "ai", "svgz", "jxl", "jp2", "tga", "dds", "exr", "hdr", "raw", "cr2", "nef", "dng",
            "pbm", "pgm", "ppm", "pnm", "xbm", "xpm", "emf", "wmf", "dwg", "stl",
        ],
    ),
    (
        FileKind::Media,
        &[
            "mp3", "mp4", "m4a", "m4v", "m4b", "mov", "avi", "wav", "flac", "ogg", "oga", "ogv", "opus", "aac", "wma",
            "wmv", "mkv", "webm", "mpg", "mpeg", "flv", "3gp", "aiff", "mid", "midi",
        ],
    ),
    (
        FileKind::Archive,
        &[
            "zip", "gz", "tgz", "tar", "xz", "txz", "bz2", "zst", "lz4", "br", "7z", "rar", "iso", "dmg", "img",
            "qcow2", "vmdk", "vhd", "vhdx", "cab", "deb", "rpm", "apk", "whl", "egg", "gem", "crate", "nupkg", "war",
            "ear", "xpi", "crx", "warc", "cpio", "snap",
        ],
    ),
    (
        FileKind::Program,
        &[
            "exe", "dll", "so", "dylib", "o", "a", "obj", "lib", "ko", "class", "jar", "wasm", "pyc", "pyo", "pyd",
            "elf", "rlib", "rmeta", "beam", "msi", "node", "efi",
        ],
    ),
    (FileKind::Font, &["woff", "woff2", "ttf", "otf", "ttc", "eot", "pfb", "pfm"]),
    (
        FileKind::Data,
        &[
            "db",
            "db3",
            "sqlite",
            "sqlite3",
            "parquet",
            "arrow",
            "feather",
            "avro",
            "orc",
            "h5",
            "hdf5",
            "npy",
            "npz",
            "pkl",
            "pickle",
            "mdb",
            "accdb",
            "dbf",
            "rdb",
            "mat",
            "rds",
            "sav",
            "onnx",
            "pt",
            "pth",
            "safetensors",
            "gguf",
            "tflite",
            "pb",
            "shp",
            "mo",
            "pack",
            "idx",
        ],
    ),
];

/// Extensions of [`UNREAD`] that text files have as well: keys, graphs, messages, drawings as text, tables that only
/// pretend to be a workbook. Such a file is left out only when its bytes are not text.
const ALSO_TEXT: &[&str] = &[
    "a", "ai", "br", "class", "doc", "dot", "ear", "egg", "elf", "gem", "hdr", "idx", "img", "key", "ko", "lib", "mat",
    "mid", "mo", "msg", "node", "numbers", "o", "obj", "one", "pack", "pages", "pb", "pt", "pub", "raw", "rds", "sav",
    "snap", "stl", "wpd", "xls",
];

/// The kind of a file with an unsupported name.
///
/// * `file`, `extension`: in lower case.
/// * `head`: its first bytes; `is_text`: they are text.
pub(super) fn kind_by_name(file: &str, extension: &str, head: &[u8], is_text: bool) -> Option<FileKind> {
    if is_text && ALSO_TEXT.contains(&extension) {
        return None;
    }
    let is_source_map = extension == "map" && head.trim_ascii_start().starts_with(b"{");
    if is_source_map
        || [".min.js", ".min.css", ".min.mjs", ".bundle.js", ".chunk.js", ".chunk.css"]
            .iter()
            .any(|end| file.ends_with(end))
    {
        return Some(FileKind::Generated);
    }
    UNREAD.iter().find(|(_, extensions)| extensions.contains(&extension)).map(|(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, bytes: &[u8]) -> Option<FileKind> {
        left_out(name, bytes).map(|(kind, _)| kind)
    }

    #[test]
    fn what_is_left_out_has_a_kind() {
        for (name, bytes, expected) in [
            ("lease.docx", &b"PK\x03\x04\x14\0\x06\0"[..], FileKind::Office),
            (
                "lease",
                b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0[Content_Types].xml",
                FileKind::Office,
            ),
            (
                "book",
                b"PK\x03\x04\x0a\0\0\0\0\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0mimetypeapplication/epub+zip",
                FileKind::Book,
            ),
            ("novel.epub", b"PK\x03\x04\x14\0", FileKind::Book),
            ("lease.odt", b"PK\x03\x04\x14\0", FileKind::Office),
            ("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1", FileKind::Office),
            ("letter.rtf", b"{\\rtf1 Dear", FileKind::Office),
            ("photo.PNG", b"\x89PNG\r\n\x1a\n", FileKind::Image),
            ("upload", b"\x89PNG\r\n\x1a\n", FileKind::Image),
            ("all.zip", b"PK\x03\x04\x14\0\0\0\x08\0", FileKind::Archive),
            ("tune.mp3", b"ID3\x03\0", FileKind::Media),
            ("a.out", b"\x7fELF\x02\x01\x01\0", FileKind::Program),
            ("serif.woff2", b"wOF2\0\x01", FileKind::Font),
            ("shop.sqlite", b"SQLite format 3\0", FileKind::Data),
            ("poster.ps", b"%!PS-Adobe-3.0\n", FileKind::Print),
            ("poster", b"%!PS-Adobe-3.0\n", FileKind::Print),
            ("jquery.min.js", b"!function(e,t){}", FileKind::Generated),
            ("app.js.map", b"{\"version\":3}", FileKind::Generated),
            ("logo.svg", b"<svg><path d='M0 0'/></svg>", FileKind::Image),
            ("__init__.py", b"", FileKind::Empty),
            ("package.json", b"{}\n", FileKind::Empty),
            ("notes.md", b"\xef\xbb\xbf\r\n \t\n", FileKind::Empty),
            ("blob", b"\x01\x02\0\0\xff", FileKind::Unknown),
        ] {
            assert_eq!(kind(name, bytes), Some(expected), "{name}");
        }
        for (name, bytes) in [
            ("a.py", &b"pass"[..]),
            ("a.json", b"{"),
            ("a.txt", b"caf\xe9 au lait"),
            ("id_ed25519.pub", b"ssh-ed25519 AAAA me@host"),
            ("graph.dot", b"digraph { a -> b }"),
            ("export.xls", b"<html><table><tr><td>1"),
            ("roads.map", b"north: south"),
            ("plan.svg", b"<svg><text>Hall two</text></svg>"),
        ] {
            assert_eq!(kind(name, bytes), None, "{name}");
        }
    }

    #[test]
    fn white_space_beyond_the_head_is_an_empty_file() {
        let mut bytes = vec![b'\n'; 100_000];
        assert_eq!(kind("a.txt", &bytes), Some(FileKind::Empty));
        bytes.push(b'x');
        assert_eq!(kind("a.txt", &bytes), None);
    }

    #[test]
    fn minified_code_is_told_by_its_lines() {
        let minified = "function a(b){return b+1}".repeat(200);
        assert_eq!(kind("app.js", minified.as_bytes()), Some(FileKind::Generated));
        assert_eq!(kind("app.js", minified.replace('}', "}\n").as_bytes()), None);
        assert_eq!(kind("app.txt", minified.as_bytes()), None);
    }

    #[test]
    fn parts_of_a_saved_page_name_the_page() {
        assert_eq!(pages_saved_with("a/Pump_files/js/app.js"), ["a/Pump.html", "a/Pump.htm", "a/Pump.xhtml"]);
        assert_eq!(pages_saved_with("Pumpe-Dateien/style.css")[0], "Pumpe.html");
        for path in ["Pump_files", "a/_files/x.js", "src/files/x.js", "x.js"] {
            assert!(pages_saved_with(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn labels_agree_with_their_number() {
        assert_eq!((FileKind::Office.label(1), FileKind::Office.label(6)), ("Office document", "Office documents"));
    }
}
