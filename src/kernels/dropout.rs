//! Random numbers for dropout that any kernel can compute again, anywhere, in any order.
//!
//! Whether a weight is dropped is a function of (seed, batch, head, query, key) alone: no state, no
//! stored matrix. A backward pass, another kernel, another backend or another number of threads
//! gets the same decision. The row part is mixed once in 64 bits (SplitMix64's finaliser; Steele,
//! Lea and Flood 2014), the key part in 32 bits with two multiplications (Wellons' `lowbias32`),
//! so that a loop over keys runs in vector registers.

/// Dropout of attention weights: each is zero with `probability`, the others grow by
/// `1 / (1 - probability)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SeededDropout {
    /// In `[0, 1)`.
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

/// The random numbers of one query row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DropoutRow {
    low: u32,
    high: u32,
}

impl SeededDropout {
    /// What a weight that stays is multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }

    /// A weight is dropped if its [`DropoutRow::bits`] lie below this.
    pub(crate) fn threshold(&self) -> u32 {
        // Probabilities stop short of 1, and `as` saturates.
        (self.probability * 4_294_967_296.0).round() as u32
    }

    /// The numbers of one row; `head` is the query's head.
    pub(crate) fn row(&self, batch: usize, head: usize, query: usize) -> DropoutRow {
        let mixed = [batch, head, query]
            .into_iter()
            .fold(mix(self.seed), |mixed, index| mix(mixed ^ index as u64));
        DropoutRow { low: mixed as u32, high: (mixed >> 32) as u32 }
    }

    /// Whether one weight stays.
    #[cfg(test)]
    fn keeps(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        self.row(batch, head, query).bits(key as u32) >= self.threshold()
    }
}

impl DropoutRow {
    /// 32 random bits for key `key`: two multiplications, three shifts.
    #[inline(always)]
    pub(crate) fn bits(self, key: u32) -> u32 {
        let mut bits = key ^ self.low;
        bits ^= bits >> 16;
        bits = bits.wrapping_mul(0x7feb_352d);
        bits ^= bits >> 15;
        // Without a second key, rows whose first keys lie close would be permutations of each other.
        bits = bits.wrapping_add(self.high);
        bits = bits.wrapping_mul(0x846c_a68b);
        bits ^ (bits >> 16)
    }
}

/// One step of SplitMix64.
pub(super) fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four standard deviations of the mean of `n` coin tosses. The seeds are fixed, so the tests
    /// below pass always or never.
    fn four_sigma(probability: f64, n: usize) -> f64 {
        4.0 * (probability * (1.0 - probability) / n as f64).sqrt()
    }

    #[test]
    fn decisions_are_pinned() {
        // Other kernels and saved runs rely on these bits.
        let dropout = SeededDropout { probability: 0.25, seed: 42 };
        let row = dropout.row(1, 2, 3);
        let bits = [0, 1, 2, u32::MAX].map(|key| row.bits(key));
        assert_eq!(bits, [447381540, 3292584514, 162593977, 1592005108]);
        assert_eq!(dropout.threshold(), 1 << 30);
    }

    #[test]
    fn the_share_of_dropped_weights_is_the_probability() {
        for probability in [0.0, 0.01, 0.1, 0.5, 0.9, 0.999] {
            for seed in 0..5 {
                let dropout = SeededDropout { probability, seed };
                let (mut kept, mut n) = (0, 0);
                for (batch, head, query) in
                    (0..3).flat_map(|b| (0..5).flat_map(move |h| (0..67).map(move |q| (b, h, q))))
                {
                    kept += (0..127).filter(|&k| dropout.keeps(batch, head, query, k)).count();
                    n += 127;
                }
                let share = kept as f64 / n as f64;
                let allowed = four_sigma(probability, n);
                assert!(
                    (share - (1.0 - probability)).abs() <= allowed,
                    "seed {seed}: kept {share} with probability {probability}"
                );
            }
        }
    }

    /// Neighbours along every axis agree as often as independent tosses do.
    #[test]
    fn neighbours_are_independent() {
        let probability = 0.3;
        let agree = probability * probability + (1.0 - probability) * (1.0 - probability);
        let steps: [[usize; 4]; 8] = [
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
            [0, 0, 1, 1],
            [0, 1, 0, 1],
            [0, 0, 0, 2],
            [0, 0, 2, 64],
        ];
        for seed in [0u64, 1, 7, u64::MAX] {
            let dropout = SeededDropout { probability, seed };
            let keeps = |[b, h, q, k]: [usize; 4]| dropout.keeps(b, h, q, k);
            for step in steps {
                let mut same = 0;
                let mut n = 0;
                for cell in (0..8 * 64 * 64).map(|i| [1, i / 4096, i / 64 % 64, i % 64]) {
                    let next = std::array::from_fn(|axis| cell[axis] + step[axis]);
                    same += (keeps(cell) == keeps(next)) as usize;
                    n += 1;
                }
                let share = same as f64 / n as f64;
                assert!(
                    (share - agree).abs() <= four_sigma(agree, n),
                    "seed {seed}, step {step:?}: {share} instead of {agree}"
                );
            }
        }
    }

    #[test]
    fn seeds_differ() {
        let [first, second] =
            [1, 2].map(|seed| SeededDropout { probability: 0.5, seed }.row(0, 0, 0));
        let same = (0..4096).filter(|&k| (first.bits(k) ^ second.bits(k)) >> 31 == 0).count();
        assert!((same as f64 / 4096.0 - 0.5).abs() <= four_sigma(0.5, 4096));
    }
}
