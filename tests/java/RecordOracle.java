import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.function.Supplier;
import java.util.stream.Stream;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.KRaftVersionRecord;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.message.SnapshotFooterRecord;
import org.apache.kafka.common.message.SnapshotHeaderRecord;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.DefaultRecord;
import org.apache.kafka.common.record.internal.DefaultRecordBatch;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.MutableRecordBatch;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse.RecordError;
import org.apache.kafka.common.utils.ByteBufferOutputStream;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.Crc32C;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.common.RequestLocal;
import org.apache.kafka.server.common.TransactionVersion;
import org.apache.kafka.server.util.KafkaScheduler;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogAppendInfo;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.RecordValidationException;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.internals.log.VerificationGuard;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Answers with Apache Kafka's own code what a batch is and what a leader makes of it. Run by
 * tests/record_kafka.rs as a single source file, in one of three modes:
 *
 * write     Prints batches written by Kafka, each as "hex BYTES" and a description of what Kafka reads in it.
 * read      Each line of standard input is a batch in hex; prints its description.
 * validate  Each line is a case for a leader's log (fields in {@link #validate}); prints Kafka's answer.
 *
 * Every answer ends with an empty line.
 */
public final class RecordOracle {
    private static final HexFormat HEX = HexFormat.of();
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);
    private static final long TIME = 1_700_000_000_000L;

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "write" -> write();
            case "read" -> forEachLine(line -> describe(ByteBuffer.wrap(HEX.parseHex(line))));
            case "validate" -> {
                KafkaScheduler scheduler = new KafkaScheduler(1);
                scheduler.startup();
                forEachLine(line -> validate(line, scheduler));
                scheduler.shutdown();
            }
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        OUT.flush();
    }

    private interface Answer {
        void to(String line) throws Exception;
    }

    private static void forEachLine(Answer answer) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            answer.to(line);
            OUT.println();
        }
    }

    // ---- describing

    private static void describe(ByteBuffer buffer) {
        for (MutableRecordBatch mutable : MemoryRecords.readableRecords(buffer).batches()) {
            DefaultRecordBatch batch = (DefaultRecordBatch) mutable;
            batch.ensureValid();
            OptionalLong horizon = batch.deleteHorizonMs();
            OUT.println("batch size=" + batch.sizeInBytes() + " base=" + batch.baseOffset() + " last=" + batch.lastOffset()
                + " next=" + batch.nextOffset() + " epoch=" + batch.partitionLeaderEpoch() + " crc=" + batch.checksum()
                + " codec=" + batch.compressionType().name + " timestamps=" + batch.timestampType().id
                + " transactional=" + batch.isTransactional() + " control=" + batch.isControlBatch()
                + " horizon=" + (horizon.isPresent() ? horizon.getAsLong() : "none")
                + " baseTimestamp=" + batch.baseTimestamp() + " maxTimestamp=" + batch.maxTimestamp()
                + " producer=" + batch.producerId() + "/" + batch.producerEpoch()
                + " sequence=" + batch.baseSequence() + ".." + batch.lastSequence() + " count=" + batch.countOrNull());
            OUT.println("first of max timestamp=" + batch.offsetOfMaxTimestamp().map(Object::toString).orElse("none"));
            for (Record record : batch) {
                StringBuilder headers = new StringBuilder();
                for (Header header : record.headers()) {
                    headers.append(' ').append(bytes(header.key().getBytes(StandardCharsets.UTF_8)))
                        .append('=').append(bytes(header.value()));
                }
                OUT.println("record offset=" + record.offset() + " timestamp=" + record.timestamp()
                    + " sequence=" + record.sequence() + " attributes=" + ((DefaultRecord) record).attributes()
                    + " key=" + bytes(record.key()) + " value=" + bytes(record.value()) + " headers:" + headers);
            }
        }
    }

    private static String bytes(ByteBuffer buffer) {
        if (buffer == null)
            return "null";
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes(bytes);
    }

    private static String bytes(byte[] bytes) {
        if (bytes == null)
            return "null";
        if (bytes.length <= 16)
            return "'" + HEX.formatHex(bytes) + "'";
        return bytes.length + "*" + Long.toHexString(Crc32C.compute(bytes, 0, bytes.length));
    }

    // ---- writing

    private static List<Compression> codecs() {
        return List.of(
            Compression.NONE,
            Compression.gzip().build(), Compression.gzip().level(1).build(), Compression.gzip().level(9).build(),
            Compression.snappy().build(),
            Compression.lz4().build(), Compression.lz4().level(1).build(), Compression.lz4().level(17).build(),
            Compression.zstd().build(), Compression.zstd().level(-5).build(), Compression.zstd().level(19).build());
    }

    private record Producer(long id, short epoch, int sequence, boolean transactional) {
        static final Producer NONE = new Producer(-1, (short) -1, -1, false);
    }

    private static MemoryRecordsBuilder builder(Compression compression, TimestampType type, long baseOffset,
                                                Producer producer, boolean control, int epoch, long deleteHorizon) {
        return new MemoryRecordsBuilder(new ByteBufferOutputStream(1 << 20), RecordBatch.CURRENT_MAGIC_VALUE, compression,
            type, baseOffset, TIME + 99, producer.id, producer.epoch, producer.sequence, producer.transactional, control,
            epoch, 1 << 20, deleteHorizon);
    }

    private static void print(String name, MemoryRecords records) {
        ByteBuffer buffer = records.buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        OUT.println("# " + name);
        OUT.println("hex " + HEX.formatHex(bytes));
        describe(buffer.duplicate());
        OUT.println();
    }

    private static byte[] pattern(int size, int seed) {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++)
            bytes[i] = (byte) ((i / 64 + seed) % 50);
        return bytes;
    }

    private static byte[] noise(int size) {
        byte[] bytes = new byte[size];
        new java.util.Random(7).nextBytes(bytes);
        return bytes;
    }

    private static void write() {
        byte[] key = "key".getBytes(StandardCharsets.UTF_8);
        Header[] headers = {
            new RecordHeader("h", "v".getBytes(StandardCharsets.UTF_8)), new RecordHeader("", new byte[0]),
            new RecordHeader("null", (byte[]) null), new RecordHeader("\u00e9\u4e16", pattern(40, 1))};
        int number = 0;
        for (Compression codec : codecs()) {
            String name = codec.type().name + " " + number++ + " ";
            for (TimestampType type : List.of(TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME)) {
                MemoryRecordsBuilder shapes = builder(codec, type, 5, Producer.NONE, false, 3, RecordBatch.NO_TIMESTAMP);
                shapes.append(TIME, key, "value".getBytes(StandardCharsets.UTF_8), headers);
                shapes.append(TIME + 1000, (byte[]) null, "no key".getBytes(StandardCharsets.UTF_8));
                shapes.append(TIME - 1000, key, (byte[]) null);
                shapes.append(TIME + 1000, new byte[0], new byte[0]);
                shapes.append(RecordBatch.NO_TIMESTAMP, (byte[]) null, (byte[]) null);
                print(name + type.name + " all shapes of records", shapes.build());
            }
            MemoryRecordsBuilder one = builder(codec, TimestampType.CREATE_TIME, 0, Producer.NONE, false, -1, RecordBatch.NO_TIMESTAMP);
            one.append(RecordBatch.NO_TIMESTAMP, (byte[]) null, (byte[]) null);
            print(name + "one empty record", one.build());

            MemoryRecordsBuilder idempotent = builder(codec, TimestampType.CREATE_TIME, Long.MAX_VALUE - 100,
                new Producer(Long.MAX_VALUE, Short.MAX_VALUE, Integer.MAX_VALUE - 1, true), false, Integer.MAX_VALUE,
                RecordBatch.NO_TIMESTAMP);
            for (int i = 0; i < 4; i++)
                idempotent.append(Long.MAX_VALUE - i, key, pattern(i * 10, i));
            print(name + "transactional, sequences wrap, greatest numbers", idempotent.build());

            MemoryRecordsBuilder compacted = builder(codec, TimestampType.CREATE_TIME, 100,
                new Producer(9, (short) 2, 7, false), false, 1, TIME + 86_400_000L);
            compacted.appendWithOffset(103, TIME, key, (byte[]) null);
            compacted.appendWithOffset(140, TIME + 3, key, key);
            compacted.overrideLastOffset(200);
            print(name + "compacted, gaps, delete horizon", compacted.build());

            MemoryRecordsBuilder large = builder(codec, TimestampType.CREATE_TIME, 0, Producer.NONE, false, 0, RecordBatch.NO_TIMESTAMP);
            large.append(TIME, pattern(300, 1), pattern(codec.type().id == 0 ? 3_000 : 200_000, 2), headers);
            large.append(TIME, pattern(70, 3), noise(900));
            large.append(TIME, codec.type().id == 0 ? key : pattern(70_000, 4), (byte[]) null);
            print(name + "large records", large.build());

            MemoryRecordsBuilder many = builder(codec, TimestampType.CREATE_TIME, 0, Producer.NONE, false, 0, RecordBatch.NO_TIMESTAMP);
            for (int i = 0; i < 80; i++)
                many.append(TIME + i % 7, (byte[]) null, pattern(i % 20, i));
            print(name + "many records", many.build());
        }
        control();
    }

    private static void control() {
        for (ControlRecordType type : List.of(ControlRecordType.ABORT, ControlRecordType.COMMIT)) {
            MemoryRecordsBuilder marker = builder(Compression.NONE, TimestampType.CREATE_TIME, 7,
                new Producer(1, (short) 1, -1, true), true, 0, RecordBatch.NO_TIMESTAMP);
            marker.appendEndTxnMarker(TIME, new EndTransactionMarker(type, 77));
            print("marker " + type, marker.build());
        }
        MemoryRecordsBuilder raft = builder(Compression.NONE, TimestampType.CREATE_TIME, 0, Producer.NONE, true, 1, RecordBatch.NO_TIMESTAMP);
        raft.appendLeaderChangeMessage(TIME, new LeaderChangeMessage().setLeaderId(1)
            .setVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1))));
        raft.appendSnapshotHeaderMessage(TIME, new SnapshotHeaderRecord().setLastContainedLogTimestamp(TIME));
        raft.appendKRaftVersionMessage(TIME, new KRaftVersionRecord().setKRaftVersion((short) 1));
        raft.appendSnapshotFooterMessage(TIME, new SnapshotFooterRecord());
        print("control records of raft", raft.build());

        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, RecordBatch.CURRENT_MAGIC_VALUE, 9, (short) 1, 4, 50, 59, 6,
            TimestampType.CREATE_TIME, TIME, false, false);
        empty.flip();
        print("emptied by compaction", MemoryRecords.readableRecords(empty));
    }

    // ---- validating

    private static final class FixedTime implements Time {
        private final long now;

        FixedTime(long now) {
            this.now = now;
        }

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

    /**
     * One case: origin, produce version, now, max message bytes, compression type, its level, timestamp type, before max,
     * after max, cleanup policy, batch in hex; separated by spaces. The answer: "ok FIRST LAST MAX_TIMESTAMP APPEND_TIME"
     * and the batch's bytes as they lie in the log and their description, or "error CODE", "message TEXT" if one is sent,
     * and "record INDEX TEXT" for each record error.
     */
    private static void validate(String line, KafkaScheduler scheduler) throws Exception {
        String[] fields = line.split(" ", -1);
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(HEX.parseHex(fields[10])));
        Path root = Files.createTempDirectory("record-oracle");
        try {
            if (fields[0].equals("client"))
                ProduceRequest.validateRecords(Short.parseShort(fields[1]), records);
            append(fields, records, root, scheduler);
        } catch (RecordValidationException e) {
            OUT.println("error " + Errors.forException(e.invalidException()).code());
            OUT.println("message " + e.invalidException().getMessage());
            for (RecordError error : e.recordErrors())
                OUT.println("record " + error.batchIndex + " " + error.message);
        } catch (Throwable e) {
            OUT.println("error " + Errors.forException(e).code());
            if (System.getenv("ORACLE_EXPLAINS") != null)
                OUT.println("because " + e);
        } finally {
            try (Stream<Path> paths = Files.walk(root)) {
                for (Path path : paths.sorted(Comparator.reverseOrder()).toList())
                    Files.delete(path);
            }
        }
    }

    private static void append(String[] fields, MemoryRecords records, Path root, KafkaScheduler scheduler) throws Exception {
        Map<String, String> config = new HashMap<>();
        config.put("max.message.bytes", fields[3]);
        config.put("compression.type", fields[4]);
        if (!fields[5].equals("-"))
            config.put("compression." + fields[4] + ".level", fields[5]);
        config.put("message.timestamp.type", fields[6]);
        config.put("message.timestamp.before.max.ms", fields[7]);
        config.put("message.timestamp.after.max.ms", fields[8]);
        config.put("cleanup.policy", fields[9]);
        config.put("segment.index.bytes", "4096");
        try (UnifiedLog log = UnifiedLog.create(root.resolve("topic-0").toFile(), new LogConfig(config), 0, 0, scheduler,
                new BrokerTopicStats(), new FixedTime(Long.parseLong(fields[2])), 900_000,
                new ProducerStateManagerConfig(86_400_000, false), 600_000, new LogDirFailureChannel(1), true,
                Optional.of(Uuid.ONE_UUID))) {
            AppendOrigin origin = fields[0].equals("client") ? AppendOrigin.CLIENT : AppendOrigin.COORDINATOR;
            LogAppendInfo info = log.appendAsLeader(records, 3, origin, new RequestLocal(BufferSupplier.NO_CACHING),
                VerificationGuard.SENTINEL, TransactionVersion.TV_UNKNOWN);
            MemoryRecords stored = MemoryRecords.readableRecords(
                ByteBuffer.wrap(Files.readAllBytes(root.resolve("topic-0/00000000000000000000.log"))));
            OUT.println("ok " + info.firstOffset() + " " + info.lastOffset() + " " + info.maxTimestamp() + " " + info.logAppendTime());
            ByteBuffer buffer = stored.buffer();
            OUT.println("hex " + HEX.formatHex(Arrays.copyOf(buffer.array(), buffer.limit())));
            describe(buffer);
        }
    }
}
