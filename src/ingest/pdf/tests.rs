use lopdf::content::{Content, Operation};
use lopdf::encryption::{EncryptionState, EncryptionVersion, Permissions};
use lopdf::{Object, ObjectId, Stream, dictionary, text_string};
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
        lines(&["The crew's capabili-", "ties are known", "first.", "", "Then the rest."]),
        lines(&[]),
        lines(&["Page three."]),
    ]);
    let found = parsed(&bytes(file)).expect("valid");
    let document = &found.documents[0];
    assert_eq!(document.text, "The crew's capabilities are known\nfirst.\n\nThen the rest.\n\nPage three.");
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

/// A file of `objects`, numbered from 1; the first is the catalog.
fn raw(objects: &[String]) -> Vec<u8> {
    let mut file = b"%PDF-1.5\n".to_vec();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (object, number) in objects.iter().zip(1..) {
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.extend_from_slice(format!("{number} 0 obj\n{object}\nendobj\n").as_bytes());
    }
    let start = file.len();
    let trailer = format!("trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1);
    file.extend_from_slice((table + &trailer).as_bytes());
    file
}

fn stream(content: &str) -> String {
    format!("<</Length {}>>\nstream\n{content}\nendstream", content.len())
}

/// One page of `content` with `fonts` among its resources, other entries, and objects from number 5 on.
fn one_page(content: &str, fonts: &str, page: &str, others: &[String]) -> Vec<u8> {
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        format!("<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<<{fonts}>>>>{page}>>"),
        stream(content),
    ];
    objects.extend_from_slice(others);
    raw(&objects)
}

const HELVETICA: &str = "/F<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>";

fn text_of(file: &[u8]) -> String {
    parsed(file).expect("valid").documents.swap_remove(0).text
}

/// Strings with positions: `x`, `y`, and text.
fn at(strings: &[(i32, i32, &str)]) -> String {
    let shown = strings.iter().map(|(x, y, text)| format!("1 0 0 1 {x} {y} Tm ({text}) Tj\n")).collect::<String>();
    format!("BT /F 10 Tf\n{shown}ET")
}

#[test]
fn columns_are_read_one_after_the_other_however_they_are_drawn() {
    let left =
        ["The turbine of the second", "hall was opened in April", "and the blades showed no", "mark of the winter run"];
    let right =
        ["Gaskets for the old crane", "are kept in the far depot", "where the keeper hands", "them out against a slip"];
    for shift in [0, 6] {
        let mut strings = vec![(60, 760, "Minutes of the works meeting, which go over both of the columns below")];
        for (row, (left, right)) in (0..).zip(left.iter().zip(right)) {
            strings.push((60, 730 - 13 * row, left));
            strings.push((320, 730 - shift - 13 * row, right));
        }
        let expected = format!("{}\n\n{}\n\n{}", strings[0].2, left.join("\n"), right.join("\n"));
        assert_eq!(text_of(&one_page(&at(&strings), HELVETICA, "", &[])), expected, "second column {shift} lower");
    }
}

#[test]
fn tables_and_lists_are_read_line_by_line() {
    let mut strings = Vec::new();
    for (row, name) in (0..).zip(["Bearing", "Seal ring", "Cone", "Bolt", "Nut", "Washer"]) {
        strings.extend([
            (60, 700 - 14 * row, name),
            (200, 700 - 14 * row, "twelve"),
            (330, 700 - 14 * row, "shelf nine"),
        ]);
    }
    let text = text_of(&one_page(&at(&strings), HELVETICA, "", &[]));
    assert!(text.starts_with("Bearing twelve shelf nine\nSeal ring twelve"), "{text}");
    let list: Vec<_> = (0..6)
        .flat_map(|row| {
            [(60, 700 - 14 * row, "1."), (90, 700 - 14 * row, "Close the main valve and write down the time")]
        })
        .collect();
    assert!(text_of(&one_page(&at(&list), HELVETICA, "", &[])).starts_with("1. Close the main valve"));
}

/// A composite font of two-byte codes with this map to Unicode, as objects 5 to 7.
fn mapped(map: &str) -> (String, Vec<String>) {
    let own = "<</Type/Font/Subtype/CIDFontType2/BaseFont/Own/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>/DW 600>>";
    let font = "<</Type/Font/Subtype/Type0/BaseFont/Own/Encoding/Identity-H/DescendantFonts[6 0 R]/ToUnicode 7 0 R>>";
    ("/F 5 0 R".to_owned(), vec![font.to_owned(), own.to_owned(), stream(map)])
}

