import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ScheduledFuture;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.FileRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.requests.ListOffsetsRequest;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.common.RequestLocal;
import org.apache.kafka.server.common.TransactionVersion;
import org.apache.kafka.server.storage.log.FetchIsolation;
import org.apache.kafka.server.util.Scheduler;
import org.apache.kafka.storage.internals.log.AbortedTxn;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.FetchDataInfo;
import org.apache.kafka.storage.internals.log.LogAppendInfo;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.LogStartOffsetIncrementReason;
import org.apache.kafka.storage.internals.log.ProducerStateEntry;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.internals.log.VerificationGuard;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Does with Apache Kafka's own log what tests/log_kafka.rs does with ours. Run as a single source file; commands come on
 * stdin, one a line, and each is answered by one line after "= " (Kafka logs to stdout, too):
 * <pre>
 * config NOW KEY=VALUE ...         of logs opened from then on
 * open DIR RECOVERY_POINT LOG_START_OFFSET clean|unclean
 * leader EPOCH HEX                 append a client's batch
 * own EPOCH TRANSACTION_VERSION HEX  append a coordinator's batch
 * follower EPOCH HEX
 * epoch EPOCH                      begin an epoch
 * roll | truncate OFFSET | start OFFSET | retain | high-watermark
 * read OFFSET BYTES UPPER MIN_ONE  answered by position and bytes
 * find TIMESTAMP                   -3 for the largest
 * aborted FROM TO
 * state
 * copy DIR                         the files as they are at this moment
 * close
 * </pre>
 */
