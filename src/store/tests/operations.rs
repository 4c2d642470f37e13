//! What each operation does, and what readers see of it.

use super::*;

fn memory() -> (Writer, Arc<Reader>, CollectionId) {
    let (mut writer, reader, _) = open_mem(&MemDisk::new()).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    (writer, reader, collection)
}

#[test]
fn a_document_is_read_back_as_it_was_written() {
    let (mut writer, reader, collection) = memory();
    let long = "many words ".repeat(500);
    let mut new = document(collection, "a", &["one", &long]);
    new.url = Some("https://example.org/a".to_owned());
    new.expires_at = Some(UnixMillis(5_000));
    new.chunks[1].page = Some(7);
    let committed = writer.commit(vec![request(vec![put(new)])]).expect("committed");
    let entry = reader.lookup(collection, "a").expect("looked up").expect("there");
    assert_eq!(committed.outcomes, [[Outcome::Created { version: 1, lsn: entry.lsn }]]);
    let record = reader.document(entry.lsn).expect("read");
    assert_eq!((record.title.as_str(), record.version, record.updated), ("Title of a", 1, UnixMillis(1_000)));
    assert_eq!(record.chunks[1].page, Some(7));
    for (chunk, text) in record.chunks.iter().zip(["one", &long]) {
        assert_eq!(reader.chunk(chunk.lsn).expect("read"), *body(text));
        assert_eq!(reader.chunk_text(chunk.lsn).expect("read").text, text);
    }
    assert!(reader.log_bytes() < 3_000, "5,500 bytes of repeated text are stored compressed");
    assert!(matches!(reader.chunk(entry.lsn), Err(ReadError::Kind { .. })));
    assert!(matches!(reader.chunk(Lsn(99)), Err(ReadError::Missing { .. })));
    assert!(matches!(reader.chunk(Lsn(0)), Err(ReadError::Missing { .. })));
}

#[test]
fn equal_chunks_are_stored_once_until_nobody_has_them() {
    let (mut writer, reader, collection) = memory();
    run(&mut writer, put(document(collection, "a", &["x", "y", "x"])));
    assert_eq!(reader.last(), Lsn(4), "collection, x, y, document");
    run(&mut writer, put(document(collection, "b", &["y"])));
    assert_eq!(reader.last(), Lsn(5));
    let x = Digest::of(b"x");
    assert_eq!(reader.find_chunk(collection, &x).expect("found"), Some(Lsn(2)));
    run(&mut writer, put(document(collection, "a", &["x"])));
    assert_eq!(reader.find_chunk(collection, &x).expect("found"), Some(Lsn(2)));
    run(&mut writer, put(document(collection, "a", &["z"])));
    assert_eq!(reader.find_chunk(collection, &x).expect("found"), None);
    assert_eq!(reader.find_chunk(collection, &Digest::of(b"y")).expect("found"), Some(Lsn(3)));
    let info = reader.collection("docs").expect("there");
    assert_eq!((info.documents, info.chunks, info.text_bytes), (2, 2, 2));
}

#[test]
fn conditions_are_decided_in_order_within_a_group() {
    let (mut writer, reader, collection) = memory();
    let versioned = |texts: &[&str], version| {
        let mut new = document(collection, "a", texts);
        new.if_version = version;
        put(new)
    };
    let delete = |if_version| Operation::DeleteDocument { collection, id: "a".to_owned(), if_version };
    let group = vec![
        request(vec![versioned(&["1"], Some(0)), versioned(&["2"], Some(0)), versioned(&["1"], None)]),
        request(vec![
            versioned(&["2"], Some(1)),
            delete(Some(1)),
            delete(Some(2)),
            delete(None),
            versioned(&["3"], Some(4)),
        ]),
        request(vec![versioned(&["3"], None), create("docs"), create("other")]),
    ];
    let outcomes = writer.commit(group).expect("committed").outcomes;
    assert_eq!(
        outcomes,
        [
            vec![
                Outcome::Created { version: 1, lsn: Lsn(3) },
                Outcome::Conflict { actual: Some(1) },
                Outcome::Unchanged { version: 1 },
            ],
            vec![
                Outcome::Updated { version: 2, lsn: Lsn(5) },
                Outcome::Conflict { actual: Some(2) },
                Outcome::Deleted { version: 2 },
                Outcome::Missing,
                Outcome::Conflict { actual: None },
            ],
            vec![
                Outcome::Created { version: 3, lsn: Lsn(8) },
                Outcome::CollectionExists(collection),
                Outcome::CollectionCreated(CollectionId(Lsn(9))),
            ],
        ]
    );
    assert_eq!(reader.document(Lsn(5)).expect("read").replaced, Some(Replaced { lsn: Lsn(3), chunks: 1 }));
}

