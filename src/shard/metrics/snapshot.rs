//! What a core answers when it is asked what it has counted.
//!
//! Called by `Shard::on_request` ([`snapshot`]) and, for the controller's core and the node,
//! by `node::metrics` ([`with_loop`], [`of_node`]). A snapshot copies some tens of kilobytes;
//! it looks at no partition, so it takes no longer the more of them there are.

use std::rc::Weak;
use std::sync::Arc;

use super::super::{MeshPort, Node, Shard};
use super::{Metrics, OTHER, TopicTotals};
use crate::base::CoreId;
use crate::io::{IoStats, PathStats, PoolStats, Queue, Rt};
use crate::shard::connection::Closed;
use crate::telemetry::{CoreSnapshot, Metric, Sample, TopicSnapshot};

macro_rules! metrics {
    ($($kind:ident $id:ident $name:literal $help:literal)*) => {
        $(static $id: Metric = Metric::$kind($name, $help);)*
    };
}

metrics! {
    gauge BUILD "ottla_build_info" "1, with the version of this node."
    gauge CORES "ottla_cores" "Event loops that serve clients."
    gauge MEMORY_LIMIT "ottla_request_memory_limit_bytes"
        "What requests in memory may take (queued.max.request.bytes)."
    gauge MEMORY_FREE "ottla_request_memory_unleased_bytes"
        "What no core has leased of the memory for requests."

    gauge IN_FLIGHT "ottla_requests_in_flight" "Requests being handled."
    counter REQUEST_BYTES "ottla_request_bytes_total" "Bytes of request bodies."
    counter RESPONSE_BYTES "ottla_response_bytes_total" "Bytes of responses."
    gauge MEMORY "ottla_request_memory_bytes" "Bytes of requests in memory."
    counter MEMORY_WAITS "ottla_request_memory_waits_total"
        "Times that a connection waited for memory for its request."
    gauge CONNECTIONS "ottla_connections" "Open client connections."
    counter ACCEPTED "ottla_connections_accepted_total" "Connections that came to this core first."
    counter MOVED "ottla_connections_moved_total" "Connections that came from another core."
    counter REFUSED "ottla_connections_refused_total"
        "Connections closed at once because their address had too many."
    gauge HELD_BACK "ottla_connections_held_back"
        "Accepted connections that a limit or a rate keeps waiting, on the core that counts them."
    counter CLOSED "ottla_connections_closed_total" "Connections that ended, by reason."
    gauge OPERATIONS "ottla_purgatory_operations" "Requests that wait in the purgatory."
    gauge SESSIONS "ottla_fetch_sessions" "Fetch sessions whose home this core is."
    gauge PARTITIONS "ottla_partitions" "Partitions that the core owns."
    counter ISR_SHRINKS "ottla_isr_shrinks_total"
        "Times that this core had replicas leave the ISR of a partition."
    counter ISR_EXPANDS "ottla_isr_expands_total"
        "Times that this core had a replica join the ISR of a partition."
    gauge TAIL_CACHE "ottla_tail_cache_bytes" "Bytes of recent records kept in memory."

    gauge MESH_IN_LINE "ottla_mesh_in_line"
        "Requests to another core that found no room in its ring."
    gauge MESH_UNANSWERED "ottla_mesh_unanswered"
        "Requests in the ring to another core, or being handled there."
    gauge MESH_TO_TAKE "ottla_mesh_to_take" "Requests in the ring from another core."
    gauge CONGESTED "ottla_mesh_congested" "1 while no request is begun because of a full ring."

    gauge TASKS "ottla_loop_tasks" "Unfinished tasks of the event loop."
    counter TURNS "ottla_loop_turns_total" "Turns of the event loop."
    counter PARKS "ottla_loop_parks_total" "Times that the event loop slept."
    counter ENTERS "ottla_ring_enters_total" "Calls of io_uring_enter."
    counter COMPLETIONS "ottla_ring_completions_total" "Completions that the ring delivered."
    gauge COMPLETIONS_MAX "ottla_ring_completions_max" "Most completions that one turn found."
    counter BELLS "ottla_ring_bells_total" "Times that the core woke another that slept."
    counter NO_BUFFER "ottla_ring_receives_without_buffer_total"
        "Receives that found no free buffer."
    counter PAUSED "ottla_ring_receives_paused_total"
        "Receives stopped because nobody took what had come."
    counter DEFERRED "ottla_ring_submissions_deferred_total"
        "Times that submissions waited for a full queue."
    counter ACCEPT_ERRORS "ottla_accept_errors_total" "Failed accepts that were retried."

    counter SLOW_POLLS "ottla_stall_slow_polls_total"
        "Polls of tasks that held the core for over 500 microseconds, by queue."
    gauge SLOWEST_POLL "ottla_stall_slow_poll_max_seconds" "The longest of them."
    counter BLOCKED_CALLS "ottla_stall_blocked_calls_total"
        "File calls that held the core for over 500 microseconds, by directory and operation."
    counter BLOCKED_SECONDS "ottla_stall_blocked_seconds_total" "The time that they took."
    gauge BLOCKED_MAX "ottla_stall_blocked_max_seconds" "The longest of them."
    counter SILENCES "ottla_stall_silences_total"
        "Times that the sentinel found the core silent with work to do."
    counter RESCUES "ottla_stall_rescues_total" "Those of them in which the core slept, and was rung."

    counter SEND_CALLS "ottla_send_calls_total" "System calls that sent something, by path."
    counter SEND_BYTES "ottla_send_bytes_total" "Bytes sent to clients, by path."
    counter READ_COLD "ottla_send_read_cold_total"
        "File ranges that weren't cached and were read through the ring."
    counter SPLICE_FULL "ottla_send_splice_full_total" "Splices that found the socket full."
    gauge POOL_MAX "ottla_send_pool_max" "Most pipes, or buffers, of the send paths at a time."
    counter POOL_WAITS "ottla_send_pool_waits_total" "Times that none was free."
    counter POOL_GIVEN_UP "ottla_send_pool_given_up_total"
        "Times that a connection with a full socket gave its own up for another."
}

