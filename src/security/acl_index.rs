//! The ACLs of a cluster in the shape in which checks look them up. A part of the metadata
//! image: every core has it, and a change makes a new one that shares what it left alone.
//!
//! ```text
//!   resource type ─▶ principal ─▶ literal name  ─▶ rules: any host, and by address,
//!                              └▶ name's prefix ─▶        each a bit for every operation
//!                 └▶ how many bindings stand on each pattern, whoever they are for
//! ```
//! A check looks at two principals, `User:*` and the client's own, and for each at the
//! name, at `*`, and at the patterns that are prefixes of the name ([`Patterns`]). So its
//! cost grows with the logarithm of the ACLs, whomever they are for, and nothing is
//! allocated.
//!
//! The semantics are those of `StandardAuthorizerData` of Apache Kafka 4.3.1, and of
//! `Authorizer.authorizeByResourceType` there. Called by [`super::StandardAuthorizer`];
//! kept up to date by `metadata`.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::authorizer::{Operation, ResourceType};
use super::patterns::Patterns;
use crate::base::SortedMap;
use crate::wire::messages::AccessControlEntryRecord;

/// Resource or host of an ACL for all of them.
pub const WILDCARD: &str = "*";

/// Principal of an ACL for everybody.
pub const WILDCARD_PRINCIPAL: &str = "User:*";

/// `PatternType`, by its wire code.
pub const PATTERN_ANY: i8 = 1;
pub const PATTERN_MATCH: i8 = 2;
pub const PATTERN_LITERAL: i8 = 3;
pub const PATTERN_PREFIXED: i8 = 4;

/// `AclPermissionType`, by its wire code.
pub const PERMISSION_DENY: i8 = 2;
pub const PERMISSION_ALLOW: i8 = 3;

/// What the ACLs say of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
    /// No ACL is for this action.
    Unmentioned,
}

/// An action on a resource as the index looks it up.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// As in [`super::Principal::as_str`].
    pub principal: &'a str,
    pub host: IpAddr,
    pub operation: Operation,
    pub resource: ResourceType,
    pub name: &'a str,
}

#[derive(Clone, Debug, Default)]
pub struct AclIndex {
    types: [OfType; ResourceType::COUNT],
}

/// The ACLs of one type of resource.
#[derive(Clone, Debug, Default)]
struct OfType {
    principals: SortedMap<Arc<str>, Arc<Patterns<Arc<Rules>>>>,
    /// Bindings on each pattern; none is 0.
    counts: Patterns<u32>,
}

/// What stands for one principal on one pattern. Never without any bit.
#[derive(Clone, Debug, Default)]
struct Rules {
    any_host: Bits,
    /// By address, ascending.
    hosts: Vec<(IpAddr, Bits)>,
}

/// A bit for every operation, by its wire code.
#[derive(Clone, Copy, Debug, Default)]
struct Bits {
    allow: u32,
    deny: u32,
}

impl AclIndex {
    /// Takes in a binding that wasn't there.
    pub fn insert(&mut self, acl: &AccessControlEntryRecord) {
        let Some(of_type) = self.of_type(acl.resource_type) else {
            return;
        };
        let name: Arc<str> = Arc::from(acl.resource_name.as_str());
        let (counts, kind) = (&mut of_type.counts, acl.pattern_type);
        let count = counts.get(kind, &name).copied().unwrap_or(0);
        counts.insert(kind, name.clone(), count + 1);
        of_type.change(acl, name, |bits, bit| {
            if acl.permission_type == PERMISSION_ALLOW {
                bits.allow |= bit;
            } else {
                bits.deny |= bit;
            }
        });
    }

    /// Forgets a binding that was there.
    pub fn remove(&mut self, acl: &AccessControlEntryRecord) {
        let Some(of_type) = self.of_type(acl.resource_type) else {
            return;
        };
        let name: Arc<str> = Arc::from(acl.resource_name.as_str());
        let (counts, kind) = (&mut of_type.counts, acl.pattern_type);
        match counts.get(kind, &name).copied() {
            Some(1) | None => counts.remove(kind, &name),
            Some(count) => counts.insert(kind, name.clone(), count - 1),
        }
        of_type.change(acl, name, |bits, bit| {
            if acl.permission_type == PERMISSION_ALLOW {
                bits.allow &= !bit;
            } else {
                bits.deny &= !bit;
            }
        });
    }

