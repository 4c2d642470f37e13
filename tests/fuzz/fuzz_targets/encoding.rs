//! Text in an encoding that the first byte chooses, as it is marked or declared, or neither.
#![no_main]

use cairn::ingest::MediaType;
use libfuzzer_sys::fuzz_target;

/// What stands before the bytes, and what they are read as.
const MARKS: &[(&[u8], MediaType, &str)] = &[
    (b"", MediaType::Text, "a.txt"),
    (b"\xef\xbb\xbf", MediaType::Text, "a.txt"),
    (b"\xff\xfe", MediaType::Text, "a.txt"),
    (b"\xfe\xff", MediaType::Text, "a.txt"),
    (b"\xff\xfe\0\0", MediaType::Text, "a.txt"),
    (b"\0\0\xfe\xff", MediaType::Text, "a.txt"),
    (b"a\0b\0c\0d\0", MediaType::Csv, "a.csv"),
    (b"<?xml version='1.0' encoding='", MediaType::SourceCode, "a.xml"),
    (b"<meta charset='", MediaType::Html, "a.html"),
    (b"<meta charset='shift_jis'>", MediaType::Html, "a.html"),
    (b"<meta charset='iso-2022-jp'>", MediaType::Html, "a.html"),
    (b"# coding: gb18030\n", MediaType::SourceCode, "a.py"),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (mark, media_type, name) = MARKS[usize::from(*choice) % MARKS.len()];
    cairn_fuzz::read(media_type, name, &[mark, bytes].concat());
});
