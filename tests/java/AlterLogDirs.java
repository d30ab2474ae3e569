import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.TopicPartitionReplica;

/**
 * Moves a replica of broker 1 by Kafka's own client and waits until it is there:
 * AlterLogDirs bootstrap topic partition directory. Prints the directory; ends with 1 and the
 * error's class where the broker refuses.
 */
public class AlterLogDirs {
    public static void main(String[] args) throws Exception {
        TopicPartitionReplica replica = new TopicPartitionReplica(args[1], Integer.parseInt(args[2]), 1);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            try {
                admin.alterReplicaLogDirs(Map.of(replica, args[3])).all().get(30, TimeUnit.SECONDS);
            } catch (java.util.concurrent.ExecutionException refused) {
                System.out.println(refused.getCause().getClass().getSimpleName());
                System.exit(1);
            }
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (System.nanoTime() < deadline) {
                var info = admin.describeReplicaLogDirs(Set.of(replica)).all().get(30, TimeUnit.SECONDS).get(replica);
                if (args[3].equals(info.getCurrentReplicaLogDir()) && info.getFutureReplicaLogDir() == null) {
                    System.out.println(info.getCurrentReplicaLogDir());
                    return;
                }
                TimeUnit.MILLISECONDS.sleep(20);
            }
            System.out.println("late");
            System.exit(1);
        }
    }
}