#[test]
fn maps_to_unicode_are_read_however_they_are_written() {
    for map in [
        "1 begincodespacerange <00> <FF> endcodespacerange 2 beginbfchar <0001> <0070> <0002> <0075> endbfchar 1 beginbfrange <0003> <0004> [<006D> <0070>] endbfrange",
        "/Base usecmap 1 beginbfrange < 00 01 > < 00 01 > < 00 70 > endbfrange 3 beginbfchar <2> <75> <0002> <0075> <0003> <006D> <0004> <0070>",
        "beginbfrange <0001> <FFFFFFFF> <0000> endbfrange beginbfchar <0001> <0070> <0002> <0075> <0003> <006D> <0004> <0070> endbfchar",
    ] {
        let (font, objects) = mapped(map);
        let file = one_page("BT /F 12 Tf 60 700 Td <0001000200030004> Tj ET", &font, "", &objects);
        assert_eq!(text_of(&file), "pump", "{map}");
    }
}

#[test]
fn hebrew_is_read_from_the_right() {
    // In visual order: the letters of two words from left to right, and a number between them.
    let (font, objects) = mapped(
        "beginbfchar <0001> <05DD> <0002> <05D5> <0003> <05DC> <0004> <05E9> <0005> <0020> <0006> <0034> <0007> <0037> endbfchar",
    );
    let file =
        one_page("BT /F 12 Tf 60 700 Td <00010002000300040005000600070005000100020003> Tj ET", &font, "", &objects);
    assert_eq!(text_of(&file), "לום 47 שלום");
}

#[test]
fn names_of_glyphs_are_read_where_the_map_to_unicode_has_gaps() {
    let font = "/F<</Type/Font/Subtype/Type1/BaseFont/Times-Roman/ToUnicode 5 0 R/Encoding<</Differences[1/o/f_f/i/c/e/space/eacute/uni00DF]>>>>";
    let map = stream("1 begincodespacerange <0000> <FFFF> endcodespacerange 1 beginbfchar <0002> <00660066> endbfchar");
    let file = one_page("BT /F 12 Tf 60 700 Td <01020304050603070801> Tj ET", font, "", &[map]);
    assert_eq!(text_of(&file), "office iéßo");
}

#[test]
fn predefined_cmaps_are_known() {
    for (encoding, ordering, codes, expected) in [
        ("GBK-EUC-H", "GB1", "cbaeb1c3", "水泵"),
        ("90ms-RKSJ-H", "Japan1", "908596e5", "水門"),
        ("KSCms-UHC-H", "Korea1", "bcf6b9ae", "수문"),
        ("ETen-B5-H", "CNS1", "a4f4aaf9", "水門"),
        ("UniGB-UCS2-H", "GB1", "6c3495f8", "水闸"),
    ] {
        let font = format!("<</Type/Font/Subtype/Type0/BaseFont/Own/Encoding/{encoding}/DescendantFonts[6 0 R]>>");
        let own = format!(
            "<</Type/Font/Subtype/CIDFontType0/BaseFont/Own/CIDSystemInfo<</Registry(Adobe)/Ordering({ordering})/Supplement 1>>>>"
        );
        let file = one_page(&format!("BT /F 12 Tf 60 700 Td <{codes}> Tj ET"), "/F 5 0 R", "", &[font, own]);
        assert_eq!(text_of(&file), expected, "{encoding}");
    }
}

/// A font that does not define its codes.
const UNKNOWN: &str = "/U<</Type/Font/Subtype/Type0/BaseFont/ABCDEF+Secret/Encoding/Identity-H/DescendantFonts[<</Type/Font/Subtype/CIDFontType2/BaseFont/Secret>>]>>";

#[test]
fn characters_without_a_meaning_are_counted_and_never_stored() {
    let fonts = format!("{HELVETICA}{UNKNOWN}");
    let unknown = "BT /U 12 Tf 60 650 Td <000100020003000400050006> Tj ET";
    let file = one_page(&format!("{}\n{unknown}", at(&[(60, 700, "Minutes of the meeting")])), &fonts, "", &[]);
    let found = parsed(&file).expect("valid");
    assert_eq!(found.documents[0].text, "Minutes of the meeting");
    let expected = "6 characters could not be read: the file does not say which letters they are (font Secret; page 1)";
    assert_eq!(found.warnings, [expected]);
    let alone = parsed(&one_page(unknown, UNKNOWN, "", &[])).expect_err("nothing can be read");
    assert!(matches!(&alone, ParseError::Unreadable { .. }), "{alone:?}");
    assert!(alone.to_string().contains("fonts that do not say which letters they show (Secret)"), "{alone}");
}

