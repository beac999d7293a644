//! Numbers that tell a model from one that has other keys, values or masks.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Int, Tensor, TensorData, Transaction};

use super::{LanguageModel, LanguageModelConfig};
use crate::hash::Hash;
use crate::kernels;

/// Of each parameter, so many values stand for it in a sample.
const SAMPLED: usize = 8;

/// A number that changes with every setting that keys, values or masks depend on: not with what
/// concerns training, the start of parameters or the head alone.
pub(super) fn settings(config: &LanguageModelConfig) -> u64 {
    let mut config = config.clone().with_dropout(0.0).with_embedding_std(None);
    config = config.with_tied_head(false).with_head_bias(false).with_logit_softcap(None);
    let layer = &mut config.decoder.layer;
    layer.dropout = 0.0;
    layer.feed_forward.dropout = 0.0;
    for attention in [&mut layer.self_attention].into_iter().chain(&mut layer.cross_attention) {
        attention.dropout = 0.0;
        attention.initializer = Initializer::Zeros;
    }
    let mut hash = Hash::new();
    hash.bytes(config.to_string().as_bytes());
    hash.finish()
}

impl LanguageModel {
    /// Shows all parameters that keys and values depend on, in an order that does not change.
    fn visit_past(&self, visitor: &mut impl ModuleVisitor) {
        self.embedding.visit(visitor);
        self.positions.visit(visitor);
        self.embedding_norm.visit(visitor);
        self.decoder.layers.visit(visitor);
    }

    /// For each of these parameters, or for one of them, a number that changes with a few of its
    /// values.
    pub(super) fn past_samples(&self, wanted: Option<usize>) -> Vec<u64> {
        let mut sampler = Sampler { wanted, seen: 0, reading: None, samples: Vec::new() };
        self.visit_past(&mut sampler);
        sampler.read();
        sampler.samples
    }

    /// A number that changes with any value of any of these parameters, and with the settings.
    pub(super) fn fingerprint_past(&self) -> u64 {
        let mut whole = Whole { hash: Hash::new() };
        whole.hash.word(self.settings);
        self.visit_past(&mut whole);
        whole.hash.finish()
    }
}

/// Reads a few values of each parameter, or of one.
struct Sampler {
    wanted: Option<usize>,
    seen: usize,
    /// What is to be read of a device that is waited for: all at once, for one wait.
    reading: Option<(Device, Transaction)>,
    samples: Vec<u64>,
}

impl Sampler {
    fn sample(&mut self, data: &TensorData) {
        let mut hash = Hash::new();
        hash_data(&mut hash, data);
        self.samples.push(hash.finish());
    }

    fn read(&mut self) {
        if let Some((_, values)) = self.reading.take() {
            values.execute().iter().for_each(|data| self.sample(data));
        }
    }
}

impl ModuleVisitor for Sampler {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.wanted.is_none_or(|wanted| wanted == self.seen) {
            let value = param.val();
            // The front of a row in the middle: of an embedding, not that of a pad token.
            let shape = value.dims();
            let ranges: [_; D] = std::array::from_fn(|axis| {
                let (start, length) =
                    if axis + 1 == D { (0, SAMPLED) } else { (shape[axis] / 2, 1) };
                start..(start + length).min(shape[axis])
            });
            let device = value.device();
            if self.reading.as_ref().is_none_or(|(other, _)| *other != device) {
                self.read();
            }
            if kernels::is_host(&device) {
                self.sample(&value.slice(ranges).into_data());
            } else {
                let values = self.reading.take().map_or_else(Transaction::default, |(_, v)| v);
                self.reading = Some((device, values.register(value.slice(ranges))));
            }
        }
        self.seen += 1;
    }

    /// Blocks: a row in the middle.
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        if self.wanted.is_none_or(|wanted| wanted == self.seen) {
            let value = param.val();
            let middle = value.dims()[0] / 2;
            self.read();
            let mut hash = Hash::new();
            hash_data(&mut hash, &value.narrow(0, middle, 1).into_data());
            self.samples.push(hash.finish());
        }
        self.seen += 1;
    }
}

/// Hashes all values of all parameters.
struct Whole {
    hash: Hash,
}

impl ModuleVisitor for Whole {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        hash_data(&mut self.hash, &param.val().into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        hash_data(&mut self.hash, &param.val().into_data());
    }
}

fn hash_data(hash: &mut Hash, data: &TensorData) {
    for &axis in data.shape().iter() {
        hash.word(axis as u64);
    }
    hash.bytes(format!("{:?}", data.dtype()).as_bytes());
    hash.bytes(data.as_bytes());
}
