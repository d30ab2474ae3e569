"""What clients may not do: every API from an address without rights, beside Apache Kafka; kafka-acls; real clients.

Everybody is User:ANONYMOUS, so rights differ by host: 127.0.0.1 may do everything by ACLs of its own, 127.0.0.2 only
what the ACLs below say, 127.0.0.3 some things to the cluster, and 127.0.0.4 what brokers may. Before the first ACL everybody may do everything (allow.everyone.if.no.acl.found).
"""

import contextlib
import itertools
import re
import socket

import pytest
from conftest import make_broker
from harness.broker import KafkaBroker
from harness.net import wait_until
from harness.records import Record, batch
from harness.tools import Tools
from harness.wire import UUID_ZERO, Connection, WireError, api
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from test_differential import differences

ADMIN, OTHER, OPERATOR, FOLLOWER = (f"127.0.0.{i}" for i in range(1, 5))

PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}

TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
LITERAL, PREFIXED = 3, 4
ALL, READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE = range(2, 13)
DENY, ALLOW = 2, 3

EVERY_ACL = {"ResourceTypeFilter": 1, "ResourceNameFilter": None, "PatternTypeFilter": 1, "PrincipalFilter": None, "HostFilter": None, "Operation": 1, "PermissionType": 1}

TOPICS = ["closed", "described", "read", "written", "deletable-1"]


def creation(kind, name, pattern, host, operation, permission=ALLOW):
    return {"ResourceType": kind, "ResourceName": name, "ResourcePatternType": pattern, "Principal": "User:ANONYMOUS", "Host": host,
            "Operation": operation, "PermissionType": permission}


# The first is what the administrator lives by from then on.
ADMIN_ACLS = [creation(CLUSTER, "kafka-cluster", LITERAL, ADMIN, ALL), creation(TOPIC, "*", LITERAL, ADMIN, ALL),
              creation(GROUP, "*", LITERAL, ADMIN, ALL), creation(TRANSACTIONAL_ID, "*", LITERAL, ADMIN, ALL)]
OTHER_ACLS = [creation(TOPIC, "described", LITERAL, OTHER, DESCRIBE), creation(TOPIC, "read", PREFIXED, OTHER, READ),
              creation(TOPIC, "written", PREFIXED, OTHER, ALL), creation(TOPIC, "written", PREFIXED, OTHER, DELETE, DENY),
              creation(TOPIC, "made-", PREFIXED, OTHER, CREATE), creation(TOPIC, "made-seen", PREFIXED, OTHER, DESCRIBE),
              creation(TOPIC, "deletable-", PREFIXED, OTHER, DELETE),
              creation(GROUP, "readers", LITERAL, OTHER, READ), creation(GROUP, "seen", PREFIXED, OTHER, DESCRIBE), creation(GROUP, "gone", PREFIXED, OTHER, DELETE),
              *(creation(CLUSTER, "kafka-cluster", LITERAL, OPERATOR, operation) for operation in (CREATE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE)),
              creation(CLUSTER, "kafka-cluster", LITERAL, FOLLOWER, CLUSTER_ACTION)]


class Node:
    """A broker with ACLs, and what requests from either address need."""

    def __init__(self, broker):
        self.broker = broker
        self.connections = {}
        # Whom requests go to when the test doesn't say.
        self.port = broker.port
        for name in TOPICS:
            self.create_topic(name)
        wait_until("there is a coordinator", lambda: self.call("FindCoordinator", 3, {"Key": "readers"}, source=ADMIN)["ErrorCode"] == 0)
        asked = {"GroupId": "readers", "Topics": []}
        wait_until("it has loaded", lambda: self.call("OffsetFetch", 5, asked, source=ADMIN)["ErrorCode"] == 0)
        commit = {"GroupId": "readers", "GenerationIdOrMemberEpoch": -1, "MemberId": "", "Topics": [
            {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 0}]} for topic in ("closed", "read")]}
        assert codes(self.call("OffsetCommit", 8, commit, source=ADMIN)) == {0}
        answer = self.call("CreateAcls", 3, {"Creations": ADMIN_ACLS + OTHER_ACLS}, source=ADMIN)
        assert codes(answer) == {0} and len(answer["Results"]) == len(ADMIN_ACLS + OTHER_ACLS)
        self.ids = {topic["Name"]: topic["TopicId"] for topic in self.call("Metadata", 12, {"Topics": None}, source=ADMIN)["Topics"]}
        # Kafka answers before its authorizer has them.
        wait_until("they count", lambda: codes(self.call("DescribeLogDirs", 4, {"Topics": []})) == {31})

    def create_topic(self, name):
        answer = self.call("CreateTopics", 7, {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10000}, source=ADMIN, port=self.broker.port)
        assert codes(answer) == {0}, answer
        asked = {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]}
        wait_until("the topic has a leader", lambda: codes(self.call("ListOffsets", 4, asked, source=ADMIN, port=self.broker.port)) == {0})

    def call(self, name, version, body, source=OTHER, port=None):
        key = source, port or self.port
        try:
            if key not in self.connections:
                self.connections[key] = Connection("127.0.0.1", key[1], source=source)
            return self.connections[key].call(name, version, body)
        except (WireError, ConnectionResetError):
            self.connections.pop(key).close()
            return "closed"

    def close(self):
        for connection in self.connections.values():
            connection.close()
        self.broker.close()


