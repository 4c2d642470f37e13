//! A model for tests with configurable answers.

use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;

use super::{EmbedError, Embedder, Embedding, ModelInfo, Purpose};

/// The answers of a [`Switched`] model.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    /// Vectors of this length, all the same.
    Vectors(usize),
    /// One vector, regardless of the number of texts.
    One,
    /// Numbers that are not finite.
    NotFinite,
    /// Nothing.
    Fails(EmbedError),
}

/// A model whose answers can be changed while it is used.
#[derive(Debug)]
pub(crate) struct Switched {
    info: ModelInfo,
    answers: Mutex<Answers>,
    calls: Mutex<Vec<Purpose>>,
}

impl Switched {
    /// A model with valid answers.
    pub(crate) fn new(name: &str, dimensions: usize) -> Arc<Self> {
        let info = ModelInfo {
            name: name.to_owned(),
            dimensions,
            languages: vec!["en".to_owned()],
            hybrid_weight: 0.5,
            hybrid_weight_elsewhere: 0.5,
        };
        Arc::new(Self { info, answers: Mutex::new(Answers::Vectors(dimensions)), calls: Mutex::default() })
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock() = answers;
    }

    /// Makes the model fail from now on.
    pub(crate) fn fail(&self, detail: &str) {
        self.answer(Answers::Fails(EmbedError::Unavailable {
            model: self.info.name.clone(),
            detail: detail.to_owned(),
        }));
    }

    /// The purposes of its calls, in order.
    pub(crate) fn calls(&self) -> Vec<Purpose> {
        self.calls.lock().clone()
    }
}

impl Embedder for Switched {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn embed<'a>(&'a self, texts: &'a [&'a str], purpose: Purpose) -> Embedding<'a> {
        Box::pin(async move {
            self.calls.lock().push(purpose);
            // As one that waits for a network.
            let mut is_waiting = true;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut is_waiting) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            let vector = |length: usize, value: f32| vec![value; length];
            let (dimensions, unit) = (self.info.dimensions, (self.info.dimensions as f32).sqrt().recip());
            match self.answers.lock().clone() {
                Answers::Vectors(length) => Ok(vec![vector(length, unit); texts.len()]),
                Answers::One => Ok(vec![vector(dimensions, unit)]),
                Answers::NotFinite => Ok(vec![vector(dimensions, f32::NAN); texts.len()]),
                Answers::Fails(error) => Err(error),
            }
        })
    }
}
