//! Indexing, removing, finding and ranking; compared with tantivy's own ranking.

use serde_json::{Map, Value, json};
use tantivy::DocAddress;

use super::super::filter::Filter;
use super::*;

fn words() -> Arc<WordCache> {
    Arc::new(WordCache::new(1 << 20))
}

struct Sample {
    text: &'static str,
    metadata: Value,
}

fn index(samples: &[Sample]) -> (tempfile::TempDir, LexicalIndex) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (index, applied) = LexicalIndex::open(directory.path(), &words(), WRITER_BYTES_MIN).expect("open");
    assert_eq!(applied, Lsn::ZERO);
    for (position, sample) in samples.iter().enumerate() {
        add(&index, position as u64 + 1, sample);
    }
    index.commit(Lsn(samples.len() as u64)).expect("commit");
    (directory, index)
}

fn add(index: &LexicalIndex, key: u64, sample: &Sample) {
    let metadata: Map<String, Value> = sample.metadata.as_object().cloned().unwrap_or_default();
    let entry = LexicalEntry {
        key,
        document: Lsn(key),
        language: Language::English,
        context: "",
        text: sample.text,
        repeated: "",
        metadata: &metadata,
    };
    index.add([entry]).expect("add");
}

fn search(
    searcher: &LexicalSearcher,
    query: &str,
    limit: usize,
    among: Option<&Passages>,
) -> Result<Vec<LexicalHit>, TantivyError> {
    searcher.search(look_up(&[searcher], query).remove(0)?, limit, among)
}

fn found(index: &LexicalIndex, query: &str) -> Vec<u64> {
    search(&index.searcher(), query, 10, None).expect("search").into_iter().map(|hit| hit.key).collect()
}

fn matching(index: &LexicalIndex, filter: Value) -> Vec<u64> {
    let filter = Filter::from_json(&filter).expect("valid filter");
    index.searcher().matching(&filter).expect("search").keys()
}