public class LogOracle {
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false, StandardCharsets.UTF_8);
    private static final HexFormat HEX = HexFormat.of();

    private static long now;
    private static final Map<String, String> CONFIG = new HashMap<>();
    private static UnifiedLog log;

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                answer = execute(line.split(" "));
            } catch (Throwable e) {
                answer = "error " + Errors.forException(e).code();
                if (System.getenv("ORACLE_EXPLAINS") != null)
                    e.printStackTrace();
            }
            OUT.println("= " + answer);
        }
        OUT.flush();
    }

    private static String execute(String[] words) throws Exception {
        switch (words[0]) {
            case "config" -> {
                now = Long.parseLong(words[1]);
                CONFIG.clear();
                for (int i = 2; i < words.length; i++) {
                    String[] pair = words[i].split("=");
                    CONFIG.put(pair[0], pair[1]);
                }
            }
            case "open" -> log = open(Path.of(words[1]), Long.parseLong(words[2]), Long.parseLong(words[3]), words[4].equals("clean"));
            case "leader" -> {
                return append(log.appendAsLeader(records(words[2]), Integer.parseInt(words[1]), AppendOrigin.CLIENT,
                    new RequestLocal(BufferSupplier.NO_CACHING), VerificationGuard.SENTINEL, TransactionVersion.TV_UNKNOWN));
            }
            case "own" -> {
                return append(log.appendAsLeader(records(words[3]), Integer.parseInt(words[1]), AppendOrigin.COORDINATOR,
                    new RequestLocal(BufferSupplier.NO_CACHING), VerificationGuard.SENTINEL, Short.parseShort(words[2])));
            }
            case "follower" -> {
                log.appendAsFollower(records(words[2]), Integer.parseInt(words[1]));
                return "ok " + log.logEndOffset();
            }
            case "epoch" -> log.assignEpochStartOffset(Integer.parseInt(words[1]), log.logEndOffset());
            case "roll" -> {
                if (log.activeSegment().size() > 0)
                    log.roll();
            }
            case "truncate" -> log.truncateTo(Long.parseLong(words[1]));
            case "start" -> {
                log.updateHighWatermark(log.logEndOffset());
                log.maybeIncrementLogStartOffset(Long.parseLong(words[1]), LogStartOffsetIncrementReason.ClientRecordDeletion);
            }
            case "retain" -> {
                log.updateHighWatermark(log.logEndOffset());
                return "ok " + log.deleteOldSegments() + " " + log.logStartOffset();
            }
            case "high-watermark" -> log.updateHighWatermark(log.logEndOffset());
            case "read" -> {
                return read(Long.parseLong(words[1]), Integer.parseInt(words[2]), Long.parseLong(words[3]), words[4].equals("true"));
            }
            case "find" -> {
                return find(Long.parseLong(words[1]));
            }
            case "aborted" -> {
                List<AbortedTxn> found = log.collectAbortedTransactions(Long.parseLong(words[1]), Long.parseLong(words[2]));
                return "ok" + found.stream().map(txn -> " " + txn.producerId() + ":" + txn.firstOffset() + ":" + txn.lastOffset()
                    + ":" + txn.lastStableOffset()).collect(Collectors.joining());
            }
            case "state" -> {
                return state();
            }
            case "copy" -> copy(log.dir().toPath(), Path.of(words[1]));
            case "close" -> log.close();
            default -> throw new IllegalArgumentException(words[0]);
        }
        return "ok";
    }

    private static UnifiedLog open(Path dir, long recoveryPoint, long logStartOffset, boolean clean) throws Exception {
        return UnifiedLog.create(dir.toFile(), new LogConfig(CONFIG), logStartOffset, recoveryPoint, new Immediately(),
            new BrokerTopicStats(), new FixedTime(), 900_000, new ProducerStateManagerConfig(86_400_000, false), 600_000,
            new LogDirFailureChannel(1), clean, Optional.of(new Uuid(0x0707070707070707L, 0x0707070707070707L)));
    }

    private static MemoryRecords records(String hex) {
        return MemoryRecords.readableRecords(ByteBuffer.wrap(HEX.parseHex(hex)));
    }

    private static String append(LogAppendInfo info) {
        return "ok " + info.firstOffset() + " " + info.lastOffset() + " " + info.logAppendTime();
    }

    /** Only upper bounds that are the log's end: others are high watermarks, which Kafka knows with their position. */
    private static String read(long offset, int bytes, long upper, boolean minOne) throws Exception {
        if (upper != log.logEndOffset())
            log.updateHighWatermark(upper);
        FetchDataInfo info = log.read(offset, bytes, upper == log.logEndOffset() ? FetchIsolation.LOG_END : FetchIsolation.HIGH_WATERMARK, minOne);
        log.updateHighWatermark(log.logEndOffset());
        ByteBuffer read;
        if (info.records instanceof FileRecords file) {
            read = ByteBuffer.allocate(file.sizeInBytes());
            file.readInto(read, 0);
        } else {
            read = ((MemoryRecords) info.records).buffer();
        }
        byte[] contents = new byte[read.remaining()];
        read.get(contents);
        if (info.firstEntryIncomplete)
            contents = new byte[0];
        return "ok " + info.fetchOffsetMetadata.segmentBaseOffset + " " + info.fetchOffsetMetadata.relativePositionInSegment + " " + HEX.formatHex(contents);
    }

    private static String find(long timestamp) {
        long target = timestamp == -3 ? ListOffsetsRequest.MAX_TIMESTAMP : timestamp;
        return log.fetchOffsetByTimestamp(target, Optional.empty()).timestampAndOffsetOpt()
            .map(found -> "ok " + found.timestamp + " " + found.offset + " " + found.leaderEpoch.orElse(-1))
            .orElse("ok none");
    }

    private static String state() throws Exception {
        String epochs = log.leaderEpochCache().epochEntries().stream().map(e -> e.epoch() + "@" + e.startOffset()).collect(Collectors.joining(","));
        Map<Long, ProducerStateEntry> sorted = new TreeMap<>(log.producerStateManager().activeProducers());
        String producers = sorted.values().stream().map(entry -> entry.producerId() + "/" + entry.producerEpoch() + "/" + entry.coordinatorEpoch()
            + "/" + entry.lastTimestamp() + "/" + entry.currentTxnFirstOffset().orElse(-1) + entry.batchMetadata().stream()
                .skip(Math.max(0, entry.batchMetadata().size() - 1)).map(b -> "/" + b.firstSeq() + "-" + b.lastSeq() + "@" + b.firstOffset() + "-" + b.lastOffset()).collect(Collectors.joining()))
            .collect(Collectors.joining(","));
        String unstable = log.producerStateManager().firstUnstableOffset().map(o -> String.valueOf(o.messageOffset)).orElse("none");
        return "ok start " + log.logStartOffset() + " end " + log.logEndOffset() + " size " + log.size() + " segments " + log.numberOfSegments()
            + " epochs " + epochs + " unstable " + unstable + " producers " + producers;
    }

    private static void copy(Path from, Path to) throws Exception {
        Files.createDirectories(to);
        try (Stream<Path> files = Files.list(from)) {
            for (Path file : files.toList())
                Files.copy(file, to.resolve(file.getFileName()));
        }
    }

    private static final class FixedTime implements Time {
        @Override
        public long milliseconds() {
            return now;
        }

        @Override
        public long nanoseconds() {
            return now * 1_000_000;
        }

        @Override
        public void sleep(long ms) {
        }

        @Override
        public void waitObject(Object object, Supplier<Boolean> condition, long deadline) {
            throw new UnsupportedOperationException();
        }
    }

    /** Runs what is to be done once where it is asked for, whatever the delay. */
    private static final class Immediately implements Scheduler {
        @Override
        public void startup() {
        }

        @Override
        public void shutdown() {
        }

        @Override
        public ScheduledFuture<?> schedule(String name, Runnable task, long delayMs, long periodMs) {
            if (periodMs <= 0)
                task.run();
            return (ScheduledFuture<?>) Proxy.newProxyInstance(LogOracle.class.getClassLoader(), new Class<?>[] {ScheduledFuture.class},
                (proxy, method, args) -> method.getReturnType() == boolean.class ? true : null);
        }

        @Override
        public void resizeThreadPool(int newSize) {
        }
    }
}
