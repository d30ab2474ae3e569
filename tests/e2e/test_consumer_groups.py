"""kafka-consumer-groups: every sub-command and every way to reset offsets."""

import datetime
import json

import pytest
from confluent_kafka import TopicPartition

from harness.clients import Member, commit_offsets, consumer, poll_messages, send_all
from harness.net import wait_until
from harness.records import now_ms
from harness.tools import write_file

RECORDS = 20


@pytest.fixture
def group(broker, create, name):
    """A topic of two partitions with 20 records each, one a second of record time, and a group that read 10 of each."""
    create(name, 2)
    base = now_ms() - RECORDS * 1000
    for i in range(RECORDS):
        send_all(broker.bootstrap, name, [{"value": b"%d" % i, "partition": p, "timestamp": base + i * 1000} for p in (0, 1)])
    commit_offsets(broker.bootstrap, name, [TopicPartition(name, p, 10) for p in (0, 1)])
    return name


def offsets(tools, group):
    """partition -> (committed, end, lag) from describe."""
    rows = tools("kafka-consumer-groups", "--describe", "--group", group).ok().rows("GROUP")
    return {int(row["PARTITION"]): (row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"]) for row in rows}


def reset(tools, group, *how, topic=None, execute=True):
    """partition -> new offset."""
    rows = tools("kafka-consumer-groups", "--reset-offsets", "--group", group, "--topic", topic or group, *how,
                 "--execute" if execute else "--dry-run").ok().rows("GROUP")
    return {int(row["PARTITION"]): int(row["NEW-OFFSET"]) for row in rows}


def test_list_and_describe_in_own_processes(tools, broker, group):
    member = Member(broker.bootstrap, group, [group], commit=False, client_id="describe-me")
    member.start()
    try:
        wait_until("the member has both partitions", lambda: len(member.owned) == 2)
        assert group in tools.process("kafka-consumer-groups", "--list").ok().lines

        rows = tools.process("kafka-consumer-groups", "--describe", "--group", group).ok().rows("GROUP")
        assert [(r["TOPIC"], r["PARTITION"], r["CURRENT-OFFSET"], r["LOG-END-OFFSET"], r["LAG"], r["CLIENT-ID"]) for r in sorted(rows, key=lambda r: r["PARTITION"])] == [
            (group, str(p), "10", "20", "10", "describe-me") for p in (0, 1)]
        assert all(row["HOST"] == "/127.0.0.1" and row["CONSUMER-ID"].startswith("describe-me-") for row in rows)

        members = tools("kafka-consumer-groups", "--describe", "--group", group, "--members", "--verbose").ok().rows("GROUP")
        assert [(m["CLIENT-ID"], m["#PARTITIONS"]) for m in members] == [("describe-me", "2")]
        assert f"{group}:0,1" in tools("kafka-consumer-groups", "--describe", "--group", group, "--members", "--verbose").out

        state = tools("kafka-consumer-groups", "--describe", "--group", group, "--state").ok().rows("GROUP")[0]
        assert group in state.values()
        text = tools("kafka-consumer-groups", "--describe", "--group", group, "--state").ok().lines[-1].split()
        # GROUP, COORDINATOR (ID), ASSIGNMENT-STRATEGY, STATE, #MEMBERS; the coordinator prints as two words.
        assert text == [group, broker.bootstrap, "(1)", "range", "Stable", "1"]

        states = tools("kafka-consumer-groups", "--list", "--state").ok().lines
        assert any(line.split() == [group, "Stable"] for line in states)
        assert any(line.split() == [group, "Stable"] for line in tools("kafka-consumer-groups", "--list", "--state", "stable").ok().lines)
        assert not any(line.split()[0] == group for line in tools("kafka-consumer-groups", "--list", "--state", "Empty").ok().lines)
        assert any(line.split() == [group, "Classic"] for line in tools("kafka-consumer-groups", "--list", "--type").ok().lines)

        refused = tools("kafka-consumer-groups", "--reset-offsets", "--group", group, "--all-topics", "--to-earliest", "--execute")
        assert "Assignments can only be reset if the group" in refused.out + refused.err
        not_empty = tools("kafka-consumer-groups", "--delete", "--group", group)
        assert "GroupNotEmptyException" in not_empty.out + not_empty.err
    finally:
        member.leave()
    assert member.error is None
    text = tools("kafka-consumer-groups", "--describe", "--group", group, "--state").ok().lines[-1].split()
    assert text[-2:] == ["Empty", "0"]
    assert offsets(tools, group) == {p: ("10", "20", "10") for p in (0, 1)}


def test_describe_of_an_unknown_group(tools, name):
    result = tools("kafka-consumer-groups", "--describe", "--group", name)
    assert f"Group {name} not found." in result.out + result.err


@pytest.mark.parametrize("how, expected", [
    (["--to-earliest"], 0), (["--to-latest"], 20), (["--to-current"], 10), (["--to-offset", "7"], 7), (["--to-offset", "99"], 20),
    (["--shift-by", "5"], 15), (["--shift-by", "-3"], 7), (["--shift-by", "-100"], 0), (["--shift-by", "100"], 20),
], ids=lambda value: "".join(value) if isinstance(value, list) else str(value))
def test_reset_offsets(tools, group, how, expected):
    before = offsets(tools, group)
    assert reset(tools, group, *how, execute=False) == {0: expected, 1: expected}
    assert offsets(tools, group) == before
    assert reset(tools, group, *how) == {0: expected, 1: expected}
    assert offsets(tools, group) == {p: (str(expected), "20", str(20 - expected)) for p in (0, 1)}


def test_reset_offsets_of_one_partition_in_own_process(tools, group):
    tools.process("kafka-consumer-groups", "--reset-offsets", "--group", group, "--topic", f"{group}:1", "--to-earliest", "--execute").ok()
    assert offsets(tools, group) == {0: ("10", "20", "10"), 1: ("0", "20", "20")}


def test_reset_offsets_by_time(tools, broker, create, name):
    create(name, 2)
    base = now_ms() - 3600_000
    for i in range(10):
        send_all(broker.bootstrap, name, [{"value": b"%d" % i, "partition": p, "timestamp": base + i * 60_000} for p in (0, 1)])
    when = datetime.datetime.fromtimestamp((base + 4 * 60_000) / 1000, datetime.timezone.utc)
    stamp = when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"
    assert reset(tools, name, "--to-datetime", stamp) == {0: 4, 1: 4}
    # 57.5 minutes back lies between the third and the fourth record.
    assert reset(tools, name, "--by-duration", "PT57M30S") == {0: 3, 1: 3}
    # After the last record: the end.
    assert reset(tools, name, "--by-duration", "PT1M") == {0: 10, 1: 10}


def test_reset_offsets_export_and_from_file(tools, group, scratch):
    exported = tools("kafka-consumer-groups", "--reset-offsets", "--group", group, "--topic", group, "--to-offset", "5", "--export", "--dry-run").ok()
    assert sorted(exported.lines) == [f'"{group}",0,5', f'"{group}",1,5'] or sorted(exported.lines) == [f"{group},0,5", f"{group},1,5"]
    plan = write_file(scratch, "plan.csv", f"{group},0,3\n{group},1,17\n")
    rows = tools("kafka-consumer-groups", "--reset-offsets", "--group", group, "--from-file", plan, "--execute").ok().rows("GROUP")
    assert {(row["PARTITION"], row["NEW-OFFSET"]) for row in rows} == {("0", "3"), ("1", "17")}
    assert offsets(tools, group) == {0: ("3", "20", "17"), 1: ("17", "20", "3")}


def test_reset_makes_a_new_group(tools, group):
    fresh = f"{group}-fresh"
    assert reset(tools, fresh, "--to-offset", "6", topic=group) == {0: 6, 1: 6}
    assert offsets(tools, fresh) == {p: ("6", "20", "14") for p in (0, 1)}


def test_all_groups_all_topics(tools, group):
    tools("kafka-consumer-groups", "--reset-offsets", "--group", group, "--all-topics", "--to-earliest", "--execute").ok()
    everything = tools("kafka-consumer-groups", "--describe", "--all-groups").ok()
    assert any(line.split()[:4] == [group, group, "0", "0"] for line in everything.lines)


def test_delete_offsets_in_own_process(tools, group):
    deleted = tools.process("kafka-consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{group}:0").ok()
    assert "Successful" in deleted.out
    assert set(offsets(tools, group)) == {1}
    tools("kafka-consumer-groups", "--delete-offsets", "--group", group, "--topic", group).ok()
    listed = tools("kafka-consumer-groups", "--describe", "--group", group)
    assert group not in [line.split()[0] for line in listed.lines if line.split()[:1] != ["GROUP"]]


def test_delete_offsets_of_a_subscribed_topic_is_refused(tools, broker, group):
    member = Member(broker.bootstrap, group, [group], commit=False)
    member.start()
    try:
        wait_until("the member has both partitions", lambda: len(member.owned) == 2)
        refused = tools("kafka-consumer-groups", "--delete-offsets", "--group", group, "--topic", group)
        assert "GroupSubscribedToTopicException" in refused.out + refused.err or "subscribed to the topic" in refused.out + refused.err
    finally:
        member.leave()
    assert offsets(tools, group) == {p: ("10", "20", "10") for p in (0, 1)}


def test_delete_in_own_process(tools, group):
    deleted = tools.process("kafka-consumer-groups", "--delete", "--group", group).ok()
    assert f"Deletion of requested consumer groups ('{group}') was successful." in deleted.out
    assert group not in tools("kafka-consumer-groups", "--list").ok().lines
    again = tools("kafka-consumer-groups", "--delete", "--group", group)
    assert "GroupIdNotFoundException" in again.out + again.err


def test_groups_tool_lists_protocols(tools, group):
    rows = tools("kafka-groups", "--list").ok().rows("GROUP")
    assert any((row["GROUP"], row["TYPE"]) == (group, "Classic") for row in rows)


def test_verifiable_producer_and_consumer_in_own_processes(tools, create, name):
    create(name, 3)
    produced = [json.loads(line) for line in tools.process("kafka-verifiable-producer", "--topic", name, "--max-messages", 500).ok().lines]
    acknowledged = sorted(int(event["value"]) for event in produced if event["name"] == "producer_send_success")
    assert acknowledged == list(range(500))
    assert produced[-1]["name"] == "tool_data" and produced[-1]["acked"] == 500

    consumed = [json.loads(line) for line in tools.process("kafka-verifiable-consumer", "--topic", name, "--group-id", name,
                                                           "--max-messages", 500, "--verbose").ok().lines]
    values = sorted(int(event["value"]) for event in consumed if event["name"] == "record_data")
    assert values == list(range(500))
    assert any(event["name"] == "partitions_assigned" and len(event["partitions"]) == 3 for event in consumed)
    committed = [event for event in consumed if event["name"] == "offsets_committed"]
    assert committed and all(event["success"] for event in committed)
    assert sum(int(committed_now) for committed_now, _, lag in offsets(tools, name).values()) == 500


def test_messages_after_a_reset_come_again(tools, broker, group):
    reset(tools, group, "--to-offset", "15")
    member = consumer(broker.bootstrap, group)
    member.subscribe([group])
    again = poll_messages(member, 10)
    member.close()
    assert sorted((m.partition(), m.offset()) for m in again) == [(p, o) for p in (0, 1) for o in range(15, 20)]
