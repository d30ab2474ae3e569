//! CreateAcls and DeleteAcls (`AclControlManager`, `AclApis`). Each creation and each filter
//! has its own result; all records of a request stand in one batch.
//!
//! Order of checks of a creation: name of the cluster resource, empty name → codes of
//! resource type, pattern, operation, permission → principal. A binding that exists, or
//! stands in the request before, is a success that writes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::api_error::ApiError;
use super::{Controller, Outcome, RECORDS_PER_OPERATION_MAX};
use crate::base::{ErrorCode, Uuid};
use crate::metadata::MetadataRecord;
use crate::security::{
    AclFilter, CLUSTER_NAME, Operation, PATTERN_LITERAL, PATTERN_PREFIXED, PERMISSION_ALLOW,
    PERMISSION_DENY, ResourceType, resource_type_name,
};
use crate::wire::messages::create_acls_request::AclCreation;
use crate::wire::messages::create_acls_response::AclCreationResult;
use crate::wire::messages::delete_acls_request::DeleteAclsFilter;
use crate::wire::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use crate::wire::messages::{
    AccessControlEntryRecord, CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest,
    DeleteAclsResponse, RemoveAccessControlEntryRecord,
};

impl Controller {
    pub(super) fn decide_create_acls(
        &mut self,
        request: &CreateAclsRequest,
    ) -> Outcome<CreateAclsResponse> {
        self.check_has_acls()?;
        let mut created: Vec<Arc<AccessControlEntryRecord>> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut results = Vec::with_capacity(request.creations.len());
        for creation in &request.creations {
            let result = check_creation(creation);
            if result.is_ok() && seen.insert(key(creation)) {
                let acl = Arc::new(self.acl_of(creation));
                if !self.image.acls.contains(&acl) {
                    created.push(acl);
                }
            }
            let (error_code, error_message) = super::api_error::fields(result);
            results.push(AclCreationResult {
                error_code,
                error_message,
            });
        }
        let records = created.iter().map(|acl| (**acl).clone().into()).collect();
        let response = CreateAclsResponse {
            results,
            ..Default::default()
        };
        Ok((records, response))
    }

    pub(super) fn decide_delete_acls(
        &mut self,
        request: &DeleteAclsRequest,
    ) -> Outcome<DeleteAclsResponse> {
        self.check_has_acls()?;
        let mut deleted = BTreeSet::new();
        let filter_results = request
            .filters
            .iter()
            .map(|filter| match self.delete_matching(filter, &mut deleted) {
                Ok(matching_acls) => DeleteAclsFilterResult {
                    error_code: ErrorCode::NONE.0,
                    error_message: None,
                    matching_acls,
                },
                Err(error) => DeleteAclsFilterResult {
                    error_code: error.code.0,
                    error_message: error.message,
                    matching_acls: Vec::new(),
                },
            })
            .collect();
        let records: Vec<MetadataRecord> = deleted
            .into_iter()
            .map(|id| RemoveAccessControlEntryRecord { id }.into())
            .collect();
        let response = DeleteAclsResponse {
            filter_results,
            ..Default::default()
        };
        Ok((records, response))
    }

    /// Nobody goes by ACLs without an authorizer.
    fn check_has_acls(&self) -> Result<(), ApiError> {
        if !self.authorizer.has_acls() {
            return Err(ApiError::new(
                ErrorCode::SECURITY_DISABLED,
                "No Authorizer is configured.",
            ));
        }
        Ok(())
    }

    fn acl_of(&mut self, creation: &AclCreation) -> AccessControlEntryRecord {
        let id = loop {
            let id = Uuid::random(&mut self.rng);
            if !self.image.acls.contains_id(id) {
                break id;
            }
        };
        AccessControlEntryRecord {
            id,
            resource_type: creation.resource_type,
            resource_name: creation.resource_name.clone(),
            pattern_type: creation.resource_pattern_type,
            principal: creation.principal.clone(),
            host: creation.host.clone(),
            operation: creation.operation,
            permission_type: creation.permission_type,
        }
    }

    /// Adds the ids of what a filter matches, as long as there is room for them.
    fn delete_matching(
        &self,
        filter: &DeleteAclsFilter,
        deleted: &mut BTreeSet<Uuid>,
    ) -> Result<Vec<DeleteAclsMatchingAcl>, ApiError> {
        let filter = AclFilter {
            resource_type: filter.resource_type_filter,
            resource_name: filter.resource_name_filter.as_deref(),
            pattern_type: filter.pattern_type_filter,
            principal: filter.principal_filter.as_deref(),
            host: filter.host_filter.as_deref(),
            operation: filter.operation,
            permission_type: filter.permission_type,
        };
        if let Some(fault) = filter.fault() {
            return Err(invalid(fault));
        }
        let mut matching = Vec::new();
        for acl in self.image.acls.values().filter(|acl| filter.matches(acl)) {
            // Kafka also counts what it has already put down, and keeps it.
            if deleted.len() == RECORDS_PER_OPERATION_MAX {
                return Err(invalid(
                    "Cannot remove more than 10000 acls in a single delete operation.",
                ));
            }
            deleted.insert(acl.id);
            matching.push(DeleteAclsMatchingAcl {
                error_code: ErrorCode::NONE.0,
                error_message: None,
                resource_type: acl.resource_type,
                resource_name: acl.resource_name.clone(),
                pattern_type: acl.pattern_type,
                principal: acl.principal.clone(),
                host: acl.host.clone(),
                operation: acl.operation,
                permission_type: acl.permission_type,
            });
        }
        Ok(matching)
    }
}

