//! An ordered map whose clone is one reference count: the shape of everything in a
//! metadata image that can grow large (topics, configs, ACLs). A published image and the
//! next one share all chunks that no record touched.
//!
//! ```text
//!   chunks: Arc<[ Arc<[ (k0,v0) (k1,v1) .. ]>, Arc<[ .. ]>, .. ]>     each 1..=CHUNK_MAX entries, ascending
//! ```
//! A change copies the list of chunks (one pointer per ~100 entries) and one chunk, and
//! neither when nobody else holds them. Lookups are two binary searches.
//!
//! Invariants: no chunk is empty or longer than [`CHUNK_MAX`]; keys ascend strictly
//! through all chunks.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Most entries that stand in one chunk.
const CHUNK_MAX: usize = 128;

type Chunk<K, V> = Vec<(K, V)>;

pub struct SortedMap<K, V> {
    chunks: Arc<Vec<Arc<Chunk<K, V>>>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        position(chunk, key).ok().map(|index| &chunk[index].1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Sets a value and returns the one that stood there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        }
        let chunk = Arc::make_mut(&mut chunks[at]);
        match position(chunk, &key) {
            Ok(index) => Some(std::mem::replace(&mut chunk[index].1, value)),
            Err(index) => {
                chunk.insert(index, (key, value));
                if chunk.len() > CHUNK_MAX {
                    // Keys mostly arrive in ascending order (offsets, partition indexes,
                    // generated names): leave the left part fuller.
                    let right = chunk.split_off(CHUNK_MAX * 3 / 4);
                    chunks.insert(at + 1, Arc::new(right));
                }
                self.len += 1;
                None
            }
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let index = position(self.chunks.get(at)?, key).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let (_, value) = chunk.remove(index);
        let left_over = chunk.len();
        if left_over == 0 {
            chunks.remove(at);
        } else if at > 0 && left_over + chunks[at - 1].len() <= CHUNK_MAX / 2 {
            let right = chunks.remove(at);
            Arc::make_mut(&mut chunks[at - 1]).extend(right.iter().cloned());
        }
        self.len -= 1;
        Some(value)
    }

    /// All entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Entries from the first key that is not below `key`, ascending.
    pub fn range_from<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let skip = self.chunks.get(at).map_or(0, |chunk| {
            position(chunk, key).unwrap_or_else(|index| index)
        });
        self.chunks[at.min(self.chunks.len())..]
            .iter()
            .flat_map(|chunk| chunk.iter())
            .skip(skip)
            .map(|(key, value)| (key, value))
    }

    /// The last entry that is not above `key`.
    pub fn floor<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        // The chunk's first key is not above `key`, unless nothing is.
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let index = match position(chunk, key) {
            Ok(index) => index,
            Err(index) => index.checked_sub(1)?,
        };
        let (key, value) = &chunk[index];
        Some((key, value))
    }

    /// Index of the chunk where `key` is or would be; 0 when there is no chunk at all.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.chunks
            .partition_point(|chunk| chunk[0].0.borrow() <= key)
            .saturating_sub(1)
    }
}

fn position<K, V, Q: Ord + ?Sized>(chunk: &Chunk<K, V>, key: &Q) -> Result<usize, usize>
where
    K: Borrow<Q>,
{
    chunk.binary_search_by(|(k, _)| k.borrow().cmp(key))
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        SortedMap {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<K, V> Clone for SortedMap<K, V> {
    fn clone(&self) -> Self {
        SortedMap {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || (self.len == other.len && self.iter().eq(other.iter()))
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::collections::BTreeMap;

    fn check(map: &SortedMap<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        assert!(
            map.chunks
                .iter()
                .all(|c| (1..=CHUNK_MAX).contains(&c.len()))
        );
    }

    #[test]
    fn agrees_with_a_btree_and_old_clones_stay() {
        let mut rng = Rng::new(3);
        let mut map = SortedMap::new();
        let mut model = BTreeMap::new();
        let mut kept = Vec::new();
        for step in 0..6_000u64 {
            let key = rng.below(1_500);
            if rng.below(3) == 0 {
                assert_eq!(map.remove(&key), model.remove(&key));
            } else {
                assert_eq!(map.insert(key, step), model.insert(key, step));
            }
            if step % 1_000 == 0 {
                kept.push((map.clone(), model.clone()));
            }
            let probe = rng.below(1_600);
            assert_eq!(map.get(&probe), model.get(&probe));
            assert_eq!(map.floor(&probe), model.range(..=probe).next_back());
            if step % 97 == 0 {
                check(&map, &model);
                assert!(map.range_from(&probe).eq(model.range(probe..)));
            }
        }
        for (map, model) in kept {
            check(&map, &model);
        }
        for key in 0..1_500 {
            assert_eq!(map.remove(&key), model.remove(&key));
        }
        check(&map, &model);
        assert!(map.is_empty() && map.range_from(&0).next().is_none());
    }

    #[test]
    fn ascending_keys_fill_chunks() {
        let map: SortedMap<u32, ()> = (0..10_000).map(|k| (k, ())).collect();
        assert!(map.chunks.len() < 120);
        assert_eq!(map.range_from(&9_999).count(), 1);
        assert_eq!(map.range_from(&10_000).count(), 0);
    }
}
