//! Comments that contain only a licence or a copyright. The same few paragraphs are above every file of a project, and
//! nobody searches for them there.

/// Each paragraph of a licence contains one of these words.
const WORDS: [&str; 9] =
    ["copyright", "licen", "spdx-", "warrant", "all rights reserved", "permission", "redistribut", "©", "liable"];

/// Reads a comment line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Whether the open paragraph has such a word.
    paragraph: Option<bool>,
    has_words: bool,
    has_others: bool,
}

impl Reader {
    /// Reads the next line of the comment, with or without its marks. A line without words ends a paragraph.
    pub(super) fn line(&mut self, line: &str) {
        let words = line.trim_matches(|c: char| c.is_whitespace() || "/*#;-=!<>{}".contains(c)).to_lowercase();
        if words.is_empty() {
            self.end_paragraph();
            return;
        }
        self.has_words = true;
        let is_licence = WORDS.iter().any(|word| words.contains(word));
        self.paragraph = Some(self.paragraph.unwrap_or(false) || is_licence);
    }

    fn end_paragraph(&mut self) {
        self.has_others |= self.paragraph.take() == Some(false);
    }

    /// Whether the comment was only a licence.
    pub(super) fn finish(mut self) -> bool {
        self.end_paragraph();
        self.has_words && !self.has_others
    }
}

/// Whether `comment` is only a licence.
pub(super) fn is_licence(comment: &str) -> bool {
    let mut reader = Reader::default();
    comment.lines().for_each(|line| reader.line(line));
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_told_by_every_paragraph() {
        for comment in [
            "<!-- Copyright 2026 Ana -->",
            "/*\n * Copyright (c) 2026\n *\n * Permission is hereby granted, free of charge,\n * to any person\n *\n * THE SOFTWARE IS PROVIDED WITHOUT WARRANTY\n */",
            "# SPDX-License-Identifier: MIT",
        ] {
            assert!(is_licence(comment), "{comment}");
        }
        for comment in ["", "# ---", "# Copyright 2026 Ana\n#\n# Moves water from here to there.", "# Moves water."] {
            assert!(!is_licence(comment), "{comment}");
        }
    }
}
