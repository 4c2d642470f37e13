//! What an answer says when a model fails.

use std::sync::Arc;

use super::{Config, Metrics, Mode, Retrieval, SearchAnswer, SearchError, SearchRequest, Surroundings};
use crate::base::Fault;
use crate::calls::{Calls, Operation, Permit};
use crate::collection::{self, Access, Body, DocumentInput, Library, MediaType, Missing};
use crate::embed::testing::{Answers, Switched};
use crate::embed::{Embedder, Models, Purpose};
use crate::task::{Readiness, block_on};
use crate::telemetry::Registry;

const MODEL: &str = "switched-64";

/// A node with a collection of the built-in model and one of a model that fails when it is asked to.
struct Fixture {
    _directory: tempfile::TempDir,
    model: Arc<Switched>,
    retrieval: Retrieval,
    permit: Permit,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let model = Switched::new(MODEL, 64);
        let models = Models::built_in().with(Arc::clone(&model) as Arc<dyn Embedder>);
        let config = collection::Config { models: Arc::new(models), ..collection::Config::for_test(directory.path()) };
        let (library, _) =
            Library::open(config, &Readiness::default(), &collection::Metrics::default()).expect("opened");
        let permit = Calls::unwatched().internal_permit(Operation::EVALUATE);
        let access = library.access(&permit);
        block_on(access.create_collection("own", "", None)).expect("created");
        block_on(access.create_collection("switched", "", Some(MODEL))).expect("created");
        for collection in ["own", "switched"] {
            let body = Body::Text(format!("The pump of {collection} is worn."), MediaType::Text);
            let inputs = vec![DocumentInput { id: Some("pump".to_owned()), body, ..DocumentInput::default() }];
            let added = block_on(access.add(collection, Missing::Refuse, inputs)).expect("written");
            assert!(added.outcomes.iter().all(|outcome| outcome.passages == 1), "{:?}", added.outcomes);
        }
        let config = Config {
            limit: 5,
            tokens_max: 1_000,
            candidates: 10,
            cache_bytes: 1 << 20,
            passage_cache_bytes: 0,
            word_cache_bytes: 0,
        };
        Self {
            _directory: directory,
            model,
            retrieval: Retrieval::new(library, config, Metrics::register(&Registry::new())),
            permit,
        }
    }

    fn search(&self, query: &str, collections: &[&str], mode: Mode) -> Result<Arc<SearchAnswer>, SearchError> {
        let collections = collections.iter().map(|name| (*name).to_owned()).collect();
        let request = SearchRequest { query: query.to_owned(), collections, mode, ..SearchRequest::default() };
        let mut asked = self.retrieval.ask(self.access(), &request)?;
        if let Some(known) = self.retrieval.remembered(&asked) {
            return Ok(known);
        }
        block_on(self.retrieval.embed(&request, &mut asked));
        self.retrieval.answer(&request, &asked, &Surroundings::none())
    }

    fn access(&self) -> Access<'_> {
        self.retrieval.library().access(&self.permit)
    }

    fn queries(&self) -> usize {
        self.model.calls().iter().filter(|purpose| **purpose == Purpose::Query).count()
    }
}

fn ids(answer: &SearchAnswer) -> Vec<&str> {
    answer.hits.iter().map(|hit| hit.collection.as_str()).collect()
}

#[test]
fn a_hybrid_answer_is_of_words_alone_when_the_model_fails_and_says_so() {
    let fixture = Fixture::new();
    let whole = fixture.search("worn pump", &["switched"], Mode::Hybrid).expect("an answer");
    assert_eq!((whole.mode_used, whole.mode_reason.as_deref()), (Mode::Hybrid, None));
    fixture.model.fail("connection refused");
    let half = fixture.search("pump worn", &["switched"], Mode::Hybrid).expect("an answer");
    assert_eq!((ids(&half), half.mode_used), (vec!["switched"], Mode::Lexical));
    assert_eq!(half.mode_reason.as_deref(), Some("model switched-64 does not answer: connection refused"));
    // It is not remembered: the model is asked again, and answers.
    fixture.model.answer(Answers::Vectors(64));
    let again = fixture.search("pump worn", &["switched"], Mode::Hybrid).expect("an answer");
    assert_eq!((again.mode_used, again.mode_reason.as_deref()), (Mode::Hybrid, None));
}

