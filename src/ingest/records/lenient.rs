//! Text that is almost JSON: with comments, a comma after the last element, `NaN`, integers that no machine number can
//! hold. One pass converts it to JSON.

/// Digits of the longest integer that stays a number; longer ones become texts, so that no digit is lost.
pub(super) const DIGITS_MAX: usize = 19;

/// A text converted to JSON, and the changes made.
pub(super) struct Cleaned {
    pub(super) text: String,
    comments: bool,
    commas: bool,
    not_numbers: bool,
}

impl Cleaned {
    /// Whether it was written by hand, with comments.
    pub(super) fn is_annotated(&self) -> bool {
        self.comments || self.commas
    }

    /// A warning about the changes; records lose their comments, anything else keeps them.
    pub(super) fn warning(&self) -> Option<String> {
        let is_list = self.text.trim_start().starts_with('[');
        let mut parts = Vec::new();
        if self.is_annotated() {
            let done = if is_list { "left out" } else { "kept as text" };
            parts.push(format!("comments or commas that JSON does not allow; {done}"));
        }
        if self.not_numbers {
            parts.push("NaN and Infinity are read as null".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(". "))
    }
}

/// `source` without comments and surplus commas, with `null` for values that are not numbers.
pub(super) fn cleaned(source: &str) -> Cleaned {
    let bytes = source.as_bytes();
    let mut cleaned =
        Cleaned { text: String::with_capacity(source.len()), comments: false, commas: false, not_numbers: false };
    // The position of the last comma in the text, as long as only white space follows it.
    let mut comma = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &source[at..];
        let (taken, written) = match byte {
            b'"' => (behind_string(bytes, at + 1) - at, None),
            b'/' if behind_comments(bytes, at) > at => {
                cleaned.comments = true;
                let length = behind_comments(bytes, at) - at;
                cleaned.text.push_str(if rest[..length].contains('\n') { "\n" } else { " " });
                at += length;
                continue;
            }
            b'N' if rest.starts_with("NaN") => (3, Some("null".to_owned())),
            b'I' if rest.starts_with("Infinity") => (8, Some("null".to_owned())),
            b'-' if rest.starts_with("-Infinity") => (9, Some("null".to_owned())),
            b'0'..=b'9' | b'-' => {
                let length = 1 + bytes[at + 1..].iter().take_while(|byte| is_numeric(**byte)).count();
                let number = &rest[..length];
                let whole = number.strip_prefix('-').unwrap_or(number);
                let is_long = whole.len() > DIGITS_MAX && whole.bytes().all(|byte| byte.is_ascii_digit());
                (length, is_long.then(|| format!("\"{number}\"")))
            }
            b']' | b'}' => {
                if let Some(place) = comma.take() {
                    cleaned.commas = true;
                    cleaned.text.replace_range(place..place + 1, " ");
                }
                (1, None)
            }
            _ => (rest.chars().next().map_or(1, char::len_utf8), None),
        };
        cleaned.not_numbers |= written.as_deref() == Some("null");
        if byte == b',' {
            comma = Some(cleaned.text.len());
        } else if !byte.is_ascii_whitespace() {
            comma = None;
        }
        cleaned.text.push_str(written.as_deref().unwrap_or(&rest[..taken]));
        at += taken;
    }
    cleaned
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
}

/// The position after the closing quote of the string whose content starts at `at`, or the end.
pub(super) fn behind_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The position after the white space and comments from `at` on; `at` when there is no comment.
pub(super) fn behind_comments(bytes: &[u8], at: usize) -> usize {
    let (mut behind, mut found) = (at, at);
    loop {
        behind += bytes[behind..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &bytes[behind..];
        if rest.starts_with(b"//") {
            behind += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            match rest[2..].windows(2).position(|window| window == b"*/") {
                Some(end) => behind += end + 4,
                // Never closed: invalid in any reading, and searched for once.
                None => return bytes.len(),
            }
        } else {
            // White space alone is skipped only at the start.
            return if at == 0 { behind } else { found };
        }
        found = behind;
    }
}