#[test]
fn a_deleted_collection_takes_everything_with_it() {
    let (mut writer, reader, collection) = memory();
    let mut new = document(collection, "a", &["x"]);
    new.source = Some("disk".to_owned());
    new.expires_at = Some(UnixMillis(1));
    run(&mut writer, put(new));
    assert_eq!(run(&mut writer, Operation::DeleteCollection { collection }), Outcome::CollectionDeleted);
    assert_eq!(run(&mut writer, put(document(collection, "a", &["x"]))), Outcome::NoSuchCollection);
    assert_eq!(run(&mut writer, Operation::DeleteCollection { collection }), Outcome::NoSuchCollection);
    assert_eq!(reader.lookup(collection, "a").expect("looked up"), None);
    assert_eq!(reader.expired(UnixMillis(i64::MAX), 9).expect("listed"), []);
    let again = new_collection(&mut writer, "docs");
    assert_ne!(again, collection);
    for kind in catalog::key::OF_COLLECTION {
        let prefix = catalog::key::of(*kind, collection);
        assert_eq!(reader.catalog.pairs(&prefix, &prefix, 9).expect("scanned"), [], "swept by the next commit");
    }
    assert_eq!(reader.catalog.pairs(b"e", b"e", 9).expect("scanned"), []);
}

#[test]
fn listings_are_paged_in_order() {
    let (mut writer, reader, collection) = memory();
    for id in ["b/2", "a", "b/1", "c", "b/3", "b"] {
        let mut new = document(collection, id, &[id]);
        new.source = id.starts_with("b/").then(|| "tree\0".to_owned());
        new.expires_at = Some(UnixMillis(100 - id.len() as i64));
        run(&mut writer, put(new));
    }
    let ids = |entries: Vec<(String, DocumentEntry)>| entries.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let list = |after, prefix, limit| ids(reader.list(collection, after, prefix, limit).expect("listed"));
    assert_eq!(list(None, "", 99), ["a", "b", "b/1", "b/2", "b/3", "c"]);
    assert_eq!(list(None, "b/", 2), ["b/1", "b/2"]);
    assert_eq!(list(Some("b/2"), "b/", 2), ["b/3"]);
    assert_eq!(list(Some("b"), "", 1), ["b/1"]);
    assert_eq!(list(Some("a"), "c", 9), ["c"]);
    let of_source = |after, limit| ids(reader.list_source(collection, "tree\0", after, limit).expect("listed"));
    assert_eq!(of_source(None, 2), ["b/1", "b/2"]);
    assert_eq!(of_source(Some("b/2"), 2), ["b/3"]);
    let sources = reader.sources(collection, Bound::Unbounded, 9).expect("listed");
    assert_eq!(sources, [SourceEntry { source: "tree\0".to_owned(), source_digest: None, documents: 3 }]);
    assert_eq!(reader.sources(collection, Bound::Excluded("tree\0"), 9).expect("listed"), []);
    assert_eq!(reader.expired(UnixMillis(98), 2).expect("listed").len(), 2);
    assert_eq!(reader.expired(UnixMillis(96), 9).expect("listed"), []);
}

