//! The built-in model: one vector per word piece, added up. No network, no file, no transformer.
//!
//! The table is distilled from sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0, see NOTICE): int8 rows with one f16
//! scale each. `embedding(text) = normalise(Σ rows[piece] · scales[piece])` over the text's word pieces; the word order
//! does not matter. Similarity is the dot product. English in meaning; other languages get a usable but weak vector.

use half::f16;
use numkong::Dot as _;
use safetensors::{Dtype, SafeTensors};

use super::proximity::{Sequence, WordProximity};
use super::{
    EmbedError, Embedder, Embedding, ModelInfo, Phrase, PieceKind, Proximity, Purpose, Windows, WordPiece, late,
};
use crate::base::prefetch;

static TABLE: &[u8] = include_bytes!("static_minilm/model.safetensors");
static VOCABULARY: &str = include_str!("static_minilm/vocab.txt");

/// Word pieces of a query word that are used.
const WORD_PIECES: usize = 16;

/// Name of the built-in model.
pub(super) const NAME: &str = "static-minilm-256";
const DIMENSIONS: usize = 256;
/// Further word pieces of a text are ignored, as in the model's configuration.
const PIECES_MAX: usize = 512;

pub(super) fn info() -> ModelInfo {
    ModelInfo {
        name: NAME.to_owned(),
        dimensions: DIMENSIONS,
        languages: vec!["en".to_owned()],
        // nDCG@10 of English collections is flat from 0.4 to 0.6. For Chinese queries it is 0.960 at 0.2 and 0.962 at
        // 0.1, for Spanish ones 0.973 at both: there the words must decide.
        hybrid_weight: 0.5,
        hybrid_weight_elsewhere: 0.1,
    }
}

/// A static embedding table with its tokenizer.
///
/// Cost on one core: about 3 µs for a query of ten words, 30 µs for a passage of 200 word pieces.
#[derive(Debug)]
pub struct StaticModel {
    info: ModelInfo,
    tokenizer: WordPiece,
    /// `scales.len() × DIMENSIONS` values, row by row; borrowed from the executable's pages.
    rows: &'static [i8],
    scales: Vec<f32>,
}

impl StaticModel {
    /// The table inside the binary.
    #[must_use]
    pub fn built_in() -> Self {
        Self::from_parts(TABLE, VOCABULARY).expect("the compiled-in model is checked by this module's tests")
    }

    fn from_parts(table: &'static [u8], vocabulary: &'static str) -> Result<Self, EmbedError> {
        let unusable = |detail: String| EmbedError::Damaged { model: NAME.to_owned(), detail };
        let tensors = SafeTensors::deserialize(table).map_err(|error| unusable(error.to_string()))?;
        let tokenizer = WordPiece::from_vocabulary(vocabulary).map_err(|error| unusable(error.to_string()))?;
        let rows = tensors.tensor("embeddings").map_err(|error| unusable(error.to_string()))?;
        let scales = tensors.tensor("scales").map_err(|error| unusable(error.to_string()))?;
        let expected = [tokenizer.len(), DIMENSIONS];
        if rows.dtype() != Dtype::I8 || rows.shape() != expected {
            return Err(unusable(format!(
                "embeddings are {:?} {:?}, expected I8 {expected:?}",
                rows.dtype(),
                rows.shape()
            )));
        }
        if scales.dtype() != Dtype::F16 || scales.shape() != &expected[..1] {
            return Err(unusable(format!("scales are {:?} {:?}, expected F16", scales.dtype(), scales.shape())));
        }
        let scales =
            scales.data().chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
        Ok(Self { info: info(), tokenizer, rows: bytemuck::cast_slice(rows.data()), scales })
    }

    /// Embeds one text.
    #[must_use]
    pub fn embed_one(&self, text: &str) -> Vec<f32> {
        let mut sum = [0f32; DIMENSIONS];
        self.tokenizer.encode(text, PIECES_MAX, |piece| {
            self.add(&mut sum, piece);
        });
        let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 0.0 {
            for value in &mut sum {
                *value /= norm;
            }
        }
        sum.to_vec()
    }

    fn row(&self, piece: usize) -> &[i8] {
        &self.rows[piece * DIMENSIONS..(piece + 1) * DIMENSIONS]
    }

    fn add(&self, sum: &mut [f32; DIMENSIONS], piece: u32) {
        add_scaled(sum, self.row(piece as usize), self.scales[piece as usize]);
    }

