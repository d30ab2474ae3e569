//! The authorizer against Apache Kafka's own (`tests/java/AclOracle.java`): a matrix of
//! principals, hosts, operations and resources under ACLs of every kind, and random ACLs.
//!
//! That the matrix is worth deciding is checked without Java: about a third of its cells is
//! allowed; each ACL decides 20 cells or more (without it they turn out otherwise), and so
//! does each rule of the semantics (an authorizer that lacks it decides them otherwise).
//! Kafka decides when `OTTLA_KAFKA_CLASSPATH` is set, as `scripts/test` does.
//! `OTTLA_ACL_SEED` chooses other random ACLs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ottla::base::Rng;
use ottla::security::{
    AclIndex, Authorizer, CLUSTER_NAME, Operation, PATTERN_LITERAL, PATTERN_PREFIXED,
    PERMISSION_ALLOW, PERMISSION_DENY, Principal, RequestContext, ResourceType, StandardAuthorizer,
    WILDCARD, WILDCARD_PRINCIPAL,
};
use ottla::wire::messages::AccessControlEntryRecord;

#[path = "support/allocations.rs"]
mod allocations;

use Operation::*;
use ResourceType::{Cluster, DelegationToken, Group, Topic, TransactionalId, User};

const SUPER_USER: &str = "User:root";

const PRINCIPALS: [&str; 7] = ["root", "alice", "bob", "carol", "dave", "erin", "ANONYMOUS"];

const HOSTS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "127.0.0.1", "0:0:0:0:0:0:0:1"];

/// All that can be asked for.
const OPERATIONS: [Operation; 13] = [
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
    CreateTokens,
    DescribeTokens,
    TwoPhaseCommit,
];

const RESOURCES: [(ResourceType, &str); 17] = [
    (Topic, "orders"),
    (Topic, "orders-eu"),
    (Topic, "orders-eu-1"),
    (Topic, "orders-us"),
    (Topic, "order"),
    (Topic, "payments"),
    (Topic, "logs.a"),
    (Topic, "logs.b"),
    (Topic, "größe"),
    (Topic, "unmentioned"),
    (Group, "orders"),
    (Group, "readers-1"),
    (Group, "readers-2"),
    (Cluster, CLUSTER_NAME),
    (TransactionalId, "orders"),
    (DelegationToken, "token"),
    (User, "alice"),
];