#[test]
fn meaning_alone_is_an_error_when_its_only_model_fails() {
    let fixture = Fixture::new();
    fixture.model.fail("connection refused");
    let error = fixture.search("worn pump", &["switched"], Mode::Dense).expect_err("no answer");
    assert_eq!(error.to_string(), "model switched-64 does not answer: connection refused");
    assert_eq!(error.fault(), Fault::Environment);
    // Another collection's model answers for its own.
    for (mode, found) in [(Mode::Dense, vec!["own"]), (Mode::Hybrid, vec!["own", "switched"])] {
        let answer = fixture.search("worn pump", &["own", "switched"], mode).expect("an answer");
        let mut collections = ids(&answer);
        collections.sort_unstable();
        assert_eq!((collections, answer.mode_used), (found, mode));
        assert_eq!(answer.mode_reason.as_deref(), Some("model switched-64 does not answer: connection refused"));
    }
    // Words alone need no model.
    let asked = fixture.queries();
    let words = fixture.search("worn pump", &["switched"], Mode::Lexical).expect("an answer");
    assert_eq!((ids(&words), words.mode_reason.as_deref()), (vec!["switched"], None));
    assert_eq!(fixture.queries(), asked);
}

#[test]
fn what_is_not_an_embedding_is_not_used() {
    let fixture = Fixture::new();
    for (answers, reason) in [
        (Answers::Vectors(3), "model switched-64 returned a vector of 3 numbers instead of 64"),
        (Answers::NotFinite, "model switched-64 returned a vector with a number that is not finite"),
    ] {
        fixture.model.answer(answers);
        let half = fixture.search("worn pump", &["switched"], Mode::Hybrid).expect("an answer");
        assert_eq!((half.mode_used, half.mode_reason.as_deref()), (Mode::Lexical, Some(reason)));
        let error = fixture.search("worn pump", &["switched"], Mode::Dense).expect_err("no answer");
        assert_eq!(error.to_string(), reason);
    }
    // A document of two passages is not written with the vector of one.
    fixture.model.answer(Answers::One);
    let text = format!("# One\n\n{}\n\n# Two\n\n{}", "A pump. ".repeat(200), "A valve. ".repeat(200));
    let body = Body::Text(text, MediaType::Markdown);
    let inputs = vec![DocumentInput { id: Some("two".to_owned()), body, ..DocumentInput::default() }];
    let added = block_on(fixture.access().add("switched", Missing::Refuse, inputs)).expect("answered");
    let status = format!("{:?}", added.outcomes[0].status);
    assert!(status.contains("1 vectors for"), "{status}");
}

#[test]
fn a_remembered_answer_asks_no_model() {
    let fixture = Fixture::new();
    fixture.search("worn pump", &["switched"], Mode::Hybrid).expect("an answer");
    let asked = fixture.queries();
    assert_eq!(asked, 1);
    fixture.model.fail("it would be noticed");
    let again = fixture.search("worn pump", &["switched"], Mode::Hybrid).expect("an answer");
    assert_eq!((again.mode_reason.as_deref(), fixture.queries()), (None, asked));
}

#[test]
fn what_a_model_cannot_do_now_is_not_stored_as_the_answer_to_a_key() {
    let fixture = Fixture::new();
    let add = || {
        let body = Body::Text("The valve is new.".to_owned(), MediaType::Text);
        let inputs = vec![DocumentInput { id: Some("valve".to_owned()), body, ..DocumentInput::default() }];
        let answer = |_| b"the answer".to_vec();
        block_on(fixture.access().add_once("switched", Missing::Refuse, inputs, "key".to_owned(), answer))
    };
    fixture.model.fail("connection refused");
    assert_eq!(add().expect_err("nothing is written").fault(), Fault::Environment);
    assert_eq!(fixture.access().remembered("key").expect("asked"), None);
    fixture.model.answer(Answers::Vectors(64));
    assert_eq!(add().expect("written"), b"the answer");
}
