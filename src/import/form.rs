//! How a parameter lies in the tensor of a checkpoint.
//!
//! A projection's weight is `[in, out]` here, as in Burn's `Linear`, and `[out, in]` in PyTorch's.
//! Some checkpoints keep several projections in one tensor: their outputs stand one behind the
//! other, or alternate head by head.

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
    /// In how many groups their outputs stand: 1 if each projection is in one piece, the number of
    /// heads if they alternate head by head.
    pub groups: usize,
    /// Whether a weight is `[outputs, in]` there; `[in, outputs]` if not.
    pub transposed: bool,
    /// How many outputs they have, where they differ in it.
    pub widths: Option<Widths>,
}

/// The outputs of projections of different widths that share a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Those of the projections before this one.
    pub before: usize,
    /// This one's.
    pub own: usize,
    /// All.
    pub total: usize,
}

impl Packed {
    /// The outputs before these `outputs`, and all, if each projection is in one piece.
    fn extent(&self, outputs: usize) -> (usize, usize) {
        match self.widths {
            Some(widths) => (widths.before, widths.total),
            None => (self.part * outputs, self.parts * outputs),
        }
    }

    /// The place, among the outputs of all parts, of output `output` of `outputs` of this one.
    fn place(&self, output: usize, outputs: usize) -> usize {
        let (before, total) = self.extent(outputs);
        let width = outputs / self.groups;
        output / width * (total / self.groups) + before / self.groups + output % width
    }

    /// Why a projection of so many outputs can't stand there: what would be right, and what came.
    pub fn misfit(&self, outputs: usize) -> Option<(String, String)> {
        let numbers = match self.widths {
            Some(Widths { before, own, total }) => [before, own, total],
            None => [outputs; 3],
        };
        if self.groups == 0 || numbers.iter().any(|number| !number.is_multiple_of(self.groups)) {
            let expected = format!("a number of heads that divides {}", numbers[1]);
            return Some((expected, self.groups.to_string()));
        }
        let own = self.widths.map_or(outputs, |widths| widths.own);
        (own != outputs).then(|| (format!("a width of {outputs} outputs"), own.to_string()))
    }
}

impl Form {
    /// The shape of their tensor, given that of the parameter.
    pub fn their_shape(&self, ours: &[usize]) -> Vec<usize> {
        match (self, ours) {
            (Self::Row, &[n]) => vec![1, n],
            (Self::Transposed, &[inputs, outputs]) => vec![outputs, inputs],
            (Self::Packed(packed), &[outputs]) => vec![packed.extent(outputs).1],
            (Self::Packed(packed), &[inputs, outputs]) if packed.transposed => {
                vec![packed.extent(outputs).1, inputs]
            }
            (Self::Packed(packed), &[inputs, outputs]) => {
                vec![inputs, packed.extent(outputs).1]
            }
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

    /// Which rows of their matrix are the outputs of a projection, if each output is a row there.
    pub fn rows(&self, outputs: usize) -> Option<Vec<usize>> {
        match self {
            Self::Transposed => Some((0..outputs).collect()),
            Self::Packed(packed) if packed.transposed => {
                Some((0..outputs).map(|output| packed.place(output, outputs)).collect())
            }
            _ => None,
        }
    }

    /// Calls `pair` with the index of each value here and its index there.
    pub fn for_each(&self, ours: &[usize], mut pair: impl FnMut(usize, usize)) {
        let whole = Packed { part: 0, parts: 1, groups: 1, transposed: true, widths: None };
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
        let (_, row) = packed.extent(outputs);
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
        let form = |transposed| {
            Form::Packed(Packed { part: 1, parts: 3, groups: 1, transposed, widths: None })
        };
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
        let key =
            Form::Packed(Packed { part: 1, parts: 3, groups: 2, transposed: true, widths: None });
        assert_eq!(key.their_shape(&[5, 4]), [12, 5]);
        assert_eq!(places(key, &[4]), [2, 3, 8, 9]);
        assert_eq!(places(key, &[1, 4]), [2, 3, 8, 9]);
    }

    #[test]
    fn packed_in_different_widths() {
        // Four outputs of the query, two of the key, two of the value, in two groups: there
        // q0 q1 k0 v0 q2 q3 k1 v1.
        let widths = Some(Widths { before: 4, own: 2, total: 8 });
        let key = |groups| Packed { part: 1, parts: 3, groups, transposed: true, widths };
        assert_eq!(Form::Packed(key(2)).their_shape(&[5, 2]), [8, 5]);
        assert_eq!(places(Form::Packed(key(2)), &[2]), [2, 6]);
        assert_eq!(places(Form::Packed(key(1)), &[2]), [4, 5]);
        assert_eq!(key(2).misfit(2), None);
        assert_eq!(key(1).misfit(3).unwrap().0, "a width of 3 outputs");
        assert!(key(3).misfit(2).is_some() && key(0).misfit(2).is_some());
    }

    #[test]
    fn one_more_axis() {
        assert_eq!(Form::Row.their_shape(&[3]), [1, 3]);
        assert_eq!(places(Form::Row, &[3]), [0, 1, 2]);
        assert!(Form::Row.keeps_order() && !Form::Transposed.keeps_order());
    }
}
