import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.internals.PluginMetricsImpl;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.metadata.authorizer.StandardAcl;
import org.apache.kafka.metadata.authorizer.StandardAuthorizer;
import org.apache.kafka.server.authorizer.Action;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.authorizer.AuthorizationResult;

/**
 * Decides by Apache Kafka's own StandardAuthorizer what tests/acl_matrix.rs asks. Run as a
 * single source file; reads one command a line, its fields apart by tabs:
 *
 *   authorizer SUPER_USERS ALLOW_EVERYONE_IF_NO_ACL_FOUND          begins anew, without ACLs
 *   acl RESOURCE_TYPE PATTERN_TYPE NAME PRINCIPAL HOST OPERATION PERMISSION
 *   may PRINCIPAL_NAME HOST OPERATION RESOURCE_TYPE NAME           prints A or D
 *   some PRINCIPAL_NAME HOST OPERATION RESOURCE_TYPE               prints A or D
 *
 * Types, operations and permissions are the numbers of the protocol.
 */
public class AclOracle {
    private static StandardAuthorizer authorizer;

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        // Names of hosts are never looked up: all are addresses.
        Map<String, InetAddress> hosts = new HashMap<>();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] field = line.split("\t", -1);
            switch (field[0]) {
                case "authorizer" -> {
                    authorizer = new StandardAuthorizer();
                    authorizer.withPluginMetrics(new PluginMetricsImpl(new Metrics(), Map.of()));
                    authorizer.configure(Map.of(
                        "node.id", "1",
                        "super.users", field[1],
                        "allow.everyone.if.no.acl.found", field[2]));
                    authorizer.completeInitialLoad();
                }
                case "acl" -> authorizer.addAcl(Uuid.randomUuid(), new StandardAcl(
                    ResourceType.fromCode(Byte.parseByte(field[1])),
                    field[3],
                    PatternType.fromCode(Byte.parseByte(field[2])),
                    field[4],
                    field[5],
                    AclOperation.fromCode(Byte.parseByte(field[6])),
                    AclPermissionType.fromCode(Byte.parseByte(field[7]))));
                case "may" -> {
                    Action action = new Action(
                        AclOperation.fromCode(Byte.parseByte(field[3])),
                        new ResourcePattern(
                            ResourceType.fromCode(Byte.parseByte(field[4])), field[5], PatternType.LITERAL),
                        1, false, false);
                    InetAddress host = hosts.computeIfAbsent(field[2], AclOracle::address);
                    print(out, authorizer.authorize(new Context(field[1], host), List.of(action)).get(0));
                }
                case "some" -> {
                    InetAddress host = hosts.computeIfAbsent(field[2], AclOracle::address);
                    print(out, authorizer.authorizeByResourceType(
                        new Context(field[1], host),
                        AclOperation.fromCode(Byte.parseByte(field[3])),
                        ResourceType.fromCode(Byte.parseByte(field[4]))));
                }
                default -> throw new IllegalArgumentException(line);
            }
        }
        out.flush();
    }

    private static void print(PrintStream out, AuthorizationResult result) {
        out.print(result == AuthorizationResult.ALLOWED ? "A\n" : "D\n");
    }

    private static InetAddress address(String host) {
        try {
            return InetAddress.getByName(host);
        } catch (Exception e) {
            throw new IllegalArgumentException(host, e);
        }
    }

    /** A user's request from an address. */
    private record Context(String name, InetAddress address) implements AuthorizableRequestContext {
        @Override
        public String listenerName() {
            return "PLAINTEXT";
        }

        @Override
        public SecurityProtocol securityProtocol() {
            return SecurityProtocol.PLAINTEXT;
        }

        @Override
        public KafkaPrincipal principal() {
            return new KafkaPrincipal(KafkaPrincipal.USER_TYPE, name);
        }

        @Override
        public InetAddress clientAddress() {
            return address;
        }

        @Override
        public int requestType() {
            return 0;
        }

        @Override
        public int requestVersion() {
            return 0;
        }

        @Override
        public String clientId() {
            return "oracle";
        }

        @Override
        public int correlationId() {
            return 0;
        }
    }
}