#[test]
fn letters_that_come_out_as_signs_are_refused() {
    let signs = "!#$%& (') *+,#- ./0:; <=>?@ [!]^ _#`{ |}~ !#$ %&* +,-".repeat(3);
    let escaped = signs.replace(['(', ')'], "");
    let found = parsed(&one_page(&at(&[(60, 700, &escaped)]), HELVETICA, "", &[]));
    assert!(matches!(found, Err(ParseError::Unreadable { .. })), "{found:?}");
}

#[test]
fn values_of_forms_are_text_of_the_page() {
    let looks = "<</Type/XObject/Subtype/Form/BBox[0 0 200 20]/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>/Length 39>>\nstream\nBT /F 11 Tf 2 5 Td (Hawthorn Pike) Tj ET\nendstream";
    let annotations = [
        "<</Subtype/Widget/FT/Tx/T(a)/V(Hawthorn Pike)/Rect[160 696 360 716]/AP<</N 6 0 R>>>>",
        "<</Subtype/Widget/Parent<</FT/Tx/V(QX-4471)>>/Rect[160 656 360 676]>>",
        "<</Subtype/Widget/FT/Btn/V/Yes/AS/Yes/Rect[160 616 176 632]>>",
        "<</Subtype/Widget/FT/Btn/AS/Off/Rect[160 576 176 592]>>",
        "<</Subtype/Widget/FT/Tx/Ff 8192/V(password)/Rect[160 536 360 552]>>",
        "<</Subtype/Widget/FT/Tx/F 2/V(hidden)/Rect[160 496 360 512]>>",
        "<</Subtype/Widget/FT/Ch/V[(red)(blue)]/Rect[160 456 360 476]>>",
    ];
    let labels =
        at(&[(60, 700, "Name:"), (60, 660, "Badge:"), (60, 620, "Crane:"), (60, 580, "Lift:"), (60, 460, "Colours:")]);
    let file =
        one_page(&labels, HELVETICA, &format!("/Annots[{}]", annotations.join("")), &[stream(""), looks.to_owned()]);
    let text = text_of(&file).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(text, "Name: Hawthorn Pike Badge: QX-4471 Crane: [x] Lift: [ ] Colours: red, blue");
}

#[test]
fn marked_content_is_read_as_it_says() {
    let content =
        format!("/Span<</ActualText(found)>> BDC {} EMC {}", at(&[(60, 700, "xx")]), at(&[(60, 660, "and more")]));
    assert_eq!(
        text_of(&one_page(&content, HELVETICA, "", &[])).split_whitespace().collect::<Vec<_>>(),
        ["found", "and", "more"]
    );
}

#[test]
fn what_is_drawn_twice_or_outside_is_not_text_twice() {
    let content = at(&[(60, 700, "Heading"), (60, 700, "Heading"), (60, 660, "words"), (3000, 660, "unseen")]);
    assert_eq!(text_of(&one_page(&content, HELVETICA, "", &[])), "Heading\n\nwords");
}

#[test]
fn fractions_and_exponents_stay_on_their_line() {
    let content =
        "BT /F 10 Tf 60 700 Td (Area: 5 m) Tj /F 6 Tf 0 4 Td 43.5 0 Td (2) Tj /F 10 Tf 6 -4 Td (of glass) Tj ET";
    assert_eq!(text_of(&one_page(content, HELVETICA, "", &[])), "Area: 5 m2 of glass");
}

#[test]
fn a_file_without_text_says_why() {
    assert!(
        matches!(parsed(&bytes(pdf(&[lines(&[])]))), Err(ParseError::Unreadable { detail }) if detail == "its pages are empty")
    );
    assert!(matches!(parsed(&one_page("0 0 100 100 re f", "", "", &[])), Err(ParseError::NoText)));
}

