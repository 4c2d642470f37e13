//! What reading a document costs follows its size: processor time and memory of the real parser on inputs that were made to be bad.
//!
//! Both are counted, not clocked: the processor time of the process that parses, and the bytes that it asked for.

use std::time::Duration;

use cairn::extraction::{Config, ExtractError, Extraction, Isolation, Request, Usage};
use cairn::ingest::{ChunkConfig, Limits};

use crate::node::CAIRN;

/// How much larger the second input of each pair is.
const LARGER: usize = 4;
/// What time may grow by, for an input four times as large; quadratic is sixteen.
const TIME_GROWTH: u64 = 8;
/// The same for memory.
const MEMORY_GROWTH: u64 = 5;
/// What counts as nothing: below it, what is done once for each document outweighs the rest.
const NO_TIME_US: u64 = 30_000;
const NO_MEMORY: u64 = 2 << 20;
/// Bytes of memory for each byte of a source, at most, and what every document may take besides.
const MEMORY_PER_BYTE: u64 = 128;
const MEMORY_LEAST: u64 = 32 << 20;

fn extraction() -> Extraction {
    let config = Config {
        isolation: Isolation::ChildrenOf(CAIRN.into()),
        width: 1,
        memory_bytes_max: 1 << 30,
        time_max: Duration::from_secs(120),
    };
    Extraction::new(config, cairn::extraction::Metrics::default())
}

/// What reading `bytes` took; a document that is refused was read too.
async fn cost(extraction: &Extraction, name: &str, bytes: &[u8]) -> Usage {
    let request = Request {
        name: name.to_owned(),
        id: name.to_owned(),
        title: None,
        media_type: None,
        limits: Limits::default(),
        chunks: ChunkConfig::default(),
        memory_bytes_max: u64::MAX,
        bytes: bytes.to_vec(),
    };
    let mut reading = extraction.read(request);
    loop {
        match reading.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(ExtractError::Unreadable { .. }) => return reading.usage().expect("the parser says"),
            Err(error) => panic!("{name} of {} bytes: {error}", bytes.len()),
        }
    }
    let usage = reading.usage().expect("the parser says");
    drop(reading.finish());
    usage
}

/// What reading `bytes` took, measured again when it is more than `time_us`: what else the machine does only adds.
async fn cost_within(extraction: &Extraction, name: &str, bytes: &[u8], time_us: u64) -> Usage {
    let mut least = cost(extraction, name, bytes).await;
    for _ in 0..3 {
        if least.cpu_us > time_us {
            least.cpu_us = least.cpu_us.min(cost(extraction, name, bytes).await.cpu_us);
        }
    }
    least
}

/// A PDF of these objects, of which the first is the catalog.
fn pdf(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"%PDF-1.5\n".to_vec();
    let mut offsets = Vec::new();
    for (object, number) in objects.iter().zip(1..) {
        offsets.push(file.len());
        file.extend(format!("{number} 0 obj\n").into_bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    let table = file.len();
    file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).into_bytes());
    for offset in offsets {
        file.extend(format!("{offset:010} 00000 n \n").into_bytes());
    }
    let size = objects.len() + 1;
    file.extend(format!("trailer\n<</Size {size}/Root 1 0 R>>\nstartxref\n{table}\n%%EOF").into_bytes());
    file
}

fn stream(dictionary: &str, content: &[u8]) -> Vec<u8> {
    let mut object = format!("<<{dictionary}/Length {}>>\nstream\n", content.len()).into_bytes();
    object.extend(content);
    object.extend(b"\nendstream");
    object
}

