//! A small least-recently-used cache, for sessions by shape.

/// At most `capacity` values by key; the least recently used goes first. Look-up is a scan, for
/// a handful of entries that each took long to make.
#[derive(Debug)]
pub(crate) struct ShapeCache<K, V> {
    capacity: usize,
    clock: u64,
    entries: Vec<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    used: u64,
}

impl<K: PartialEq, V> ShapeCache<K, V> {
    /// An empty cache for `capacity` values; 0 counts as 1.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), clock: 0, entries: Vec::new() }
    }

    /// The value of `key`, which becomes the most recently used.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.clock += 1;
        let entry = self.entries.iter_mut().find(|e| e.key == *key)?;
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    /// The value of `key`, made by `make` when absent. The oldest value is dropped before `make`
    /// runs, so that never more than `capacity` exist at once; a failure of `make` leaves the
    /// rest in place.
    pub fn get_or_make<E>(
        &mut self,
        key: K,
        make: impl FnOnce(&K) -> Result<V, E>,
    ) -> Result<&mut V, E> {
        self.clock += 1;
        let at = match self.entries.iter().position(|e| e.key == key) {
            Some(at) => at,
            None => {
                self.make_room();
                let value = make(&key)?;
                self.entries.push(Entry { key, value, used: 0 });
                self.entries.len() - 1
            }
        };
        let entry = &mut self.entries[at];
        entry.used = self.clock;
        Ok(&mut entry.value)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn make_room(&mut self) {
        while self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used);
            let Some((at, _)) = oldest else { return };
            self.entries.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn least_recently_used_goes_first() {
        let mut cache = ShapeCache::new(2);
        let mut made = Vec::new();
        let mut ask = |cache: &mut ShapeCache<u32, u32>, key| {
            *cache
                .get_or_make(key, |&k| {
                    made.push(k);
                    Ok::<_, ()>(k * 10)
                })
                .unwrap()
        };
        assert_eq!(ask(&mut cache, 1), 10);
        assert_eq!(ask(&mut cache, 2), 20);
        assert_eq!(ask(&mut cache, 1), 10);
        assert_eq!(ask(&mut cache, 3), 30); // drops 2
        assert_eq!(ask(&mut cache, 1), 10);
        assert_eq!(ask(&mut cache, 2), 20); // made again, drops 3
        assert_eq!(made, [1, 2, 3, 2]);
        assert_eq!(cache.len(), 2);
        assert!(cache.get_mut(&3).is_none());
    }

    #[test]
    fn failure_keeps_the_rest_and_bound_holds_while_making() {
        let mut cache = ShapeCache::new(2);
        let token = Rc::new(());
        for key in 0..5 {
            cache
                .get_or_make(key, |_| {
                    assert!(Rc::strong_count(&token) <= 2); // this one and one kept
                    Ok::<_, ()>(token.clone())
                })
                .unwrap();
        }
        assert!(cache.get_or_make(9, |_| Err("no")).is_err());
        assert_eq!(cache.len(), 1);
        assert!(cache.get_mut(&4).is_some());
    }
}