@pytest.fixture(scope="module")
def node(request):
    broker = make_broker(request.config, PROPERTIES)
    try:
        made = Node(broker.start())
        yield made
        made.close()
    finally:
        broker.close()


@pytest.fixture(scope="module")
def reference():
    broker = KafkaBroker(PROPERTIES)
    broker.features = tuple(f"{name}=0" for name in ("group.version", "transaction.version", "share.version", "streams.version", "eligible.leader.replicas.version"))
    try:
        made = Node(broker.start())
        yield made
        made.close()
    finally:
        broker.close()


def codes(answer):
    """All error codes in it."""
    if isinstance(answer, list):
        return set().union(*map(codes, answer)) if answer else set()
    if isinstance(answer, dict):
        found = {value for key, value in answer.items() if key.endswith("ErrorCode")}
        return found.union(*map(codes, answer.values()))
    return set()


CASES = {}


def case(api_name, expected, what="", versions=None, same=True):
    """What 127.0.0.2 asks, for each version of an API, and all the error codes that are in the answer."""
    def register(function):
        valid = api(api_name)[0].valid
        last = {"InitProducerId": 5, "Produce": 13}.get(api_name, valid.last)
        first = 3 if api_name == "Produce" else valid.first
        for version in versions or range(first, last + 1):
            CASES[f"{api_name} {what} v{version}"] = (api_name, function, version, expected, same)
        return function
    return register


def plain(api_name, expected, body, what="", versions=None, source=OTHER, same=True):
    case(api_name, expected, what, versions, same)(lambda n, v: n.call(api_name, v, body, source=source))


RECORDS = batch([Record(b"a", timestamp=1_700_000_000_000)])


def produce(n, v, *topics):
    data = [{"Name": topic, "TopicId": n.ids.get(topic, UUID_ZERO), "PartitionData": [{"Index": 0, "Records": RECORDS}]} for topic in topics]
    return n.call("Produce", v, {"Acks": -1, "TimeoutMs": 5000, "TopicData": data})


case("Produce", {29})(lambda n, v: produce(n, v, "closed"))
case("Produce", {29}, "to what may be described or read")(lambda n, v: produce(n, v, "described", "read"))
case("Produce", {0, 29}, "to one of two")(lambda n, v: produce(n, v, "written", "closed"))
case("Produce", {29}, "by the name of no topic", range(3, 13))(lambda n, v: produce(n, v, "nowhere"))
case("Produce", {53}, "with a transaction")(lambda n, v: n.call("Produce", v, {"TransactionalId": "tx", "Acks": -1, "TimeoutMs": 5000, "TopicData": [
    {"Name": "written", "TopicId": n.ids["written"], "PartitionData": [{"Index": 0, "Records": batch([Record(b"a")], attributes=16, producer_id=1, producer_epoch=0, base_sequence=0)}]}]}))


def fetch(n, v, *topics, replica=-1):
    asked = [{"Topic": topic, "TopicId": n.ids.get(topic, UUID_ZERO), "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}]} for topic in topics]
    return n.call("Fetch", v, {"ReplicaId": replica, "ReplicaState": {"ReplicaId": replica, "ReplicaEpoch": -1}, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1000,
                               "SessionEpoch": -1, "Topics": asked})


case("Fetch", {0, 29})(lambda n, v: fetch(n, v, "closed"))
case("Fetch", {0, 29}, "of one of three")(lambda n, v: fetch(n, v, "described", "read", "closed"))
case("Fetch", {0, 29}, "by the name of no topic", range(4, 13))(lambda n, v: fetch(n, v, "nowhere"))
case("Fetch", {0, 29}, "as a follower")(lambda n, v: fetch(n, v, "read", replica=1))

LIST_OFFSETS = {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]} for name in ("closed", "nowhere")]}
plain("ListOffsets", {29}, LIST_OFFSETS)
plain("ListOffsets", {0}, {"ReplicaId": -1, "Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]} for name in ("described", "read")]}, "of what may be described", range(1, 11))

plain("Metadata", {29}, {"Topics": [{"Name": "closed"}, {"Name": "nowhere"}, {"Name": "bad name"}], "AllowAutoTopicCreation": False}, "of closed topics", range(1, 14))
plain("Metadata", {0}, {"Topics": None}, "of all topics", range(1, 13))
plain("Metadata", {0, 29}, {"Topics": [{"Name": "read"}, {"Name": "closed"}], "IncludeTopicAuthorizedOperations": True, "IncludeClusterAuthorizedOperations": True,
                            "AllowAutoTopicCreation": False}, "with operations", range(8, 13))
case("Metadata", {0, 29}, "by id", range(12, 14))(lambda n, v: n.call("Metadata", v, {"Topics": [{"Name": None, "TopicId": n.ids[name]} for name in ("closed", "read")]}))
plain("Metadata", {29}, {"Topics": [{"Name": "described-not"}, {"Name": "made-unseen"}, {"Name": "read-new"}], "AllowAutoTopicCreation": True}, "of topics that can't be made", range(4, 14))
plain("Metadata", {3}, {"Topics": [{"Name": "read-new"}], "AllowAutoTopicCreation": False, "IncludeTopicAuthorizedOperations": True}, "of a missing topic with operations", range(8, 14))

PARTITION = {"PartitionIndex": 0, "CommittedOffset": 0}
plain("OffsetCommit", {30}, {"GroupId": "closed", "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": "read", "Partitions": [PARTITION]}]}, versions=range(2, 10))
plain("OffsetCommit", {29}, {"GroupId": "readers", "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": name, "Partitions": [PARTITION]} for name in ("closed", "described", "nowhere")]},
      "of closed topics", range(2, 10))