/// What makes two creations the same.
fn key(creation: &AclCreation) -> (i8, &str, i8, &str, &str, i8, i8) {
    (
        creation.resource_type,
        &creation.resource_name,
        creation.resource_pattern_type,
        &creation.principal,
        &creation.host,
        creation.operation,
        creation.permission_type,
    )
}

fn check_creation(creation: &AclCreation) -> Result<(), ApiError> {
    let name = creation.resource_name.as_str();
    if creation.resource_type == ResourceType::Cluster as i8 && name != CLUSTER_NAME {
        let text = format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}");
        return Err(invalid(&text));
    }
    if name.is_empty() {
        return Err(invalid("Invalid empty resource name"));
    }
    if ResourceType::from_code(creation.resource_type).is_none() {
        let kind = resource_type_name(creation.resource_type);
        return Err(invalid(&format!("Invalid resourceType {kind}")));
    }
    let any_or_unknown = |code| if code == 1 { "ANY" } else { "UNKNOWN" };
    match creation.resource_pattern_type {
        PATTERN_LITERAL | PATTERN_PREFIXED => {}
        2 => return Err(invalid("Invalid patternType MATCH")),
        code => {
            let text = format!("Invalid patternType {}", any_or_unknown(code));
            return Err(invalid(&text));
        }
    }
    if !(2..=Operation::TwoPhaseCommit as i8).contains(&creation.operation) {
        let text = format!("Invalid operation {}", any_or_unknown(creation.operation));
        return Err(invalid(&text));
    }
    if ![PERMISSION_DENY, PERMISSION_ALLOW].contains(&creation.permission_type) {
        let code = any_or_unknown(creation.permission_type);
        return Err(invalid(&format!("Invalid permissionType {code}")));
    }
    if !creation.principal.contains(':') {
        let text = format!(
            "Could not parse principal from `{}` (no colon is present separating the principal \
             type from the principal name)",
            creation.principal
        );
        return Err(invalid(&text));
    }
    Ok(())
}

