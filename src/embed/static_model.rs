//! The built-in model: one vector per word piece, added up. No network, no file, no transformer.
//!
//! The table is distilled from sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0, see NOTICE): int8 rows with one f16
//! scale each. `embedding(text) = normalise(Σ rows[piece] · scales[piece])` over the text's word pieces; the word order
//! does not matter. Similarity is the dot product. English in meaning; other languages get a usable but weak vector.

use half::f16;
use safetensors::{Dtype, SafeTensors};

use super::{EmbedError, Embedder, ModelInfo, Purpose, WordPiece};

static TABLE: &[u8] = include_bytes!("static_minilm/model.safetensors");
static VOCABULARY: &str = include_str!("static_minilm/vocab.txt");

/// Name of the built-in model.
pub(super) const NAME: &str = "static-minilm-256";
const DIMENSIONS: usize = 256;
/// Word pieces of a text beyond this many are not looked at, as in the model's configuration.
const PIECES_MAX: usize = 512;

pub(super) fn info() -> ModelInfo {
    ModelInfo {
        name: NAME.to_owned(),
        dimensions: DIMENSIONS,
        languages: &["en"],
        // nDCG@10 of English collections is flat from 0.4 to 0.6. Of Chinese questions it is 0.946 at 0.5 and 0.963 at 0.2,
        // of Spanish ones 0.970 at both: there the words must decide.
        hybrid_weight: 0.5,
        hybrid_weight_elsewhere: 0.2,
    }
}

/// A static embedding table with its tokenizer.
///
/// Cost on one core: about 3 µs for a query of ten words, 30 µs for a passage of 200 word pieces.
#[derive(Debug)]
pub struct StaticModel {
    info: ModelInfo,
    tokenizer: WordPiece,
    /// `scales.len() × DIMENSIONS` values, row by row; borrowed from the executable's own pages.
    rows: &'static [u8],
    scales: Vec<f32>,
}

impl StaticModel {
    /// The table inside the binary.
    #[must_use]
    pub fn built_in() -> Self {
        Self::from_parts(TABLE, VOCABULARY).expect("the compiled-in model is checked by this module's tests")
    }

    fn from_parts(table: &'static [u8], vocabulary: &'static str) -> Result<Self, EmbedError> {
        let unusable = |detail: String| EmbedError::Model { model: NAME.to_owned(), detail };
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
        Ok(Self { info: info(), tokenizer, rows: rows.data(), scales })
    }

    /// Embeds one text.
    #[must_use]
    pub fn embed_one(&self, text: &str) -> Vec<f32> {
        let mut sum = [0f32; DIMENSIONS];
        self.tokenizer.encode(text, PIECES_MAX, |piece| {
            let piece = piece as usize;
            let row = &self.rows[piece * DIMENSIONS..(piece + 1) * DIMENSIONS];
            add_scaled(&mut sum, row, self.scales[piece]);
        });
        let norm = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        if norm > 0.0 {
            for value in &mut sum {
                *value /= norm;
            }
        }
        sum.to_vec()
    }
}

/// `sum += row · scale`, written so that the compiler vectorises it.
#[inline]
fn add_scaled(sum: &mut [f32; DIMENSIONS], row: &[u8], scale: f32) {
    for (total, &byte) in sum.iter_mut().zip(row) {
        *total += f32::from(byte.cast_signed()) * scale;
    }
}

impl Embedder for StaticModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| self.embed_one(text)).collect())
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
            // The reference did not truncate; texts beyond the model's limit are compared by their pieces only.
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
    fn text_without_words_is_the_zero_vector() {
        let model = StaticModel::built_in();
        assert!(model.embed_one(" \n\t ").iter().all(|&value| value == 0.0));
    }
}
