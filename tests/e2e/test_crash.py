"""kill -9 under load, and other unclean ends: see crash.py."""

import pytest

import crash

# A new start after a crash has something to say; a partition that was just being made may be set aside, empty.
pytestmark = pytest.mark.allow_log("unclean|recover|truncat|cut off|clean shutdown|rebuilding indexes|was set aside topic=__consumer_offsets")


@pytest.mark.timeout(400)
def test_every_acknowledged_record_survives_kill_9(own_broker):
    """CI runs it four times: with 1, 2 and 4 shards and as an ordinary user."""
    counts = crash.run(own_broker().start(), rounds=50, seed=1)
    print(counts)
    assert counts["acknowledged"] > 1000


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
def test_every_acknowledged_record_survives_hundreds_of_kills(own_broker, seed):
    """Four times 250 rounds, each on a fresh directory."""
    counts = crash.run(own_broker().start(), rounds=250, seed=seed)
    print(counts)
    assert counts["acknowledged"] > 10_000