#[derive(Clone, Debug)]
struct Cell {
    principal: &'static str,
    host: &'static str,
    operation: Operation,
    resource: (ResourceType, &'static str),
    allow_if_no_acl: bool,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for allow_if_no_acl in [false, true] {
        for principal in PRINCIPALS {
            for host in HOSTS {
                for operation in OPERATIONS {
                    for resource in RESOURCES {
                        cells.push(Cell {
                            principal,
                            host,
                            operation,
                            resource,
                            allow_if_no_acl,
                        });
                    }
                }
            }
        }
    }
    cells
}

fn acl(
    (resource_type, resource_name, pattern_type): (ResourceType, &str, i8),
    (principal, host): (&str, &str),
    operation: Operation,
    permission_type: i8,
) -> AccessControlEntryRecord {
    AccessControlEntryRecord {
        resource_type: resource_type as i8,
        resource_name: resource_name.to_owned(),
        pattern_type,
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation: operation as i8,
        permission_type,
        ..Default::default()
    }
}

/// ACLs of every kind. Most overlap with others, so that each kind of precedence counts.
fn acls() -> Vec<AccessControlEntryRecord> {
    let literal = |kind, name| (kind, name, PATTERN_LITERAL);
    let prefixed = |kind, name| (kind, name, PATTERN_PREFIXED);
    let (alice, bob, carol, erin) = ("User:alice", "User:bob", "User:carol", "User:erin");
    let everybody = WILDCARD_PRINCIPAL;
    let allow = |pattern, who, operation| acl(pattern, who, operation, PERMISSION_ALLOW);
    let deny = |pattern, who, operation| acl(pattern, who, operation, PERMISSION_DENY);
    vec![
        // Everything on one prefix, but for a longer one and a name in it.
        allow(prefixed(Topic, "orders"), (alice, "*"), All),
        deny(
            prefixed(Topic, "orders-eu"),
            (everybody, "*"),
            DescribeConfigs,
        ),
        deny(literal(Topic, "orders-us"), (alice, "10.0.0.1"), All),
        // Operations that imply others, each for somebody and somewhere else.
        allow(prefixed(Topic, "order"), (bob, "*"), Read),
        allow(literal(Topic, "payments"), (everybody, "*"), Write),
        allow(literal(Topic, "logs.a"), (everybody, "*"), Delete),
        allow(literal(Topic, "logs.b"), (everybody, "*"), Alter),
        allow(prefixed(Topic, "logs."), (everybody, "*"), AlterConfigs),
        // Denied operations imply nothing: bob may still describe what he may not read.
        deny(prefixed(Topic, "orders-"), (bob, "*"), Read),
        allow(prefixed(Topic, "orders-"), (bob, "*"), AlterConfigs),
        // Hosts.
        allow(literal(Topic, "*"), (carol, "10.0.0.1"), All),
        deny(prefixed(Topic, "o"), (carol, "10.0.0.1"), All),
        allow(literal(Topic, "größe"), (everybody, "0:0:0:0:0:0:0:1"), All),
        deny(literal(Topic, "*"), (erin, "127.0.0.1"), All),
        allow(literal(Topic, "*"), (erin, "*"), Describe),
        allow(prefixed(Topic, "o"), (erin, "*"), AlterConfigs),
        // A name that is a prefix of others and not meant as one.
        allow(literal(Topic, "order"), (everybody, "*"), Create),
        // Other types of resources with the same names.
        allow(literal(Group, "*"), (alice, "*"), All),
        allow(prefixed(Group, "readers-"), (everybody, "*"), Read),
        deny(prefixed(Group, "readers-"), ("User:ANONYMOUS", "*"), All),
        deny(literal(Group, "*"), (alice, "127.0.0.1"), All),
        deny(prefixed(Group, "readers"), (alice, "10.0.0.2"), All),
        allow(literal(Group, "*"), (carol, "*"), AlterConfigs),
        allow(literal(Cluster, CLUSTER_NAME), (everybody, "10.0.0.1"), All),
        allow(literal(Cluster, "*"), (bob, "*"), All),
        allow(literal(Cluster, "*"), ("User:dave", "*"), All),
        deny(
            literal(Cluster, CLUSTER_NAME),
            (everybody, "*"),
            ClusterAction,
        ),
        allow(
            literal(Cluster, CLUSTER_NAME),
            (everybody, "*"),
            IdempotentWrite,
        ),
        allow(prefixed(TransactionalId, "or"), (everybody, "*"), All),
        deny(prefixed(TransactionalId, "orders"), (erin, "*"), All),
    ]
}

/// A rule of the semantics, for an authorizer that lacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    SuperUsersMayAll,
    DenialsCount,
    DenialsGoFirst,
    DenialsOfPrefixesCount,
    DenialsOfAllNamesCount,
    TypesDiffer,
    LiteralIsNoPrefix,
    PrefixIsNoName,
    WildcardNameIsAll,
    PrincipalsDiffer,
    WildcardPrincipalIsAll,
    HostsDiffer,
    WildcardHostIsAll,
    AllIsEveryOperation,
    ReadImpliesDescribe,
    WriteImpliesDescribe,
    DeleteImpliesDescribe,
    AlterImpliesDescribe,
    AlterConfigsImpliesDescribeConfigs,
    DenialsImplyNothing,
    WithoutAclsTheSettingDecides,
    AclsOfOthersAreAcls,
}

const RULES: [Rule; 22] = [
    Rule::SuperUsersMayAll,
    Rule::DenialsCount,
    Rule::DenialsGoFirst,
    Rule::DenialsOfPrefixesCount,
    Rule::DenialsOfAllNamesCount,
    Rule::TypesDiffer,
    Rule::LiteralIsNoPrefix,
    Rule::PrefixIsNoName,
    Rule::WildcardNameIsAll,
    Rule::PrincipalsDiffer,
    Rule::WildcardPrincipalIsAll,
    Rule::HostsDiffer,
    Rule::WildcardHostIsAll,
    Rule::AllIsEveryOperation,
    Rule::ReadImpliesDescribe,
    Rule::WriteImpliesDescribe,
    Rule::DeleteImpliesDescribe,
    Rule::AlterImpliesDescribe,
    Rule::AlterConfigsImpliesDescribeConfigs,
    Rule::DenialsImplyNothing,
    Rule::WithoutAclsTheSettingDecides,
    Rule::AclsOfOthersAreAcls,
];

/// One ACL after the other, as the semantics are told; without one rule if so wanted.
struct Plain<'a> {
    acls: &'a [AccessControlEntryRecord],
    lacks: Option<Rule>,
}

