//! What stands on literal and on prefixed patterns of names, and the look-up of all that a
//! name falls under. Cloning is a few reference counts, as with everything in an image.
//!
//! ```text
//!   prefixed patterns, ascending:   foo ◀── foo.bar ◀── foo.bar.baz      qux
//!                                    each knows its longest proper prefix among them
//! ```
//! Every prefix of a name that is a pattern is the last pattern not above the name, or a
//! prefix of that one: what sorts between a string and a longer one that begins with it
//! begins with it too. So one search and the steps from pattern to prefix find them all.
//!
//! Invariant: `parent` of a prefixed pattern is the length of the longest other pattern that
//! it begins with. Called by [`super::AclIndex`].

use std::sync::Arc;

use super::acl_index::{PATTERN_LITERAL, PATTERN_PREFIXED, WILDCARD};
use crate::base::SortedMap;

#[derive(Clone, Debug)]
pub struct Patterns<V: Clone> {
    literal: SortedMap<Arc<str>, V>,
    prefixed: SortedMap<Arc<str>, Node<V>>,
}

#[derive(Clone, Debug)]
struct Node<V> {
    value: V,
    parent: Option<usize>,
}

impl<V: Clone> Patterns<V> {
    pub fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.prefixed.is_empty()
    }

    /// What stands on a pattern of a type, by its wire code.
    pub fn get(&self, pattern_type: i8, name: &str) -> Option<&V> {
        match pattern_type {
            PATTERN_LITERAL => self.literal.get(name),
            PATTERN_PREFIXED => self.prefixed.get(name).map(|node| &node.value),
            _ => None,
        }
    }

    /// Sets it; types that aren't patterns hold nothing.
    pub fn insert(&mut self, pattern_type: i8, name: Arc<str>, value: V) {
        match pattern_type {
            PATTERN_LITERAL => drop(self.literal.insert(name, value)),
            PATTERN_PREFIXED => self.insert_prefixed(name, value),
            _ => {}
        }
    }

    pub fn remove(&mut self, pattern_type: i8, name: &str) {
        match pattern_type {
            PATTERN_LITERAL => drop(self.literal.remove(name)),
            PATTERN_PREFIXED => self.remove_prefixed(name),
            _ => {}
        }
    }

    /// Literal patterns, among them perhaps [`WILDCARD`].
    pub fn literal(&self) -> impl Iterator<Item = (&str, &V)> {
        self.literal.iter().map(|(name, value)| (&**name, value))
    }

    pub fn prefixed(&self) -> impl Iterator<Item = (&str, &V)> {
        let nodes = self.prefixed.iter();
        nodes.map(|(name, node)| (&**name, &node.value))
    }

    /// Visits what stands on the patterns that `name` falls under, until `visit` is false.
    pub fn matching<'a>(&'a self, name: &str, mut visit: impl FnMut(&'a V) -> bool) {
        if let Some(value) = self.literal.get(name)
            && !visit(value)
        {
            return;
        }
        if let Some(value) = self.literal.get(WILDCARD)
            && !visit(value)
        {
            return;
        }
        self.prefixes_of(name, visit);
    }

    /// The same for prefixed patterns only, from the longest.
    pub fn prefixes_of<'a>(&'a self, name: &str, mut visit: impl FnMut(&'a V) -> bool) {
        let Some((pattern, mut node)) = self.prefixed.floor(name) else {
            return;
        };
        let common = common_prefix(pattern, name);
        let mut length = pattern.len();
        loop {
            if length <= common && !visit(&node.value) {
                return;
            }
            let Some(parent) = node.parent else {
                return;
            };
            length = parent;
            node = self.node(&pattern[..parent]);
        }
    }

    /// Of a pattern that another one has as its parent.
    fn node(&self, pattern: &str) -> &Node<V> {
        let node = self.prefixed.get(pattern);
        node.expect("a parent goes only after its children were given another")
    }

    fn insert_prefixed(&mut self, name: Arc<str>, value: V) {
        if let Some(node) = self.prefixed.get(&*name) {
            let parent = node.parent;
            self.prefixed.insert(name, Node { value, parent });
            return;
        }
        let parent = self.longest_prefix_of(&name);
        self.move_children(&name, parent, Some(name.len()));
        self.prefixed.insert(name, Node { value, parent });
    }

    fn remove_prefixed(&mut self, name: &str) {
        if let Some(node) = self.prefixed.remove(name) {
            self.move_children(name, Some(name.len()), node.parent);
        }
    }

    /// The length of the longest pattern that `name`, which is none, begins with.
    fn longest_prefix_of(&self, name: &str) -> Option<usize> {
        let (pattern, node) = self.prefixed.floor(name)?;
        let common = common_prefix(pattern, name);
        if pattern.len() <= common {
            return Some(pattern.len());
        }
        let mut parent = node.parent;
        while let Some(length) = parent.filter(|length| *length > common) {
            parent = self.node(&pattern[..length]).parent;
        }
        parent
    }

    /// Gives the patterns that begin with `name` and have one parent another.
    fn move_children(&mut self, name: &str, from: Option<usize>, to: Option<usize>) {
        let below = self.prefixed.range_from(name);
        let children: Vec<(Arc<str>, Node<V>)> = below
            .take_while(|(pattern, _)| pattern.starts_with(name))
            .filter(|(pattern, node)| node.parent == from && pattern.len() > name.len())
            .map(|(pattern, node)| (pattern.clone(), node.clone()))
            .collect();
        for (pattern, node) in children {
            let moved = Node { parent: to, ..node };
            self.prefixed.insert(pattern, moved);
        }
    }
}

impl<V: Clone> Default for Patterns<V> {
    fn default() -> Self {
        Patterns {
            literal: SortedMap::default(),
            prefixed: SortedMap::default(),
        }
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    let pairs = a.as_bytes().iter().zip(b.as_bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use std::collections::BTreeMap;

    /// Random patterns that begin with each other come and go; each name finds its own.
    #[test]
    fn all_prefixes_are_found_from_the_longest() {
        let mut rng = Rng::new(9);
        let name = |rng: &mut Rng| -> String {
            let length = rng.below(7) as usize;
            let letters = ["a", "b", "é", "z"];
            (0..length)
                .map(|_| letters[rng.below(4) as usize])
                .collect()
        };
        let mut patterns = Patterns::default();
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for step in 0..20_000u64 {
            let pattern = name(&mut rng);
            if rng.below(5) < 2 {
                model.remove(&pattern);
                patterns.remove(PATTERN_PREFIXED, &pattern);
            } else {
                patterns.insert(PATTERN_PREFIXED, Arc::from(pattern.as_str()), step);
                model.insert(pattern, step);
            }
            let probe = name(&mut rng);
            let mut found = Vec::new();
            patterns.prefixes_of(&probe, |value| {
                found.push(*value);
                true
            });
            let expected = model.iter().rev();
            let expected = expected.filter(|(pattern, _)| probe.starts_with(pattern.as_str()));
            let expected: Vec<u64> = expected.map(|(_, step)| *step).collect();
            assert_eq!(found, expected, "step {step}: {probe}");
        }
        for pattern in model.keys() {
            patterns.remove(PATTERN_PREFIXED, pattern);
        }
        assert!(patterns.is_empty());
    }
}
