//! Rows of the training: windows of the stream, each with the documents that lie in it.
//!
//! A document that lies in a window sees itself only, and its positions start again at 0: the packed
//! mask. Which window is the next one is computed from its number alone, so that a training that goes
//! on later reads on where it was.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::decoder::{Batch, Positions};
use burn_decoder::mask::Mask;

use super::args::Settings;
use super::text::Stream;

/// A window of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is read, and the one token more that is said last.
    tokens: Vec<u32>,
    /// Lengths of the documents that are read.
    documents: Vec<usize>,
    /// Bytes of text that the said tokens stand for.
    bytes: usize,
}

impl Row {
    fn of(stream: &Stream, start: usize, context: usize) -> Self {
        let tokens = stream.tokens[start..=start + context].to_vec();
        let mut documents = vec![0];
        for (index, token) in tokens[..context].iter().enumerate() {
            if index > 0 && *token == stream.separator {
                documents.push(0);
            }
            *documents.last_mut().expect("there is always one") += 1;
        }
        let said = &stream.bytes[start + 1..=start + context];
        Self { tokens, documents, bytes: said.iter().map(|&bytes| bytes as usize).sum() }
    }
}

/// The rows of a whole training, in the order in which they are read.
pub struct TrainingRows {
    stream: Arc<Stream>,
    context: usize,
    seed: u64,
    order: Order,
    rows: usize,
}

impl TrainingRows {
    pub fn new(stream: Arc<Stream>, settings: &Settings) -> Self {
        Self {
            stream,
            context: settings.context,
            seed: settings.seed,
            order: Order {
                epoch: settings.validate_every * settings.batch,
                devices: settings.device_names().len(),
                pass: settings.rows_in_a_pass(),
            },
            rows: settings.steps * settings.batch,
        }
    }
}

impl Dataset<Row> for TrainingRows {
    fn get(&self, index: usize) -> Result<Row, DatasetError> {
        let starts = self.stream.tokens.len() - self.context;
        let start = draw(self.seed, self.order.place(index) as u64, starts as u64);
        Ok(Row::of(&self.stream, start as usize, self.context))
    }

    fn len(&self) -> usize {
        self.rows
    }
}

/// The rows that a validation reads, evenly spread, the same each time.
pub struct ValidationRows {
    stream: Arc<Stream>,
    context: usize,
    rows: usize,
}

impl ValidationRows {
    /// As many rows as asked for, or as fit without overlapping.
    pub fn new(stream: Arc<Stream>, settings: &Settings) -> Self {
        let context = settings.context;
        let fit = (stream.tokens.len() - 1) / context;
        Self { stream, context, rows: settings.valid_rows.min(fit) }
    }
}

impl Dataset<Row> for ValidationRows {
    fn get(&self, index: usize) -> Result<Row, DatasetError> {
        let last = self.stream.tokens.len() - 1 - self.context;
        let start = if self.rows == 1 { 0 } else { index * last / (self.rows - 1) };
        Ok(Row::of(&self.stream, start, self.context))
    }

    fn len(&self) -> usize {
        self.rows
    }
}

/// Burn gives each of several devices a stretch of an epoch's rows. They are turned so that the passes
/// of one step, on all devices, read the rows that one device would read in that step.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Rows of an epoch, of all devices.
    epoch: usize,
    devices: usize,
    /// Rows of a pass on one device.
    pass: usize,
}

impl Order {
    /// The place in the training of the row with this index in the data set.
    fn place(&self, index: usize) -> usize {
        let (epoch, index) = (index / self.epoch, index % self.epoch);
        let stretch = self.epoch / self.devices;
        let (device, index) = (index / stretch, index % stretch);
        let (pass, row) = (index / self.pass, index % self.pass);
        epoch * self.epoch + (pass * self.devices + device) * self.pass + row
    }
}

/// A number below `below` for a place: SplitMix64 of seed and place, scaled.
pub fn draw(seed: u64, place: u64, below: u64) -> u64 {
    let mixed = mix(mix(seed).wrapping_add(place));
    ((u128::from(mixed) * u128::from(below)) >> 64) as u64
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Rows on a device.
#[derive(Clone, Debug)]
pub struct TextBatch {
    /// `[rows, context]`
    pub read: Tensor<2, Int>,
    /// The token behind each, `[rows, context]`.
    pub said: Tensor<2, Int>,
    /// Lengths of the documents in each row; none if each row is all of one.
    documents: Option<Vec<Vec<usize>>>,
    /// Bytes of text that the said tokens stand for.
    pub bytes: usize,
}

impl TextBatch {
    /// Who sees whom, and where each token stands.
    pub fn rows(&self) -> Batch {
        let Some(documents) = &self.documents else { return Batch::new() };
        let numbers = |lengths: &Vec<usize>| {
            let numbered = (0..).zip(lengths);
            numbered.flat_map(|(number, &length)| std::iter::repeat_n(number, length)).collect()
        };
        Batch::new()
            .with_mask(Mask::document_lengths(documents.iter().cloned()))
            .with_positions(Positions::Documents(documents.iter().map(numbers).collect()))
    }
}

/// Puts rows together.
pub struct RowBatcher;

impl Batcher<Row, TextBatch> for RowBatcher {
    fn batch(&self, rows: Vec<Row>, device: &Device) -> TextBatch {
        let context = rows[0].tokens.len() - 1;
        let tensor = |from: usize| {
            let tokens: Vec<i64> = rows
                .iter()
                .flat_map(|row| &row.tokens[from..from + context])
                .map(|&token| token.into())
                .collect();
            Tensor::from_data(TensorData::new(tokens, [rows.len(), context]), device)
        };
        let packed = rows.iter().any(|row| row.documents.len() > 1);
        TextBatch {
            read: tensor(0),
            said: tensor(1),
            documents: packed.then(|| rows.iter().map(|row| row.documents.clone()).collect()),
            bytes: rows.iter().map(|row| row.bytes).sum(),
        }
    }
}