impl Plain<'_> {
    fn has(&self, rule: Rule) -> bool {
        self.lacks != Some(rule)
    }

    fn decides(&self, cell: &Cell) -> bool {
        let principal = format!("User:{}", cell.principal);
        if principal == SUPER_USER && self.has(Rule::SuperUsersMayAll) {
            return true;
        }
        let (mut is_allowed, mut is_denied, mut has_acls) = (false, false, false);
        for acl in self.acls.iter().filter(|acl| self.is_on(acl, cell)) {
            let is_mine = self.is_for(acl, &principal);
            has_acls |= is_mine || self.has(Rule::AclsOfOthersAreAcls);
            if !is_mine || !self.is_from(acl, cell) || !self.is_to(acl, cell) {
                continue;
            }
            if acl.permission_type == PERMISSION_ALLOW {
                is_allowed = true;
            } else if self.denial_counts(acl) {
                is_denied = true;
            }
        }
        if is_denied && (!is_allowed || self.has(Rule::DenialsGoFirst)) {
            false
        } else if has_acls {
            is_allowed
        } else {
            cell.allow_if_no_acl && self.has(Rule::WithoutAclsTheSettingDecides)
        }
    }

    fn is_on(&self, acl: &AccessControlEntryRecord, cell: &Cell) -> bool {
        let (kind, name) = cell.resource;
        let pattern = acl.resource_name.as_str();
        if acl.resource_type != kind as i8 && self.has(Rule::TypesDiffer) {
            return false;
        }
        if acl.pattern_type == PATTERN_LITERAL {
            pattern == name
                || pattern == WILDCARD && self.has(Rule::WildcardNameIsAll)
                || name.starts_with(pattern) && !self.has(Rule::LiteralIsNoPrefix)
        } else {
            name.starts_with(pattern) && (pattern == name || self.has(Rule::PrefixIsNoName))
        }
    }

    fn is_for(&self, acl: &AccessControlEntryRecord, principal: &str) -> bool {
        acl.principal == principal
            || acl.principal == WILDCARD_PRINCIPAL && self.has(Rule::WildcardPrincipalIsAll)
            || !self.has(Rule::PrincipalsDiffer)
    }

    fn is_from(&self, acl: &AccessControlEntryRecord, cell: &Cell) -> bool {
        acl.host == cell.host
            || acl.host == WILDCARD && self.has(Rule::WildcardHostIsAll)
            || !self.has(Rule::HostsDiffer)
    }

    fn is_to(&self, acl: &AccessControlEntryRecord, cell: &Cell) -> bool {
        let granted = |operation: Operation| acl.operation == operation as i8;
        let implies = |rule, from: Operation, to: Operation| {
            granted(from)
                && cell.operation == to
                && self.has(rule)
                && (acl.permission_type == PERMISSION_ALLOW || !self.has(Rule::DenialsImplyNothing))
        };
        granted(cell.operation)
            || granted(All) && self.has(Rule::AllIsEveryOperation)
            || implies(Rule::ReadImpliesDescribe, Read, Describe)
            || implies(Rule::WriteImpliesDescribe, Write, Describe)
            || implies(Rule::DeleteImpliesDescribe, Delete, Describe)
            || implies(Rule::AlterImpliesDescribe, Alter, Describe)
            || implies(
                Rule::AlterConfigsImpliesDescribeConfigs,
                AlterConfigs,
                DescribeConfigs,
            )
    }

    fn denial_counts(&self, acl: &AccessControlEntryRecord) -> bool {
        let is_prefix = acl.pattern_type == PATTERN_PREFIXED;
        let is_wildcard = !is_prefix && acl.resource_name == WILDCARD;
        self.has(Rule::DenialsCount)
            && (!is_prefix || self.has(Rule::DenialsOfPrefixesCount))
            && (!is_wildcard || self.has(Rule::DenialsOfAllNamesCount))
    }
}

fn index_of(acls: &[AccessControlEntryRecord]) -> AclIndex {
    let mut index = AclIndex::default();
    acls.iter().for_each(|acl| index.insert(acl));
    index
}

fn authorizer(allow_if_no_acl: bool) -> StandardAuthorizer {
    StandardAuthorizer::new([SUPER_USER.to_owned()], allow_if_no_acl)
}

fn context(principal: &str, host: &str) -> RequestContext {
    let host: IpAddr = host.parse().unwrap();
    RequestContext {
        principal: Principal::user(principal),
        client_address: SocketAddr::new(host, 1),
        ..RequestContext::internal()
    }
}

