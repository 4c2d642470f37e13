//! Mail (`.eml`) and web pages saved as one file (`.mhtml`), which have the format of mails.
//!
//! The parser decodes quoted-printable, base64 and character sets. Input that could cost it more than linear time is
//! refused before: nested messages, parts whose end it searches in everything that follows, and parameters in pieces,
//! which it joins one by one.

use mail_parser::{Address, Encoding, Message, MessageParser, MessagePart, MimeHeaders as _, PartType};
use serde_json::Value;

use super::block::{Block, BlockKind, shorten};
use super::front_matter::TITLE_BYTES_MAX;
use super::{Document, Limits, MediaType, ParseError, encoding, html, text};

/// Nested messages, and nested multipart parts.
const NESTED_MAX: usize = 64;
/// Parts of a message; each needs a few hundred bytes of memory.
const PARTS_MAX: usize = 10_000;
/// Parameters of a field: a long file name is cut into a few dozen.
const PARAMETERS_MAX: usize = 500;
/// Forwarded messages that are read within another.
const FORWARDED_DEPTH_MAX: usize = 4;

/// Parses a mail: sender, recipients and date, the text as the reader sees it, forwarded messages. Attachments are
/// listed by name.
pub(super) fn parse(bytes: &[u8], limits: &Limits, warnings: &mut Vec<String>) -> Result<Document, ParseError> {
    let message = message(bytes)?;
    let mut letter = Letter { text: String::new(), blocks: Vec::new(), attachments: Vec::new(), limits };
    letter.add(&message, 0)?;
    if !letter.attachments.is_empty() {
        let names = letter.attachments.join(", ");
        warnings.push(format!("attachments are not read: {}", shorten(&names, 300)));
        letter.block(&format!("Attachments: {names}"), BlockKind::Prose);
    }
    limits.check_text(letter.text.len())?;
    let mut document = Document::new(MediaType::Mail, letter.text, letter.blocks);
    document.title = title(&message);
    for (key, value) in [
        ("from", message.from().map(people)),
        ("to", message.to().map(people)),
        ("cc", message.cc().map(people)),
        ("date", message.date().map(|date| date.to_rfc3339())),
        ("message_id", message.message_id().map(str::to_owned)),
    ] {
        let value = value.filter(|value| !value.is_empty()).map(|value| Value::String(shorten(&value, 2000)));
        document.metadata.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(document)
}

/// Parses a saved web page: the page itself, not its pictures and frames.
pub(super) fn parse_archive(bytes: &[u8], limits: &Limits) -> Result<Document, ParseError> {
    let message = message(bytes)?;
    let page = message.parts.iter().find(|part| matches!(part.body, PartType::Html(_)));
    let Some((part, PartType::Html(page))) = page.map(|part| (part, &part.body)) else {
        return Err(ParseError::corrupt("saved web page", "there is no HTML in it"));
    };
    let saved_from = message.header_raw("Snapshot-Content-Location").or_else(|| part.content_location()).map(str::trim);
    let mut document = html::parse(page, saved_from.filter(|address| address.starts_with("http")), limits)?;
    document.media_type = MediaType::WebArchive;
    document.title = document.title.or_else(|| title(&message));
    Ok(document)
}

fn message(bytes: &[u8]) -> Result<Message<'_>, ParseError> {
    let lower = bytes.to_ascii_lowercase();
    let count = |word: &str| memchr::memmem::find_iter(&lower, word).count();
    let parts = count("content-type");
    let nested = count("multipart/") + count("rfc822") + count("message/global");
    if nested > NESTED_MAX && parts > NESTED_MAX {
        return Err(ParseError::corrupt("mail", format!("more than {NESTED_MAX} parts within parts")));
    }
    if parts > PARTS_MAX {
        return Err(ParseError::corrupt("mail", format!("more than {PARTS_MAX} parts")));
    }
    if has_endless_parameters(&lower) {
        return Err(ParseError::corrupt("mail", format!("a field with more than {PARAMETERS_MAX} parameters")));
    }
    let message = MessageParser::default().parse(bytes).filter(|message| !message.headers().is_empty());
    message.ok_or_else(|| ParseError::corrupt("mail", "there are no header lines at its start"))
}