fn texts<const N: usize>(texts: [&'static str; N]) -> [Sample; N] {
    texts.map(|text| Sample { text, metadata: json!({}) })
}

#[test]
fn filters_match_what_they_say() {
    let samples = [
        Sample { text: "one", metadata: json!({"team": "storage", "year": 2024, "tags": ["a", "b"], "score": 1.5}) },
        Sample { text: "two", metadata: json!({"team": "network", "year": 2025, "draft": true, "score": 2}) },
        Sample {
            text: "three",
            metadata: json!({"owner": {"name": "ada", "since": "2025-05-01"}, "date": "2026-02-01", "e.mail": "x"}),
        },
    ];
    let (_directory, index) = index(&samples);
    for (filter, expected) in [
        (json!({"team": "storage"}), vec![1]),
        (json!({"team": {"ne": "storage"}}), vec![2, 3]),
        (json!({"team": {"in": ["storage", "network"]}}), vec![1, 2]),
        (json!({"tags": "b"}), vec![1]),
        (json!({"year": 2025}), vec![2]),
        (json!({"year": {"gt": 2024}}), vec![2]),
        (json!({"year": {"gte": 2024, "lt": 2025}}), vec![1]),
        (json!({"score": {"gte": 1.5, "lte": 2}}), vec![1, 2]),
        (json!({"draft": true}), vec![2]),
        (json!({"draft": {"exists": false}}), vec![1, 3]),
        (json!({"owner": {"exists": true}}), vec![3]),
        (json!({"own": {"exists": true}}), vec![]),
        (json!({"score": {"gt": 1.5}}), vec![2]),
        (json!({"team": {"gt": 3}}), vec![]),
        (json!({"owner.name": "ada"}), vec![3]),
        (json!({"e.mail": {"exists": true}}), vec![3]),
        (json!({"owner.since": {"gte": "2025-01-01"}}), vec![3]),
        (json!({"owner.since": {"exists": true}}), vec![3]),
        (json!({"date": {"gte": "2026-01-01", "lt": "2026-03-01"}}), vec![3]),
        (json!({"or": [{"team": "storage"}, {"draft": true}]}), vec![1, 2]),
        (json!({"not": {"or": [{"team": "storage"}, {"draft": true}]}}), vec![3]),
        (json!({"team": "storage", "year": 2025}), vec![]),
        (json!({}), vec![1, 2, 3]),
        (json!({"nothing": 1}), vec![]),
    ] {
        assert_eq!(matching(&index, filter.clone()), expected, "{filter}");
        // The same before it is in an index.
        let read = Filter::from_json(&filter).expect("valid filter");
        let admitted =
            (1..).zip(&samples).filter(|(_, sample)| admits(&read, sample.metadata.as_object().expect("fields")));
        assert_eq!(admitted.map(|(key, _)| key).collect::<Vec<u64>>(), expected, "{filter}");
    }
}

#[test]
fn a_filtered_search_ranks_only_what_matches() {
    let (_directory, index) = index(&[
        Sample { text: "snapshot snapshot", metadata: json!({"v": 1}) },
        Sample { text: "snapshot of a disk", metadata: json!({"v": 2}) },
    ]);
    let filter = Filter::from_json(&json!({"v": 2})).expect("valid");
    let searcher = index.searcher();
    let among = searcher.matching(&filter).expect("search");
    let hits = search(&searcher, "snapshot", 10, Some(&among)).expect("search");
    assert_eq!(hits.iter().map(|hit| hit.key).collect::<Vec<_>>(), [2]);
    assert!(hits[0].score > 0.0);
}

/// Sixty parts of a table, 101 to 160, whose later ones repeat its header row, among other passages.
fn table_among_others() -> (tempfile::TempDir, LexicalIndex) {
    let others =
        ["the limit of the crane in the harbour is eleven tonnes", "a crane in the harbour", "pumps and valves"];
    let (directory, index) = index(&others.map(|text| Sample { text, metadata: Value::Null }));
    for part in 1..=60 {
        let rows = format!("row{part} bar {}", part * 3);
        let header = "Name Limit Unit";
        let (text, repeated) = if part == 1 { (format!("{header}\n{rows}"), "") } else { (rows, header) };
        let entry = LexicalEntry {
            key: 100 + part,
            document: Lsn(100),
            language: Language::English,
            context: "",
            text: &text,
            repeated,
            metadata: &Map::new(),
        };
        index.add([entry]).expect("add");
    }
    index.commit(Lsn(100)).expect("commit");
    (directory, index)
}

#[test]
fn what_a_table_repeats_finds_its_parts_and_makes_no_word_common() {
    let (_directory, index) = table_among_others();
    // The name of a column and of a row together find the part with the row, not the part with its own header.
    assert_eq!(found(&index, "limit of row40")[0], 140);
    assert_eq!(found(&index, "limits of row2")[0], 102);
    // A column's name occurs in the document once, so it counts more than a word of two passages.
    let score = |query: &str| search(&index.searcher(), query, 100, None).expect("search")[0].score;
    assert!((score("unit") - score("name")).abs() < f32::EPSILON);
    assert!(score("unit") > score("crane"), "{} {}", score("unit"), score("crane"));
    assert_eq!(found(&index, "limit crane")[0], 1);
    // All parts are found by it, and a part's own words are as common as they are.
    assert_eq!(search(&index.searcher(), "unit", 100, None).expect("search").len(), 60);
    assert!(score("bar") < score("harbour") / 2.0, "{} {}", score("bar"), score("harbour"));
}

/// A new writer's first removal affects a segment that the last commit had removed from, with enough segments for a
/// merge to start before the next commit.
#[test]
fn what_a_new_writer_removes_first_does_not_come_back_by_a_merge() {
    let plain = |text| Sample { text, metadata: json!({}) };
    for _ in 0..20 {
        // The largest segment leads a merge, and is not the one with the removals. A bulk load leaves more than a merge waits for.
        let (_directory, index) = index(&[const { Sample { text: "stays", metadata: Value::Null } }; 6]);
        index.set_bulk(Some(1));
        for (key, text) in [(11, "gone first"), (12, "gone last"), (13, "stays")] {
            add(&index, key, &plain(text));
        }
        index.commit(Lsn(13)).expect("commit");
        for key in 14..20 {
            add(&index, key, &plain("stays"));
            if key == 19 {
                index.remove(Lsn(11)).expect("remove");
            }
            index.commit(Lsn(key)).expect("commit");
        }
        index.set_bulk(None);
        index.remove(Lsn(12)).expect("remove");
        add(&index, 20, &plain("stays"));
        index.commit(Lsn(20)).expect("commit");
        index.merge_segments().expect("merged");
        assert_eq!(found(&index, "gone"), Vec::<u64>::new());
    }
}

#[test]
fn removed_and_replaced_passages_are_not_found() {
    let (_directory, index) = index(&texts(["old words", "other words"]));
    index.remove(Lsn(1)).expect("remove");
    add(&index, 3, &Sample { text: "new words", metadata: json!({}) });
    assert_eq!(found(&index, "old"), [1], "not before the commit");
    index.commit(Lsn(9)).expect("commit");
    assert_eq!((found(&index, "old"), found(&index, "new")), (vec![], vec![3]));
    assert_eq!(index.searcher().lsn(), Lsn(9));
}

#[test]
fn a_misspelt_word_finds_its_neighbour() {
    let (_directory, index) = index(&texts(["the kubelet restarts", "a certificate expires"]));
    assert_eq!(found(&index, "kubelt"), [1]);
    assert_eq!(found(&index, "certifciate"), [2]);
    assert_eq!(found(&index, "zzzzzzzz"), Vec::<u64>::new());
}

#[test]
fn reopening_after_any_stop_of_the_process_continues() {
    let (directory, index) = index(&texts(["first", "second"]));
    drop(index);
    let (index, applied) =
        LexicalIndex::open(directory.path(), &words(), WRITER_BYTES_MIN).expect("open after a crash");
    assert_eq!((applied, found(&index, "second")), (Lsn(2), vec![2]));
    add(&index, 3, &Sample { text: "third", metadata: json!({}) });
    index.commit(Lsn(3)).expect("commit");
    index.commit(Lsn(5)).expect("nothing to commit, but the log went on");
    index.merge_segments().expect("merged");
    index.checkpoint().expect("checkpoint");
    drop(index);
    let (index, applied) =
        LexicalIndex::open(directory.path(), &words(), WRITER_BYTES_MIN).expect("open after a clean stop");
    assert_eq!((applied, found(&index, "third"), index.segments()), (Lsn(5), vec![3], 1));
}

#[test]
fn a_checkpoint_between_a_change_and_its_commit_loses_nothing() {
    let (directory, index) = index(&texts(["first", "second"]));
    add(&index, 3, &Sample { text: "third", metadata: json!({}) });
    index.remove(Lsn(1)).expect("remove");
    assert!(!index.checkpoint().expect("nothing to do yet"));
    index.commit(Lsn(4)).expect("commit");
    assert_eq!((found(&index, "first"), found(&index, "third")), (vec![], vec![3]));
    index.checkpoint().expect("checkpoint");
    drop(index);
    let (index, applied) =
        LexicalIndex::open(directory.path(), &words(), WRITER_BYTES_MIN).expect("open after a clean stop");
    assert_eq!((applied, found(&index, "third")), (Lsn(4), vec![3]));
}

#[test]
fn what_a_killed_process_left_of_a_commit_is_in_nobodys_way() {
    let (directory, index) = index(&texts(["first", "second"]));
    drop(index);
    let copy = tempfile::tempdir().expect("temporary directory");
    for file in std::fs::read_dir(directory.path()).expect("list") {
        let file = file.expect("entry");
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copy");
    }
    // The commit writes its files, and the process ends before the last one names them.
    let (killed, _) = LexicalIndex::open(copy.path(), &words(), WRITER_BYTES_MIN).expect("open");
    killed.remove(Lsn(1)).expect("remove");
    killed.commit(Lsn(3)).expect("commit");
    drop(killed);
    let left: Vec<_> = std::fs::read_dir(copy.path())
        .expect("list")
        .map(|file| file.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "del"))
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    std::fs::write(directory.path().join(left[0].file_name().expect("named")), b"half").expect("write");
    let (index, applied) =
        LexicalIndex::open(directory.path(), &words(), WRITER_BYTES_MIN).expect("open after a crash");
    assert_eq!(applied, Lsn(2));
    index.remove(Lsn(1)).expect("remove");
    index.commit(Lsn(3)).expect("commit");
    assert_eq!((found(&index, "first"), found(&index, "second")), (vec![], vec![2]));
}

