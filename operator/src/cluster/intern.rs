//! What many pods have in common is kept once.

use std::{borrow::Borrow, collections::HashSet, hash::Hash, sync::Arc};

/// Values that are looked through for forgotten ones the first time.
const FIRST: usize = 1024;

/// Values that are shared. What nobody else holds any more is forgotten from time to time.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>, ahash::RandomState>,
    purge_at: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::default(), purge_at: FIRST }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The shared value that is equal to this one.
    pub fn get<'a>(&mut self, value: &'a T) -> Arc<T>
    where
        Arc<T>: From<&'a T> + Borrow<T>,
    {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.purge_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.purge_at = (self.values.len() * 2).max(FIRST);
        }
        let shared = Arc::<T>::from(value);
        self.values.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_forgotten_ones_go() {
        let mut texts = Interner::<str>::default();
        let (one, two) = (texts.get("a"), texts.get("a"));
        assert!(Arc::ptr_eq(&one, &two));
        for number in 0..10 * FIRST {
            texts.get(&number.to_string());
        }
        assert!(texts.values.len() <= FIRST, "{}", texts.values.len());
        assert!(Arc::ptr_eq(&one, &texts.get("a")));
    }
}