#[test]
fn a_document_that_has_expired_is_not_there() {
    let clock = TestClock::at(0);
    let config = Config { clock: clock.clone(), ..config(Path::new("/data")) };
    let disk = Arc::new(MemDisk::new());
    let (mut writer, reader, _) = open_on(disk, None, config, None, CatalogStorage::Memory).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    let versioned = |texts: &[&str], change: fn(&mut NewDocument)| {
        let mut new = document(collection, "a", texts);
        change(&mut new);
        put(new)
    };
    run(&mut writer, versioned(&["1"], |new| new.expires_at = Some(UnixMillis(5))));
    clock.0.store(5, Ordering::Relaxed);
    assert_eq!(run(&mut writer, versioned(&["2"], |new| new.if_version = Some(1))), Outcome::Conflict { actual: None });
    let created = run(&mut writer, versioned(&["2"], |new| new.if_version = Some(0)));
    assert!(matches!(created, Outcome::Created { version: 2, .. }), "{created:?}");
    let info = reader.collection_by_id(collection).expect("there");
    assert_eq!((info.documents, reader.expired(UnixMillis(9), 9).expect("listed")), (1, Vec::new()));
    run(&mut writer, versioned(&["3"], |new| new.expires_at = Some(UnixMillis(5))));
    let written = run(&mut writer, versioned(&["4"], |new| new.unless_exists = true));
    assert!(matches!(written, Outcome::Created { version: 4, .. }), "{written:?}");
}

