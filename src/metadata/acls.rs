//! The ACLs of an image: by id as the records have them, once each as bindings (no client
//! can have the same one twice), and as checks look them up.
//!
//! Invariant: the three say the same. A binding that stands under two ids, which only
//! another controller can have written, counts in the index until both are gone.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::base::{SortedMap, Uuid};
use crate::security::AclIndex;
use crate::wire::messages::AccessControlEntryRecord;

#[derive(Clone, Debug, Default)]
pub struct AclsImage {
    by_id: SortedMap<Uuid, Arc<AccessControlEntryRecord>>,
    /// How many ids each binding has; none is 0.
    bindings: SortedMap<Binding, u32>,
    index: AclIndex,
}

impl PartialEq for AclsImage {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl AclsImage {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All ACLs, by id.
    pub fn values(&self) -> impl Iterator<Item = &Arc<AccessControlEntryRecord>> {
        self.by_id.values()
    }

    /// All ACLs by type and name of their resource, each binding once.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<AccessControlEntryRecord>> {
        self.bindings.keys().map(|binding| &binding.0)
    }

    pub fn contains_id(&self, id: Uuid) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Whether there is an ACL that says the same, whatever its id.
    pub fn contains(&self, acl: &Arc<AccessControlEntryRecord>) -> bool {
        self.bindings.contains_key(&Binding(Arc::clone(acl)))
    }

    pub fn index(&self) -> &AclIndex {
        &self.index
    }

    pub(super) fn insert(&mut self, acl: Arc<AccessControlEntryRecord>) {
        self.remove(acl.id);
        let binding = Binding(Arc::clone(&acl));
        let count = self.bindings.get(&binding).copied().unwrap_or(0);
        if count == 0 {
            self.index.insert(&acl);
        }
        self.bindings.insert(binding, count + 1);
        self.by_id.insert(acl.id, acl);
    }

    /// Whether there was one of that id.
    pub(super) fn remove(&mut self, id: Uuid) -> bool {
        let Some(acl) = self.by_id.remove(&id) else {
            return false;
        };
        let binding = Binding(acl);
        match self.bindings.get(&binding) {
            Some(count @ 2..) => {
                let left = count - 1;
                self.bindings.insert(binding, left);
            }
            _ => {
                self.index.remove(&binding.0);
                self.bindings.remove(&binding);
            }
        }
        true
    }
}

/// An ACL without its id.
#[derive(Clone, Debug)]
struct Binding(Arc<AccessControlEntryRecord>);

impl Binding {
    fn key(&self) -> (i8, &str, i8, &str, &str, i8, i8) {
        let acl = &self.0;
        (
            acl.resource_type,
            &acl.resource_name,
            acl.pattern_type,
            &acl.principal,
            &acl.host,
            acl.operation,
            acl.permission_type,
        )
    }
}

impl Ord for Binding {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Binding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Binding {}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::security::{Action, Operation, ResourceType, Verdict};

    fn acl(id: u8, name: &str) -> Arc<AccessControlEntryRecord> {
        Arc::new(AccessControlEntryRecord {
            id: Uuid([id; 16]),
            resource_type: 2,
            resource_name: name.to_owned(),
            pattern_type: 3,
            principal: "User:a".to_owned(),
            host: "*".to_owned(),
            operation: 3,
            permission_type: 3,
        })
    }

    fn verdict(acls: &AclsImage, name: &str) -> Verdict {
        acls.index().verdict(&Action {
            principal: "User:a",
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            operation: Operation::Read,
            resource: ResourceType::Topic,
            name,
        })
    }

    #[test]
    fn a_binding_stands_as_long_as_one_id_has_it() {
        let mut acls = AclsImage::default();
        acls.insert(acl(1, "t"));
        acls.insert(acl(2, "t"));
        assert_eq!((acls.len(), acls.bindings().count()), (2, 1));
        assert!(acls.remove(Uuid([1; 16])) && !acls.remove(Uuid([1; 16])));
        assert_eq!(verdict(&acls, "t"), Verdict::Allowed);
        assert!(acls.contains(&acl(9, "t")) && !acls.contains(&acl(2, "u")));
        assert!(acls.remove(Uuid([2; 16])));
        assert_eq!(verdict(&acls, "t"), Verdict::Unmentioned);
        assert!(acls.is_empty() && acls.bindings().next().is_none());
    }

    #[test]
    fn an_id_that_comes_again_replaces_what_it_had() {
        let mut acls = AclsImage::default();
        acls.insert(acl(1, "t"));
        acls.insert(acl(1, "u"));
        assert_eq!(verdict(&acls, "t"), Verdict::Unmentioned);
        assert_eq!(verdict(&acls, "u"), Verdict::Allowed);
        assert_eq!(acls.len(), 1);
    }
}
