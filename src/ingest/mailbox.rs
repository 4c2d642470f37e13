//! Mailboxes in one file (mbox), as used by Thunderbird, mutt and the archives of mailing lists: a document for each
//! mail.
//!
//! A mail starts after a line that starts with "From ", at the start or after an empty line, if header lines follow.
//! Text that quotes such a line without header lines is text.

use std::collections::HashSet;

use memchr::memmem;

use super::{Document, Limits, ParseError, mail};

/// Longest line that can separate mails.
const LINE_BYTES_MAX: usize = 1_000;
/// Longest message id that becomes the id of a document; longer ones are ignored.
const ID_BYTES_MAX: usize = 300;
/// One of these fields is among the first of each mail, regardless of the program that wrote the mailbox.
const FIELDS: [&str; 8] =
    ["from", "date", "received", "return-path", "message-id", "subject", "delivered-to", "x-mozilla-status"];

/// Whether these bytes, the whole file or its beginning, start a mailbox.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    mail_behind(bytes, 0).is_some_and(|start| {
        let name = field(&bytes[start..]).unwrap_or_default().to_ascii_lowercase();
        FIELDS.iter().any(|field| field.as_bytes() == name)
    })
}

/// Where the mail after the line at `at` starts, if that line separates mails.
fn mail_behind(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let is_apart = at == 0 || bytes[..at].ends_with(b"\n\n") || bytes[..at].ends_with(b"\n\r\n");
    if !is_apart || !rest.starts_with(b"From ") {
        return None;
    }
    let end = memchr::memchr(b'\n', &rest[..rest.len().min(LINE_BYTES_MAX)])?;
    field(&rest[end + 1..]).map(|_| at + end + 1)
}

/// The name of the header field at the start.
fn field(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')?;
    (end > 0 && bytes[end] == b':').then(|| &bytes[..end])
}

/// The mails, without the lines between them.
fn mails(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lines = memmem::find_iter(bytes, b"From ").filter_map(|at| Some((at, mail_behind(bytes, at)?)));
    let mut next = lines.next();
    std::iter::from_fn(move || {
        let (_, start) = next?;
        next = lines.next();
        Some(&bytes[start..next.map_or(bytes.len(), |(end, _)| end)])
    })
}

/// Parses a mailbox: each mail is identified by its message id, or by its number if the id is missing or not unique. An
/// invalid mail is left out with a warning.
pub(super) fn parse(bytes: &[u8], limits: &Limits, warnings: &mut Vec<String>) -> Result<Vec<Document>, ParseError> {
    let (mut documents, mut ids, mut text_bytes) = (Vec::new(), HashSet::new(), 0);
    let (mut attached, mut broken) = (0usize, Vec::new());
    for (source, number) in mails(bytes).zip(1u64..) {
        if documents.len() >= limits.records_max {
            return Err(ParseError::TooManyRecords { limit: limits.records_max });
        }
        let mut own = Vec::new();
        let mut document = match mail::parse(source, limits, &mut own) {
            Ok(document) => document,
            Err(error @ ParseError::Corrupt { .. }) => {
                broken.push((number, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        text_bytes += document.text.len();
        limits.check_text(text_bytes)?;
        attached += usize::from(!own.is_empty());
        let id = document.metadata.get("message_id").and_then(|id| id.as_str()).unwrap_or_default();
        let is_good = id.contains('@') && id.len() <= ID_BYTES_MAX && !id.contains(char::is_control);
        document.record = Some(if is_good && ids.insert(id.to_owned()) { id.to_owned() } else { number.to_string() });
        documents.push(document);
    }
    if attached > 0 {
        warnings.push(format!("attachments are not read: {attached} of {} mails have some", documents.len()));
    }
    if let Some((number, error)) = broken.first() {
        warnings.push(format!("{} of the mails are left out, the first is number {number}: {error}", broken.len()));
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::MediaType;

    /// As Thunderbird writes it.
    const INBOX: &str = "From - Mon May  4 10:11:12 2026\nX-Mozilla-Status: 0001\nX-Mozilla-Status2: 00000000\n\
        Received: by site.example\nMessage-ID: <one@site.example>\nFrom: ana@site.example\nSubject: Pump\n\
        Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nRGllIFB1bXBlIGzDpHVmdC4K\n\n\
        From - Mon May  4 11:11:12 2026\nMessage-ID: <two@site.example>\nFrom: bo@site.example\nSubject: Valve\n\n\
        It leaks.\n\nFrom Monday on it is closed.\n\n\
        From bo@site.example Mon May  4 12:11:12 2026\nMessage-ID: <two@site.example>\nFrom: bo@site.example\nSubject: Again\n\n\
        It still leaks.\n";

    #[test]
    fn each_mail_of_a_mailbox_is_a_document() {
        for source in [INBOX.to_owned(), INBOX.replace('\n', "\r\n")] {
            let found = parse(source.as_bytes(), &Limits::default(), &mut Vec::new()).expect("a mailbox");
            let records: Vec<&str> = found.iter().filter_map(|document| document.record.as_deref()).collect();
            assert_eq!(records, ["one@site.example", "two@site.example", "3"]);
            assert!(
                found[0].text.ends_with("Die Pumpe läuft.") && !found[0].text.contains("RGll"),
                "{}",
                found[0].text
            );
            assert!(found[1].text.ends_with("From Monday on it is closed."), "{}", found[1].text);
            assert_eq!(found[2].title.as_deref(), Some("Again"));
        }
    }

    #[test]
    fn mailboxes_are_known_by_their_content() {
        for name in ["Inbox", "box.mbox", "2026-May.txt", "Archive.2026"] {
            assert_eq!(MediaType::detect(name, INBOX.as_bytes()).ok(), Some(MediaType::Mail), "{name}");
        }
        for text in ["From here on:\nall is well\n", "From a: to b\nNote: the valve\n", "From one\n\nFrom: two\n"] {
            assert_eq!(MediaType::detect("notes.txt", text.as_bytes()).ok(), Some(MediaType::Text), "{text}");
        }
    }

    #[test]
    fn what_is_no_mail_is_left_out_and_told() {
        let source = format!("{INBOX}\nFrom x\nContent-Type: text/plain{}\n\nwords\n", "; a=b".repeat(1_000));
        let mut warnings = Vec::new();
        let found = parse(source.as_bytes(), &Limits::default(), &mut warnings).expect("a mailbox");
        assert_eq!(found.len(), 3);
        assert!(
            warnings[0].starts_with("1 of the mails are left out, the first is number 4: not valid mail"),
            "{warnings:?}"
        );
        let limits = Limits { records_max: 2, ..Limits::default() };
        assert!(matches!(
            parse(source.as_bytes(), &limits, &mut Vec::new()),
            Err(ParseError::TooManyRecords { limit: 2 })
        ));
    }
}