#[test]
fn a_file_cut_short_is_named_as_that() {
    let whole = bytes(pdf(&[lines(&["words"])]));
    for length in [0, 10, 100, whole.len() / 3] {
        let found = parsed(&whole[..length]);
        assert!(
            matches!(&found, Err(ParseError::Corrupt { format: "PDF", detail, .. }) if detail.contains("cut short")),
            "{length}: {found:?}"
        );
    }
    let file = one_page(&at(&[(60, 700, "The words before the cut")]), HELVETICA, "", &[]);
    let cut = file.windows(4).rposition(|window| window == b"xref").expect("a table");
    let table = file[..cut].windows(4).rposition(|window| window == b"xref").expect("a table");
    let found = parsed(&file[..table]).expect("the page is whole");
    assert_eq!(found.documents[0].text, "The words before the cut");
    assert_eq!(found.warnings, ["the file may be cut short: its end is missing"]);
}

#[test]
fn damage_within_a_page_ends_it_there() {
    let text: String =
        (0..200).map(|row| format!("1 0 0 1 60 {} Tm (line {row} of the page) Tj\n", 800 - 4 * row)).collect();
    let mut content = Stream::new(dictionary! {}, format!("BT /F1 3 Tf {text} ET").into_bytes());
    content.compress().expect("compresses");
    let middle = content.content.len() / 2;
    content.content[middle..middle + 8].fill(0xff);
    let mut file = pdf(&[lines(&["x"])]);
    let page = file.page_iter().next().expect("one page");
    let id = file.get_page_contents(page)[0];
    file.objects.insert(id, content.into());
    let text = text_of(&bytes(file));
    assert!(text.starts_with("line 0 of the page"), "{text}");
}

/// Pages that share one large content, as a small file can have them.
fn shared(pages: usize, content: &[u8]) -> Vec<u8> {
    let mut file = pdf(&[lines(&["first"])]);
    let first = file.page_iter().next().expect("one page");
    let id: ObjectId = file.get_page_contents(first)[0];
    let mut stream = Stream::new(dictionary! {}, content.to_vec());
    stream.compress().expect("compresses");
    file.objects.insert(id, stream.into());
    let tree =
        file.get_dictionary(first).and_then(|page| page.get(b"Parent")).and_then(Object::as_reference).expect("a tree");
    let page = file.get_dictionary(first).expect("a page").clone();
    let kids: Vec<Object> = (0..pages).map(|_| file.add_object(page.clone()).into()).collect();
    let count = i64::try_from(pages).expect("few");
    file.objects.insert(tree, Object::Dictionary(dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }));
    bytes(file)
}

#[test]
fn a_small_file_may_not_cause_much_work() {
    let content = [&b"q ".repeat(4 << 20)[..], b"BT /F1 12 Tf (words) Tj ET"].concat();
    let found = parsed(&shared(400, &content));
    let said = found.expect_err("3 GB of content in a file of some KB").to_string();
    assert!(said.contains("more work than is allowed for a file of this size"), "{said}");
    assert_eq!(parsed(&shared(3, &content)).expect("24 MB").documents[0].pages.len(), 3);
}

#[test]
fn forms_that_draw_forms_are_paid_for() {
    let draw = "/X Do ".repeat(1000);
    let form = |next: usize| {
        let resources = format!("/Resources<</XObject<</X {next} 0 R>>>>");
        let length = draw.len();
        format!("<</Type/XObject/Subtype/Form/BBox[0 0 9 9]{resources}/Length {length}>>\nstream\n{draw}\nendstream")
    };
    // A thousand times a thousand times a thousand, and a form that is not there.
    for forms in [vec![form(6), form(7), form(8)], vec![form(99)]] {
        let page = "<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</XObject<</X 5 0 R>>>>>>".to_owned();
        let mut objects = vec![
            "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
            "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
            page,
            stream(&draw),
        ];
        objects.extend(forms);
        let said = parsed(&raw(&objects)).expect_err("too much").to_string();
        assert!(said.contains("more work than is allowed"), "{said}");
    }
}

#[test]
fn numbers_of_fonts_are_not_taken_at_their_word() {
    let wide = "<</Type/Font/Subtype/CIDFontType2/BaseFont/Own/W[0 4294967295 500 0 4294967295 600]/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>";
    let (font, mut objects) = mapped("beginbfrange <0000> <FFFF> <0041> endbfrange");
    wide.clone_into(&mut objects[1]);
    assert_eq!(text_of(&one_page("BT /F 9 Tf 60 700 Td <00000001> Tj ET", &font, "", &objects)), "AB");
    let first =
        "/F<</Type/Font/Subtype/Type1/BaseFont/Helvetica/FirstChar 99999999999/LastChar 999999999999/Widths[1]>>";
    assert!(parsed(&one_page(&at(&[(60, 700, "words")]), first, "", &[])).is_err());
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
