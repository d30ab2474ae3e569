//! Which ACLs a client means that describes or deletes some (`AclBindingFilter`).

use super::acl_index::{PATTERN_ANY, PATTERN_LITERAL, PATTERN_MATCH, PATTERN_PREFIXED, WILDCARD};
use crate::wire::messages::AccessControlEntryRecord;

/// Of resource types, operations and permissions alike.
const ANY: i8 = 1;

/// Codes as in requests; no text is any text.
#[derive(Clone, Copy, Debug)]
pub struct AclFilter<'a> {
    pub resource_type: i8,
    pub resource_name: Option<&'a str>,
    pub pattern_type: i8,
    pub principal: Option<&'a str>,
    pub host: Option<&'a str>,
    pub operation: i8,
    pub permission_type: i8,
}

impl AclFilter<'_> {
    pub fn matches(&self, acl: &AccessControlEntryRecord) -> bool {
        let code = |asked, code| asked == ANY || asked == code;
        let text = |asked: Option<&str>, text: &str| asked.is_none_or(|asked| asked == text);
        code(self.resource_type, acl.resource_type)
            && code(self.operation, acl.operation)
            && code(self.permission_type, acl.permission_type)
            && text(self.principal, &acl.principal)
            && text(self.host, &acl.host)
            && self.matches_pattern(acl)
    }

    fn matches_pattern(&self, acl: &AccessControlEntryRecord) -> bool {
        let pattern = acl.resource_name.as_str();
        match (self.pattern_type, self.resource_name) {
            (PATTERN_ANY, Some(name)) => name == pattern,
            (PATTERN_ANY | PATTERN_MATCH, None) => true,
            // What a check of the resource of that name would go by.
            (PATTERN_MATCH, Some(name)) => match acl.pattern_type {
                PATTERN_LITERAL => name == pattern || pattern == WILDCARD,
                PATTERN_PREFIXED => name.starts_with(pattern),
                _ => false,
            },
            (other, name) => other == acl.pattern_type && name.is_none_or(|name| name == pattern),
        }
    }

    /// Codes that mean nothing, as Kafka words them.
    pub fn fault(&self) -> Option<&'static str> {
        if !(1..=7).contains(&self.resource_type) || !(1..=4).contains(&self.pattern_type) {
            return Some("Unknown patternFilter.");
        }
        if !(1..=15).contains(&self.operation) || !(1..=3).contains(&self.permission_type) {
            return Some("Unknown entryFilter.");
        }
        None
    }
}

/// Kafka's name of a resource type's code in error texts.
pub fn resource_type_name(code: i8) -> &'static str {
    match code {
        1 => "ANY",
        2 => "TOPIC",
        3 => "GROUP",
        4 => "CLUSTER",
        5 => "TRANSACTIONAL_ID",
        6 => "DELEGATION_TOKEN",
        7 => "USER",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(resource_name: &str, pattern_type: i8) -> AccessControlEntryRecord {
        AccessControlEntryRecord {
            resource_type: 2,
            resource_name: resource_name.to_owned(),
            pattern_type,
            principal: "User:a".to_owned(),
            host: "*".to_owned(),
            operation: 3,
            permission_type: 3,
            ..Default::default()
        }
    }

    const ALL: AclFilter<'static> = AclFilter {
        resource_type: 1,
        resource_name: None,
        pattern_type: PATTERN_ANY,
        principal: None,
        host: None,
        operation: 1,
        permission_type: 1,
    };

    #[test]
    fn patterns_are_meant_by_name_or_by_match() {
        let acls = [
            acl("foobar", PATTERN_LITERAL),
            acl("foo", PATTERN_PREFIXED),
            acl("*", PATTERN_LITERAL),
            acl("foo", PATTERN_LITERAL),
        ];
        let matching = |pattern_type, resource_name| -> Vec<usize> {
            let filter = AclFilter {
                pattern_type,
                resource_name,
                ..ALL
            };
            let all = acls.iter().enumerate();
            let matching = all.filter(|(_, acl)| filter.matches(acl));
            matching.map(|(index, _)| index).collect()
        };
        assert_eq!(matching(PATTERN_ANY, None), [0, 1, 2, 3]);
        assert_eq!(matching(PATTERN_ANY, Some("foo")), [1, 3]);
        assert_eq!(matching(PATTERN_MATCH, Some("foobar")), [0, 1, 2]);
        assert_eq!(matching(PATTERN_MATCH, None), [0, 1, 2, 3]);
        assert_eq!(matching(PATTERN_LITERAL, None), [0, 2, 3]);
        assert_eq!(matching(PATTERN_LITERAL, Some("*")), [2]);
        assert_eq!(matching(PATTERN_PREFIXED, Some("foo")), [1]);
        assert_eq!(matching(PATTERN_PREFIXED, Some("foob")), [] as [usize; 0]);
    }

    #[test]
    fn the_other_fields_are_compared() {
        let acl = acl("t", PATTERN_LITERAL);
        let fits = |filter: AclFilter<'_>| filter.matches(&acl);
        assert!(fits(ALL));
        assert!(fits(AclFilter {
            principal: Some("User:a"),
            ..ALL
        }));
        assert!(!fits(AclFilter {
            principal: Some("User:*"),
            ..ALL
        }));
        assert!(!fits(AclFilter {
            host: Some("1.1.1.1"),
            ..ALL
        }));
        assert!(fits(AclFilter {
            operation: 3,
            ..ALL
        }));
        assert!(!fits(AclFilter {
            operation: 2,
            ..ALL
        }));
        assert!(!fits(AclFilter {
            permission_type: 2,
            ..ALL
        }));
        assert!(!fits(AclFilter {
            resource_type: 3,
            ..ALL
        }));
    }

    #[test]
    fn unknown_codes_are_faults() {
        assert_eq!(ALL.fault(), None);
        let faults = [
            AclFilter {
                resource_type: 0,
                ..ALL
            }
            .fault(),
            AclFilter {
                pattern_type: 5,
                ..ALL
            }
            .fault(),
            AclFilter {
                operation: 16,
                ..ALL
            }
            .fault(),
            AclFilter {
                permission_type: 0,
                ..ALL
            }
            .fault(),
        ];
        assert_eq!(faults[..2], [Some("Unknown patternFilter."); 2]);
        assert_eq!(faults[2..], [Some("Unknown entryFilter."); 2]);
    }
}
