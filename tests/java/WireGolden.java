import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.zip.ZipFile;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.Readable;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Prints what Apache Kafka's own codecs write: for every message class of the jars on the class path and
 * every version, some deterministic instances. Run by scripts/golden-bytes; tests/wire_golden.rs reads it.
 *
 * One line per instance: "name version kind hex [json]". Kinds: default (a new object), full (every field
 * of the version set, no nulls, every array non-empty), mixed (nulls, then empty arrays and defaults thrown in).
 * The JSON is that of Kafka's converter and is given for what is stored as a record.
 *
 * Which fields a version has, and which may be null, is asked of the SCHEMA_n constants that each
 * generated class carries; values are put into the fields by reflection.
 */
public final class WireGolden {
    private static final String[] WORDS =
        {"", "a", "topic-1", "Zürich", "漢字", "😀", "x.y_z-0", "consumer", "0123456789abcdef"};
    private static final long[] NUMBERS = {0, 1, -1, 2, 127, -128, 255, 32767, -32768, 65535,
        Integer.MAX_VALUE, Integer.MIN_VALUE, Long.MAX_VALUE, Long.MIN_VALUE};

    /** Mixed instances of each version. */
    private static final int MIXED = 10;

    /** Which of the fields that may be null are. */
    private enum Nulls { NONE, LEAVES, ARRAYS, STRUCTS, SOME }

    /** Fields that may be null, and those that were, so that none is forgotten. */
    private static final Set<String> NULLABLE = new TreeSet<>();
    private static final Set<String> NULLED = new TreeSet<>();

    private final Random random;
    /** Whether every tagged field is set and every collection has elements. */
    private final boolean full;
    private final Nulls nulls;

    private WireGolden(Random random, boolean full, Nulls nulls) {
        this.random = random;
        this.full = full;
        this.nulls = nulls;
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (Map.Entry<String, Class<?>> entry : messageClasses().entrySet())
            printMessage(out, entry.getKey(), entry.getValue());
        out.flush();
        NULLABLE.removeAll(NULLED);
        if (!NULLABLE.isEmpty())
            throw new IllegalStateException("never null: " + NULLABLE);
    }

    /** Every class that has a generated JSON converter beside it, by schema name. */
    private static Map<String, Class<?>> messageClasses() throws Exception {
        Map<String, Class<?>> found = new TreeMap<>();
        for (String jar : System.getProperty("java.class.path").split(":")) {
            if (!Files.isRegularFile(Path.of(jar)) || !jar.contains("kafka"))
                continue;
            try (ZipFile zip = new ZipFile(jar)) {
                for (var entry : zip.stream().toList()) {
                    String name = entry.getName();
                    if (!name.matches("org/apache/kafka/.*/\\w+JsonConverter\\.class"))
                        continue;
                    name = name.substring(0, name.length() - "JsonConverter.class".length()).replace('/', '.');
                    Class<?> type = Class.forName(name);
                    if (Message.class.isAssignableFrom(type))
                        found.put(schemaName(type.getSimpleName()), type);
                }
            }
        }
        return found;
    }

    /** Requests, responses and headers have Data after their schema's name. */
    private static String schemaName(String name) {
        return name.matches(".*(Request|Response|Header)Data") ? name.substring(0, name.length() - 4) : name;
    }

    private static void printMessage(PrintStream out, String name, Class<?> type) throws Exception {
        Message sample = (Message) type.getDeclaredConstructor().newInstance();
        boolean json = !name.matches(".*(Request|Response|Header)");
        for (short version = sample.lowestSupportedVersion(); version <= sample.highestSupportedVersion(); version++) {
            print(out, name, version, "default", sample, json);
            Schema schema = (Schema) type.getDeclaredField("SCHEMA_" + version).get(null);
            int mixed = schema.fields().length == 0 ? 0 : MIXED;
            for (int i = 0; i <= mixed; i++) {
                Random random = new Random((name + version).hashCode() * 31L + i);
                Nulls nulls = Nulls.values()[Math.min(i, Nulls.SOME.ordinal())];
                WireGolden filler = new WireGolden(random, nulls != Nulls.SOME, nulls);
                Message message = (Message) filler.make(type, schema);
                print(out, name, version, i == 0 ? "full" : "mixed", message, json);
            }
        }
    }