    pub fn verdict(&self, action: &Action<'_>) -> Verdict {
        let of_type = &self.types[action.resource.index()];
        let (allows, denies) = (allowing(action.operation), denying(action.operation));
        let mut allowed = false;
        for patterns in of_type.of_principals(action.principal) {
            let mut denied = false;
            patterns.matching(action.name, |rules| {
                let bits = rules.bits(action.host);
                denied |= bits.deny & denies != 0;
                allowed |= bits.allow & allows != 0;
                !denied
            });
            if denied {
                return Verdict::Denied;
            }
        }
        if allowed {
            Verdict::Allowed
        } else {
            Verdict::Unmentioned
        }
    }

    /// Whether there is any ACL for a resource, whomever it is for.
    pub fn mentions(&self, resource: ResourceType, name: &str) -> bool {
        let mut mentioned = false;
        self.types[resource.index()].counts.matching(name, |_| {
            mentioned = true;
            false
        });
        mentioned
    }

    /// Whether the ACLs allow an operation on some resource of a type, existing or not:
    /// some pattern is allowed, and no denied one swallows it. Operations imply no others
    /// here.
    pub fn allows_some(
        &self,
        principal: &str,
        host: IpAddr,
        operation: Operation,
        resource: ResourceType,
    ) -> bool {
        let of_type = &self.types[resource.index()];
        let bits = denying(operation);
        let is_denied = |rules: &Arc<Rules>| rules.bits(host).deny & bits != 0;
        let is_allowed = |rules: &Arc<Rules>| rules.bits(host).allow & bits != 0;
        let of_principals = || of_type.of_principals(principal);
        if of_principals().any(|patterns| {
            patterns
                .get(PATTERN_LITERAL, WILDCARD)
                .is_some_and(is_denied)
        }) {
            return false;
        }
        if of_principals().any(|patterns| {
            patterns
                .get(PATTERN_LITERAL, WILDCARD)
                .is_some_and(is_allowed)
        }) {
            return true;
        }
        let denied_as_prefix = |name: &str| {
            of_principals().any(|patterns| {
                let mut denied = false;
                patterns.prefixes_of(name, |rules| {
                    denied = is_denied(rules);
                    !denied
                });
                denied
            })
        };
        let denied_as_literal = |name: &str| {
            of_principals()
                .any(|patterns| patterns.get(PATTERN_LITERAL, name).is_some_and(is_denied))
        };
        of_principals().any(|patterns| {
            let mut literal = patterns.literal().filter(|(_, r)| is_allowed(r));
            let mut prefixed = patterns.prefixed().filter(|(_, r)| is_allowed(r));
            literal.any(|(name, _)| !denied_as_literal(name) && !denied_as_prefix(name))
                || prefixed.any(|(name, _)| !denied_as_prefix(name))
        })
    }

    fn of_type(&mut self, code: i8) -> Option<&mut OfType> {
        Some(&mut self.types[ResourceType::from_code(code)?.index()])
    }
}

impl OfType {
    /// The patterns of everybody, and those of one principal.
    fn of_principals(&self, principal: &str) -> impl Iterator<Item = &Patterns<Arc<Rules>>> {
        [WILDCARD_PRINCIPAL, principal]
            .into_iter()
            .filter_map(|principal| self.principals.get(principal))
            .map(|patterns| &**patterns)
    }

    /// Changes the bits that a binding stands for.
    fn change(
        &mut self,
        acl: &AccessControlEntryRecord,
        name: Arc<str>,
        change: impl FnOnce(&mut Bits, u32),
    ) {
        let bit = match u32::try_from(acl.operation) {
            Ok(code @ 0..=31) => 1 << code,
            _ => return,
        };
        let host = match acl.host.as_str() {
            WILDCARD => None,
            text => match address(text) {
                Some(address) => Some(address),
                // No client comes from there.
                None => return,
            },
        };
        let (principal, kind) = (acl.principal.as_str(), acl.pattern_type);
        let mut patterns = self.principals.get(principal).cloned().unwrap_or_default();
        let mut rules = patterns.get(kind, &name).cloned().unwrap_or_default();
        let changed = Arc::make_mut(&mut rules);
        match host {
            None => change(&mut changed.any_host, bit),
            Some(host) => {
                let at = changed
                    .hosts
                    .binary_search_by(|(other, _)| other.cmp(&host));
                let at = at.unwrap_or_else(|at| {
                    changed.hosts.insert(at, (host, Bits::default()));
                    at
                });
                change(&mut changed.hosts[at].1, bit);
                if changed.hosts[at].1.is_empty() {
                    changed.hosts.remove(at);
                }
            }
        }
        if changed.any_host.is_empty() && changed.hosts.is_empty() {
            Arc::make_mut(&mut patterns).remove(kind, &name);
        } else {
            Arc::make_mut(&mut patterns).insert(kind, name, rules);
        }
        if patterns.is_empty() {
            self.principals.remove(principal);
        } else {
            self.principals.insert(Arc::from(principal), patterns);
        }
    }
}