/// A page that shows a word after `content`, with more in its resources and more objects behind it (from number 6 on).
fn page(content: &[u8], resources: &str, more: Vec<Vec<u8>>) -> Vec<u8> {
    let content = [content, b" BT /F 12 Tf 72 700 Td (word) Tj ET"].concat();
    let page = format!("<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>{resources}>>>>");
    let mut objects = vec![
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>".to_vec(),
        page.into_bytes(),
        stream("", &content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>".to_vec(),
    ];
    objects.extend(more);
    pdf(&objects)
}

fn form(content: &str) -> Vec<u8> {
    stream("/Type/XObject/Subtype/Form/BBox[0 0 9 9]", content.as_bytes())
}

/// So many names of the same object.
fn names(count: usize, object: &str) -> String {
    (0..count).map(|name| format!("/N{name} {object}")).collect()
}

/// A page with more in its dictionary and a content and a font that are objects 4 and 5.
fn one_page(more: &str, resources: &str, content: &[u8], font: &str) -> Vec<u8> {
    let contents = if more.contains("/Contents") { "" } else { "/Contents 4 0 R" };
    pdf(&[
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>".to_vec(),
        format!("<</Type/Page/Parent 2 0 R{contents}{more}/Resources{resources}>>").into_bytes(),
        stream("", content),
        font.as_bytes().to_vec(),
    ])
}

/// A page in a font whose codes are mapped to letters by so many lines.
fn lettered(count: usize, lines: &str) -> Vec<u8> {
    let map = format!(
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapType 2 def\n1 begincodespacerange\n\
         <0000> <ffff>\nendcodespacerange\n{count} beginbfrange\n{lines}endbfrange\nendcmap\nend\nend\n"
    );
    let font = "<</Type/Font/Subtype/Type0/BaseFont/A/Encoding/Identity-H/DescendantFonts[7 0 R]/ToUnicode 6 0 R>>";
    let system = "/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>";
    pdf(&[
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>".to_vec(),
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>".to_vec(),
        stream("", b"BT /F 12 Tf 72 700 Td <00010002> Tj ET"),
        font.as_bytes().to_vec(),
        stream("", map.as_bytes()),
        format!("<</Type/Font/Subtype/CIDFontType2/BaseFont/A{system}>>").into_bytes(),
    ])
}

/// A notebook of these cells.
fn notebook(cells: &str) -> Vec<u8> {
    format!("{{\"nbformat\":4,\"metadata\":{{}},\"cells\":[{cells}]}}").into_bytes()
}

/// A notebook of one cell that gave these.
fn printed(outputs: &str) -> Vec<u8> {
    notebook(&format!("{{\"cell_type\":\"code\",\"outputs\":[{outputs}]}}"))
}

/// A mail with more in its head.
fn mail(head: &str, body: &str) -> Vec<u8> {
    format!("From: a@b.example\r\n{head}\r\n{body}").into_bytes()
}

/// A mail of so many parts with this head each.
fn parts(kind: &str, head: &str, count: usize) -> Vec<u8> {
    let part = format!("--b\r\n{head}\r\nx\r\n");
    mail(&format!("Content-Type: {kind}; boundary=b\r\n"), &format!("{}--b--\r\n", part.repeat(count)))
}

/// How many rows, each longer by one than the one before, have about `n` characters.
fn rows(n: usize) -> usize {
    (2 * n).isqrt()
}

/// Endings of text and of programs.
const PLAIN: &[&str] = &[".txt", ".rs", ".c", ".py", ".xml", ".sh", ".toml", ".yaml"];

/// What a bad input is made of so many of.
type Bad = fn(usize) -> Vec<u8>;

/// Name, how many at first, and the input.
const BAD: &[(&str, usize, Bad)] = &[
    ("nested.html", 20_000, |n| format!("{}x{}", "<div>".repeat(n), "</div>".repeat(n)).into_bytes()),
    ("cells.html", 5_000, |n| "<table><tr><td><ul><li><b><svg>".repeat(n).into_bytes()),
    ("blank.html", 20_000, |n| format!("<pre>{}x", " <b>".repeat(n)).into_bytes()),
    ("paragraphs.html", 20_000, |n| format!("<pre>{}{}x", " ".repeat(n), "<p>".repeat(n)).into_bytes()),
    ("ends.html", 20_000, |n| format!("<pre>{}{}x", "\n".repeat(n), "<td></table> ".repeat(n / 2)).into_bytes()),
    ("title.html", 10_000, |n| format!("<title>{}", "a&amp;".repeat(n)).into_bytes()),
    ("headings.html", 2_500, |n| "<h1>a</h1><h6>b</h6>c".repeat(n).into_bytes()),
    ("comments.html", 20_000, |n| "<!-<!--".repeat(n).into_bytes()),
    ("tags.html", 20_000, |n| "<a ".repeat(n).into_bytes()),
    ("quote.html", 20_000, |n| format!("<p title=\"{}", "<b>".repeat(n)).into_bytes()),
    ("values.html", 4_000, |n| format!("<p title='{}'>x", "a&lt;".repeat(n)).into_bytes()),
    ("script.html", 10_000, |n| format!("<script>{}", "<!--<script></scrip".repeat(n)).into_bytes()),
    ("data.html", 10_000, |n| "<svg><![CDATA[<![CDATA[]]".repeat(n).into_bytes()),
    ("columns.html", 20_000, |n| {
        let row = format!("<tr>{}", "<td>c".repeat(n.isqrt()));
        format!("<table>{}", row.repeat(n.isqrt())).into_bytes()
    }),
    ("raised.html", 10_000, |n| format!("{}x", "<sup>a<sub>".repeat(n)).into_bytes()),
    ("formula.html", 10_000, |n| format!("<math>{}x", "<msup><mrow><mfrac>".repeat(n)).into_bytes()),
    ("ruby.html", 10_000, |n| "<ruby>a<rp>(<rt>b".repeat(n).into_bytes()),
    ("lists.html", 2_500, |n| "<ol start=9><li value=3>a<dl><dt>b".repeat(n).into_bytes()),
    ("navigation.html", 2_500, |n| "<nav><footer><div class=cookie-banner>a".repeat(n).into_bytes()),
    ("forms.html", 10_000, |n| "<select><option>a<textarea>b<button>".repeat(n).into_bytes()),
    ("meta.html", 5_000, |n| {
        (0..n).map(|name| format!("<meta name=k{name} content=v>")).collect::<String>().into_bytes()
    }),
    ("links.html", 5_000, |n| "<a href=#a>¶</a><a href=b>c".repeat(n).into_bytes()),
    ("escapes.html", 20_000, |n| [&b"<meta charset=iso-2022-jp>"[..], &b"\x1b$B\x1b(B".repeat(n)].concat()),
    ("words.svg", 20_000, |n| format!("<svg>{}x", "<text><tspan>".repeat(n)).into_bytes()),
    ("titles.svg", 20_000, |n| format!("<svg>{}", "<title>a".repeat(n)).into_bytes()),
    ("styles.svg", 20_000, |n| format!("<svg><text>x</text>{}", "<style><!--</styl".repeat(n)).into_bytes()),
    ("entities.svg", 10_000, |n| format!("<svg><text>{}", "&amp;&#x41;".repeat(n)).into_bytes()),
    ("open.svg", 20_000, |n| format!("<svg><text>x{}", "<![CDATA[<text".repeat(n)).into_bytes()),
    ("flow.md", 15_000, |n| format!("---\n{}\n---\nbody", "[".repeat(n)).into_bytes()),
    ("maps.md", 15_000, |n| format!("---\n{}\n---\nbody", "{a: ".repeat(n / 4)).into_bytes()),
    ("sequences.md", 15_000, |n| format!("---\n{}x\n---\nbody", "- ".repeat(n / 2)).into_bytes()),
    ("steps.md", 12_000, |n| {
        let steps: String = (0..rows(n)).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        format!("---\n{steps}\n---\nbody").into_bytes()
    }),
    ("keys.md", 1_500, |n| {
        let keys: String = (0..n).map(|key| format!("k{key}: v\n")).collect();
        format!("---\n{keys}---\nbody").into_bytes()
    }),
    ("quotes.md", 20_000, |n| ">".repeat(n).into_bytes()),
    ("emphasis.md", 10_000, |n| "*a **b _c ".repeat(n).into_bytes()),
    ("brackets.md", 20_000, |n| "[".repeat(n).into_bytes()),
    ("links.md", 20_000, |n| "[a](b".repeat(n).into_bytes()),
    ("ticks.md", 20_000, |n| (0..rows(n)).map(|run| format!("{} ", "`".repeat(run))).collect::<String>().into_bytes()),
    ("items.md", 20_000, |n| "- ".repeat(n).into_bytes()),
    ("headings.md", 5_000, |n| "# a\n###### b\n".repeat(n).into_bytes()),
    ("table.md", 20_000, |n| format!("|a|b|\n|-|-|\n{}", "|c|d|\n".repeat(n)).into_bytes()),
    ("fences.md", 10_000, |n| "```\n~~~\n".repeat(n).into_bytes()),
    ("tags.md", 20_000, |n| "<Tabs>\n<Tab\n".repeat(n).into_bytes()),
    ("comments.md", 10_000, |n| "<!-- <?\n<![CDATA[ ".repeat(n).into_bytes()),
    ("html.md", 20_000, |n| "<a href=\"".repeat(n).into_bytes()),
    ("escapes.md", 10_000, |n| "\\[![a](<b\\".repeat(n).into_bytes()),
    ("references.md", 5_000, |n| {
        (0..n).map(|label| format!("[r{label}]: a\n[r{label}][x]\n")).collect::<String>().into_bytes()
    }),
    ("label.md", 2_000, |n| format!("[{0}]: b\n{1}", "a".repeat(n), "[a]".repeat(n)).into_bytes()),
    ("footnotes.md", 5_000, |n| "[^a]: b\n\n    c[^a]\n\n".repeat(n).into_bytes()),
    ("nested.md", 20_000, |n| "* > 1. ".repeat(n).into_bytes()),
    ("indented.md", 20_000, |n| {
        (0..rows(n)).map(|depth| format!("{}- a\n", "  ".repeat(depth))).collect::<String>().into_bytes()
    }),
    ("columns.md", 20_000, |n| {
        let width = n.isqrt();
        format!("{0}|\n{1}|\n{2}", "|a".repeat(width), "|-".repeat(width), "|\n".repeat(n)).into_bytes()
    }),
    ("directives.md", 10_000, |n| ":::note\n".repeat(n).into_bytes()),
    ("badges.md", 5_000, |n| "[![a](b)](c)\n".repeat(n).into_bytes()),
    ("contents.md", 3_000, |n| format!("{}\n{}", "- [a](#a)\n".repeat(n), "## a\n\nb\n\n".repeat(n)).into_bytes()),
    ("open-links.md", 20_000, |n| "[ab](".repeat(n).into_bytes()),
    ("lists-of-links.md", 3_000, |n| "# a\n\n- [ab](c)\n\n".repeat(n).into_bytes()),
    ("definitions.md", 5_000, |n| "[a]: b/c\n".repeat(n).into_bytes()),
    ("shortcodes.md", 10_000, |n| "{{< a title=\"b\" >}} {{{ {% ".repeat(n).into_bytes()),
    ("remarks.md", 5_000, |n| "# a\n\n<!-- b -->\n\n{/* c */}\n\n".repeat(n).into_bytes()),
    ("elements.md", 10_000, |n| "<br>\n<a href=b>\n".repeat(n).into_bytes()),
    ("steps-of-list.md", 5_000, |n| format!("- a\n\n{}", "  b:\n\n  ```\n  c\n  ```\n\n".repeat(n)).into_bytes()),
    ("underlines.md", 5_000, |n| "a\n===\nb\n---\n".repeat(n).into_bytes()),
    ("pictures.md", 5_000, |n| "![](data:image/png;base64,AAAA".repeat(n).into_bytes()),
    ("strike.md", 10_000, |n| "~~a ~b *_".repeat(n).into_bytes()),
    ("tables.toml.md", 2_000, |n| format!("+++\n{}+++\nbody", "[[a]]\n".repeat(n)).into_bytes()),
    ("keys.toml.md", 1_000, |n| {
        let keys: String = (0..n).map(|key| format!("a.k{key} = 1\n")).collect();
        format!("+++\n{keys}+++\nbody").into_bytes()
    }),
    ("values.toml.md", 6_000, |n| format!("+++\na = [{}]\n+++\nbody", "1,".repeat(n)).into_bytes()),
    ("broken.md", 2_000, |n| format!("---\n{}---\nbody", "a: *b\n".repeat(n)).into_bytes()),
    ("anchors.md", 600, |n| {
        let keys: String = (0..n).map(|key| format!("k{key}: &a{key} x\nl{key}: *a{key}\n")).collect();
        format!("---\n{keys}---\nbody").into_bytes()
    }),
    ("object.md", 1_000, |n| {
        let keys: Vec<String> = (0..n).map(|key| format!("\"k{key}\": 1")).collect();
        format!("{{\n{}\n}}\nbody", keys.join(",\n")).into_bytes()
    }),
    ("marks.txt", 40_000, |n| format!("e{}", "\u{301}".repeat(n)).into_bytes()),
    ("one-word.txt", 120_000, |n| "a".repeat(n).into_bytes()),
    ("ideographs.txt", 40_000, |n| "边".repeat(n).into_bytes()),
    ("lines.txt", 20_000, |n| "a\n\n".repeat(n).into_bytes()),
    ("colons.txt", 20_000, |n| "a:\n\n".repeat(n).into_bytes()),
    ("sentences.txt", 40_000, |n| "a. ".repeat(n).into_bytes()),
    ("returns.txt", 40_000, |n| "a\r\r".repeat(n).into_bytes()),
    ("spaces.txt", 40_000, |n| format!("a{}b", " ".repeat(n)).repeat(2).into_bytes()),
    ("addresses.txt", 20_000, |n| "data:a/b,".repeat(n).into_bytes()),
    ("digits.txt", 1_000, |n| format!("{}\n", "aB3".repeat(21)).repeat(n).into_bytes()),
    ("joined.txt", 20_000, |n| "👩\u{200d}".repeat(n).into_bytes()),
    ("letters.txt", 20_000, |n| b"a caf\xe9 ".repeat(n)),
    ("broken.txt", 1_000, |n| [&"ä".repeat(110).into_bytes()[..], b"\xff "].concat().repeat(n)),
    ("halves.txt", 40_000, |n| [&b"\xff\xfea\0"[..], &b"\0\xd8a\0".repeat(n)].concat()),
    ("wide.txt", 20_000, |n| [&b"\xff\xfe\0\0"[..], &b"a\0\0\0\0\0\x11\0".repeat(n)].concat()),
    ("declared.xml", 20_000, |n| {
        [&b"<?xml version='1.0' encoding='gb18030'?>"[..], &b"\x81\x30\x81a".repeat(n)].concat()
    }),
    ("open.rs", 10_000, |n| "fn a() {\n".repeat(n).into_bytes()),
    ("comments.rs", 20_000, |n| "/* \" ' // \n".repeat(n).into_bytes()),
    ("attributes.rs", 20_000, |n| "#[a]\n/// b\n".repeat(n).into_bytes()),
    ("one-line.rs", 20_000, |n| "fn a(){}".repeat(n).into_bytes()),
    ("close.c", 20_000, |n| "}\n{\n".repeat(n).into_bytes()),
    ("texts.py", 10_000, |n| "\"\"\"'''\n@a\n".repeat(n).into_bytes()),
    ("deep.xml", 20_000, |n| "<a>\n".repeat(n).into_bytes()),
    ("inputs.sh", 10_000, |n| "cat <<A\nf() {\n".repeat(n).into_bytes()),
    ("sections.toml", 10_000, |n| "[a]\nb = \"\"\"\n".repeat(n).into_bytes()),
    ("indents.yaml", 20_000, |n| {
        (0..rows(n)).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>().into_bytes()
    }),
    ("deep.py", 40_000, |n| {
        (0..rows(n)).map(|depth| format!("{}class A:\n", " ".repeat(depth))).collect::<String>().into_bytes()
    }),
    ("keys.yaml", 10_000, |n| "a:\n".repeat(n).into_bytes()),
    ("rows.csv", 750, |n| format!("text\n{}", "abc\n".repeat(n)).into_bytes()),
    ("columns.csv", 5_000, |n| format!("{}\n{}", "a,".repeat(n), "b,".repeat(n)).into_bytes()),
    ("quoted.csv", 20_000, |n| format!("a\n\"{}", "\"\",\n".repeat(n)).into_bytes()),
    ("open.csv", 2_000, |n| format!("a,b\n{}", "\"c,d\n".repeat(n)).into_bytes()),
    ("square.csv", 5_000, |n| {
        let row = ["c"].repeat(n.isqrt()).join(",");
        format!("{row}\n").repeat(n.isqrt()).into_bytes()
    }),
    ("name.csv", 1_000, |n| format!("{},x\n{}", "n".repeat(n), "1,a\n".repeat(n)).into_bytes()),
    ("names.csv", 500, |n| format!("{}\n{}", ["n"].repeat(n).join(","), "1,a\n".repeat(n)).into_bytes()),
    ("blank.csv", 40_000, |n| format!("a,b\n{}c,d\n", "\n".repeat(n)).into_bytes()),
    ("ids.csv", 750, |n| {
        let rows: String = (0..n).map(|row| format!("{row},abc\n")).collect();
        format!("id,text\n{rows}").into_bytes()
    }),
    ("cells.tsv", 40_000, |n| format!("a\tb\n{}c", "\t".repeat(n)).into_bytes()),
    ("arrays.json", 1_000, |n| {
        format!("[{}1]", format!("{}{},", "[".repeat(60), "]".repeat(60)).repeat(n)).into_bytes()
    }),
    ("deep.json", 20_000, |n| "[".repeat(n).into_bytes()),
    ("path.json", 1_000, |n| format!("{{\"{}\":[{}0]}}", "k".repeat(n), "{\"x\":1},".repeat(n)).into_bytes()),
    ("paths.json", 1_000, |n| {
        let leaves = format!("[{}0]", "{\"x\":1},".repeat(n));
        format!("{}{leaves}{}", "{\"key\":".repeat(40), "}".repeat(40)).into_bytes()
    }),
    ("comments.json", 20_000, |n| format!("[1,{}2]", "/*a*/ // b\n".repeat(n)).into_bytes()),
    ("open.json", 60_000, |n| format!("[1,{}", "/* ".repeat(n)).into_bytes()),
    ("commas.json", 10_000, |n| format!("[{}1]", "[1,],NaN,".repeat(n)).into_bytes()),
    ("escapes.json", 20_000, |n| format!("[\"{}\"]", "\\u00e9\\\"".repeat(n)).into_bytes()),
    ("quote.json", 20_000, |n| format!("{{\"a\":\"{}", "b\\\\".repeat(n)).into_bytes()),
    ("digits.json", 60_000, |n| format!("[1,{}]", "9".repeat(n)).into_bytes()),
    ("same.json", 10_000, |n| format!("{{{}\"a\":1}}", "\"a\":1,".repeat(n)).into_bytes()),
    ("objects.json", 750, |n| format!("[{}{{}}]", "{\"a\":{\"b\":null}},".repeat(n)).into_bytes()),
    ("export.json", 1_500, |n| {
        let feature = "{\"type\":\"Feature\",\"properties\":{\"name\":\"a\"}}";
        format!("{{\"features\":[{}]}}", [feature].repeat(n).join(",")).into_bytes()
    }),
    ("values.json", 20_000, |n| format!("[{}1]", "1,".repeat(n)).into_bytes()),
    ("keys.json", 10_000, |n| {
        let keys: Vec<String> = (0..n).map(|key| format!("\"k{key}\":1")).collect();
        format!("{{{}}}", keys.join(",")).into_bytes()
    }),
    ("records.jsonl", 750, |n| "{\"a\":1}\n".repeat(n).into_bytes()),
    ("record.jsonl", 10_000, |n| format!("{{\"a\":[{}1]}}\n", "{\"b\":2},".repeat(n)).into_bytes()),
    ("odd.jsonl", 750, |n| "{\"a\":NaN, /* b */}\n".repeat(n).into_bytes()),
    ("cells.ipynb", 3_000, |n| notebook(&["{\"cell_type\":\"code\",\"source\":[\"a\"]}"].repeat(n).join(","))),
    ("outputs.ipynb", 3_000, |n| printed(&["{\"output_type\":\"stream\",\"text\":[\"a\"]}"].repeat(n).join(","))),
    ("pages.ipynb", 500, |n| {
        let page = "{\"output_type\":\"display_data\",\"data\":{\"text/html\":\"<p>a<td>\"}}";
        printed(&[page].repeat(n).join(","))
    }),
    ("colours.ipynb", 20_000, |n| {
        let words = "\\u001b[0;\\u001b[\\r".repeat(n);
        printed(&format!("{{\"output_type\":\"stream\",\"text\":\"{words}x\"}}"))
    }),
    ("ticks.ipynb", 20_000, |n| notebook(&format!("{{\"cell_type\":\"code\",\"source\":\"{}\"}}", "`".repeat(n)))),
    ("lines.ipynb", 20_000, |n| notebook(&format!("{{\"source\":[{}\"b\"]}}", "\"a\\n\",".repeat(n)))),
    ("fields.eml", 20_000, |n| mail(&"X-A: b\r\n".repeat(n), "x")),
    ("people.eml", 10_000, |n| mail(&format!("To: {}\r\n", "a <b@c.example>, ".repeat(n)), "x")),
    ("groups.eml", 40_000, |n| mail(&format!("To: {}\r\n", "a: b, (c ".repeat(n)), "x")),
    ("remarks.eml", 100_000, |n| mail(&format!("To: {}\r\n", "(".repeat(n)), "x")),
    ("words.eml", 30_000, |n| mail(&format!("Subject: {}\r\n", "=?utf-8?q?a=C3=B6?= ".repeat(n)), "x")),
    ("open-words.eml", 10_000, |n| mail(&format!("Subject: {}\r\n", "=?utf-8?q?a".repeat(n)), "x")),
    ("folded.eml", 20_000, |n| mail(&format!("Subject: a\r\n{}", " b\r\n".repeat(n)), "x")),
    ("references.eml", 40_000, |n| mail(&format!("References: {}\r\n", "<a@b> ".repeat(n)), "x")),
    ("received.eml", 4_000, |n| {
        let hop = "Received: from a (b [1.2.3.4]) by c with d id e for <f@g>; Mon, 4 May 2026 10:11:12 +0200\r\n";
        mail(&hop.repeat(n), "x")
    }),
    ("parameters.eml", 20_000, |n| {
        let parameters: String = (0..n).map(|part| format!("; name*{part}*=a%20b")).collect();
        mail(&format!("Content-Type: text/plain{parameters}\r\n"), "x")
    }),
    ("parts.eml", 20_000, |n| parts("multipart/mixed", "", n)),
    ("typed.eml", 2_000, |n| parts("multipart/mixed", "Content-Type: text/plain\r\n", n)),
    ("shown.eml", 2_000, |n| parts("multipart/alternative", "Content-Type: text/html\r\n", n)),
    ("unclosed.eml", 40_000, |n| {
        let open = |part: usize| format!("Content-Type: multipart/mixed; boundary=b{part}\r\n\r\n--b{part}\r\n");
        mail(&(0..30).map(open).collect::<String>(), &"\r\n--c\r\n".repeat(n))
    }),
    ("base64.eml", 20_000, |n| {
        mail("Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n", &"PGI+\r\n=".repeat(n))
    }),
    ("quoted.eml", 20_000, |n| {
        mail("Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n", &"=C3=B6=\r\n=".repeat(n))
    }),
    ("letters.eml", 20_000, |n| [&mail("", "")[..], &b"caf\xe9 \r\n".repeat(n)].concat()),
    ("parts.mhtml", 2_000, |n| parts("multipart/related", "Content-Location: https://site.example/\r\n", n)),
    ("page.mhtml", 10_000, |n| {
        let head = "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n";
        mail(head, &"<p title=3D'x'>a=\r\n".repeat(n))
    }),
    ("array.pdf", 20_000, |n| page(b"", &format!("/W[{}]", "0 ".repeat(n)), vec![])),
    ("nested.pdf", 20_000, |n| page(b"", &format!("/W{}{}", "[".repeat(n), "]".repeat(n)), vec![])),
    ("saves.pdf", 20_000, |n| page("q ".repeat(n).as_bytes(), "", vec![])),
    ("operands.pdf", 20_000, |n| page("[(a)1]TJ ".repeat(n).as_bytes(), "", vec![])),
    ("shows.pdf", 20_000, |n| page(format!("BT /F 9 Tf {} ET", "1 0 Td (a) Tj ".repeat(n)).as_bytes(), "", vec![])),
    ("drawn.pdf", 5_000, |n| page("/X Do ".repeat(n).as_bytes(), "/XObject<</X 6 0 R>>", vec![form("q Q")])),
    ("objects.pdf", 5_000, |n| page(b"", "", vec![b"<</A[1 2 3]>>".to_vec(); n])),
    ("texts.pdf", 100_000, |n| page("(".repeat(n).as_bytes(), "", vec![])),
    ("dictionaries.pdf", 40_000, |n| page(b"", &"/A<<".repeat(n), vec![])),
    ("remarks.pdf", 20_000, |n| [&b"%PDF-1.5\n"[..], &b"1 0 obj %\n".repeat(n)].concat()),
    ("numbers.pdf", 100_000, |n| page("9".repeat(n).as_bytes(), "", vec![])),
    ("names.pdf", 5_000, |n| page(b"/N0 Do", &format!("/XObject<<{}>>", names(n, "6 0 R")), vec![form("q Q")])),
    ("fonts.pdf", 1_000, |n| {
        let content: String = (0..n).map(|font| format!("BT /N{font} 9 Tf (a) Tj ET ")).collect();
        let resources = format!("<</Font<<{}>>>>", names(n, "5 0 R"));
        one_page("", &resources, content.as_bytes(), "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    }),
    ("pictures.pdf", 5_000, |n| page("BI /W 1 /H 1 ID x EI ".repeat(n).as_bytes(), "", vec![])),
    ("open-picture.pdf", 100_000, |n| page(format!("BI ID {}", "EI".repeat(n)).as_bytes(), "", vec![])),
    ("clips.pdf", 10_000, |n| page("0 0 9 9 re W n 1 0 0 1 0 0 cm ".repeat(n).as_bytes(), "", vec![])),
    ("marked.pdf", 10_000, |n| page("/Span <</ActualText (a)>> BDC ".repeat(n).as_bytes(), "", vec![])),
    ("lines.pdf", 3_000, |n| {
        let show = |line: usize| format!("1 0 0 1 {} {} Tm (a) Tj ", line * 7 % 600, line * 13 % 800);
        page(format!("BT /F 9 Tf {} ET", (0..n).map(show).collect::<String>()).as_bytes(), "", vec![])
    }),
    ("columns.pdf", 3_000, |n| {
        let show = |word: usize| format!("1 0 0 1 {} {} Tm (a) Tj ", word % 100 * 40, word / 100 * 9);
        page(format!("BT /F 9 Tf {} ET", (0..n).map(show).collect::<String>()).as_bytes(), "", vec![])
    }),
    ("pages.pdf", 1_000, |n| {
        let kids: Vec<String> = (0..n).map(|page| format!("{} 0 R", page + 5)).collect();
        let mut objects = vec![
            b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
            format!("<</Type/Pages/Kids[{}]/Count {n}>>", kids.join(" ")).into_bytes(),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_vec(),
            stream("", b"BT /F 12 Tf 72 700 Td (word) Tj ET"),
        ];
        let page = "<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 3 0 R>>>>>>";
        objects.extend(vec![page.as_bytes().to_vec(); n]);
        pdf(&objects)
    }),
    ("tree.pdf", 1_000, |n| {
        let mut objects = vec![b"<</Type/Catalog/Pages 2 0 R>>".to_vec()];
        objects.extend((0..n).map(|node| format!("<</Type/Pages/Kids[{} 0 R]/Count 1>>", node + 3).into_bytes()));
        objects.push(b"<</Type/Page/Resources<<>>>>".to_vec());
        pdf(&objects)
    }),
    ("contents.pdf", 5_000, |n| one_page(&format!("/Contents[{}]", "4 0 R ".repeat(n)), "<<>>", b"q Q", "null")),
    ("fields.pdf", 2_000, |n| {
        let fields = "<</Subtype/Widget/FT/Tx/V(a)/Rect[0 0 9 9]>>".repeat(n);
        one_page(&format!("/Annots[{fields}]"), "<<>>", b"q Q", "null")
    }),
    ("map.pdf", 10_000, |n| {
        lettered(n, &(0..n).map(|code| format!("<{code:04x}> <{code:04x}> <0041>\n")).collect::<String>())
    }),
    ("overlaps.pdf", 5_000, |n| lettered(n, &"<0000> <ffff> <0041>\n".repeat(n))),
    ("tables.pdf", 2_000, |n| {
        // Each table says that it goes on at the one before.
        let mut file = page(b"", "", vec![]);
        let mut last = file.windows(5).rposition(|window| window == b"xref\n").unwrap_or(0);
        for _ in 0..n {
            let start = file.len();
            let table = format!("xref\n0 0\ntrailer\n<</Size 6/Root 1 0 R/Prev {last}>>\nstartxref\n{start}\n%%EOF");
            file.extend(table.into_bytes());
            last = start;
        }
        file
    }),
    ("lost.pdf", 5_000, |n| {
        // Without its table every object is looked for.
        let file = page(b"", "", vec![b"<</A[1 2 3]>>".to_vec(); n]);
        let end = file.windows(6).rposition(|window| window == b"\nxref\n").unwrap_or(file.len());
        file[..end].to_vec()
    }),
    ("streams.pdf", 2_000, |n| {
        let stream = b"1 0 obj<</Type/ObjStm>>stream\n\x78\x9c\0\x20\0\xdf\xff";
        [&b"%PDF-1.5\n"[..], &stream.repeat(n)].concat()
    }),
];

/// Reads the inputs whose names end so, small and large.
fn follows_the_size(endings: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut wrong = Vec::new();
    runtime.block_on(async {
        let extraction = extraction();
        for (name, count, make) in BAD.iter().filter(|(name, ..)| endings.iter().any(|ending| name.ends_with(ending))) {
            let (small, large) = (make(*count), make(LARGER * count));
            let first = cost(&extraction, name, &small).await;
            let (time, memory) = (first.cpu_us.max(NO_TIME_US), first.memory_bytes.max(NO_MEMORY));
            let second = cost_within(&extraction, name, &large, TIME_GROWTH * time).await;
            let most = large.len() as u64 * MEMORY_PER_BYTE + MEMORY_LEAST;
            eprintln!(
                "{name:16} {:>9} bytes {:>8} µs {:>10} B | {:>9} bytes {:>8} µs {:>10} B",
                small.len(),
                first.cpu_us,
                first.memory_bytes,
                large.len(),
                second.cpu_us,
                second.memory_bytes
            );
            if second.cpu_us > TIME_GROWTH * time {
                wrong.push(format!("{name}: {} µs, then {} µs", first.cpu_us, second.cpu_us));
            }
            if second.memory_bytes > MEMORY_GROWTH * memory || second.memory_bytes > most {
                wrong.push(format!("{name}: {} bytes, then {}", first.memory_bytes, second.memory_bytes));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_pages_and_drawings_cost_follows_their_size() {
    follows_the_size(&[".html", ".svg"]);
}

#[test]
fn what_markdown_and_its_front_matter_cost_follows_their_size() {
    follows_the_size(&[".md"]);
}

#[test]
fn what_text_and_programs_cost_follows_their_size() {
    follows_the_size(PLAIN);
}

#[test]
fn what_records_cost_follows_their_size() {
    follows_the_size(&[".csv", ".tsv", ".json", ".jsonl"]);
}

#[test]
fn what_notebooks_and_mails_cost_follows_their_size() {
    follows_the_size(&[".ipynb", ".eml", ".mhtml"]);
}

#[test]
fn what_pdfs_cost_follows_their_size() {
    follows_the_size(&[".pdf"]);
}

/// Small files that ask for much: what they may take does not follow from what they say.
#[test]
fn small_files_cannot_ask_for_much() {
    let map = "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n/CMapType 2 def\n1 begincodespacerange\n\
               <00000000> <ffffffff>\nendcodespacerange\n1 beginbfrange\n<00000000> <ffffffff> <0041>\nendbfrange\nendcmap\n\
               CMapName currentdict /CMap defineresource pop\nend\nend\n";
    let codes = pdf(&[
        b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>".to_vec(),
        b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>".to_vec(),
        stream("", b"BT /F 12 Tf 72 700 Td (word) Tj ET"),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>".to_vec(),
        stream("", map.as_bytes()),
    ]);
    let shared = |count: usize| {
        let pages: Vec<String> = (0..count).map(|_| "3 0 R".to_owned()).collect();
        pdf(&[
            b"<</Type/Catalog/Pages 2 0 R>>".to_vec(),
            format!("<</Type/Pages/Kids[{}]/Count {count}>>", pages.join(" ")).into_bytes(),
            b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<<>>>>".to_vec(),
            stream("", "q Q ".repeat(2_000).as_bytes()),
        ])
    };
    // A form that draws two of the next, twenty deep.
    let doubling: Vec<Vec<u8>> = (0..20)
        .map(|depth| {
            let resources = format!("/Resources<</XObject<</X {} 0 R>>>>", 7 + depth);
            stream(&format!("/Type/XObject/Subtype/Form/BBox[0 0 9 9]{resources}"), b"/X Do /X Do /X Do /X Do")
        })
        .chain([form("q Q")])
        .collect();
    let files = [
        ("codes.pdf", codes),
        ("shared.pdf", shared(500)),
        ("doubling.pdf", page(b"/X Do", "/XObject<</X 6 0 R>>", doubling)),
        (
            "pages.pdf",
            pdf(&[b"<</Type/Catalog/Pages 2 0 R>>".to_vec(), b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 9>>".to_vec()]),
        ),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let extraction = extraction();
        for (name, bytes) in files {
            let usage = cost(&extraction, name, &bytes).await;
            eprintln!("{name:16} {:>9} bytes {:>8} µs {:>10} B", bytes.len(), usage.cpu_us, usage.memory_bytes);
            assert!(usage.memory_bytes < MEMORY_LEAST, "{name}: {usage:?}");
        }
    });
}