    private static void print(PrintStream out, String name, short version, String kind, Message message, boolean json)
        throws Exception {
        ByteBuffer buffer;
        try {
            ObjectSerializationCache cache = new ObjectSerializationCache();
            buffer = ByteBuffer.allocate(message.size(cache, version));
            message.write(new ByteBufferAccessor(buffer), cache, version);
        } catch (RuntimeException e) {
            // A default that the version can't say.
            if (kind.equals("default"))
                return;
            throw new IllegalStateException(name + " version " + version, e);
        }
        if (buffer.hasRemaining())
            throw new IllegalStateException(name + " is shorter than its size");
        buffer.flip();
        Message copy = message.getClass().getDeclaredConstructor(Readable.class, short.class)
            .newInstance(new ByteBufferAccessor(buffer.duplicate()), version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer again = ByteBuffer.allocate(copy.size(cache, version));
        copy.write(new ByteBufferAccessor(again), cache, version);
        if (!again.flip().equals(buffer))
            throw new IllegalStateException(name + " changes when it is read back");
        String line = name + " " + version + " " + kind + " " + HexFormat.of().formatHex(buffer.array());
        out.println(json ? line + " " + toJson(message, version) : line);
    }

    private static Object toJson(Message message, short version) throws Exception {
        Class<?> converter = Class.forName(message.getClass().getName() + "JsonConverter");
        try {
            return converter.getMethod("write", message.getClass(), short.class).invoke(null, message, version);
        } catch (InvocationTargetException e) {
            throw new IllegalStateException(message.getClass().getName() + " version " + version, e.getCause());
        }
    }

    private Object make(Class<?> type, Schema schema) throws Exception {
        Object made = type.getDeclaredConstructor().newInstance();
        for (var bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields tagged) {
                for (var field : tagged.fields().values())
                    if (full || random.nextBoolean())
                        set(made, field.name, field.type);
            } else {
                set(made, bound.def.name, bound.def.type);
            }
        }
        return made;
    }

    private void set(Object object, String snake, org.apache.kafka.common.protocol.types.Type wire) throws Exception {
        Field field = fieldOf(object.getClass(), snake);
        field.setAccessible(true);
        String place = object.getClass().getName() + " " + snake;
        if (wire.isNullable())
            NULLABLE.add(place);
        if (wire.isNullable() && isNull(wire)) {
            NULLED.add(place);
            field.set(object, null);
        } else {
            field.set(object, value(field.getType(), field.getGenericType(), wire));
        }
    }

    private boolean isNull(org.apache.kafka.common.protocol.types.Type wire) {
        boolean struct = wire instanceof Schema;
        return switch (nulls) {
            case NONE -> false;
            case LEAVES -> !wire.isArray() && !struct;
            case ARRAYS -> wire.isArray();
            case STRUCTS -> struct;
            case SOME -> random.nextInt(4) == 0;
        };
    }

    private static Field fieldOf(Class<?> type, String snake) {
        String plain = snake.replace("_", "");
        for (Field field : type.getDeclaredFields())
            if (field.getName().toLowerCase(Locale.ROOT).equals(plain))
                return field;
        throw new IllegalStateException(type + " has no field " + snake);
    }

    private Object value(Class<?> type, Type generic, org.apache.kafka.common.protocol.types.Type wire)
        throws Exception {
        if (Collection.class.isAssignableFrom(type))
            return collection(type, generic, wire);
        if (wire instanceof Schema schema)
            return make(type, schema);
        if (type == boolean.class || type == Boolean.class)
            return random.nextBoolean();
        if (type == byte.class || type == Byte.class)
            return (byte) number();
        if (type == short.class || type == Short.class)
            return (short) number();
        boolean unsigned = wire.toString().startsWith("UINT") || wire.toString().startsWith("UNSIGNED");
        if (type == int.class || type == Integer.class)
            return unsigned ? (int) number() & 0xffff : (int) number();
        if (type == long.class || type == Long.class)
            return unsigned ? number() & 0xffffffffL : number();
        if (type == double.class)
            // Exact in decimal, for JSON parsers that are a bit off.
            return random.nextInt(3) == 0 ? random.nextInt(9) : random.nextInt() / 8.0;
        if (type == String.class)
            return WORDS[(full ? 1 : 0) + random.nextInt(WORDS.length - 1)];
        if (type == Uuid.class)
            return random.nextInt(4) == 0 ? new Uuid(0, random.nextInt(3)) : new Uuid(random.nextLong(), random.nextLong());
        if (type == byte[].class)
            return bytes();
        if (type == ByteBuffer.class)
            return ByteBuffer.wrap(bytes());
        if (BaseRecords.class.isAssignableFrom(type))
            return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes()));
        throw new IllegalStateException("no values for " + type);
    }

    private Object collection(Class<?> type, Type generic, org.apache.kafka.common.protocol.types.Type wire)
        throws Exception {
        Class<?> element;
        Collection<Object> made;
        if (type == List.class) {
            element = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
            made = new ArrayList<>();
        } else {
            element = (Class<?>) ((ParameterizedType) type.getGenericSuperclass()).getActualTypeArguments()[0];
            @SuppressWarnings("unchecked")
            Collection<Object> linked = (Collection<Object>) type.getDeclaredConstructor().newInstance();
            made = linked;
        }
        int size = full ? 1 + random.nextInt(2) : random.nextInt(3);
        for (int i = 0; i < size; i++)
            made.add(value(element, element, wire.arrayElementType().orElseThrow()));
        return made;
    }

    private long number() {
        return random.nextInt(3) == 0 ? random.nextLong() : NUMBERS[random.nextInt(NUMBERS.length)];
    }

    private byte[] bytes() {
        byte[] made = new byte[(full ? 1 : 0) + random.nextInt(24)];
        random.nextBytes(made);
        return made;
    }
}
