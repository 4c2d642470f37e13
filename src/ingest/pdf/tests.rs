use lopdf::content::{Content, Operation};
use lopdf::encryption::{EncryptionState, EncryptionVersion, Permissions};
use lopdf::{Stream, dictionary, text_string};
use proptest::prelude::*;

use super::*;

/// A PDF with a page for each list of operations.
fn pdf(pages: &[Vec<Operation>]) -> lopdf::Document {
    let mut file = lopdf::Document::with_version("1.5");
    let tree = file.new_object_id();
    let font = file.add_object(dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding" });
    let resources = file.add_object(dictionary! { "Font" => dictionary! { "F1" => font } });
    let kids: Vec<Object> = pages
        .iter()
        .map(|operations| {
            let content = Content { operations: operations.clone() }.encode().expect("encodes");
            let content = file.add_object(Stream::new(dictionary! {}, content));
            file.add_object(
                dictionary! { "Type" => "Page", "Parent" => tree, "Contents" => content, "Resources" => resources },
            )
            .into()
        })
        .collect();
    let count = i64::try_from(kids.len()).expect("few");
    file.objects.insert(tree, Object::Dictionary(dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }));
    let catalog = file.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
    file.trailer.set("Root", catalog);
    let info = file.add_object(dictionary! { "Title" => text_string("Field Manual"), "Author" => text_string("Zoë") });
    file.trailer.set("Info", info);
    file.trailer.set("ID", vec![Object::string_literal(vec![1u8; 16]), Object::string_literal(vec![1u8; 16])]);
    file
}

fn bytes(mut file: lopdf::Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.save_to(&mut bytes).expect("writes");
    bytes
}

/// Lines of 12 points, 14 apart; an empty one leaves a gap.
fn lines(lines: &[&str]) -> Vec<Operation> {
    let mut operations = vec![
        Operation::new("BT", vec![]),
        Operation::new("Tf", vec!["F1".into(), 12.into()]),
        Operation::new("Td", vec![72.into(), 720.into()]),
    ];
    for line in lines {
        if !line.is_empty() {
            operations.push(Operation::new("Tj", vec![Object::string_literal(*line)]));
        }
        operations.push(Operation::new("Td", vec![0.into(), (-14).into()]));
    }
    operations.push(Operation::new("ET", vec![]));
    operations
}

fn parsed(bytes: &[u8]) -> Result<Parsed, ParseError> {
    parse(bytes, &Limits::default())
}

#[test]
fn pages_lines_and_paragraphs_are_told_apart() {
    let file = pdf(&[
        lines(&["The gate-", "way is started", "first.", "", "Then the rest."]),
        lines(&[]),
        lines(&["Page three."]),
    ]);
    let found = parsed(&bytes(file)).expect("valid");
    let document = &found.documents[0];
    assert_eq!(document.text, "The gateway is started\nfirst.\n\nThen the rest.\n\nPage three.");
    assert_eq!(
        document.pages.iter().map(|page| (page.number, &document.text[page.range.clone()])).collect::<Vec<_>>()[1],
        (3, "Page three.")
    );
    assert_eq!(found.warnings, ["page 2 has no text"]);
    assert_eq!(document.title.as_deref(), Some("Field Manual"));
    assert_eq!(Value::Object(document.metadata.clone()), serde_json::json!({"author": "Zoë", "pages": 3}));
}

#[test]
fn chunks_know_their_page() {
    let body = ["A line of a dozen words that fills the page of this manual."; 8];
    let found = parsed(&bytes(pdf(&[lines(&body), lines(&body)]))).expect("valid");
    let chunks = crate::ingest::chunk(&found.documents[0], &crate::ingest::ChunkConfig::default());
    assert_eq!(chunks.iter().map(|chunk| chunk.page).collect::<Vec<_>>(), [Some(1), Some(2)]);
}

#[test]
fn gaps_between_strings_are_spaces_and_kerning_is_not() {
    let items = vec![
        Object::string_literal("Wo"),
        40.into(),
        Object::string_literal("rd"),
        (-330).into(),
        Object::string_literal("two"),
    ];
    let mut operations = lines(&[]);
    operations.insert(3, Operation::new("TJ", vec![items.into()]));
    assert_eq!(parsed(&bytes(pdf(&[operations]))).expect("valid").documents[0].text, "Word two");
}

