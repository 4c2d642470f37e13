//! What clients were told, and whether a node still keeps to it.
//!
//! A [`Writer`] sends writes and notes each one that was acknowledged. A write without an answer, or one that was refused,
//! may be there or not, but only as a whole. [`check`] asks the node for everything and compares: nothing acknowledged is
//! lost, nothing is half there, nothing is there that nobody sent, and each view (listing, text, words, meaning, counts)
//! shows the same.
//!
//! Each writer has documents of its own, so that the order of writes to a document is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::node::{documents, hits, list, texts};
use crate::power_machine::{Client, Trouble};
use crate::power_tree::Random;

/// Where writers put their documents.
pub const COLLECTIONS: [&str; 2] = ["harbour", "library"];
/// Documents that a writer keeps; above, it deletes more than it adds.
const DOCUMENTS: usize = 40;
/// Writes without an answer that are compared in every combination.
const UNKNOWN_MAX: usize = 10;

const WORDS: [&str; 32] = [
    "anchor", "beacon", "canvas", "drift", "ebb", "fathom", "gale", "harbour", "island", "jetty", "keel", "lantern",
    "mast", "north", "oar", "pilot", "quay", "reef", "sail", "tide", "under", "voyage", "wave", "xebec", "yard",
    "zenith", "storm", "compass", "chart", "buoy", "current", "deck",
];

/// A document as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// A word that stands in this text and in no other.
    pub marker: String,
    pub text: String,
    /// Metadata that fills the log; it stays when a document is updated.
    pub ballast: String,
    /// As the node told it; unknown when there was no answer.
    pub version: Option<u64>,
}

/// A write.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes documents of one collection, all or none.
    Put(&'static str, Vec<(String, Document)>),
    /// Gives a document another text.
    Update(String, Document),
    /// Deletes documents of one collection, all or none.
    Delete(Vec<String>),
}

type Documents = BTreeMap<String, Document>;

impl Op {
    fn ids(&self) -> Vec<&String> {
        match self {
            Self::Put(_, documents) => documents.iter().map(|(id, _)| id).collect(),
            Self::Update(id, _) => vec![id],
            Self::Delete(ids) => ids.iter().collect(),
        }
    }

    fn apply(&self, documents: &mut Documents) {
        match self {
            Self::Put(_, put) => documents.extend(put.iter().cloned()),
            Self::Update(id, document) => {
                // The update of a document that is not there does nothing.
                if let Some(found) = documents.get_mut(id) {
                    *found = Document { ballast: std::mem::take(&mut found.ballast), ..document.clone() };
                }
            }
            Self::Delete(ids) => documents.retain(|id, _| !ids.contains(id)),
        }
    }

    fn documents(&self) -> Vec<&Document> {
        match self {
            Self::Put(_, documents) => documents.iter().map(|(_, document)| document).collect(),
            Self::Update(_, document) => vec![document],
            Self::Delete(_) => Vec::new(),
        }
    }
}

/// A client that writes, and what it knows.
pub struct Writer {
    /// Its documents' ids begin with this.
    name: String,
    random: Random,
    made: u64,
    /// What was acknowledged, by whole id.
    documents: Documents,
    /// Writes without an answer since the last check, in order.
    unknown: Vec<Op>,
    /// Documents that were written since the last check.
    touched: BTreeSet<String>,
    /// Texts that must not be found any more.
    stale: BTreeSet<String>,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// An answer that contradicts what was asked.
    wrong: Option<String>,
}

impl Writer {
    pub fn new(number: usize, seed: u64) -> Self {
        Self {
            name: format!("w{number}-"),
            random: Random::new(seed),
            made: 0,
            documents: BTreeMap::new(),
            unknown: Vec::new(),
            touched: BTreeSet::new(),
            stale: BTreeSet::new(),
            acknowledged: 0,
            wrong: None,
        }
    }

    /// A document like no other, of so many words.
    pub fn document(&mut self, words: u64, ballast: u64) -> Document {
        self.made += 1;
        let marker = format!("zq{}n{}k", self.name.trim_end_matches('-'), self.made);
        let mut text = format!("The {marker} report.\n\n");
        for number in 0..words {
            let word = WORDS[self.random.below(WORDS.len() as u64) as usize];
            // Paragraphs, so that a long text becomes several passages.
            text.push_str(word);
            text.push_str(if number % 80 == 79 { ".\n\n" } else { " " });
        }
        let mut filling = String::new();
        while (filling.len() as u64) < ballast {
            // Letters that hardly compress.
            let mut bits = self.random.next();
            for _ in 0..10 {
                filling.push(char::from(b'0' + (bits & 63) as u8));
                bits >>= 6;
            }
        }
        Document { marker, text, ballast: filling, version: None }
    }