#[test]
fn a_flipped_byte_in_any_file_discards_the_index() {
    let (directory, index) = index(&texts(["first", "second"]));
    index.checkpoint().expect("checkpoint");
    drop(index);
    for entry in std::fs::read_dir(directory.path()).expect("list") {
        let path = entry.expect("entry").path();
        let mut bytes = std::fs::read(&path).expect("read");
        if bytes.is_empty() || path.extension().is_some_and(|extension| extension == "lock") {
            continue;
        }
        let copy = tempfile::tempdir().expect("temporary directory");
        for file in std::fs::read_dir(directory.path()).expect("list") {
            let file = file.expect("entry");
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("copy");
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(copy.path().join(path.file_name().expect("named")), &bytes).expect("write");
        let (index, applied) = LexicalIndex::open(copy.path(), &words(), WRITER_BYTES_MIN).expect("open");
        assert_eq!((applied, found(&index, "first")), (Lsn::ZERO, vec![]), "{}", path.display());
    }
}

/// Passages of words `w0`, `w1`, …, each half as frequent as the one before, in several segments, some removed.
fn generated(seed: u64, passages: u64, words: &Arc<WordCache>) -> (tempfile::TempDir, LexicalIndex) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (index, _) = LexicalIndex::open(directory.path(), words, WRITER_BYTES_MIN).expect("open");
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let commits = [passages / 2, passages / 2 + 1, passages];
    for key in 1..=passages {
        let length = 3 + next() % 60;
        let text: Vec<String> = (0..length).map(|_| format!("w{}", next().trailing_zeros())).collect();
        let entry = LexicalEntry {
            key,
            document: Lsn(key),
            language: Language::Other,
            context: "",
            text: &text.join(" "),
            repeated: "",
            metadata: &Map::new(),
        };
        index.add([entry]).expect("add");
        if next() % 11 == 0 {
            index.remove(Lsn(1 + next() % key)).expect("remove");
        }
        if commits.contains(&key) {
            index.commit(Lsn(key)).expect("commit");
        }
    }
    (directory, index)
}