    fn pieces(&self, text: &str, limit: usize) -> Vec<u16> {
        let mut pieces = Vec::with_capacity(limit.min(text.len() / 3));
        // A vocabulary has fewer pieces than that; see the tests.
        self.tokenizer.encode(text, limit, |piece| pieces.push(piece as u16));
        pieces
    }

    fn sum(&self, pieces: &[u16]) -> [f32; DIMENSIONS] {
        let mut sum = [0f32; DIMENSIONS];
        pieces.iter().for_each(|piece| self.add(&mut sum, u32::from(*piece)));
        sum
    }
}

/// A query's vector in bytes, for products with the rows, which are bytes.
struct QuantizedQuery {
    bytes: [i8; DIMENSIONS],
    /// The value of a byte of 1.
    step: f32,
}

impl QuantizedQuery {
    /// `None` for a vector of another length, or a zero vector.
    fn of(vector: &[f32]) -> Option<Self> {
        let most = vector.iter().fold(0f32, |most, value| most.max(value.abs()));
        if vector.len() != DIMENSIONS || !(most > 0.0 && most.is_finite()) {
            return None;
        }
        let step = most / 127.0;
        Some(Self { bytes: std::array::from_fn(|place| (vector[place] / step).round_ties_even() as i8), step })
    }
}

/// Scores rows for a query.
struct PieceQuery<'a> {
    question: QuantizedQuery,
    model: &'a StaticModel,
}

impl late::PieceScores for PieceQuery<'_> {
    fn score(&self, piece: u16) -> f32 {
        let piece = usize::from(piece);
        let product = i8::dot(&self.question.bytes, self.model.row(piece)).unwrap_or_default();
        product as f32 * self.question.step * self.model.scales[piece]
    }

    fn expect(&self, piece: u16) {
        prefetch(bytemuck::cast_slice(self.model.row(usize::from(piece))));
    }
}

/// An alternative form of a word in a text: its singular or its plural.
fn other_number(word: &str) -> String {
    match word.strip_suffix('s') {
        Some(singular) => singular.to_owned(),
        None => format!("{word}s"),
    }
}

/// `sum += row · scale`, written so that the compiler vectorises it.
#[inline]
fn add_scaled(sum: &mut [f32; DIMENSIONS], row: &[i8], scale: f32) {
    for (total, &byte) in sum.iter_mut().zip(row) {
        *total += f32::from(byte) * scale;
    }
}