/// What this core has counted.
pub fn snapshot(shard: &Shard) -> CoreSnapshot {
    let metrics = &shard.metrics;
    CoreSnapshot {
        core: shard.core().0.to_string().into(),
        samples: with_loop(of_shard(shard), shard.rt(), &shard.port),
        stages: metrics.stages.snapshot(|row| metrics.apis[row].name()),
        topics: topics(metrics),
    }
}

/// Adds what every event loop counts.
pub fn with_loop(mut samples: Vec<Sample>, rt: &Rt, port: &MeshPort) -> Vec<Sample> {
    let stats = rt.stats();
    mesh(&mut samples, port);
    event_loop(&mut samples, &stats);
    stalls(&mut samples, rt, &stats);
    sending(&mut samples, &stats);
    samples
}

/// What no single core has.
pub fn of_node(node: &Node) -> Vec<Sample> {
    let mut samples = vec![
        Sample::count(&BUILD, 1).with("version", env!("CARGO_PKG_VERSION")),
        Sample::count(&CORES, u64::from(node.cores)),
    ];
    if let Some(memory) = &node.request_memory {
        samples.push(Sample::count(&MEMORY_LIMIT, memory.limit_bytes()));
        samples.push(Sample::count(&MEMORY_FREE, memory.free_bytes()));
    }
    samples
}

fn of_shard(shard: &Shard) -> Vec<Sample> {
    let metrics = &shard.metrics;
    let load = &shard.node.load;
    let core = shard.core();
    let count = |count: usize| count as u64;
    let mut samples = vec![
        Sample::count(&IN_FLIGHT, metrics.in_flight.get()),
        Sample::count(&REQUEST_BYTES, metrics.request_bytes.get()),
        Sample::count(&RESPONSE_BYTES, metrics.response_bytes.get()),
        Sample::count(&MEMORY, metrics.memory.get()),
        Sample::count(&MEMORY_WAITS, metrics.memory_waits.get()),
        Sample::count(&CONNECTIONS, count(load.connections(core))),
        Sample::count(&ACCEPTED, metrics.accepted.get()),
        Sample::count(&MOVED, load.moved_here(core)),
        Sample::count(&REFUSED, metrics.refused.get()),
        Sample::count(&HELD_BACK, count(shard.limits.held_back())),
        Sample::count(&OPERATIONS, count(shard.operations.len())),
        Sample::count(&SESSIONS, count(shard.sessions.borrow().own_count())),
        Sample::count(&PARTITIONS, count(shard.partitions.borrow().len())),
        Sample::count(&ISR_SHRINKS, metrics.isr_shrinks.get()),
        Sample::count(&ISR_EXPANDS, metrics.isr_expands.get()),
        Sample::count(&TAIL_CACHE, count(shard.tail_pool.bytes())),
    ];
    for (reason, closed) in Closed::REASONS.into_iter().zip(&metrics.closed) {
        samples.push(Sample::count(&CLOSED, closed.get()).with("reason", reason));
    }
    samples
}