    fn any_document(&mut self) -> Document {
        let words = if self.random.percent(6) { 700 } else { 3 + self.random.below(60) };
        let ballast = if self.random.percent(25) { 15_000 + self.random.below(40_000) } else { 0 };
        self.document(words, ballast)
    }

    fn any_id(&mut self) -> Option<String> {
        let count = self.documents.len() as u64;
        (count > 0).then(|| self.random.below(count)).and_then(|at| self.documents.keys().nth(at as usize).cloned())
    }

    fn next_op(&mut self) -> Op {
        let kind = self.random.below(100);
        let adds = if self.documents.len() < DOCUMENTS { 55 } else { 20 };
        if kind >= adds
            && let Some(id) = self.any_id()
        {
            if kind < adds + 20 {
                let document = self.any_document();
                return Op::Update(id, document);
            }
            // Of one collection: the documents of several are deleted collection by collection.
            let collection = id.split('/').next().expect("collection/document").to_owned();
            let mut ids = BTreeSet::from([id]);
            for _ in 0..self.random.below(3) {
                ids.extend(self.any_id().filter(|id| id.starts_with(&collection)));
            }
            return Op::Delete(ids.into_iter().collect());
        }
        let collection = COLLECTIONS[self.random.below(2) as usize];
        let mut batch = BTreeMap::new();
        for _ in 0..=self.random.below(5) {
            let known = self.any_id().filter(|id| id.starts_with(collection));
            let document = self.any_document();
            let id = match known {
                Some(id) if self.random.percent(30) => id,
                _ => format!("{collection}/{}{}", self.name, self.made),
            };
            batch.insert(id, document);
        }
        Op::Put(collection, batch.into_iter().collect())
    }

    /// Writes until a write is not acknowledged, or so many were. Returns the trouble.
    pub fn write(&mut self, client: &Client, writes: u64) -> Option<Trouble> {
        (0..writes).find_map(|_| {
            let op = self.next_op();
            self.perform(client, op).err()
        })
    }

    /// Sends a write and notes what became of it.
    ///
    /// # Errors
    /// When it was not acknowledged.
    pub fn perform(&mut self, client: &Client, op: Op) -> Result<(), Trouble> {
        let result = match &op {
            Op::Put(collection, documents) => {
                let documents: Vec<Value> = documents
                    .iter()
                    .map(|(id, document)| {
                        let id = id.split_once('/').expect("collection/document").1;
                        let mut sent = json!({"id": id, "text": document.text});
                        if !document.ballast.is_empty() {
                            sent["metadata"] = json!({"ballast": document.ballast});
                        }
                        sent
                    })
                    .collect();
                client.call("add_documents", &json!({"collection": collection, "documents": documents}))
            }
            Op::Update(id, document) => client.call("update_document", &json!({"id": id, "text": document.text})),
            Op::Delete(ids) => client.call("delete_documents", &json!({"ids": ids})),
        };
        self.touched.extend(op.ids().into_iter().cloned());
        match result {
            Ok(answer) => {
                self.acknowledge(op, &answer);
                Ok(())
            }
            Err(trouble) => {
                self.unknown.push(op);
                Err(trouble)
            }
        }
    }

    fn acknowledge(&mut self, mut op: Op, answer: &Value) {
        let outcomes = answer["documents"].as_array().map_or(&[][..], Vec::as_slice);
        let expected: Vec<&str> = match &op {
            Op::Put(_, documents) => documents
                .iter()
                .map(|(id, _)| if self.documents.contains_key(id) { "updated" } else { "created" })
                .collect(),
            Op::Update(..) => vec!["updated"],
            Op::Delete(ids) => vec!["deleted"; ids.len()],
        };
        let found: Vec<&str> = outcomes.iter().map(|outcome| outcome["status"].as_str().unwrap_or_default()).collect();
        // What an unanswered write left is not known, so neither is what this one met.
        if found != expected && self.unknown.is_empty() {
            let shown = shorten(&answer.to_string());
            self.wrong = Some(format!("WRONG ANSWER to {:?}: expected {expected:?}, found {shown}", op.ids()));
        }
        let mut versions = outcomes.iter().map(|outcome| outcome["version"].as_u64());
        match &mut op {
            Op::Put(_, documents) => {
                documents.iter_mut().zip(versions).for_each(|((_, document), version)| document.version = version);
            }
            Op::Update(_, document) => document.version = versions.next().flatten(),
            Op::Delete(_) => {}
        }
        self.stale.extend(op.ids().iter().filter_map(|id| self.documents.get(*id)).map(|old| old.marker.clone()));
        op.apply(&mut self.documents);
        self.acknowledged += 1;
    }

