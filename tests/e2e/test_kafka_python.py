"""kafka-python: an older client family with request versions of its own."""

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

RECORDS = [{"key": k, "value": v, "headers": h} for k in (None, b"", b"key") for v in (None, b"", b"value" * 100) for h in ([], [("h", b"1"), ("h", b"")])
           # The client itself refuses a record without both.
           if k is not None or v is not None]


# The other codecs need more packages, and other clients send them.
@pytest.mark.parametrize("codec", [None, "gzip"])
@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_record_shape(broker, create, name, codec, acks):
    create(name)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, compression_type=codec, acks=acks, enable_idempotence=acks == "all", linger_ms=10)
    sent = [producer.send(name, partition=0, **record) for record in RECORDS]
    producer.flush(20)
    if acks != 0:
        assert [future.get(20).offset for future in sent] == list(range(len(RECORDS)))
    producer.close()
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20000, check_crcs=True)
    reader.assign([TopicPartition(name, 0)])
    for offset, record in enumerate(RECORDS):
        message = next(reader)
        assert (message.offset, message.key, message.value, list(message.headers)) == (offset, record["key"], record["value"], record["headers"])
    reader.close()


def test_group_and_admin(broker, name):
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics([NewTopic(name, 2, 1)])
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for i in range(20):
        producer.send(name, b"%d" % i, partition=i % 2)
    producer.close()
    for expected in (range(20), []):
        reader = KafkaConsumer(name, bootstrap_servers=broker.bootstrap, group_id=name, auto_offset_reset="earliest", enable_auto_commit=False,
                               consumer_timeout_ms=3000)
        assert sorted(int(message.value) for message in reader) == list(expected)
        reader.commit()
        reader.close()
    assert name in str(admin.list_group_offsets(name))
    admin.delete_topics([name])
    admin.close()