fn ottla_decides(index: &AclIndex, cell: &Cell) -> bool {
    let context = context(cell.principal, cell.host);
    let (kind, name) = cell.resource;
    authorizer(cell.allow_if_no_acl).authorize(index, &context, cell.operation, kind, name)
}

/// How many cells an authorizer with these ACLs, or without that rule, decides otherwise.
fn differences(cells: &[Cell], decided: &[bool], plain: &Plain<'_>) -> usize {
    let differs = |(cell, decided): &(&Cell, &bool)| plain.decides(cell) != **decided;
    cells.iter().zip(decided).filter(differs).count()
}

#[test]
fn the_matrix_is_decided_as_the_semantics_are_told() {
    let (cells, acls) = (cells(), acls());
    let index = index_of(&acls);
    let decided: Vec<bool> = cells
        .iter()
        .map(|cell| ottla_decides(&index, cell))
        .collect();
    assert!(cells.len() >= 2_000);
    let allowed = decided.iter().filter(|allowed| **allowed).count();
    let share = allowed * 100 / cells.len();
    println!(
        "{} cells, {allowed} allowed, {} ACLs",
        cells.len(),
        acls.len()
    );
    assert!((30..=40).contains(&share), "{share} % are allowed");
    let whole = Plain {
        acls: &acls,
        lacks: None,
    };
    for (cell, decided) in cells.iter().zip(&decided) {
        assert_eq!(whole.decides(cell), *decided, "{cell:?}");
    }
    let mut idle = Vec::new();
    for left_out in 0..acls.len() {
        let mut others = acls.clone();
        let gone = others.remove(left_out);
        let plain = Plain {
            acls: &others,
            lacks: None,
        };
        let count = differences(&cells, &decided, &plain);
        if count < 20 {
            idle.push(format!("{gone:?} decides {count} cells"));
        }
    }
    for rule in RULES {
        let plain = Plain {
            acls: &acls,
            lacks: Some(rule),
        };
        let count = differences(&cells, &decided, &plain);
        if count < 20 {
            idle.push(format!("{rule:?} decides {count} cells"));
        }
    }
    assert!(idle.is_empty(), "{}", idle.join("\n"));
}

#[test]
fn the_matrix_is_decided_as_by_kafka() {
    let Some(classpath) = classpath() else { return };
    let (cells, acls) = (cells(), acls());
    let index = index_of(&acls);
    let mut asked = String::new();
    for setting in [false, true] {
        begin(&mut asked, setting, &acls);
        let cells = cells.iter().filter(|cell| cell.allow_if_no_acl == setting);
        cells.for_each(|cell| ask(&mut asked, cell));
    }
    let answers = oracle(&classpath, &asked);
    // The settings are the outermost axis of the matrix too.
    assert_eq!(answers.len(), cells.len());
    for (cell, kafka) in cells.iter().zip(answers) {
        assert_eq!(ottla_decides(&index, cell), kafka, "{cell:?}");
    }
}

/// ACLs that overlap in names, principals, hosts and operations, and questions about them.
#[test]
fn random_acls_are_decided_as_by_kafka() {
    let Some(classpath) = classpath() else { return };
    let seed = std::env::var("OTTLA_ACL_SEED");
    let seed = seed.map_or(11, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut asked = String::new();
    let mut decided = Vec::new();
    for _ in 0..150 {
        let count = rng.below(14) + 1;
        let mut acls: Vec<AccessControlEntryRecord> = Vec::new();
        for _ in 0..count {
            let one = random_acl(&mut rng);
            // Kafka's can't be there twice.
            if !acls.contains(&one) {
                acls.push(one);
            }
        }
        let index = index_of(&acls);
        let setting = rng.below(2) == 0;
        begin(&mut asked, setting, &acls);
        for _ in 0..100 {
            let cell = Cell {
                principal: pick(&mut rng, &["alice", "bob"]),
                host: pick(&mut rng, &HOSTS[1..]),
                operation: pick(&mut rng, &OPERATIONS),
                resource: (pick(&mut rng, &[Topic, Group]), pick(&mut rng, &NAMES)),
                allow_if_no_acl: setting,
            };
            ask(&mut asked, &cell);
            decided.push((ottla_decides(&index, &cell), format!("{cell:?} {acls:?}")));
        }
        for operation in [Write, Describe, Read] {
            for kind in [Topic, Group] {
                let (principal, host) = ("alice", HOSTS[1]);
                let (op, code) = (operation as i8, kind as i8);
                writeln!(asked, "some\t{principal}\t{host}\t{op}\t{code}").unwrap();
                let context = context(principal, host);
                let authorizer = authorizer(setting);
                let some = authorizer.authorize_by_resource_type(&index, &context, operation, kind);
                decided.push((some, format!("some {kind:?} {operation:?} {acls:?}")));
            }
        }
    }
    let answers = oracle(&classpath, &asked);
    assert_eq!(answers.len(), decided.len());
    for ((ours, what), kafka) in decided.into_iter().zip(answers) {
        assert_eq!(ours, kafka, "{what}");
    }
}

const NAMES: [&str; 7] = ["a", "ab", "abc", "abd", "b", "é", "éa"];

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len() as u64) as usize]
}