#[test]
fn forms_are_read_and_may_not_call_themselves_forever() {
    let mut file = pdf(&[vec![Operation::new("Do", vec!["X".into()])]]);
    let form = file.new_object_id();
    let font = file
        .objects
        .iter()
        .find(|(_, object)| object.as_dict().is_ok_and(|font| font.has_type(b"Font")))
        .map(|(id, _)| *id)
        .expect("one font");
    let mut content = Content { operations: lines(&["in a form"]) };
    content.operations.extend([Operation::new("Do", vec!["X".into()]), Operation::new("Do", vec!["X".into()])]);
    let resources = dictionary! { "Font" => dictionary! { "F1" => font }, "XObject" => dictionary! { "X" => form } };
    let own = dictionary! { "Type" => "XObject", "Subtype" => "Form", "Resources" => resources.clone() };
    file.objects.insert(form, Stream::new(own, content.encode().expect("encodes")).into());
    let page = file.page_iter().next().expect("one page");
    file.get_dictionary_mut(page).expect("a page").set("Resources", resources);
    assert!(parsed(&bytes(file)).expect("valid").documents[0].text.starts_with("in a form"));
}

#[test]
fn encrypted_files_open_with_the_empty_password_only() {
    for (password, opens) in [("", true), ("secret", false)] {
        let mut file = pdf(&[lines(&["Hidden words."])]);
        let version = EncryptionVersion::V2 {
            document: &file,
            owner_password: "owner",
            user_password: password,
            key_length: 128,
            permissions: Permissions::all(),
        };
        let state = EncryptionState::try_from(version).expect("state");
        file.encrypt(&state).expect("encrypts");
        let found = parsed(&bytes(file));
        match opens {
            true => assert_eq!(found.expect("opens").documents[0].text, "Hidden words."),
            false => assert!(matches!(found, Err(ParseError::Encrypted)), "{found:?}"),
        }
    }
}

#[test]
fn a_file_without_text_says_so() {
    assert!(matches!(parsed(&bytes(pdf(&[lines(&[])]))), Err(ParseError::NoText)));
}

#[test]
fn a_file_cut_short_is_corrupt_not_empty() {
    let whole = bytes(pdf(&[lines(&["words"])]));
    for length in [0, 10, 100, whole.len() / 3] {
        let found = parsed(&whole[..length]);
        assert!(matches!(found, Err(ParseError::Corrupt { format: "PDF", .. })), "{length}: {found:?}");
    }
}

#[test]
fn a_page_that_unpacks_without_end_is_refused() {
    let mut file = pdf(&[lines(&["words"]), lines(&["bomb"])]);
    let page = file.page_iter().nth(1).expect("two pages");
    let content = file.get_page_contents(page)[0];
    let mut bomb = Stream::new(dictionary! {}, vec![b' '; 40 << 20]);
    bomb.compress().expect("compresses");
    file.objects.insert(content, bomb.into());
    let bytes = bytes(file);
    assert!(bytes.len() < 1 << 20);
    let found = parsed(&bytes).expect("the other page is good");
    assert_eq!(found.documents[0].text, "words");
    assert_eq!(found.warnings, ["page 2 could not be read: its content unpacks to more than is allowed"]);
}

#[test]
fn objects_in_compressed_streams_are_read() {
    let mut bytes = Vec::new();
    pdf(&[lines(&["Packed words."])]).save_modern(&mut bytes).expect("writes");
    assert!(bytes.windows(6).any(|window| window == b"ObjStm"));
    assert_eq!(parsed(&bytes).expect("valid").documents[0].text, "Packed words.");
}

#[test]
fn object_streams_share_one_budget() {
    let mut file = pdf(&[lines(&["words"])]);
    for _ in 0..6 {
        // The writer leaves object streams out, so the name is put right afterwards.
        let own = dictionary! { "Type" => "ObjStX", "N" => 0, "First" => 0 };
        let mut bomb = Stream::new(own, vec![b' '; 24 << 20]);
        bomb.compress().expect("compresses");
        file.add_object(bomb);
    }
    let mut bytes = bytes(file);
    for place in 0..bytes.len() - 6 {
        if bytes[place..].starts_with(b"ObjStX") {
            bytes[place + 5] = b'm';
        }
    }
    let found = parsed(&bytes);
    assert!(matches!(found, Err(ParseError::Corrupt { format: "PDF", .. })), "{found:?}");
}

#[test]
fn pages_are_counted() {
    let limits = Limits { pages_max: 1, ..Limits::default() };
    let found = parse(&bytes(pdf(&[lines(&["a"]), lines(&["b"])])), &limits);
    assert!(matches!(found, Err(ParseError::TooManyPages { found: 2, limit: 1 })), "{found:?}");
}

#[test]
fn titles_left_by_programs_are_dropped() {
    for title in ["Microsoft Word - a", "report.docx", "Untitled", "--", "x.PDF"] {
        assert!(!is_sane_title(title), "{title}");
    }
    assert!(is_sane_title("Field Manual 3.1"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_damaged_file_gets_an_answer(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>()) {
        let mut file = bytes(pdf(&[lines(&["The first page", "", "has words."]), lines(&["And the second."])]));
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let _ = parsed(&file);
        let length = cut.index(file.len());
        let _ = parsed(&file[..length]);
    }
}