case("OffsetCommit", {29, 30}, "by id", range(10, 11))(lambda n, v: [n.call("OffsetCommit", v, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "Topics": [
    {"TopicId": n.ids["closed"], "Partitions": [PARTITION]}]}) for group in ("closed", "readers")])

FETCH_TOPICS = [{"Name": name, "PartitionIndexes": [0]} for name in ("closed", "read", "nowhere")]


def offset_fetch(n, v, group, topics):
    by_id = [{**topic, "TopicId": n.ids.get(topic["Name"], UUID_ZERO)} for topic in topics] if topics is not None else None
    return n.call("OffsetFetch", v, {"GroupId": group, "Topics": topics, "Groups": [{"GroupId": group, "Topics": by_id}]})


case("OffsetFetch", {30}, versions=range(2, 11))(lambda n, v: offset_fetch(n, v, "closed", FETCH_TOPICS[:1]))
case("OffsetFetch", {0, 29}, "of some topics", range(2, 11))(lambda n, v: offset_fetch(n, v, "readers", FETCH_TOPICS[:2]))
case("OffsetFetch", {0}, "of all topics", range(2, 11))(lambda n, v: offset_fetch(n, v, "readers", None))
plain("OffsetFetch", {30}, {"GroupId": "closed", "Topics": FETCH_TOPICS}, "of old", range(1, 2))

for kind, refused in ((0, 30), (1, 53)):
    plain("FindCoordinator", {refused}, {"Key": "closed", "KeyType": kind, "CoordinatorKeys": ["closed", "other"]}, f"of kind {kind}", range(1, 7))
plain("FindCoordinator", {30}, {"Key": "closed"}, "of old", range(0, 1))
plain("FindCoordinator", {0, 30}, {"KeyType": 0, "CoordinatorKeys": ["closed", "seen-1", "readers"]}, "of three groups", range(4, 7))

plain("JoinGroup", {30}, {"GroupId": "closed", "SessionTimeoutMs": 10000, "RebalanceTimeoutMs": 10000, "ProtocolType": "consumer", "Protocols": [{"Name": "range", "Metadata": b""}]})
plain("Heartbeat", {30}, {"GroupId": "closed", "GenerationId": 1, "MemberId": "m"})
plain("LeaveGroup", {30}, {"GroupId": "closed", "MemberId": "m", "Members": [{"MemberId": "m"}]})
plain("SyncGroup", {30}, {"GroupId": "closed", "GenerationId": 1, "MemberId": "m", "ProtocolType": "consumer", "ProtocolName": "range"})
plain("DescribeGroups", {30}, {"Groups": ["closed"], "IncludeAuthorizedOperations": True})
plain("DescribeGroups", {30, 0}, {"Groups": ["closed", "readers"], "IncludeAuthorizedOperations": True}, "of two", range(0, 6))
plain("ListGroups", {0}, {})
plain("DeleteGroups", {30}, {"GroupsNames": ["closed", "readers", "seen-1"]})
plain("OffsetDelete", {30, 0}, {"GroupId": "readers", "Topics": [{"Name": "closed", "Partitions": [{"PartitionIndex": 0}]}]})

CREATE_TOPICS = {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1} for name in ("closed", "closed-new", "described")], "timeoutMs": 5000}
plain("CreateTopics", {29, 0}, CREATE_TOPICS)
plain("CreateTopics", {29, 0}, {"Topics": [{"Name": "made-1", "NumPartitions": 1, "ReplicationFactor": 1}, {"Name": "closed-1", "NumPartitions": 1, "ReplicationFactor": 1}],
                                "timeoutMs": 5000, "validateOnly": True}, "of which one may be made", range(5, 8))
plain("DeleteTopics", {29}, {"TopicNames": ["closed"], "Topics": [{"Name": "closed"}], "TimeoutMs": 5000})
plain("DeleteTopics", {29}, {"TopicNames": ["described"], "Topics": [{"Name": "described"}], "TimeoutMs": 5000}, "that is described")
plain("DeleteTopics", {29}, {"TopicNames": ["nowhere"], "Topics": [{"Name": "nowhere"}], "TimeoutMs": 5000}, "that is nowhere")
case("DeleteTopics", {29}, "by id", range(6, 7))(lambda n, v: [n.call("DeleteTopics", v, {"Topics": [{"Name": None, "TopicId": n.ids[name]}], "TimeoutMs": 5000}) for name in ("closed", "described")])
plain("DeleteRecords", {29}, {"Topics": [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]} for name in ("closed", "read", "written")], "TimeoutMs": 5000})
plain("CreatePartitions", {29}, {"Topics": [{"Name": name, "Count": 2} for name in ("closed", "described", "nowhere")], "TimeoutMs": 5000})
case("CreatePartitions", {0}, "where all is allowed")(lambda n, v: n.call("CreatePartitions", v, {"Topics": [{"Name": "written", "Count": 2, "Assignments": None}], "TimeoutMs": 5000, "ValidateOnly": True}))

