import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Kafka's command line tools one after another in one virtual machine, since
 * starting a machine costs more than most tools do. Called by tests/e2e/lib/tools.py over its standard
 * input and output.
 *
 * One line asks for one run: "timeoutMs class stdin arg...", every field but the first in base64, an empty one "-".
 * One line answers: "status stdout stderr". A run that overstays its time is answered with status 124 and
 * the stacks of all threads in stderr, and the machine ends, for the stuck threads can't be taken back.
 */
public final class ToolRunner {
    private static final int TIMED_OUT = 124;

    /** What a tool's call of Exit.exit turns into here, so that the machine survives it. */
    private static final class Exited extends Error {
        Exited() {
            super(null, null, false, false);
        }
    }

    private final AtomicReference<Integer> firstStatus = new AtomicReference<>();
    private final List<Runnable> exitHooks = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        String line;
        while ((line = requests.readLine()) != null) {
            String[] fields = line.split(" ");
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            byte[][] decoded = new byte[fields.length][];
            for (int i = 1; i < fields.length; i++)
                decoded[i] = fields[i].equals("-") ? new byte[0] : Base64.getDecoder().decode(fields[i]);
            String[] toolArgs = new String[fields.length - 3];
            for (int i = 0; i < toolArgs.length; i++)
                toolArgs[i] = new String(decoded[i + 3], StandardCharsets.UTF_8);
            int status = new ToolRunner().run(Long.parseLong(fields[0]),
                new String(decoded[1], StandardCharsets.UTF_8), decoded[2], toolArgs, out, err);
            answers.println(status + " " + encode(out) + " " + encode(err));
            answers.flush();
            if (status == TIMED_OUT)
                Runtime.getRuntime().halt(TIMED_OUT);
        }
    }

    private static String encode(ByteArrayOutputStream bytes) {
        return bytes.size() == 0 ? "-" : Base64.getEncoder().encodeToString(bytes.toByteArray());
    }

    private int run(long timeoutMs, String className, byte[] stdin, String[] args,
                    ByteArrayOutputStream out, ByteArrayOutputStream err) throws Exception {
        InputStream oldIn = System.in;
        PrintStream oldOut = System.out;
        PrintStream oldErr = System.err;
        PrintStream newErr = new PrintStream(err, true, StandardCharsets.UTF_8);
        System.setIn(new ByteArrayInputStream(stdin));
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(newErr);
        Exit.Procedure exit = (status, message) -> {
            if (message != null)
                System.err.println(message);
            firstStatus.compareAndSet(null, status);
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, hook) -> {
            synchronized (exitHooks) {
                exitHooks.add(hook);
            }
        });
        try {
            Thread thread = new Thread(() -> invoke(className, args), "tool");
            thread.setDaemon(true);
            thread.start();
            thread.join(timeoutMs);
            if (thread.isAlive()) {
                Thread.getAllStackTraces().forEach((t, stack) -> {
                    newErr.println(t);
                    Arrays.stream(stack).forEach(frame -> newErr.println("    at " + frame));
                });
                return TIMED_OUT;
            }
            Integer status = firstStatus.get();
            return status == null ? 0 : status;
        } finally {
            System.out.flush();
            System.setIn(oldIn);
            System.setOut(oldOut);
            System.setErr(oldErr);
        }
    }

    private void invoke(String className, String[] args) {
        try {
            Class<?> tool = Class.forName(className);
            resetCounters(tool);
            Method main = tool.getMethod("main", String[].class);
            main.invoke(null, (Object) args);
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) {
                e.getCause().printStackTrace();
                firstStatus.compareAndSet(null, 1);
            }
        } catch (ReflectiveOperationException e) {
            e.printStackTrace();
            firstStatus.compareAndSet(null, 1);
        } finally {
            runExitHooks();
        }
    }

    /** A virtual machine's end would run these; some tools print or close in them. */
    private void runExitHooks() {
        List<Runnable> hooks;
        synchronized (exitHooks) {
            hooks = new ArrayList<>(exitHooks);
        }
        for (Runnable hook : hooks) {
            try {
                hook.run();
            } catch (Exited ignored) {
                // A hook may itself ask for the end; the first status stands.
            }
        }
    }

    /** The console consumer counts messages in a static field, which a second run must not inherit. */
    private static void resetCounters(Class<?> tool) throws ReflectiveOperationException {
        for (Field field : tool.getDeclaredFields()) {
            boolean counter = field.getType() == int.class && Modifier.isStatic(field.getModifiers())
                && !Modifier.isFinal(field.getModifiers());
            if (counter) {
                field.setAccessible(true);
                field.setInt(null, 0);
            }
        }
    }
}