impl Embedder for StaticModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn embed<'a>(&'a self, texts: &'a [&'a str], _purpose: Purpose) -> Embedding<'a> {
        Box::pin(async move { Ok(texts.iter().map(|text| self.embed_one(text)).collect()) })
    }

    fn has_known_word(&self, text: &str) -> bool {
        let is_known =
            |piece: &u16| self.tokenizer.kind(*piece) != PieceKind::Mark && !self.tokenizer.is_unknown(*piece);
        self.pieces(text, PIECES_MAX).iter().any(is_known)
    }

    fn run(&self, context: &str, text: &str, language: &str) -> Vec<u16> {
        let window = late::window(self.info.languages.iter().any(|known| known == language));
        let context = self.pieces(context, late::CONTEXT_PIECES);
        let text = self.pieces(text, late::TEXT_PIECES_MAX);
        let own = self.sum(&context);
        let mut halves: Vec<[f32; DIMENSIONS]> = text.chunks(window / 2).map(|half| self.sum(half)).collect();
        if halves.len() == 1 {
            halves.push([0.0; DIMENSIONS]);
        }
        let length = |pair: &[[f32; DIMENSIONS]]| {
            let sums = own.iter().zip(&pair[0]).zip(&pair[1]).map(|((own, one), other)| own + one + other);
            sums.map(|sum| sum * sum).sum::<f32>().sqrt()
        };
        let lengths: Vec<f32> = halves.windows(2).map(length).collect();
        late::run(&context, &text, window, &lengths)
    }

    fn windows<'a>(&'a self, question: &'a [f32]) -> Option<Box<dyn Windows + 'a>> {
        let asked = PieceQuery { question: QuantizedQuery::of(question)?, model: self };
        Some(Box::new(late::Scores::new(self.scales.len(), asked)))
    }

    fn phrase<'a>(&'a self, text: &str) -> Option<Box<dyn Phrase + 'a>> {
        Some(Box::new(Sequence::new(self.pieces(text, late::TEXT_PIECES_MAX), &self.tokenizer)))
    }

    fn proximity(&self, words: &[&str]) -> Option<Box<dyn Proximity>> {
        if words.len() < 2 {
            return None;
        }
        let pieces = |word: &str| self.pieces(word, WORD_PIECES);
        let spellings = words.iter().map(|word| vec![pieces(word), pieces(&other_number(word))]);
        WordProximity::new(spellings).map(|near| Box::new(near) as Box<dyn Proximity>)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Texts with word piece ids and vectors computed by the reference implementation, outside this code base.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/data/static-minilm/golden.json")).expect("golden.json is JSON")
    }

    #[test]
    fn word_pieces_equal_the_reference() {
        let model = StaticModel::built_in();
        for item in golden()["items"].as_array().expect("items") {
            let mut pieces = Vec::new();
            model.tokenizer.encode(item["text"].as_str().expect("text"), usize::MAX, |piece| pieces.push(piece));
            assert_eq!(pieces.len() as u64, item["n_ids"].as_u64().expect("n_ids"), "{}", item["text"]);
            // A long text's list is shortened there: it ends in "...".
            let expected: Vec<u32> =
                item["ids"].as_array().expect("ids").iter().map_while(Value::as_u64).map(|id| id as u32).collect();
            assert_eq!(pieces[..expected.len()], expected, "{}", item["text"]);
        }
    }

    #[test]
    fn vectors_equal_the_reference() {
        let model = StaticModel::built_in();
        let mut compared = 0;
        for item in golden()["items"].as_array().expect("items") {
            let text = item["text"].as_str().expect("text");
            // The reference did not truncate; for texts beyond the model's limit only the pieces are compared.
            if item["n_ids"].as_u64().expect("n_ids") > PIECES_MAX as u64 {
                continue;
            }
            let embedding = model.embed_one(text);
            for (position, expected) in item["static"].as_array().expect("static").iter().enumerate() {
                let expected = expected.as_f64().expect("number") as f32;
                assert!((embedding[position] - expected).abs() < 1e-3, "{text}: component {position}");
                compared += 1;
            }
        }
        assert!(compared > 4 * DIMENSIONS, "only {compared} components were compared");
    }

    #[test]
    fn what_is_unknown_is_not_read() {
        let model = StaticModel::built_in();
        for text in ["how do I restore a backup", "etcd", "KX-9", "réparation de la pompe", "猫 cat"] {
            assert!(model.has_known_word(text), "{text}");
        }
        for text in ["猫", "?!", "", &"a".repeat(1_000)] {
            assert!(!model.has_known_word(text), "{text}");
        }
    }

    #[test]
    fn pieces_fit_into_sixteen_bits() {
        assert!(StaticModel::built_in().tokenizer.len() <= 1 << 16);
    }

    /// The definition: cosines of the query with the sums of context and window, in full precision.
    #[test]
    fn the_best_window_is_that_of_the_definition() {
        let model = StaticModel::built_in();
        let context = "Pump P7 > Maintenance";
        let text = "The pump was delivered in spring by a firm from the coast, and painted green. Grease the bearings every 2000 hours \
                    with the grease that hangs beside the door. The key of the store is in the gatehouse.";
        for (question, language) in
            [("how often are bearings greased", "en"), ("where is the key", "en"), ("which colour", "")]
        {
            let asked = model.embed_one(question);
            let run = model.run(context, text, language);
            let size = late::window(language == "en");
            let found = model.windows(&asked).expect("windows").similarity(0.0, &run) / late::share(size);
            let (context, text) = (model.pieces(context, 24), model.pieces(text, 1_000));
            let mut expected = f32::NEG_INFINITY;
            for start in (0..text.len()).step_by(size / 2) {
                let window = &text[start..text.len().min(start + size)];
                let all: Vec<u16> = context.iter().chain(window).copied().collect();
                let sum = model.sum(&all);
                let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
                let cosine = sum.iter().zip(&asked).map(|(one, other)| one * other).sum::<f32>() / norm;
                expected = expected.max(if start > 0 && start + size / 2 >= text.len() { expected } else { cosine });
            }
            assert!((found - expected).abs() < 0.01, "{question}: {found} {expected}");
        }
    }

    #[test]
    fn text_without_words_is_the_zero_vector() {
        let model = StaticModel::built_in();
        assert!(model.embed_one(" \n\t ").iter().all(|&value| value == 0.0));
    }
}