# What may be written somewhere is enough for an id.
def producer_id(n, v, source):
    """Kafka asks its controller for the first ones, and has the client come again (14)."""
    def ask():
        answer = n.call("InitProducerId", v, {"TransactionalId": None, "TransactionTimeoutMs": 1000}, source=source)
        return answer if answer["ErrorCode"] != 14 else None
    return wait_until("there are ids", ask)


case("InitProducerId", {0}, "for some topic", same=False)(lambda n, v: producer_id(n, v, OTHER))
plain("InitProducerId", {53}, {"TransactionalId": "closed", "TransactionTimeoutMs": 1000})

plain("OffsetForLeaderEpoch", {29}, {"ReplicaId": -1, "Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "LeaderEpoch": 0}]} for name in ("closed", "nowhere")]})

plain("DescribeAcls", {31}, EVERY_ACL)
plain("CreateAcls", {31}, {"Creations": OTHER_ACLS[:2]})
plain("DeleteAcls", {31}, {"Filters": [EVERY_ACL]})

RESOURCES = [(2, "closed"), (2, "described"), (2, "nowhere"), (4, "1"), (4, ""), (8, "1"), (16, "m"), (32, "readers")]
for kind, name in RESOURCES:
    refused = {2: 29, 32: 30}.get(kind, 31)
    if kind != 16:
        plain("DescribeConfigs", {refused}, {"Resources": [{"ResourceType": kind, "ResourceName": name}]}, f"of {kind} {name}")
    if kind not in (8, 16):
        plain("AlterConfigs", {refused}, {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": "retention.ms", "Value": "1000"}] if kind == 2 else []}]}, f"of {kind} {name}")
    plain("IncrementalAlterConfigs", {refused}, {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
        {"Name": "retention.ms", "ConfigOperation": 0, "Value": "1000"}] if kind == 2 else []}]}, f"of {kind} {name}")

plain("DescribeLogDirs", {31}, {"Topics": None}, versions=range(3, 6))
plain("DescribeLogDirs", set(), {"Topics": None}, "of old", range(1, 3))
plain("AlterReplicaLogDirs", {31}, {"Dirs": [{"Path": "/nowhere", "Topics": [{"Name": "closed", "Partitions": [0]}]}]}, same=False)
plain("AddRaftVoter", {31}, {"ClusterId": None, "TimeoutMs": 1000, "VoterId": 9, "VoterDirectoryId": UUID_ZERO, "Listeners": []}, same=False)
plain("RemoveRaftVoter", {31}, {"ClusterId": None, "VoterId": 9, "VoterDirectoryId": UUID_ZERO}, same=False)
plain("DescribeQuorum", {31}, {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]})
plain("DescribeCluster", {0}, {"IncludeClusterAuthorizedOperations": True})
plain("DescribeTopicPartitions", {29}, {"Topics": [{"Name": "closed"}, {"Name": "nowhere"}]})
plain("DescribeTopicPartitions", {0, 3, 29}, {"Topics": [{"Name": name} for name in ("closed", "read", "read-new", "zzz")]}, "of some")
plain("DescribeTopicPartitions", {0}, {"Topics": []}, "of all")

# What is allowed needs no more than its own right; errors from here on are of what comes after the check.
plain("OffsetCommit", {0}, {"GroupId": "readers", "GenerationIdOrMemberEpoch": -1, "Topics": [{"Name": "read", "Partitions": [PARTITION]}]}, "by two rights", range(2, 10))
case("OffsetFetch", {0}, "of a described group", range(2, 11))(lambda n, v: offset_fetch(n, v, "seen-1", FETCH_TOPICS[1:2]))
plain("Heartbeat", {25}, {"GroupId": "readers", "MemberId": "m", "GenerationId": 1}, "of a stranger")
plain("SyncGroup", {25}, {"GroupId": "readers", "MemberId": "m", "GenerationId": 1, "ProtocolType": "consumer", "ProtocolName": "range"}, "of a stranger")
plain("SyncGroup", {23}, {"GroupId": "closed", "MemberId": "m", "GenerationId": 1, "ProtocolType": None, "ProtocolName": None}, "without a protocol", range(5, 6))
plain("LeaveGroup", {25}, {"GroupId": "readers", "MemberId": "m", "Members": [{"MemberId": "m"}]}, "of a stranger")
plain("DeleteGroups", {69}, {"GroupsNames": ["gone-1"]}, "that may be deleted")
plain("DescribeConfigs", {0}, {"Resources": [{"ResourceType": 2, "ResourceName": "written", "ConfigurationKeys": ["retention.ms"]}]}, "where all is allowed")
plain("IncrementalAlterConfigs", {0}, {"Resources": [{"ResourceType": 2, "ResourceName": "written", "Configs": [{"Name": "retention.ms", "ConfigOperation": 0, "Value": "1000"}]}],
                                       "ValidateOnly": True}, "where all is allowed")