#[test]
fn only_what_was_looked_at_is_replaced() {
    let (mut writer, reader, collection) = memory();
    let over = |text: &str, lsn: Lsn| {
        let mut new = document(collection, "a", &[text]);
        new.looked_at = Some(lsn);
        put(new)
    };
    // Twice in one request, of which the first makes it.
    let both = writer.commit(vec![request(vec![over("1", Lsn::ZERO), over("2", Lsn::ZERO)])]).expect("committed");
    assert!(
        matches!(both.outcomes[0][..], [Outcome::Created { version: 1, .. }, Outcome::Updated { version: 2, .. }]),
        "{:?}",
        both.outcomes
    );
    let seen = reader.lookup(collection, "a").expect("looked up").expect("there").lsn;
    // Two requests of one group that looked at the same.
    let group = vec![request(vec![over("3", seen)]), request(vec![over("4", seen), over("5", seen)])];
    let outcomes = writer.commit(group).expect("committed").outcomes;
    assert!(matches!(outcomes[0][0], Outcome::Updated { version: 3, .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], [Outcome::Overtaken, Outcome::Overtaken]);
    assert_eq!(run(&mut writer, over("6", Lsn::ZERO)), Outcome::Overtaken);
}

#[test]
fn what_names_no_documents_is_done_only_on_what_was_looked_at() {
    let (mut writer, reader, collection) = memory();
    run(&mut writer, put(document(collection, "a", &["1"])));
    let seen = reader.collection_by_id(collection).expect("there").last_change;
    let delete = || WriteRequest {
        operations: vec![Operation::DeleteCollection { collection }],
        unless_changed: Some((collection, seen)),
        ..WriteRequest::default()
    };
    // Another request of the same group comes first.
    let group = vec![request(vec![put(document(collection, "b", &["2"]))]), delete()];
    assert_eq!(writer.commit(group).expect("committed").outcomes[1], [Outcome::Overtaken]);
    assert_eq!(writer.commit(vec![delete()]).expect("committed").outcomes[0], [Outcome::Overtaken]);
    let seen = reader.collection_by_id(collection).expect("there").last_change;
    let again = WriteRequest { unless_changed: Some((collection, seen)), ..delete() };
    assert_eq!(writer.commit(vec![again]).expect("committed").outcomes[0], [Outcome::CollectionDeleted]);
}

#[test]
fn a_document_that_is_to_stay_stays() {
    let (mut writer, reader, collection) = memory();
    let unless_exists = |text: &str| {
        let mut new = document(collection, "a", &[text]);
        new.unless_exists = true;
        put(new)
    };
    // Twice in one request, then in two requests of one group, then once more.
    let first = request(vec![unless_exists("one"), unless_exists("two")]);
    let committed = writer.commit(vec![first, request(vec![unless_exists("three")])]).expect("committed");
    let kept = Outcome::Kept { version: 1, chunks: 1 };
    assert!(matches!(committed.outcomes[0][0], Outcome::Created { version: 1, .. }));
    assert_eq!((&committed.outcomes[0][1], &committed.outcomes[1][0]), (&kept, &kept));
    assert_eq!(run(&mut writer, unless_exists("four")), kept);
    let lsn = reader.lookup(collection, "a").expect("looked up").expect("there").lsn;
    let chunk = reader.document(lsn).expect("read").chunks[0].lsn;
    assert_eq!(reader.chunk(chunk).expect("read").text, "one");
}

#[test]
fn what_a_source_lost_is_decided_with_the_write() {
    let (mut writer, reader, collection) = memory();
    let sync = |ids: &[&str]| {
        let of_source = |id: &&str| {
            let mut new = document(collection, id, &[id]);
            new.source = Some("list".to_owned());
            put(new)
        };
        let keep = ids.iter().map(|&id| id.to_owned()).collect();
        let rest = Operation::DeleteFromSource { collection, source: "list".to_owned(), keep };
        request(ids.iter().map(of_source).chain([rest]).collect())
    };
    // Two syncs of one file in one group: neither could have seen the other's documents before.
    let committed = writer.commit(vec![sync(&["a", "b"]), sync(&["b", "c"])]).expect("committed");
    let deleted = |ids: &[&str]| Outcome::DeletedFromSource { ids: ids.iter().map(|&id| id.to_owned()).collect() };
    assert_eq!(committed.outcomes[0][2], deleted(&[]));
    assert_eq!(committed.outcomes[1][2], deleted(&["a"]));
    let left = reader.list_source(collection, "list", None, 9).expect("listed");
    assert_eq!(left.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn a_request_is_done_once_for_its_key() {
    let (mut writer, reader, collection) = memory();
    let add = |text: &str| {
        let compose = |outcomes: &[Outcome], lsn: Lsn| format!("{outcomes:?} {lsn}").into_bytes();
        let once = RunOnce { key: "k".to_owned(), compose: Arc::new(compose) };
        WriteRequest {
            operations: vec![put(document(collection, "a", &[text]))],
            once: Some(once),
            ..WriteRequest::default()
        }
    };
    let committed = writer.commit(vec![add("one"), add("two")]).expect("committed");
    assert_eq!(committed.outcomes[1], [], "not done again, not even within one group");
    assert_eq!(committed.answers[0], committed.answers[1]);
    let again = writer.commit(vec![add("three")]).expect("committed");
    assert_eq!((&again.answers[0], &again.changes[..]), (&committed.answers[0], &[][..]));
    assert_eq!(reader.remembered("k").expect("asked"), committed.answers[0]);
    assert_eq!(reader.lookup(collection, "a").expect("looked up").expect("there").version, 1);
}

#[test]
fn answers_are_remembered_for_a_day() {
    let disk = MemDisk::new();
    let clock = TestClock::at(1_000);
    let config = Config { clock: clock.clone(), ..config(Path::new("/data")) };
    let (mut writer, reader, _) = open_on(Arc::new(disk), None, config, None, CatalogStorage::Memory).expect("opened");
    let mut remember = |key: &str, answer: &[u8]| {
        let committed = writer.commit(vec![once(key, answer, Vec::new())]).expect("committed");
        committed.answers.into_iter().next().flatten().expect("an answer")
    };
    assert_eq!(remember("one", b"one"), b"one");
    assert_eq!(remember("one", b"another"), b"one", "the first answer, as long as it is kept");
    let answer = |key| reader.remembered(key).expect("asked");
    assert_eq!((answer("one"), answer("two")), (Some(b"one".to_vec()), None));
    clock.0.store(1_000 + catalog::ANSWER_LIFETIME_MS, Ordering::SeqCst);
    assert_eq!(answer("one"), None);
    assert_eq!(remember("two", b"two"), b"two");
    assert_eq!(reader.catalog.pairs(b"t", b"t", 9).expect("scanned").len(), 1, "the old one is gone");
    assert_eq!(reader.catalog.pairs(b"r", b"r", 9).expect("scanned").len(), 1);
}

#[test]
fn notes_are_kept_replaced_and_taken_away() {
    let disk = MemDisk::new();
    let (mut writer, reader, _) = open_mem(&disk).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    let note = |key: &str, value: &str| Operation::Note { collection, key: key.to_owned(), value: value.into() };
    assert_eq!(run(&mut writer, note("a/one", "first")), Outcome::Noted);
    let written = reader.last();
    run(&mut writer, note("a/one", "first"));
    run(&mut writer, note("a/two", ""));
    assert_eq!(reader.last(), written, "nothing is written for what is there already");
    run(&mut writer, note("a/one", "second"));
    run(&mut writer, note("a/three", "third"));
    run(&mut writer, note("b", "other"));
    run(&mut writer, note("a/three", ""));
    let expected = vec![("a/one".to_owned(), b"second".to_vec())];
    assert_eq!(reader.notes(collection, "a/").expect("read"), expected);
    assert_eq!(reader.note(collection, "a/three").expect("read"), None);
    assert_eq!(reader.note(collection, "b").expect("read"), Some(b"other".to_vec()));
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert!(matches!(run(&mut writer, note("a", &long)), Outcome::TooLarge { what: "note", .. }));
    assert!(matches!(run(&mut writer, note(&long, "a")), Outcome::TooLarge { what: "note key", .. }));
    drop((writer, reader));
    let (mut writer, reader, _) = open_mem(&disk).expect("opened");
    assert_eq!(reader.notes(collection, "a/").expect("read"), expected, "from the log");
    run(&mut writer, Operation::DeleteCollection { collection });
    assert_eq!(reader.notes(collection, "").expect("read"), Vec::new());
    assert_eq!(run(&mut writer, note("a", "late")), Outcome::NoSuchCollection);
}

#[test]
fn what_cannot_be_stored_is_refused_alone() {
    let (mut writer, _, collection) = memory();
    let id = "x".repeat(NAME_BYTES_MAX + 1);
    let mut heavy = document(collection, "b", &[]);
    heavy.metadata = vec![b' '; 65 << 20];
    let operations = vec![put(document(collection, &id, &[])), put(heavy), put(document(collection, "a", &[]))];
    let outcomes = writer.commit(vec![request(operations)]).expect("committed").outcomes;
    assert!(matches!(outcomes[0][0], Outcome::TooLarge { what: "document id", bytes: 4097, limit: 4096 }));
    assert!(matches!(outcomes[0][1], Outcome::TooLarge { what: "document", .. }));
    assert!(matches!(outcomes[0][2], Outcome::Created { version: 1, .. }));
}

#[test]
fn a_full_disk_is_refused_before_it_is_reached_and_writing_resumes() {
    let disk = MemDisk::new();
    let (mut writer, reader, _) = open_on(
        Arc::new(disk.clone()),
        None,
        Config { reserve_bytes: 1 << 20, ..config(Path::new("/data")) },
        None,
        CatalogStorage::Memory,
    )
    .expect("opened");
    let collection = new_collection(&mut writer, "docs");
    disk.set_free((1 << 20) - 1);
    assert!(
        matches!(reader.state(), WriterState::DiskFull { needed, .. } if needed == 1 << 20),
        "before anybody writes"
    );
    let error = writer.commit(vec![request(vec![put(document(collection, "a", &["x"]))])]).expect_err("full");
    assert!(matches!(error, CommitError::DiskFull { .. }), "{error}");
    assert!(matches!(reader.state(), WriterState::DiskFull { .. }));
    assert_eq!(reader.lookup(collection, "a").expect("looked up"), None);
    disk.set_free(1 << 30);
    assert_eq!(reader.state(), WriterState::Writable);
    assert!(matches!(run(&mut writer, put(document(collection, "a", &["x"]))), Outcome::Created { version: 1, .. }));
}

#[test]
fn on_a_full_disk_deletes_are_offered_while_they_are_taken() {
    let disk = MemDisk::new();
    let config = Config { reserve_bytes: 8 << 20, ..config(Path::new("/data")) };
    let (mut writer, reader, _) =
        open_on(Arc::new(disk.clone()), None, config, None, CatalogStorage::Memory).expect("opened");
    let collection = new_collection(&mut writer, "docs");
    run(&mut writer, put(document(collection, "a", &["x"])));
    let add = || vec![request(vec![put(document(collection, "b", &["x"]))])];
    let delete = || vec![request(vec![Operation::DeleteDocument { collection, id: "a".to_owned(), if_version: None }])];
    let offer = "or delete documents";
    disk.set_free(3 << 20);
    for group in [add(), delete()] {
        let refusal = writer.commit(group).expect_err("full").to_string();
        assert!(refusal.contains("the disk is full") && !refusal.contains(offer), "{refusal}");
        assert!(matches!(reader.state(), WriterState::DiskFull { needed, .. } if needed >= 8 << 20), "as for adding");
    }
    disk.set_free(5 << 20);
    let refusal = writer.commit(add()).expect_err("full").to_string();
    assert!(refusal.contains(offer), "{refusal}");
    writer.commit(delete()).expect("half of the reserve is enough");
    assert_eq!(reader.lookup(collection, "a").expect("looked up"), None);
}

#[test]
fn a_replay_yields_the_changes_that_the_commits_gave() {
    let (mut writer, reader, collection) = memory();
    let mut given = vec![];
    let mut commit = |operations| given.extend(writer.commit(vec![request(operations)]).expect("committed").changes);
    commit(vec![put(document(collection, "a", &["x", "y"])), put(document(collection, "b", &["x"]))]);
    commit(vec![put(document(collection, "a", &["y", &"long ".repeat(900)]))]);
    commit(vec![Operation::DeleteDocument { collection, id: "b".to_owned(), if_version: None }]);
    commit(vec![create("other"), Operation::DeleteCollection { collection }]);
    assert_eq!(changes(&reader)[1..], given);
    let middle = given[2].lsn;
    assert_eq!(reader.changes_after(middle).map(|change| change.expect("read")).collect::<Vec<_>>(), given[3..]);
}

#[test]
fn of_versions_that_do_not_last_a_view_learns_what_they_replaced() {
    let (mut writer, reader, collection) = memory();
    let mut given = vec![];
    let mut commit =
        |operation| given.extend(writer.commit(vec![request(vec![operation])]).expect("committed").changes);
    commit(put(document(collection, "a", &["one"])));
    commit(put(document(collection, "b", &["one"])));
    commit(put(document(collection, "a", &["two"])));
    commit(put(document(collection, "a", &["three"])));
    commit(Operation::DeleteDocument { collection, id: "b".to_owned(), if_version: None });
    let lasting = |last| {
        let changes = reader.lasting_changes_between(collection.0, last);
        changes.map(|change| change.expect("read")).collect::<Vec<_>>()
    };
    let ChangeKind::DocumentPut { replaced: Some(replaced), .. } = given[2].kind else { panic!("{given:?}") };
    let superseded = Change { kind: ChangeKind::DocumentSuperseded { collection, replaced }, ..given[2].clone() };
    assert_eq!(lasting(reader.last()), [superseded, given[3].clone(), given[4].clone()]);
    assert_eq!(lasting(given[2].lsn), given[..3], "as the log was then");
    writer.commit(vec![request(vec![Operation::DeleteCollection { collection }])]).expect("committed");
    let left = lasting(reader.last());
    assert!(left.iter().all(|change| !matches!(change.kind, ChangeKind::DocumentPut { .. })), "{left:?}");
}

#[tokio::test]
async fn followers_learn_of_each_commit_and_of_the_end() {
    let (mut writer, reader, collection) = memory();
    let mut followers: Vec<_> = (0..100).map(|_| reader.positions()).collect();
    assert!(followers.iter().all(|follower| *follower.borrow() == reader.last()), "they begin with where the log is");
    for number in 0..20 {
        run(&mut writer, put(document(collection, "a", &[&format!("text {number}")])));
        for follower in &mut followers {
            follower.changed().await.expect("the store is open");
            assert_eq!(*follower.borrow_and_update(), reader.last());
            let changes = reader.changes_after(Lsn(reader.last().0 - 1)).count();
            assert_eq!(
                (changes, reader.lookup(collection, "a").expect("asked").expect("there").lsn),
                (1, reader.last())
            );
        }
    }
    run(&mut writer, put(document(collection, "a", &["text 19"])));
    writer.seal().expect("sealed");
    assert!(followers.iter().all(|follower| !follower.has_changed().expect("open")), "nothing was added");
    drop((writer, reader));
    assert!(followers[0].changed().await.is_err(), "the store was closed");
}

/// A follower on another thread, which waits without polling.
#[test]
fn a_follower_that_waits_sees_the_last_position() {
    let (mut writer, reader, collection) = memory();
    let mut follower = reader.positions();
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut seen = vec![*follower.borrow_and_update()];
        runtime.block_on(async {
            while follower.changed().await.is_ok() {
                seen.push(*follower.borrow_and_update());
            }
        });
        seen
    });
    for number in 0..200 {
        run(&mut writer, put(document(collection, "a", &[&format!("text {number}")])));
    }
    let last = reader.last();
    drop((writer, reader));
    let seen = waiting.join().expect("ended with the store");
    assert!(seen.is_sorted() && seen.last() == Some(&last), "{seen:?}");
}