    /// The states that the answers allow: each unanswered write was done or not.
    fn candidates(&self) -> Result<Vec<Documents>, String> {
        if self.unknown.len() > UNKNOWN_MAX {
            return Err(format!("{} writes have no answer, too many to compare", self.unknown.len()));
        }
        let state = |bits: u32| {
            let mut documents = self.documents.clone();
            let done = self.unknown.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
            done.for_each(|(_, op)| op.apply(&mut documents));
            documents
        };
        Ok((0..1 << self.unknown.len()).map(state).collect())
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(600).collect()
}

/// What the node says about a document.
#[derive(Debug)]
pub struct Found {
    version: u64,
    /// Words and ballast, where they were asked for.
    content: Option<(Vec<String>, String)>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn agrees(found: &Found, document: &Document) -> bool {
    document.version.is_none_or(|version| version == found.version)
        && found.content.as_ref().is_none_or(|(text, ballast)| {
            *ballast == document.ballast && text.iter().map(String::as_str).eq(document.text.split_whitespace())
        })
}

/// Every document that the node lists, by whole id, with its version.
pub fn listed(client: &Client) -> Result<BTreeMap<String, Found>, String> {
    let mut found = BTreeMap::new();
    for collection in COLLECTIONS {
        let arguments = json!({"collection": collection, "limit": 1000, "max_tokens": 200_000, "include": ["dates"]});
        let answer = match client.call("list_documents", &arguments) {
            Ok(answer) => answer,
            // Nothing was written into it yet.
            Err(Trouble::Refused(words)) if words.contains("not_found") => continue,
            Err(trouble) => return Err(format!("NO LISTING of {collection}: {}", trouble.words())),
        };
        for document in list(&answer["documents"]) {
            let id = document["id"].as_str().unwrap_or_default().to_owned();
            let version = document["version"].as_u64().unwrap_or_default();
            found.insert(id, Found { version, content: None });
        }
    }
    Ok(found)
}

pub fn content(client: &Client, id: &str) -> Result<(Vec<String>, String), String> {
    let answer = client.ask("fetch", &json!({"id": id, "max_tokens": 20000, "include": ["metadata"]}))?;
    let text = answer["text"].as_str().unwrap_or_default();
    let ballast = answer["metadata"]["ballast"].as_str().unwrap_or_default().to_owned();
    Ok((words(text), ballast))
}

/// Compares a node with what its clients were told. What it has done of the unanswered writes is noted as done.
///
/// * `every_text`: also reads the documents that were not written since the last check.
///
/// # Errors
/// What is wrong.
pub fn check(client: &Client, writers: &mut [Writer], every_text: bool) -> Result<(), String> {
    client.flush().map_err(|trouble| format!("NO FLUSH on a healthy disk: {}", trouble.words()))?;
    let status = client.ask("get_status", &json!({}))?;
    if status["damage"] != json!([]) {
        return Err(format!("DAMAGE is reported: {}", status["damage"]));
    }
    let mut found = listed(client)?;
    for (id, found) in &mut found {
        let Some(writer) = writers.iter().find(|writer| id.contains(&format!("/{}", writer.name))) else {
            return Err(format!("INVENTED: nobody wrote {id}"));
        };
        if every_text || writer.touched.contains(id) {
            found.content = Some(content(client, id)?);
        }
    }
    for writer in &mut *writers {
        settle(writer, &found)?;
    }
    let count: usize = writers.iter().map(|writer| writer.documents.len()).sum();
    if status["documents"] != count {
        return Err(format!("WRONG COUNT: {count} documents are listed, the status says {}", status["documents"]));
    }
    for writer in writers {
        search(client, writer)?;
        writer.touched.clear();
        writer.stale.clear();
    }
    Ok(())
}

/// Finds out which of a writer's unanswered writes were done.
fn settle(writer: &mut Writer, found: &BTreeMap<String, Found>) -> Result<(), String> {
    if let Some(wrong) = writer.wrong.take() {
        return Err(wrong);
    }
    let part = format!("/{}", writer.name);
    let own: BTreeMap<&String, &Found> = found.iter().filter(|(id, _)| id.contains(&part)).collect();
    let fits = |documents: &Documents| {
        documents.len() == own.len()
            && documents.iter().all(|(id, document)| own.get(id).is_some_and(|found| agrees(found, document)))
    };
    let Some(mut settled) = writer.candidates()?.into_iter().find(fits) else {
        return Err(differences(writer, &own));
    };
    for (id, document) in &mut settled {
        document.version = own.get(id).map(|found| found.version);
    }
    let alive: BTreeSet<&String> = settled.values().map(|document| &document.marker).collect();
    let gone = writer.documents.values().chain(writer.unknown.iter().flat_map(Op::documents));
    writer.stale.extend(gone.map(|document| &document.marker).filter(|marker| !alive.contains(marker)).cloned());
    writer.documents = settled;
    writer.unknown.clear();
    Ok(())
}

/// What is wrong with documents that fit no allowed state.
fn differences(writer: &Writer, own: &BTreeMap<&String, &Found>) -> String {
    let mut said = String::new();
    let uncertain: BTreeSet<&String> = writer.unknown.iter().flat_map(Op::ids).collect();
    for (id, document) in &writer.documents {
        match own.get(id) {
            _ if uncertain.contains(id) => {}
            None => {
                let _ = writeln!(said, "LOST: {id} (version {:?}) was acknowledged", document.version);
            }
            Some(found) if !agrees(found, document) => {
                let (expected, version) = (&document.marker, document.version);
                let text = found.content.as_ref().map(|(words, _)| shorten(&words.join(" ")));
                let _ = writeln!(
                    said,
                    "LOST: {id} was acknowledged as {expected}, version {version:?}; found version {}, {text:?}",
                    found.version
                );
            }
            Some(_) => {}
        }
    }
    for (id, found) in own {
        if !writer.documents.contains_key(*id) && !uncertain.contains(id) {
            let _ = writeln!(said, "INVENTED: {id}, version {}, was deleted or never written", found.version);
        }
    }
    if said.is_empty() {
        said = "HALF: an unanswered write was neither done nor left undone\n".to_owned();
    }
    for op in &writer.unknown {
        let _ = writeln!(said, "unanswered: {}", shorten(&format!("{op:?}")));
    }
    for id in uncertain {
        let text = own.get(id).and_then(|found| found.content.as_ref()).map(|(words, _)| shorten(&words.join(" ")));
        let version = own.get(id).map(|found| found.version);
        let _ = writeln!(said, "  {id}: version {version:?}, {text:?}");
    }
    said
}

/// Documents that were written are found by their words and by their meaning; what they said before is not.
fn search(client: &Client, writer: &Writer) -> Result<(), String> {
    let written = writer.touched.iter().filter_map(|id| writer.documents.get(id).map(|document| (id, document)));
    for (number, (id, document)) in written.enumerate() {
        let (collection, name) = id.split_once('/').expect("collection/document");
        let ask = |query: &str, mode: &str, limit: usize| {
            let arguments = json!({"query": query, "collections": [collection], "mode": mode, "limit": limit,
                "detail": "ids", "max_tokens": 20_000});
            client.ask("search", &arguments)
        };
        let answer = ask(&document.marker, "lexical", 10)?;
        if documents(&answer).first().map(String::as_str) != Some(name) {
            let shown = shorten(&answer.to_string());
            return Err(format!("NOT FOUND by its word {}: {id}; found {shown}", document.marker));
        }
        // The first paragraph is one passage, and no other is closer to it than itself as a whole, so it is a candidate. A short
        // text of the same words may come before it. A few of them: it is the slower way to search, and all documents go the same
        // way into the index.
        if number < 2 {
            let meaning: String = document.text.chars().take(400).collect();
            let answer = ask(&meaning, "dense", 50)?;
            if !documents(&answer).iter().any(|found| found == name) {
                let shown = hits(&answer);
                return Err(format!("NOT FOUND by its meaning: {id}; found {shown:?}"));
            }
        }
    }
    for marker in &writer.stale {
        let answer = client.ask("search", &json!({"query": marker, "mode": "lexical", "limit": 3}))?;
        if let Some(text) = texts(&answer["results"], "text").iter().find(|text| text.contains(marker)) {
            return Err(format!("FOUND although it was replaced or deleted: {}", shorten(text)));
        }
    }
    Ok(())
}