/// Whether a field has too many parameters. One pass; `lower` is the mail in lower case.
fn has_endless_parameters(lower: &[u8]) -> bool {
    let mut count = None;
    for line in lower.split(|byte| *byte == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            let has_parameters = line.starts_with(b"content-type") || line.starts_with(b"content-disposition");
            count = has_parameters.then_some(0);
        }
        if let Some(count) = &mut count {
            *count += memchr::memchr_iter(b';', line).count();
            if *count > PARAMETERS_MAX {
                return true;
            }
        }
    }
    false
}

fn title(message: &Message<'_>) -> Option<String> {
    let subject = message.subject()?.split_whitespace().collect::<Vec<_>>().join(" ");
    (!subject.is_empty()).then(|| shorten(&subject, TITLE_BYTES_MAX))
}

/// `Ana <ana@site.example>, bo@site.example`
fn people(addresses: &Address<'_>) -> String {
    let shown = addresses.iter().map(|person| match (person.name(), person.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    });
    shown.filter(|person| !person.is_empty()).collect::<Vec<_>>().join(", ")
}

/// A message as it is read.
struct Letter<'l> {
    text: String,
    blocks: Vec<Block>,
    attachments: Vec<String>,
    limits: &'l Limits,
}

impl Letter<'_> {
    fn add(&mut self, message: &Message<'_>, depth: usize) -> Result<(), ParseError> {
        let mut head = Vec::new();
        if depth > 0 {
            head.extend(title(message).map(|title| format!("Subject: {title}")));
        }
        for (name, value) in [("From", message.from()), ("To", message.to()), ("Cc", message.cc())] {
            let value = value.map(people).filter(|people| !people.is_empty());
            head.extend(value.map(|people| format!("{name}: {}", shorten(&people, 500))));
        }
        head.extend(message.date().map(|date| format!("Date: {}", date.to_rfc3339())));
        self.block(&head.join("\n"), BlockKind::Verbatim);
        self.body(message)?;
        for part in message.attachments() {
            match &part.body {
                PartType::Message(forwarded) if depth < FORWARDED_DEPTH_MAX => self.add(forwarded, depth + 1)?,
                // Pictures within the text, and parts that were mistaken for text.
                PartType::InlineBinary(_) | PartType::Multipart(_) => {}
                _ => self.attachments.extend(attachment(part)),
            }
            self.limits.check_text(self.text.len())?;
        }
        Ok(())
    }

    /// The text as the sender wrote it; HTML if there is no text, or only a word in its place.
    fn body(&mut self, message: &Message<'_>) -> Result<(), ParseError> {
        let mut shown = Vec::new();
        for part in message.html_bodies() {
            if let PartType::Html(page) = &part.body {
                shown.push(html::parse(page, None, self.limits)?);
            }
        }
        let plain = message.text_bodies().filter_map(|part| match &part.body {
            PartType::Text(words) => Some(decoded(message, part, words)),
            _ => None,
        });
        let plain: Vec<String> = plain.filter(|words| !words.trim().is_empty()).collect();
        let length = |texts: &[&str]| texts.iter().map(|text| text.trim().len()).sum::<usize>();
        let words = length(&plain.iter().map(String::as_str).collect::<Vec<_>>());
        if words * 2 >= length(&shown.iter().map(|page| page.text.as_str()).collect::<Vec<_>>()) {
            for part in plain {
                self.paragraphs(part.trim_end());
            }
            return Ok(());
        }
        for page in shown {
            self.gap();
            let start = self.text.len();
            self.text.push_str(&page.text);
            let moved = |range: &std::ops::Range<usize>| range.start + start..range.end + start;
            self.blocks.extend(page.blocks.into_iter().map(|mut block| {
                if let BlockKind::Table { header } = &mut block.kind {
                    *header = moved(header);
                }
                block.range = moved(&block.range);
                block
            }));
        }
        Ok(())
    }

    fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
    }

    fn paragraphs(&mut self, words: &str) {
        self.gap();
        let start = self.text.len();
        self.text.push_str(words);
        let found = text::paragraphs(&self.text, start..self.text.len());
        self.blocks.extend(found);
    }

    fn block(&mut self, words: &str, kind: BlockKind) {
        if words.is_empty() {
            return;
        }
        self.gap();
        let start = self.text.len();
        self.text.push_str(words);
        self.blocks.extend(Block::trimmed(&self.text, start..self.text.len(), kind));
    }
}

