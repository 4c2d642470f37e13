//! Encoded data within texts: pictures as `data:` addresses, long runs of base64 and hexadecimal digits. Nobody reads
//! or searches for them, and one picture would be dozens of passages, so [`super::chunk()`] leaves them out.

use std::ops::Range;

/// A run of base64 or hexadecimal digits of at least this many bytes is data. Tokens and digests, which people do
/// search for, are shorter.
const RUN_BYTES_MIN: usize = 400;
/// The same after `data:…,`, where it is certain.
const DATA_URL_BYTES_MIN: usize = 128;
/// Consecutive lines of base64 that are data: keys and certificates, parts of mails.
const LINES_MIN: usize = 12;
/// Length of such lines, in bytes; the last one may be shorter.
const LINE_BYTES: std::ops::RangeInclusive<usize> = 60..=80;

/// Ranges of encoded data in `text`: ascending, not adjacent. One pass.
pub(super) fn blobs(text: &str) -> Vec<Range<usize>> {
    let mut found = data_urls(text);
    let bytes = text.as_bytes();
    let mut lines: Option<Lines> = None;
    let mut at = 0;
    while at < bytes.len() {
        if lines.is_none() {
            // Checked from the end, most ranges in which a run could start contain another byte soon.
            while let Some(stretch) = bytes.get(at..at + *LINE_BYTES.start())
                && let Some(other) = stretch.iter().rposition(|byte| !is_digit(*byte))
            {
                at += other + 1;
            }
        }
        let start = at;
        while at < bytes.len() && is_digit(bytes[at]) {
            at += 1;
        }
        let run = start..at;
        if run.len() >= RUN_BYTES_MIN && is_encoded(&bytes[run.clone()]) {
            found.push(run.clone());
        }
        let alone = (start == 0 || bytes[start - 1] == b'\n') && matches!(bytes.get(at), None | Some(b'\r' | b'\n'));
        lines = match lines.take() {
            Some(mut lines) if alone && lines.accepts(run.len()) => {
                lines.range.end = run.end;
                lines.count += 1;
                lines.ended = run.len() < lines.length;
                Some(lines)
            }
            open => {
                found.extend(open.and_then(|lines| lines.blob(bytes)));
                let starts = alone && LINE_BYTES.contains(&run.len());
                starts.then(|| Lines { length: run.len(), count: 1, range: run, ended: false })
            }
        };
        // After the run: its line end, or anything else.
        if bytes.get(at) == Some(&b'\r') {
            at += 1;
        }
        at += 1;
    }
    found.extend(lines.and_then(|lines| lines.blob(bytes)));
    found.sort_by_key(|range| range.start);
    let mut apart: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// Consecutive lines of the same length.
struct Lines {
    length: usize,
    count: usize,
    range: Range<usize>,
    /// A shorter line was the last one.
    ended: bool,
}

impl Lines {
    fn accepts(&self, length: usize) -> bool {
        !self.ended && length > 0 && length <= self.length
    }

    fn blob(self, bytes: &[u8]) -> Option<Range<usize>> {
        (self.count >= LINES_MIN && is_encoded(&bytes[self.range.clone()])).then_some(self.range)
    }
}

/// Whether all of `text` is encoded data.
pub(super) fn is_blob(text: &str) -> bool {
    text.len() >= DATA_URL_BYTES_MIN && blobs(text).first() == Some(&(0..text.trim_end().len()))
}

/// The parts of `range` without encoded data, in order.
pub(super) fn without_blobs(blobs: &[Range<usize>], range: Range<usize>) -> Vec<Range<usize>> {
    let first = blobs.partition_point(|blob| blob.end <= range.start);
    let mut parts = Vec::new();
    let mut from = range.start;
    for blob in blobs[first..].iter().take_while(|blob| blob.start < range.end) {
        parts.push(from..blob.start.max(from));
        from = blob.end;
    }
    parts.push(from..range.end.max(from));
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether encoded data starts within `range`.
pub(super) fn is_blob_within(blobs: &[Range<usize>], range: &Range<usize>) -> bool {
    let first = blobs.partition_point(|blob| blob.start < range.start);
    blobs.get(first).is_some_and(|blob| blob.start < range.end)
}

/// A digit of base64, in either alphabet, or of a hexadecimal number.
fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Whether digits are mixed as encoding does: no word, rule, path or sequence of letters is.
fn is_encoded(digits: &[u8]) -> bool {
    let count = |is: fn(&u8) -> bool| digits.iter().filter(|byte| is(byte)).count();
    let (lower, upper) = (count(u8::is_ascii_lowercase), count(u8::is_ascii_uppercase));
    let numbers = count(u8::is_ascii_digit);
    let all = digits.len();
    let is_hex = numbers * 5 >= all && digits.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace());
    is_hex || (lower * 10 >= all && upper * 10 >= all && numbers * 50 >= all)
}

/// `data:` addresses with much content.
fn data_urls(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for start in memchr::memmem::find_iter(text.as_bytes(), b"data:") {
        if found.last().is_some_and(|last| start < last.end) {
            continue;
        }
        let rest = &text.as_bytes()[start + 5..];
        // Type and parameters: `image/svg+xml;charset=utf-8;base64`.
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"/+-.;=_".contains(byte);
        let head = rest.iter().take(128).take_while(|byte| is_name(byte)).count();
        if rest.get(head) != Some(&b',') {
            continue;
        }
        let payload = &rest[head + 1..];
        let length =
            payload.iter().take_while(|byte| !byte.is_ascii_whitespace() && !b"\"'`()<>\\".contains(byte)).count();
        if length >= DATA_URL_BYTES_MIN {
            let end = start + 5 + head + 1 + length;
            found.push(start..text.floor_char_boundary(end));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Base64 digits as they occur.
    fn base64(length: usize) -> String {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length).map(|n| char::from(digits[(n * n * 7 + n * 13) % 64])).collect()
    }

    #[test]
    fn pictures_and_keys_are_found() {
        for (before, blob, after) in [
            ("see ![chart](", format!("data:image/png;base64,{}", base64(300)), ") below"),
            ("url('", format!("data:image/svg+xml;utf8,%3Csvg{}", "%20x".repeat(50)), "')"),
            ("key: ", base64(1000), "\nnext"),
            ("hash ", "0af3".repeat(200), " end"),
            ("-----BEGIN X-----\n", vec![base64(64); 20].join("\n") + "\n" + &base64(20), "\n-----END X-----\n"),
        ] {
            let text = format!("{before}{blob}{after}");
            let place = before.len()..before.len() + blob.len();
            assert_eq!(blobs(&text), std::slice::from_ref(&place), "{text}");
            let words: Vec<&str> =
                without_blobs(&blobs(&text), 0..text.len()).into_iter().map(|part| &text[part]).collect();
            assert_eq!(words, [before, after]);
        }
    }

    #[test]
    fn a_run_is_found_wherever_it_begins() {
        let run = base64(RUN_BYTES_MIN);
        for length in 0..200 {
            let before = format!("{}\n", "words of a text ".repeat(20).split_at(length).0);
            let text = format!("{before}{run} and more");
            let place = before.len()..before.len() + run.len();
            assert_eq!(blobs(&text), std::slice::from_ref(&place), "{text}");
        }
    }

    #[test]
    fn words_paths_and_digests_are_none() {
        for text in [
            "ab".repeat(32) + " is a digest",
            "-".repeat(1000),
            "ACGT".repeat(500),
            vec!["path/to/some/file-name_here"; 30].join("/"),
            "data:text/plain,short and more words".to_owned(),
            vec!["x".repeat(70); 40].join("\n"),
            base64(64),
        ] {
            assert!(blobs(&text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_value_may_be_nothing_but_data() {
        assert!(is_blob(&base64(4000)) && is_blob(&format!("data:image/gif;base64,{}", base64(200))));
        assert!(!is_blob("words") && !is_blob(&format!("see {}", base64(4000))));
    }
}