/// What tantivy itself finds, all of it: score by key.
fn reference(searcher: &LexicalSearcher, words: &[&str]) -> BTreeMap<u64, f32> {
    use tantivy::query::{BooleanQuery, Query, TermQuery};
    let terms = words.iter().map(|word| Term::from_field_text(searcher.fields.text, word));
    let clauses: Vec<Box<dyn Query>> =
        terms.map(|term| Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs)) as Box<dyn Query>).collect();
    let all = tantivy::collector::TopDocs::with_limit(1_000_000).order_by_score();
    let found = searcher.searcher.search(&BooleanQuery::union(clauses), &all).expect("search");
    found.into_iter().map(|(score, address)| (searcher.key(address), score)).collect()
}

#[test]
fn scores_are_those_of_bm25() {
    let words = words();
    // 40,000 passages are three ranges; `w0` to `w4` are dense, `w9` is rare enough to be followed.
    for (seed, passages) in [(7, 40_000), (11, 300)] {
        let (_directory, index) = generated(seed, passages, &words);
        let searcher = index.searcher();
        assert!(searcher.searcher.segment_readers().len() > 1);
        for query in
            [&["w0"][..], &["w9"], &["w1", "w6"], &["w0", "w12"], &["w2", "w5", "w8", "w11"], &["w9", "w10", "w12"]]
        {
            let expected = reference(&searcher, query);
            let text = query.join(" ");
            for limit in [1, 10, 100, 100_000] {
                let hits = search(&searcher, &text, limit, None).expect("search");
                assert_eq!(hits.len(), limit.min(expected.len()), "{text}");
                let mut scores: Vec<f32> = expected.values().copied().collect();
                scores.sort_by(|left, right| right.total_cmp(left));
                let most = scores[0];
                for (hit, best) in hits.iter().zip(scores) {
                    // A byte for each impact, and a sixteen-bit sum.
                    let exact = expected[&hit.key];
                    // A word that counts for next to nothing counts a little more, or it would not be found.
                    let off = exact * 0.01 + most * 0.005;
                    assert!((hit.score - exact).abs() < off, "{text} {hit:?} {exact}");
                    assert!(exact > best - 2.0 * off, "{text}: {hit:?} is not among the best: {exact} {best}");
                }
            }
        }
    }
}