impl Rules {
    fn bits(&self, host: IpAddr) -> Bits {
        let at = self.hosts.binary_search_by(|(other, _)| other.cmp(&host));
        let of_host = at.map_or(Bits::default(), |at| self.hosts[at].1);
        Bits {
            allow: self.any_host.allow | of_host.allow,
            deny: self.any_host.deny | of_host.deny,
        }
    }
}

impl Bits {
    fn is_empty(self) -> bool {
        self.allow == 0 && self.deny == 0
    }
}

/// The operations that, denied, deny this one.
fn denying(operation: Operation) -> u32 {
    bit(operation) | bit(Operation::All)
}

/// The operations that, allowed, allow this one.
fn allowing(operation: Operation) -> u32 {
    use Operation::*;
    let implying: &[Operation] = match operation {
        Describe => &[Read, Write, Delete, Alter],
        DescribeConfigs => &[AlterConfigs],
        _ => &[],
    };
    let implying = implying.iter().fold(0, |bits, other| bits | bit(*other));
    denying(operation) | implying
}

fn bit(operation: Operation) -> u32 {
    1 << operation as i8
}

/// The address whose text an ACL's host is. Kafka compares texts, so another spelling of
/// an address is the host of nobody there (`InetAddress.getHostAddress`: eight groups
/// without leading zeros for IPv6).
fn address(host: &str) -> Option<IpAddr> {
    let address: IpAddr = host.parse().ok()?;
    let same = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => text_of(address) == host,
    };
    same.then_some(address)
}