/// A part's text. Old programs send eight-bit letters without naming their encoding.
fn decoded(message: &Message<'_>, part: &MessagePart<'_>, words: &str) -> String {
    let names_charset = part.content_type().is_some_and(|kind| kind.attribute("charset").is_some());
    if !names_charset && part.encoding == Encoding::None && words.contains(char::REPLACEMENT_CHARACTER) {
        let (start, end) = (part.raw_body_offset() as usize, part.raw_end_offset() as usize);
        let raw = message.raw_message().get(start..end).unwrap_or_default();
        if let Ok(text) = encoding::decode(raw, MediaType::Text, &mut Vec::new()) {
            return text;
        }
    }
    words.to_owned()
}

fn attachment(part: &MessagePart<'_>) -> Option<String> {
    let name = part.attachment_name().map(|name| shorten(name.trim(), 120)).filter(|name| !name.is_empty());
    name.or_else(|| part.content_type().map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("?"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(source: &str) -> (Document, Vec<String>) {
        let mut warnings = Vec::new();
        let source = source.replace('\n', "\r\n");
        (parse(source.as_bytes(), &Limits::default(), &mut warnings).expect("a mail"), warnings)
    }

    #[test]
    fn transfer_encodings_and_character_sets_are_read() {
        let (found, warnings) = mail(
            "From: =?utf-8?q?J=C3=B6rg?= <j@site.example>\nTo: ana@site.example\nSubject: =?utf-8?B?UHVtcGUgbMOkdWZ0?=\n\
             Date: Mon, 4 May 2026 10:11:12 +0200\nContent-Type: text/plain; charset=iso-8859-1\n\
             Content-Transfer-Encoding: quoted-printable\n\nDie Pumpe l=E4uft.=20\nSehr gut=\n.\n",
        );
        assert_eq!(
            found.text,
            "From: Jörg <j@site.example>\nTo: ana@site.example\nDate: 2026-05-04T10:11:12+02:00\n\nDie Pumpe läuft. \r\nSehr gut."
        );
        assert_eq!(found.title.as_deref(), Some("Pumpe läuft"));
        assert_eq!(
            (&found.metadata["from"], &found.metadata["date"]),
            (&"Jörg <j@site.example>".into(), &"2026-05-04T10:11:12+02:00".into())
        );
        assert!(warnings.is_empty());
    }

    /// Text and HTML, an attachment in base64, and a forwarded mail.
    #[test]
    fn alternatives_attachments_and_forwarded_mails_are_told_apart() {
        let blob = "iVBORw0KGgoAAAANSUhEUgAA\n".repeat(40);
        let (found, warnings) = mail(&format!(
            "From: a@site.example\nSubject: Plan\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=out\n\n\
             --out\nContent-Type: multipart/alternative; boundary=in\n\n\
             --in\nContent-Type: text/plain\n\nSee the HTML.\n\
             --in\nContent-Type: text/html; charset=utf-8\n\n<h1>Plan</h1><p>Drain the <b>tank</b> on Monday, before the valve is opened.</p>\n\
             --in--\n\
             --out\nContent-Type: image/png; name=plan.png\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n{blob}\n\
             --out\nContent-Type: message/rfc822\n\nFrom: b@site.example\nSubject: Old plan\n\nFill the tank.\n\
             --out--\n"
        ));
        assert!(found.text.contains("Drain the tank on Monday"), "{}", found.text);
        assert!(found.text.contains("Subject: Old plan\nFrom: b@site.example\n\nFill the tank."), "{}", found.text);
        assert!(found.text.ends_with("Attachments: plan.png") && !found.text.contains("iVBOR"), "{}", found.text);
        assert_eq!(warnings, ["attachments are not read: plan.png"]);
    }

    #[test]
    fn letters_without_a_declared_encoding_are_read_as_text_files_are() {
        let bytes = [
            &b"From: a@site.example\r\nSubject: x\r\n\r\n"[..],
            b"Die Pumpe l\xe4uft, die D\xfcse f\xf6rdert \xd6l.\r\n",
        ]
        .concat();
        let found = parse(&bytes, &Limits::default(), &mut Vec::new()).expect("a mail");
        assert!(found.text.contains("läuft, die Düse fördert Öl"), "{}", found.text);
    }

    #[test]
    fn a_page_saved_as_one_file_is_the_page() {
        let source = "From: <Saved by Blink>\nSnapshot-Content-Location: https://site.example/pumps\nSubject: Pumps\nMIME-Version: 1.0\n\
             Content-Type: multipart/related; type=\"text/html\"; boundary=\"--x--\"\n\n\
             ----x--\nContent-Type: text/html\nContent-ID: <frame-1@mhtml.blink>\nContent-Transfer-Encoding: quoted-printable\n\
             Content-Location: https://site.example/pumps\n\n<html><head><title>Pumps of hall=20two</title></head><body><p>Gr=C3=B6=\n\
             =C3=9Fe 4</p></body></html>\n\
             ----x--\nContent-Type: image/png\nContent-Transfer-Encoding: base64\nContent-Location: https://site.example/a.png\n\n\
             iVBORw0KGgo=\n----x----\n"
            .replace('\n', "\r\n");
        let found = parse_archive(source.as_bytes(), &Limits::default()).expect("a page");
        assert_eq!((found.text.as_str(), found.title.as_deref()), ("Größe 4", Some("Pumps of hall two")));
        assert_eq!(
            (found.url.as_deref(), found.media_type),
            (Some("https://site.example/pumps"), MediaType::WebArchive)
        );
    }

    #[test]
    fn what_would_take_long_is_refused() {
        for part in ["Content-Type: message/rfc822\r\n\r\n", "Content-Type: multipart/mixed; boundary=none\r\n\r\n"] {
            let found = parse(part.repeat(100_000).as_bytes(), &Limits::default(), &mut Vec::new());
            assert!(matches!(found, Err(ParseError::Corrupt { format: "mail", .. })));
        }
        let parts = format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n{}",
            "--b\r\nContent-Type: text/x\r\n\r\nx\r\n".repeat(20_000)
        );
        assert!(parse(parts.as_bytes(), &Limits::default(), &mut Vec::new()).is_err());
        for field in ["Content-Type: text/plain", "CONTENT-DISPOSITION : attachment"] {
            for join in ["; ", ";\r\n "] {
                let with = |count: usize| {
                    let pieces: String = (0..count).map(|piece| format!("{join}filename*{piece}=b")).collect();
                    let source = format!("From: a@site.example\r\n{field}{pieces}\r\n\r\nwords");
                    parse(source.as_bytes(), &Limits::default(), &mut Vec::new())
                };
                assert!(matches!(with(20_000), Err(ParseError::Corrupt { format: "mail", .. })), "{field}");
                assert!(with(100).is_ok(), "{field}");
            }
        }
    }
}