plain("AlterConfigs", {0}, {"Resources": [{"ResourceType": 2, "ResourceName": "written", "Configs": [{"Name": "retention.ms", "Value": "1000"}]}], "ValidateOnly": True}, "where all is allowed")
plain("OffsetForLeaderEpoch", {0}, {"ReplicaId": -1, "Topics": [{"Topic": "described", "Partitions": [{"Partition": 0, "LeaderEpoch": 0}]}]}, "of what may be described")
plain("OffsetForLeaderEpoch", {0}, {"ReplicaId": -1, "Topics": [{"Topic": "closed", "Partitions": [{"Partition": 0, "LeaderEpoch": 0}]}]}, "as a broker", source=FOLLOWER)


@case("DeleteTopics", {0}, "that may be deleted")
def _(n, v):
    n.create_topic(f"deletable-v{v}")
    return n.call("DeleteTopics", v, {"TopicNames": [f"deletable-v{v}"], "Topics": [{"Name": f"deletable-v{v}"}], "TimeoutMs": 5000})


plain("CreateTopics", {0, 29}, {"Topics": [{"Name": "any-1", "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 5000, "validateOnly": True}, "by the cluster's right", range(5, 8), OPERATOR)
plain("DescribeAcls", {0}, {**EVERY_ACL, "ResourceNameFilter": "gone"}, "as an operator", source=OPERATOR)
plain("CreateAcls", {31}, {"Creations": OTHER_ACLS[:1]}, "as an operator", source=OPERATOR)
plain("DeleteAcls", {31}, {"Filters": [EVERY_ACL]}, "as an operator", source=OPERATOR)
plain("DescribeCluster", {0}, {"IncludeClusterAuthorizedOperations": True}, "as an operator", source=OPERATOR)
plain("Metadata", {0}, {"Topics": [], "IncludeClusterAuthorizedOperations": True}, "as an operator", range(8, 11), OPERATOR)
plain("DescribeConfigs", {0}, {"Resources": [{"ResourceType": 4, "ResourceName": "1", "ConfigurationKeys": ["num.partitions"]}]}, "of a broker as an operator", source=OPERATOR)
plain("IncrementalAlterConfigs", {0}, {"Resources": [{"ResourceType": 4, "ResourceName": "", "Configs": []}], "ValidateOnly": True}, "of brokers as an operator", source=OPERATOR)
plain("ListGroups", {0}, {}, "as an operator", source=OPERATOR)
case("InitProducerId", {0}, "as an operator", same=False)(lambda n, v: producer_id(n, v, OPERATOR))
plain("InitProducerId", {31}, {"TransactionalId": None, "TransactionTimeoutMs": 1000}, "with nothing to write", source=FOLLOWER)
plain("DescribeLogDirs", {0}, {"Topics": []}, "as an operator", source=OPERATOR, same=False)
plain("DescribeQuorum", {0}, {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}, "as an operator", source=OPERATOR, same=False)


# By nature different on two brokers, or in words of their own.
MASKED = {"Port", "ClusterId", "TopicId", "Host", "ThrottleTimeMs", "LogAppendTimeMs", "BaseOffset", "HighWatermark", "LastStableOffset", "Offset", "MemberId", "Leader",
          "Records", "Timestamp"}

# What a refusal says to the whole cluster holds the request itself in Kafka.
REFUSAL = re.compile(r"Request Request\(.*\) needs \w+ permission\.", re.DOTALL)


def masked(value, key=None):
    if isinstance(value, dict):
        return {k: masked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        items = [masked(v, key) for v in value]
        # Topics stand in the order of a hash table in some of Kafka's answers.
        return sorted(items, key=repr) if key in ("Topics", "Responses", "Results", "Groups", "Coordinators") else items
    if isinstance(value, str) and REFUSAL.fullmatch(value):
        return "Cluster authorization failed."
    return "..." if key in MASKED and value is not None else value


@pytest.mark.parametrize("name", CASES)
def test_refused_with_kafkas_errors(node, name):
    api_name, function, version, expected, _ = CASES[name]
    answer = function(node, version)
    assert answer != "closed" and codes(answer) - {0} == expected - {0}, answer


def served(node, port):
    """Keys of the APIs on a listener."""
    return {key["ApiKey"] for key in api_keys(node, port)}


def api_keys(node, port):
    return node.call("ApiVersions", 3, {"ClientSoftwareName": "t", "ClientSoftwareVersion": "1"}, port=port)["ApiKeys"]


@contextlib.contextmanager
def at_the_controller(*nodes):
    for node in nodes:
        node.port = node.broker.controller_port
    try:
        yield
    finally:
        for node in nodes:
            node.port = node.broker.port


ON_CONTROLLERS = ("CreateTopics", "DeleteTopics", "CreatePartitions", "DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs", "DescribeAcls", "CreateAcls", "DeleteAcls",
                  "DescribeQuorum", "DescribeCluster")


# What replicas of the metadata log, and brokers, ask of controllers.
OF_NODES = {
    "Fetch": {"ReplicaId": -1, "ReplicaState": {"ReplicaId": 9, "ReplicaEpoch": -1}, "Topics": []},
    "Vote": {"ClusterId": None, "VoterId": 1, "Topics": []},
    "BeginQuorumEpoch": {"ClusterId": None, "VoterId": 1, "Topics": [], "LeaderEndpoints": []},
    "EndQuorumEpoch": {"ClusterId": None, "Topics": [], "LeaderEndpoints": []},
    "FetchSnapshot": {"ReplicaId": 9, "MaxBytes": 1000, "Topics": []},
    "BrokerRegistration": {"BrokerId": 9, "ClusterId": "", "IncarnationId": UUID_ZERO, "Listeners": [], "Features": [], "Rack": None, "LogDirs": []},
    "AlterPartition": {"BrokerId": 9, "BrokerEpoch": 1, "Topics": []},
    "BrokerHeartbeat": {"BrokerId": 9, "BrokerEpoch": 1, "OfflineLogDirs": []},
    "ControllerRegistration": {"ControllerId": 9, "IncarnationId": UUID_ZERO, "Listeners": [], "Features": []},
    "AllocateProducerIds": {"BrokerId": 9, "BrokerEpoch": 1},
    "AssignReplicasToDirs": {"BrokerId": 9, "BrokerEpoch": 1, "Directories": []},
    "AddRaftVoter": {"ClusterId": None, "TimeoutMs": 1000, "VoterId": 9, "VoterDirectoryId": UUID_ZERO, "Listeners": []},
    "RemoveRaftVoter": {"ClusterId": None, "VoterId": 9, "VoterDirectoryId": UUID_ZERO},
    "UpdateRaftVoter": {"ClusterId": None, "VoterId": 9, "VoterDirectoryId": UUID_ZERO, "Listeners": [], "KRaftVersionFeature": {"MinSupportedVersion": 0, "MaxSupportedVersion": 1}},
}


@pytest.mark.parametrize("api_name", OF_NODES)
def test_only_nodes_of_the_cluster_ask_controllers(node, api_name):
    port = node.broker.controller_port
    last = {key["ApiKey"]: key["MaxVersion"] for key in api_keys(node, port)}[api(api_name)[0].api_key]
    assert codes(node.call(api_name, last, OF_NODES[api_name], port=port)) == {31}


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name, (api_name, *_) in CASES.items() if api_name in ON_CONTROLLERS])
def test_refused_as_by_kafkas_controller(node, reference, name):
    """The same requests on the controllers' listener; Kafka's broker itself checks less of some."""
    api_name, function, version, _, same = CASES[name]
    if not same:
        return
    with at_the_controller(node, reference):
        found = list(differences(masked(function(reference, version)), masked(function(node, version))))
    assert not found, "\n".join(line[:600] for line in found[:25])


@pytest.mark.reference
@pytest.mark.parametrize("name", CASES)
def test_refused_as_by_kafka(node, reference, name):
    api_name, function, version, _, same = CASES[name]
    if not same:
        return
    found = list(differences(masked(function(reference, version)), masked(function(node, version))))
    assert not found, "\n".join(line[:600] for line in found[:25])


def test_no_api_is_left_out(node):
    """What is new among the APIs needs its rows above."""
    if node.broker.kind != "ottla":
        return
    names = {api(name)[0].api_key for name in {case[0] for case in CASES.values()}}
    assert served(node, node.broker.port) - names == {api("ApiVersions")[0].api_key}
    at_controllers = {api(name)[0].api_key for name in (*ON_CONTROLLERS, *OF_NODES)}
    assert served(node, node.broker.controller_port) - at_controllers == {api("ApiVersions")[0].api_key}


def test_nothing_that_was_refused_has_happened(node):
    described = node.call("Metadata", 12, {"Topics": None}, source=ADMIN)
    assert {topic["Name"] for topic in described["Topics"]} >= set(TOPICS)
    assert not {topic["Name"] for topic in described["Topics"]} & {"closed-new", "closed-1", "made-1", "made-unseen", "read-new"}
    configs = node.call("DescribeConfigs", 4, {"Resources": [{"ResourceType": 2, "ResourceName": "closed", "ConfigurationKeys": ["retention.ms"]}]}, source=ADMIN)
    assert configs["Results"][0]["Configs"][0]["Value"] == "604800000"


def test_a_topic_that_may_be_made_is_made(node):
    """To describe and to create it, and nothing else, is enough."""
    asked = {"Topics": [{"Name": "made-seen-1"}], "AllowAutoTopicCreation": True}
    wait_until("it is there", lambda: codes(node.call("Metadata", 12, asked)) == {0})


def test_controllers_ask_too(node):
    """On the controllers' listener."""
    port = node.broker.controller_port
    for source, refused in ((ADMIN, 0), (OTHER, 31)):
        cluster = node.call("DescribeCluster", 1, {"EndpointType": 2}, source=source, port=port)
        assert cluster["ErrorCode"] == refused
        acls = node.call("DescribeAcls", 3, EVERY_ACL, source=source, port=port)
        assert (acls["ErrorCode"], bool(acls["Resources"])) == (refused, refused == 0)
        created = node.call("CreateAcls", 3, {"Creations": OTHER_ACLS[:1]}, source=source, port=port)
        assert codes(created) == {refused}
        topic = {"Topics": [{"Name": "closed", "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 5000}
        assert codes(node.call("CreateTopics", 7, topic, source=source, port=port)) & {29, 36} == {36 if source == ADMIN else 29}


LATER = itertools.count()


@contextlib.contextmanager
def sockets_from(host):
    """kafka-python has no setting for the address that it connects from."""
    connect = socket.socket.connect_ex

    def connect_from(self, address):
        if self.family == socket.AF_INET and self.type == socket.SOCK_STREAM:
            # A connection that isn't there yet is asked for again.
            if self.getsockname()[1] == 0:
                self.bind((host, 0))
        return connect(self, address)
    socket.socket.connect_ex = connect_from
    try:
        yield
    finally:
        socket.socket.connect_ex = connect


def send(bootstrap, topic):
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_block_ms=20000, enable_idempotence=False)
    try:
        return producer.send(topic, b"hello", partition=0).get(30).offset
    finally:
        producer.close()


def read(bootstrap, topic, group=None, patience=20):
    reader = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest", consumer_timeout_ms=patience * 1000, enable_auto_commit=False)
    try:
        if group is None:
            reader.assign([TopicPartition(topic, 0)])
        else:
            reader.subscribe([topic])
        return next(reader).value
    finally:
        reader.close()


def reads_nothing(*args):
    """The client raises what it was told in some places, and goes on asking in others."""
    with pytest.raises((TopicAuthorizationFailedError, GroupAuthorizationFailedError, StopIteration)):
        read(*args, patience=2)


def test_a_client_writes_and_reads_by_acls(node):
    """The rights of one address change under a client of each address; each change counts with its answer."""
    node.create_topic("work")
    address = node.broker.bootstrap

    def change(name, body):
        assert codes(node.call(name, 3, body, source=ADMIN)) == {0}
        if node.broker.kind == "kafka":
            # It answers before its authorizer knows; an image later it does.
            node.create_topic(f"later-{next(LATER)}")

    assert send(address, "work") == 0 and read(address, "work") == b"hello"
    with sockets_from(OTHER):
        with pytest.raises(TopicAuthorizationFailedError):
            send(address, "work")
        change("CreateAcls", {"Creations": [creation(TOPIC, "work", LITERAL, OTHER, WRITE)]})
        assert send(address, "work") == 1
        reads_nothing(address, "work")
        change("CreateAcls", {"Creations": [creation(TOPIC, "wo", PREFIXED, "*", READ)]})
        assert read(address, "work") == b"hello"
        reads_nothing(address, "work", "workers")
        change("CreateAcls", {"Creations": [creation(GROUP, "work", PREFIXED, OTHER, READ)]})
        assert read(address, "work", "workers") == b"hello"
        change("CreateAcls", {"Creations": [creation(TOPIC, "w", PREFIXED, OTHER, ALL, DENY)]})
        reads_nothing(address, "work")
        with pytest.raises(TopicAuthorizationFailedError):
            send(address, "work")
    assert send(address, "work") == 2
    change("DeleteAcls", {"Filters": [{**EVERY_ACL, "ResourceNameFilter": "w", "PermissionType": DENY}]})
    with sockets_from(OTHER):
        assert send(address, "work") == 3


@pytest.mark.stricter_than_kafka("its brokers hear of ACLs after the answer")
def test_every_core_goes_by_an_acl_that_is_answered(node):
    """Connections on all cores, asked the moment after each change."""
    asked = {"ReplicaId": -1, "Topics": [{"Name": "closed", "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]}
    binding = creation(TOPIC, "closed", LITERAL, OTHER, DESCRIBE)
    delete = {**EVERY_ACL, "ResourceTypeFilter": TOPIC, "ResourceNameFilter": "closed", "PatternTypeFilter": LITERAL}
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection("127.0.0.1", node.broker.port, source=OTHER)) for _ in range(16)]
        for _ in range(20):
            for change, body, expected in (("CreateAcls", {"Creations": [binding]}, {0}), ("DeleteAcls", {"Filters": [delete]}, {29})):
                assert codes(node.call(change, 3, body, source=ADMIN)) == {0}
                for connection in connections:
                    connection.send("ListOffsets", 4, asked)
                assert [codes(connection.receive("ListOffsets", 4)) for connection in connections] == [expected] * 16


def test_kafka_acls(node, tool_machine):
    """Each sub-command, at a broker and at a controller."""
    for i, where in enumerate((["--bootstrap-server", node.broker.bootstrap], ["--bootstrap-controller", f"127.0.0.1:{node.broker.controller_port}"])):
        tools = Tools(tool_machine, node.broker.bootstrap)
        topic = f"tool-{i}"
        added = tools("kafka-acls", *where, "--add", "--allow-principal", f"User:u{i}", "--allow-host", "10.0.0.7", "--producer", "--topic", topic).ok()
        assert f"name={topic}, patternType=LITERAL" in added.out
        tools("kafka-acls", *where, "--add", "--deny-principal", f"User:u{i}", "--operation", "Read", "--topic", f"too-{i}", "--resource-pattern-type", "prefixed").ok()
        tools("kafka-acls", *where, "--add", "--allow-principal", f"User:u{i}", "--consumer", "--topic", topic, "--group", "*").ok()

        def listed(*what):
            return tools("kafka-acls", *where, "--list", *what).ok().out
        wait_until("they are listed", lambda: f"name=too-{i}" in listed())
        of_topic = listed("--topic", topic)
        for operation in ("WRITE", "DESCRIBE", "CREATE"):
            assert f"(principal=User:u{i}, host=10.0.0.7, operation={operation}, permissionType=ALLOW)" in of_topic, of_topic
        assert f"(principal=User:u{i}, host=*, operation=READ, permissionType=ALLOW)" in of_topic
        of_principal = listed("--principal", f"User:u{i}")
        assert f"name=too-{i}, patternType=PREFIXED" in of_principal and "permissionType=DENY" in of_principal
        assert f"u{i}" not in listed("--topic", f"too-{i}") and f"u{i}" in listed("--topic", f"too-{i}-x", "--resource-pattern-type", "match")

        tools("kafka-acls", *where, "--remove", "--allow-principal", f"User:u{i}", "--operation", "Read", "--topic", topic, "--force").ok()
        wait_until("it is gone", lambda: "operation=READ" not in listed("--topic", topic))
        tools("kafka-acls", *where, "--remove", "--topic", topic, "--resource-pattern-type", "any", "--force").ok()
        wait_until("all are gone", lambda: topic not in listed())
        bad = tools("kafka-acls", *where, "--add", "--allow-principal", "nobody", "--operation", "Read", "--topic", topic)
        assert "principalType:principalName" in bad.out + bad.err


def test_acls_outlive_a_restart(own_broker):
    broker = own_broker(PROPERTIES)
    node = Node(broker.start())
    broker.restart()
    node.connections.clear()
    assert codes(node.call("DescribeLogDirs", 4, {"Topics": []})) == {31}
    # The controller has them too.
    assert codes(node.call("CreateTopics", 7, CREATE_TOPICS)) - {0} == {29}
    listed = node.call("DescribeAcls", 3, EVERY_ACL, source=ADMIN)
    assert sum(len(resource["Acls"]) for resource in listed["Resources"]) == len(ADMIN_ACLS + OTHER_ACLS)
    node.close()


def test_without_the_setting_only_super_users_may(own_broker):
    broker = own_broker({**PROPERTIES, "allow.everyone.if.no.acl.found": "false", "super.users": "User:root;User:ANONYMOUS"})
    with Connection("127.0.0.1", broker.start().port) as connection:
        topic = {"Topics": [{"Name": "t", "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10000}
        assert codes(connection.call("CreateTopics", 7, topic)) == {0}
        deny = {"Creations": [creation(TOPIC, "*", LITERAL, "*", ALL, DENY)]}
        assert codes(connection.call("CreateAcls", 3, deny)) == {0}
        asked = {"ReplicaId": -1, "Topics": [{"Name": "t", "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]}
        wait_until("the topic has a leader", lambda: codes(connection.call("ListOffsets", 4, asked)) == {0})


@pytest.mark.stricter_than_kafka("its broker may not even register without a super user")
def test_without_super_users_nobody_may(own_broker):
    broker = own_broker({**PROPERTIES, "allow.everyone.if.no.acl.found": "false"})
    with Connection("127.0.0.1", broker.start().port) as connection:
        topic = {"Topics": [{"Name": "t", "NumPartitions": 1, "ReplicationFactor": 1}], "timeoutMs": 10000}
        assert codes(connection.call("CreateTopics", 7, topic)) - {0} == {29}
        assert codes(connection.call("FindCoordinator", 3, {"Key": "g"})) == {30}
        assert connection.call("Metadata", 12, {"Topics": None})["Topics"] == []
    assert broker.stop() == 0


def test_acls_without_an_authorizer(connect):
    """There are none, and nobody can make one."""
    for version in (1, 2, 3):
        connection = connect()
        described = connection.call("DescribeAcls", version, EVERY_ACL)
        assert (described["ErrorCode"], described["ErrorMessage"]) == (54, "No Authorizer is configured on the broker")
        created = connection.call("CreateAcls", version, {"Creations": OTHER_ACLS[:2]})
        assert [(result["ErrorCode"], result["ErrorMessage"]) for result in created["Results"]] == [(54, "No Authorizer is configured.")] * 2
        deleted = connection.call("DeleteAcls", version, {"Filters": [EVERY_ACL]})
        assert [(result["ErrorCode"], result["ErrorMessage"]) for result in deleted["FilterResults"]] == [(54, "No Authorizer is configured.")]