fn mesh(samples: &mut Vec<Sample>, port: &MeshPort) {
    samples.push(Sample::count(&CONGESTED, u64::from(port.is_congested())));
    let peer = |core: CoreId| match core.index() + 1 == port.cores() {
        true => "controller".to_owned(),
        false => core.0.to_string(),
    };
    for depths in port.depths() {
        for (metric, depth) in [
            (&MESH_IN_LINE, depths.in_line),
            (&MESH_UNANSWERED, depths.unanswered),
            (&MESH_TO_TAKE, depths.to_take),
        ] {
            samples.push(Sample::count(metric, depth as u64).with("peer", peer(depths.peer)));
        }
    }
}

fn event_loop(samples: &mut Vec<Sample>, stats: &IoStats) {
    let driver = &stats.driver;
    samples.extend([
        Sample::count(&TASKS, stats.tasks),
        Sample::count(&TURNS, driver.turns),
        Sample::count(&PARKS, driver.parks),
        Sample::count(&ENTERS, driver.enters),
        Sample::count(&COMPLETIONS, driver.completions),
        Sample::count(&COMPLETIONS_MAX, driver.completions_max),
        Sample::count(&BELLS, driver.bells_rung),
        Sample::count(&NO_BUFFER, driver.receives_without_buffer),
        Sample::count(&PAUSED, driver.receives_paused),
        Sample::count(&DEFERRED, driver.submissions_deferred),
        Sample::count(&ACCEPT_ERRORS, stats.accept_errors),
    ]);
}

fn stalls(samples: &mut Vec<Sample>, rt: &Rt, stats: &IoStats) {
    for (queue, slow) in Queue::ALL.into_iter().zip(stats.slow_polls) {
        let name = match queue {
            Queue::Request => "request",
            Queue::Replication => "replication",
            Queue::Background => "background",
        };
        samples.push(Sample::count(&SLOW_POLLS, slow.count).with("queue", name));
        samples.push(Sample::seconds(&SLOWEST_POLL, slow.longest).with("queue", name));
    }
    for calls in rt.blocked_calls() {
        let of = |sample: Sample| {
            sample
                .with("directory", calls.directory.clone())
                .with("operation", calls.operation.as_str())
        };
        samples.push(of(Sample::count(&BLOCKED_CALLS, calls.count)));
        samples.push(of(Sample::seconds(&BLOCKED_SECONDS, calls.total)));
        samples.push(of(Sample::seconds(&BLOCKED_MAX, calls.longest)));
    }
    samples.push(Sample::count(&SILENCES, stats.silences));
    samples.push(Sample::count(&RESCUES, stats.rescues));
}

fn sending(samples: &mut Vec<Sample>, stats: &IoStats) {
    let send = &stats.send;
    let paths = [
        ("memory", &send.memory),
        ("read", &send.read),
        ("sendfile", &send.sendfile),
        ("splice", &send.splice),
    ];
    for (name, PathStats { calls, bytes }) in paths {
        samples.push(Sample::count(&SEND_CALLS, *calls).with("path", name));
        samples.push(Sample::count(&SEND_BYTES, *bytes).with("path", name));
    }
    samples.push(Sample::count(&READ_COLD, send.read_cold));
    samples.push(Sample::count(&SPLICE_FULL, send.splice_full));
    for (name, pool) in [("pipes", &send.pipes), ("buffers", &send.buffers)] {
        let PoolStats {
            count_max,
            waits,
            given_up,
            ..
        } = pool;
        samples.push(Sample::count(&POOL_MAX, *count_max).with("pool", name));
        samples.push(Sample::count(&POOL_WAITS, *waits).with("pool", name));
        samples.push(Sample::count(&POOL_GIVEN_UP, *given_up).with("pool", name));
    }
}

fn topics(metrics: &Metrics) -> Vec<TopicSnapshot> {
    let told = |name: &Arc<str>, totals: &TopicTotals| TopicSnapshot {
        topic: name.clone(),
        batches: totals.batches.snapshot(),
        bytes_out: totals.bytes_out.get(),
    };
    let topics = metrics.topics.borrow();
    let mut all: Vec<TopicSnapshot> = topics
        .iter()
        .filter_map(|(name, totals)| Some(told(name, &*Weak::upgrade(totals)?)))
        .collect();
    let other = told(&Arc::from(OTHER), &metrics.other_topics);
    if other.batches.count() > 0 || other.bytes_out > 0 {
        all.push(other);
    }
    all
}