fn text_of(address: Ipv6Addr) -> String {
    let groups = address.segments().map(|group| format!("{group:x}"));
    groups.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn acl(
        resource_type: ResourceType,
        (name, pattern_type): (&str, i8),
        (principal, host): (&str, &str),
        operation: Operation,
        permission_type: i8,
    ) -> AccessControlEntryRecord {
        AccessControlEntryRecord {
            id: Default::default(),
            resource_type: resource_type as i8,
            resource_name: name.to_owned(),
            pattern_type,
            principal: principal.to_owned(),
            host: host.to_owned(),
            operation: operation as i8,
            permission_type,
        }
    }

    fn topic(name: &str, pattern_type: i8, allowed: bool) -> AccessControlEntryRecord {
        let permission = if allowed {
            PERMISSION_ALLOW
        } else {
            PERMISSION_DENY
        };
        let pattern = (name, pattern_type);
        let who = ("User:a", WILDCARD);
        acl(
            ResourceType::Topic,
            pattern,
            who,
            Operation::Write,
            permission,
        )
    }

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// None: there are no ACLs for the topic.
    fn verdict(index: &AclIndex, name: &str) -> Option<Verdict> {
        let verdict = index.verdict(&Action {
            principal: "User:a",
            host: HOST,
            operation: Operation::Write,
            resource: ResourceType::Topic,
            name,
        });
        let mentioned = index.mentions(ResourceType::Topic, name);
        assert!(mentioned || verdict == Verdict::Unmentioned);
        mentioned.then_some(verdict)
    }

    /// The rule of `StandardAuthorizerData.findAclRule`, one ACL after the other.
    fn slow_verdict(acls: &[AccessControlEntryRecord], name: &str) -> Option<Verdict> {
        let matching = |acl: &&AccessControlEntryRecord| match acl.pattern_type {
            PATTERN_LITERAL => acl.resource_name == name || acl.resource_name == WILDCARD,
            _ => name.starts_with(&acl.resource_name),
        };
        let matching: Vec<_> = acls.iter().filter(matching).collect();
        if matching.is_empty() {
            None
        } else if matching
            .iter()
            .any(|acl| acl.permission_type == PERMISSION_DENY)
        {
            Some(Verdict::Denied)
        } else {
            Some(Verdict::Allowed)
        }
    }

    #[test]
    fn random_patterns_are_found_and_forgotten() {
        let mut rng = Rng::new(7);
        let name = |rng: &mut Rng| -> String {
            let length = rng.below(5) as usize;
            let letters = ["a", "b", "é", "*"];
            (0..length)
                .map(|_| letters[rng.below(4) as usize])
                .collect()
        };
        let mut index = AclIndex::default();
        let mut acls: Vec<AccessControlEntryRecord> = Vec::new();
        for step in 0..4_000 {
            let kind = [PATTERN_LITERAL, PATTERN_PREFIXED][rng.below(2) as usize];
            let one = topic(&name(&mut rng), kind, rng.below(3) > 0);
            if acls.len() > 12 || acls.contains(&one) {
                let gone = acls.swap_remove(rng.below(acls.len() as u64) as usize);
                index.remove(&gone);
            } else {
                index.insert(&one);
                acls.push(one);
            }
            let probe = name(&mut rng);
            assert_eq!(
                verdict(&index, &probe),
                slow_verdict(&acls, &probe),
                "step {step}: {probe} of {acls:?}"
            );
        }
        for gone in &acls {
            index.remove(gone);
        }
        let topics = &index.types[ResourceType::Topic.index()];
        assert!(topics.principals.is_empty() && topics.counts.is_empty());
    }

    #[test]
    fn only_allowed_operations_imply_others() {
        let check = |operation, permission, asked| {
            let mut index = AclIndex::default();
            let pattern = ("t", PATTERN_LITERAL);
            let who = ("User:a", WILDCARD);
            let topic = ResourceType::Topic;
            index.insert(&acl(topic, pattern, who, operation, permission));
            index.verdict(&Action {
                principal: "User:a",
                host: HOST,
                operation: asked,
                resource: topic,
                name: "t",
            })
        };
        use Operation::*;
        for operation in [Read, Write, Delete, Alter, Describe, All] {
            assert_eq!(
                check(operation, PERMISSION_ALLOW, Describe),
                Verdict::Allowed
            );
        }
        for operation in [Create, AlterConfigs, DescribeConfigs] {
            let verdict = check(operation, PERMISSION_ALLOW, Describe);
            assert_eq!(verdict, Verdict::Unmentioned);
        }
        for operation in [AlterConfigs, DescribeConfigs, All] {
            let verdict = check(operation, PERMISSION_ALLOW, DescribeConfigs);
            assert_eq!(verdict, Verdict::Allowed);
        }
        assert_eq!(check(Read, PERMISSION_DENY, Describe), Verdict::Unmentioned);
        assert_eq!(check(All, PERMISSION_DENY, Describe), Verdict::Denied);
    }

    #[test]
    fn hosts_are_texts_of_addresses() {
        for host in ["10.0.0.1", "0:0:0:0:0:0:0:1", "fe80:0:0:0:a:b:c:d"] {
            assert_eq!(address(host), host.parse().ok(), "{host}");
        }
        for host in [
            "::1",
            "010.0.0.1",
            "localhost",
            "0:0:0:0:0:0:0:01",
            "FE80:0:0:0:0:0:0:1",
        ] {
            assert_eq!(address(host), None, "{host}");
        }
    }

    #[test]
    fn some_topic_is_one_that_no_denial_swallows() {
        let some = |acls: &[AccessControlEntryRecord]| {
            let mut index = AclIndex::default();
            acls.iter().for_each(|acl| index.insert(acl));
            index.allows_some("User:a", HOST, Operation::Write, ResourceType::Topic)
        };
        let (literal, prefixed) = (PATTERN_LITERAL, PATTERN_PREFIXED);
        let allowed = topic("abc", literal, true);
        assert!(!some(&[]));
        assert!(some(std::slice::from_ref(&allowed)));
        assert!(!some(&[allowed.clone(), topic("abc", literal, false)]));
        assert!(!some(&[allowed.clone(), topic("ab", prefixed, false)]));
        assert!(!some(&[allowed.clone(), topic("*", literal, false)]));
        assert!(some(&[allowed.clone(), topic("abcd", prefixed, false)]));
        let wide = topic("ab", prefixed, true);
        assert!(some(&[wide.clone(), topic("ab", literal, false)]));
        assert!(!some(&[wide, topic("ab", prefixed, false)]));
        let all = topic("*", literal, true);
        assert!(some(&[all.clone(), topic("a", prefixed, false)]));
        assert!(!some(&[all, topic("*", literal, false)]));
    }
}
