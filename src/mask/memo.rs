//! What was built last for a mask on some device.
//!
//! A lowered mask itself is plain data, the same for every device. But a stack of layers asks for the
//! same tensor of it once a layer, and what the tensor is made of may be as large as the tensor: the
//! flags of a dense mask would go to a GPU once a layer. So the last one is kept, beside the mask and
//! for as long as it lives.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What was built last for a mask, a dense tensor or what else a device reads, with what it was built
/// for. Clones of a lowered mask share it, so that a stack of layers builds it once.
pub(crate) struct Memo<K, T>(Arc<Mutex<Option<(K, T)>>>);

impl<K, T> Clone for Memo<K, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> fmt::Debug for Memo<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

impl<K: PartialEq, T: Clone> Memo<K, T> {
    pub(super) fn get_or_build(&self, key: K, build: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((built_for, built)) if *built_for == key => built.clone(),
            _ => {
                let built = build();
                *last = Some((key, built.clone()));
                built
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One upload a pass: clones share what was built, until something else is asked for.
    #[test]
    fn what_was_built_last_is_kept_for_all_clones() {
        let memo = Memo::default();
        let built = std::cell::Cell::new(0);
        let ask = |memo: &Memo<&str, u32>, key| {
            memo.get_or_build(key, || {
                built.set(built.get() + 1);
                built.get()
            })
        };
        let layers = [memo.clone(), memo.clone(), memo];
        assert_eq!(layers.each_ref().map(|memo| ask(memo, "device")), [1, 1, 1]);
        assert_eq!(ask(&layers[0], "other device"), 2);
        assert_eq!(ask(&layers[2], "other device"), 2);
    }
}
