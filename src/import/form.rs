//! How a parameter lies in the tensor of a checkpoint.
//!
//! A projection's weight is `[in, out]` here, as in Burn's `Linear`, and `[out, in]` in PyTorch's.
//! Some checkpoints keep several projections in one tensor: their outputs stand one behind the
//! other, or take turns head by head.

/// How many outputs go together through a transposed copy: both sides then touch whole cache lines.
const BLOCK: usize = 16;

/// How a parameter lies in the tensor of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is here.
    Same,
    /// `[1, n]` there, `[n]` here.
    Row,
    /// `[out, in]` there, `[in, out]` here.
    Transposed,
    /// As one of several projections.
    Packed(Packed),
}

/// One of several projections that share a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Which of them, from 0.
    pub part: usize,
    /// How many there are.
    pub parts: usize,
    /// How many times their outputs take turns: 1 if each stands in one piece, the number of heads
    /// if they are packed head by head.
    pub turns: usize,
    /// Whether a weight is `[outputs, in]` there; `[in, outputs]` if not.
    pub transposed: bool,
}

impl Packed {
    /// The place, among the outputs of all parts, of output `output` of `outputs` of this one.
    fn place(&self, output: usize, outputs: usize) -> usize {
        let width = outputs / self.turns;
        (output / width * self.parts + self.part) * width + output % width
    }
}

impl Form {
    /// The shape of their tensor, given that of the parameter.
    pub fn their_shape(&self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Self::Row, &[n]) => vec![1, n],
            (Self::Transposed, &[inputs, outputs]) => vec![outputs, inputs],
            (Self::Packed(packed), &[outputs]) => vec![packed.parts * outputs],
            (Self::Packed(packed), &[inputs, outputs]) if packed.transposed => {
                vec![packed.parts * outputs, inputs]
            }
            (Self::Packed(packed), &[inputs, outputs]) => vec![inputs, packed.parts * outputs],
            _ => ours.to_vec(),
        }
    }

    /// How many parameters fill their tensor.
    pub fn parts(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.parts,
            _ => 1,
        }
    }

    /// Whether the values stand in the same order here and there.
    pub fn keeps_order(&self) -> bool {
        matches!(self, Self::Same | Self::Row)
    }

    /// Calls `pair` with the index of each value here and its index there.
    pub fn for_each(&self, ours: &[usize], mut pair: impl FnMut(usize, usize)) {
        let whole = Packed { part: 0, parts: 1, turns: 1, transposed: true };
        let packed = match self {
            Self::Same | Self::Row => {
                return (0..ours.iter().product()).for_each(|index| pair(index, index));
            }
            Self::Transposed => whole,
            Self::Packed(packed) => *packed,
        };
        let (inputs, outputs) = match *ours {
            [inputs, outputs] => (inputs, outputs),
            _ => (1, ours.iter().product()),
        };
        let row = packed.parts * outputs;
        for start in (0..outputs).step_by(BLOCK) {
            let block = start..outputs.min(start + BLOCK);
            let mut places = [0; BLOCK];
            for (place, output) in places.iter_mut().zip(block.clone()) {
                *place = packed.place(output, outputs);
            }
            for input in 0..inputs {
                for (&place, output) in places.iter().zip(block.clone()) {
                    let theirs = if packed.transposed {
                        place * inputs + input
                    } else {
                        input * row + place
                    };
                    pair(input * outputs + output, theirs);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands where, told by the form, for a parameter of `shape`.
    fn places(form: Form, shape: &[usize]) -> Vec<usize> {
        let mut places = vec![usize::MAX; shape.iter().product()];
        form.for_each(shape, |ours, theirs| places[ours] = theirs);
        places
    }

    #[test]
    fn a_transposed_weight() {
        assert_eq!(Form::Transposed.their_shape(&[2, 3]), [3, 2]);
        assert_eq!(places(Form::Transposed, &[2, 3]), [0, 2, 4, 1, 3, 5]);
        // More outputs than a block holds.
        let places = places(Form::Transposed, &[3, 37]);
        for (ours, theirs) in places.into_iter().enumerate() {
            assert_eq!(theirs, ours % 37 * 3 + ours / 37);
        }
    }

    #[test]
    fn packed_in_pieces() {
        let form = |transposed| Form::Packed(Packed { part: 1, parts: 3, turns: 1, transposed });
        // [in 2, out 2]; there [6, 2], rows 2 and 3.
        assert_eq!(form(true).their_shape(&[2, 2]), [6, 2]);
        assert_eq!(places(form(true), &[2, 2]), [4, 6, 5, 7]);
        // There [2, 6], columns 2 and 3.
        assert_eq!(form(false).their_shape(&[2, 2]), [2, 6]);
        assert_eq!(places(form(false), &[2, 2]), [2, 3, 8, 9]);
        // A bias.
        assert_eq!(form(true).their_shape(&[2]), [6]);
        assert_eq!(places(form(true), &[2]), [2, 3]);
    }

    #[test]
    fn packed_head_by_head() {
        // Two heads of two channels: there q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1.
        let key = Form::Packed(Packed { part: 1, parts: 3, turns: 2, transposed: true });
        assert_eq!(key.their_shape(&[5, 4]), [12, 5]);
        assert_eq!(places(key, &[4]), [2, 3, 8, 9]);
        assert_eq!(places(key, &[1, 4]), [2, 3, 8, 9]);
    }

    #[test]
    fn one_more_axis() {
        assert_eq!(Form::Row.their_shape(&[3]), [1, 3]);
        assert_eq!(places(Form::Row, &[3]), [0, 1, 2]);
        assert!(Form::Row.keeps_order() && !Form::Transposed.keeps_order());
    }
}