fn random_acl(rng: &mut Rng) -> AccessControlEntryRecord {
    let kind = pick(rng, &[Topic, Group]);
    let pattern_type = pick(rng, &[PATTERN_LITERAL, PATTERN_PREFIXED]);
    let name = pick(rng, &["*", "a", "ab", "abc", "abcd", "é", "b"]);
    let who = (
        pick(
            rng,
            &[WILDCARD_PRINCIPAL, "User:alice", "User:bob", "Group:alice"],
        ),
        pick(
            rng,
            &["*", HOSTS[1], HOSTS[2], "::1", HOSTS[3], "localhost"],
        ),
    );
    let operation = match rng.below(3) {
        0 => All,
        1 => pick(rng, &[Read, Write, Describe]),
        _ => pick(rng, &OPERATIONS),
    };
    let permission = pick(rng, &[PERMISSION_ALLOW, PERMISSION_ALLOW, PERMISSION_DENY]);
    acl((kind, name, pattern_type), who, operation, permission)
}

#[test]
fn a_check_among_ten_thousand_acls_allocates_nothing() {
    let mut index = AclIndex::default();
    for n in 0..10_000 {
        let name = format!("topic-{}-{n}", n % 7);
        let pattern = if n % 2 == 0 {
            PATTERN_LITERAL
        } else {
            PATTERN_PREFIXED
        };
        let principal = format!("User:user-{}", n % 100);
        let who = (
            principal.as_str(),
            if n % 3 == 0 { "10.0.0.1" } else { "*" },
        );
        index.insert(&acl((Topic, &name, pattern), who, Write, PERMISSION_ALLOW));
    }
    let authorizer = authorizer(true);
    let context = context("user-7", "10.0.0.1");
    let mut allowed = 0;
    let before = allocations::allocations();
    for name in ["topic-0-7", "topic-0-7-more", "topic-6-1007", "none"] {
        allowed += i32::from(authorizer.authorize(&index, &context, Write, Topic, name));
    }
    assert_eq!(allocations::allocations(), before);
    assert_eq!(allowed, 4, "two by ACLs, two because there are none");
}

/// Kafka's classpath; `None` where this machine has none, which CI does not accept.
fn classpath() -> Option<String> {
    let classpath = std::env::var("OTTLA_KAFKA_CLASSPATH").ok();
    if classpath.is_none() {
        assert!(
            std::env::var("OTTLA_CI").as_deref() != Ok("1"),
            "OTTLA_KAFKA_CLASSPATH is not set"
        );
        eprintln!("skipped: OTTLA_KAFKA_CLASSPATH is not set");
    }
    classpath
}

fn begin(asked: &mut String, allow_if_no_acl: bool, acls: &[AccessControlEntryRecord]) {
    writeln!(asked, "authorizer\t{SUPER_USER}\t{allow_if_no_acl}").unwrap();
    for acl in acls {
        writeln!(
            asked,
            "acl\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            acl.resource_type,
            acl.pattern_type,
            acl.resource_name,
            acl.principal,
            acl.host,
            acl.operation,
            acl.permission_type
        )
        .unwrap();
    }
}

fn ask(asked: &mut String, cell: &Cell) {
    let (kind, name) = cell.resource;
    let (operation, kind) = (cell.operation as i8, kind as i8);
    let (principal, host) = (cell.principal, cell.host);
    writeln!(
        asked,
        "may\t{principal}\t{host}\t{operation}\t{kind}\t{name}"
    )
    .unwrap();
}

/// What Kafka decides, in the order of the questions.
fn oracle(classpath: &str, asked: &str) -> Vec<bool> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/java/AclOracle.java");
    let mut child = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"])
        .args(["-cp", classpath])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let asked = asked.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the oracle failed:\n{stderr}");
    writer.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    answers.lines().map(|answer| answer == "A").collect()
}