#[test]
fn what_is_skipped_is_not_among_the_best() {
    let (_directory, index) = generated(13, 40_000, &words());
    let searcher = index.searcher();
    for query in ["w0 w1 w9", "w1 w3 w5 w7", "w2 w12", "w0 w1 w2 w3 w4 w5 w6 w7 w8", "w4 w4 w10 w11", "w3 w8 w10"] {
        // With room for all nothing can be skipped.
        let all = search(&searcher, query, 100_000, None).expect("search");
        for limit in [1, 3, 40, 500] {
            assert_eq!(search(&searcher, query, limit, None).expect("search"), all[..limit], "{query} {limit}");
        }
    }
}

#[test]
fn of_a_long_query_the_rarest_words_count() {
    let texts: Vec<String> = (0..200).map(|number| format!("q{number} common")).collect();
    let samples: Vec<Sample> =
        texts.into_iter().map(|text| Sample { text: text.leak(), metadata: json!({}) }).collect();
    let (_directory, index) = index(&samples);
    let query: Vec<String> =
        std::iter::once("common".to_owned()).chain((0..200).map(|number| format!("q{number}"))).collect();
    let hits = search(&index.searcher(), &query.join(" "), 1_000, None).expect("search");
    assert_eq!(hits.len(), ranking::WORDS_MAX, "one for each of the rarest words, and none for the common one");
    assert!(hits.is_sorted_by(|left, right| left.score > right.score || left.key < right.key));
}

#[test]
fn what_a_filter_admits_is_ranked_as_without_it() {
    let (_directory, index) = generated(5, 40_000, &words());
    let searcher = index.searcher();
    for query in ["w3 w6 w7", "w0 w9", "w1 w2 w12"] {
        let all = search(&searcher, query, 100_000, None).expect("search");
        for part in [2, 7, 50, 3_000] {
            let segments = searcher.searcher.segment_readers().iter().enumerate().map(|(ordinal, segment)| {
                let mut bits = vec![0u64; (segment.max_doc() as usize).div_ceil(64)];
                for passage in 0..segment.max_doc() {
                    let key = searcher.key(DocAddress::new(ordinal as u32, passage));
                    bits[passage as usize / 64] |= u64::from(key % part == 0) << (passage % 64);
                }
                bits.into()
            });
            let among = Passages::new(segments.collect(), searcher.keys.clone());
            let expected: Vec<LexicalHit> = all.iter().filter(|hit| hit.key % part == 0).copied().collect();
            for limit in [10, 100_000] {
                let hits = search(&searcher, query, limit, Some(&among)).expect("search");
                assert_eq!(hits, expected[..limit.min(expected.len())], "{query}, 1 in {part}");
            }
        }
    }
}

#[test]
fn what_is_remembered_gives_the_same_answers_and_stays_small() {
    let (small, large) = (Arc::new(WordCache::new(0)), words());
    let (_directory, index) = generated(3, 2_000, &small);
    let (_directory, remembering) = generated(3, 2_000, &large);
    for _ in 0..3 {
        for query in ["w1 w8", "w4", "w0 w2 w3 w5"] {
            let hits = |index: &LexicalIndex| search(&index.searcher(), query, 20, None).expect("search");
            assert_eq!(hits(&index), hits(&remembering), "{query}");
        }
    }
    assert_eq!(small.bytes(), 0);
    let (hits, misses) = large.hits_and_misses();
    assert_eq!(hits, misses * 2, "each word is decoded once and then found");
    assert!(large.bytes() > 0);
}