fn invalid(text: &str) -> ApiError {
    ApiError::new(ErrorCode::INVALID_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::super::{ControllerRequest, ControllerResponse};
    use super::*;
    use crate::security::{Principal, RequestContext, StandardAuthorizer};

    fn bench() -> Bench {
        let authorizer = StandardAuthorizer::new(["User:root".to_owned()], false);
        Bench::with_authorizer(Arc::new(authorizer))
    }

    fn ctx(user: &str) -> RequestContext {
        RequestContext {
            principal: Principal::user(user),
            ..RequestContext::internal()
        }
    }

    fn creation(resource_name: &str, principal: &str) -> AclCreation {
        AclCreation {
            resource_type: 2,
            resource_name: resource_name.to_owned(),
            resource_pattern_type: PATTERN_LITERAL,
            principal: principal.to_owned(),
            host: "*".to_owned(),
            operation: Operation::Write as i8,
            permission_type: PERMISSION_ALLOW,
        }
    }

    fn create(
        bench: &mut Bench,
        user: &str,
        creations: Vec<AclCreation>,
    ) -> Vec<(i16, Option<String>)> {
        let request = CreateAclsRequest { creations };
        let ctx = ctx(user);
        match bench.run(ControllerRequest::CreateAcls { ctx, request }) {
            ControllerResponse::CreateAcls(response) => response
                .results
                .into_iter()
                .map(|result| (result.error_code, result.error_message))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn any_filter() -> DeleteAclsFilter {
        DeleteAclsFilter {
            resource_type_filter: 1,
            resource_name_filter: None,
            pattern_type_filter: 1,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        }
    }

    /// Error and names of each filter.
    fn delete(
        bench: &mut Bench,
        user: &str,
        filters: Vec<DeleteAclsFilter>,
    ) -> Vec<(i16, Vec<String>)> {
        let request = DeleteAclsRequest { filters };
        let ctx = ctx(user);
        match bench.run(ControllerRequest::DeleteAcls { ctx, request }) {
            ControllerResponse::DeleteAcls(response) => response
                .filter_results
                .into_iter()
                .map(|result| {
                    let acls = result.matching_acls.into_iter();
                    let mut names: Vec<String> = acls.map(|acl| acl.resource_name).collect();
                    names.sort();
                    (result.error_code, names)
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn count(bench: &Bench) -> usize {
        bench.controller.image().acls.len()
    }

    #[test]
    fn bindings_are_written_once() {
        let mut bench = bench();
        let (a, b) = (creation("a", "User:x"), creation("b", "User:x"));
        let ok = (0, None);
        let both = vec![a.clone(), b.clone(), a.clone()];
        assert_eq!(
            create(&mut bench, "root", both),
            [ok.clone(), ok.clone(), ok.clone()]
        );
        assert_eq!(count(&bench), 2);
        let end = bench.next_offset;
        assert_eq!(create(&mut bench, "root", vec![b]), [ok]);
        assert_eq!(bench.next_offset, end, "it is there already");
    }

    #[test]
    fn faults_have_kafkas_texts_and_spare_the_others() {
        let mut bench = bench();
        let valid = creation("a", "User:x");
        let cases: Vec<(AclCreation, &str)> = vec![
            (
                AclCreation {
                    resource_type: 4,
                    ..valid.clone()
                },
                "The only valid name for the CLUSTER resource is kafka-cluster",
            ),
            (creation("", "User:x"), "Invalid empty resource name"),
            (
                AclCreation {
                    resource_type: 1,
                    ..valid.clone()
                },
                "Invalid resourceType ANY",
            ),
            (
                AclCreation {
                    resource_type: 9,
                    ..valid.clone()
                },
                "Invalid resourceType UNKNOWN",
            ),
            (
                AclCreation {
                    resource_pattern_type: 2,
                    ..valid.clone()
                },
                "Invalid patternType MATCH",
            ),
            (
                AclCreation {
                    operation: 1,
                    ..valid.clone()
                },
                "Invalid operation ANY",
            ),
            (
                AclCreation {
                    operation: 16,
                    ..valid.clone()
                },
                "Invalid operation UNKNOWN",
            ),
            (
                AclCreation {
                    permission_type: 1,
                    ..valid.clone()
                },
                "Invalid permissionType ANY",
            ),
            (
                creation("a", "x"),
                "Could not parse principal from `x` (no colon is present separating the \
                 principal type from the principal name)",
            ),
        ];
        let mut creations: Vec<AclCreation> = cases.iter().map(|(c, _)| c.clone()).collect();
        creations.push(valid);
        let mut expected: Vec<(i16, Option<String>)> = cases
            .iter()
            .map(|(_, text)| (42, Some((*text).to_owned())))
            .collect();
        expected.push((0, None));
        assert_eq!(create(&mut bench, "root", creations), expected);
        assert_eq!(count(&bench), 1);
    }

    #[test]
    fn only_who_may_alter_the_cluster_changes_acls() {
        let mut bench = bench();
        let one = creation("a", "User:x");
        let refused = (31, Some("Cluster authorization failed.".to_owned()));
        assert_eq!(create(&mut bench, "alice", vec![one.clone()]), [refused]);
        assert_eq!(
            delete(&mut bench, "alice", vec![any_filter()]),
            [(31, vec![])]
        );
        let cluster = AclCreation {
            resource_type: ResourceType::Cluster as i8,
            resource_name: CLUSTER_NAME.to_owned(),
            operation: Operation::Alter as i8,
            ..creation("", "User:alice")
        };
        assert_eq!(create(&mut bench, "root", vec![cluster]), [(0, None)]);
        assert_eq!(create(&mut bench, "alice", vec![one]), [(0, None)]);
        assert_eq!(count(&bench), 2);
    }

    #[test]
    fn the_clusters_own_business_is_for_its_nodes() {
        let mut bench = bench();
        let request = bench.registration(1, 1);
        let mut ask = |ctx| {
            let request = request.clone();
            match bench.run(ControllerRequest::RegisterBroker { ctx, request }) {
                ControllerResponse::RegisterBroker(response) => response.error_code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask(ctx("alice")), 31);
        assert_eq!(ask(ctx("root")), 0);
        assert_eq!(ask(RequestContext::internal()), 0);
    }

    #[test]
    fn without_an_authorizer_there_are_no_acls() {
        let mut bench = Bench::new();
        let text = Some("No Authorizer is configured.".to_owned());
        let one = creation("a", "User:x");
        assert_eq!(create(&mut bench, "alice", vec![one]), [(54, text)]);
        assert_eq!(
            delete(&mut bench, "alice", vec![any_filter()]),
            [(54, vec![])]
        );
    }

    #[test]
    fn filters_delete_what_they_match() {
        let mut bench = bench();
        let names = ["a", "b", "c"];
        let creations = names.map(|name| creation(name, "User:x")).to_vec();
        create(&mut bench, "root", creations);
        let by_name = |name: &str| DeleteAclsFilter {
            resource_name_filter: Some(name.to_owned()),
            ..any_filter()
        };
        let filters = vec![
            by_name("a"),
            DeleteAclsFilter {
                operation: 0,
                ..any_filter()
            },
            by_name("a"),
            by_name("none"),
        ];
        let a = || (0, vec!["a".to_owned()]);
        let results = delete(&mut bench, "root", filters);
        assert_eq!(results, [a(), (42, vec![]), a(), (0, vec![])]);
        assert_eq!(count(&bench), 2);
        let rest = (0, vec!["b".to_owned(), "c".to_owned()]);
        assert_eq!(delete(&mut bench, "root", vec![any_filter()]), [rest]);
        assert_eq!(count(&bench), 0);
        bench.restart_controller();
    }
}
