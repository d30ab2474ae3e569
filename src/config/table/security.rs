//! TLS, SASL, delegation tokens and authorisation.
//!
//! Names, types, defaults and bounds are those of Apache Kafka 4.3.1.

use super::*;

declare! { SECURITY: Broker;
    "authorizer.class.name", String, V(""), Any, Low, AtStart,
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer goes by ACLs; empty allows everything to everybody.";
    "super.users", String, Null, Any, Low, AtStart,
        "Principals that may do everything, as User:alice;User:bob (the authorizer's own key).";
    "allow.everyone.if.no.acl.found", Boolean, V("false"), Any, Low, AtStart,
        "Whether a resource without any ACL is everybody's (the authorizer's own key).";
    "early.start.listeners", List, Null, UniqueList, High, AtStart,
        "Listeners that may accept before the authorizer is ready.";
    "sasl.mechanism.controller.protocol", String, V("GSSAPI"), Any, High, AtStart,
        "SASL mechanism for talking to controllers.";
    "security.inter.broker.protocol", String, V("PLAINTEXT"), OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), Medium, AtStart,
        "Security protocol between brokers; not together with inter.broker.listener.name.";
    "connections.max.reauth.ms", Long, V("0"), Any, Medium, AtStart,
        "SASL connections must authenticate again within this time; 0 never.";
    "sasl.server.max.receive.size", Int, V("524288"), Any, Medium, AtStart,
        "Largest request before a SASL connection is authenticated.";
    "security.providers", String, Null, Any, Low, AtStart,
        "Java classes that provide security algorithms.";
    "principal.builder.class", Class, V("org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"), Any, Medium, PerBroker,
        "Java class that turns an authenticated peer into a principal.";
    "ssl.client.auth", String, V("none"), OneOf(&["required", "requested", "none"]), Medium, PerBroker,
        "Whether clients must (required), may (requested) or don't (none) show a certificate.";
    "ssl.principal.mapping.rules", String, V("DEFAULT"), Any, Low, AtStart,
        "Rules that turn a certificate's distinguished name into a user name.";
    "ssl.allow.dn.changes", Boolean, V("false"), Any, Low, AtStart,
        "Lets a new certificate have another distinguished name.";
    "ssl.allow.san.changes", Boolean, V("false"), Any, Low, AtStart,
        "Lets a new certificate have other alternative names.";
    "ssl.protocol", String, V("TLSv1.3"), Any, Medium, PerBroker,
        "TLS version to start from.";
    "ssl.provider", String, Null, Any, Medium, PerBroker,
        "Java security provider for TLS.";
    "ssl.enabled.protocols", List, V("TLSv1.2,TLSv1.3"), UniqueList, Medium, PerBroker,
        "TLS versions that are accepted.";
    "ssl.keystore.type", String, V("JKS"), Any, Medium, PerBroker,
        "Format of the key store: PEM, PKCS12 or JKS.";
    "ssl.keystore.location", String, Null, Any, Medium, PerBroker,
        "File with this node's key and certificate chain.";
    "ssl.keystore.password", Password, Null, Any, Medium, PerBroker,
        "Password of the key store file.";
    "ssl.key.password", Password, Null, Any, Medium, PerBroker,
        "Password of the private key.";
    "ssl.keystore.key", Password, Null, Any, Medium, PerBroker,
        "Private key in PEM, given here instead of in a file.";
    "ssl.keystore.certificate.chain", Password, Null, Any, Medium, PerBroker,
        "Certificate chain in PEM, given here instead of in a file.";
    "ssl.truststore.type", String, V("JKS"), Any, Medium, PerBroker,
        "Format of the trust store: PEM, PKCS12 or JKS.";
    "ssl.truststore.location", String, Null, Any, Medium, PerBroker,
        "File with the certificates that are trusted.";
    "ssl.truststore.password", Password, Null, Any, Medium, PerBroker,
        "Password of the trust store file.";
    "ssl.truststore.certificates", Password, Null, Any, Medium, PerBroker,
        "Trusted certificates in PEM, given here instead of in a file.";
    "ssl.keymanager.algorithm", String, V("SunX509"), Any, Medium, PerBroker,
        "Java key manager algorithm.";
    "ssl.trustmanager.algorithm", String, V("PKIX"), Any, Medium, PerBroker,
        "Java trust manager algorithm.";
    "ssl.endpoint.identification.algorithm", String, V("https"), Any, Low, PerBroker,
        "How a peer's name is checked against its certificate; empty doesn't check.";
    "ssl.secure.random.implementation", String, Null, Any, Low, PerBroker,
        "Java random source for TLS.";
    "ssl.cipher.suites", List, V(""), UniqueList, Medium, PerBroker,
        "Cipher suites that are accepted; empty means all that are safe.";
    "ssl.engine.factory.class", Class, Null, Any, Low, PerBroker,
        "Java class that makes TLS engines.";
    "sasl.mechanism.inter.broker.protocol", String, V("GSSAPI"), Any, Medium, PerBroker,
        "SASL mechanism between brokers.";
    "sasl.enabled.mechanisms", List, V("GSSAPI"), UniqueList, Medium, PerBroker,
        "SASL mechanisms that are offered.";
    "sasl.server.callback.handler.class", Class, Null, Any, Medium, AtStart,
        "Java class that checks SASL credentials.";
    "sasl.kerberos.principal.to.local.rules", List, V("DEFAULT"), UniqueList, Medium, PerBroker,
        "Rules that turn a Kerberos principal into a user name.";
    "sasl.jaas.config", Password, Null, Any, Medium, PerBroker,
        "SASL login of a listener, in JAAS syntax.";
    "sasl.client.callback.handler.class", Class, Null, Any, Medium, AtStart,
        "Java class that supplies this node's own SASL credentials.";
    "sasl.login.class", Class, Null, Any, Medium, AtStart,
        "Java class that logs this node in.";
    "sasl.login.callback.handler.class", Class, Null, Any, Medium, AtStart,
        "Java class that supplies what a login needs.";
    "sasl.kerberos.service.name", String, Null, Any, Medium, PerBroker,
        "Kerberos service name of the brokers.";
    "sasl.kerberos.kinit.cmd", String, V("/usr/bin/kinit"), Any, Medium, PerBroker,
        "Path of the kinit program.";
    "sasl.kerberos.ticket.renew.window.factor", Double, V("0.8"), Any, Medium, PerBroker,
        "Share of a Kerberos ticket's life after which it is renewed.";
    "sasl.kerberos.ticket.renew.jitter", Double, V("0.05"), Any, Medium, PerBroker,
        "Random share added to the time of a Kerberos renewal.";
    "sasl.kerberos.min.time.before.relogin", Long, V("60000"), Any, Medium, PerBroker,
        "Least time between two Kerberos logins.";
    "sasl.login.refresh.window.factor", Double, V("0.8"), Any, Medium, PerBroker,
        "Share of a login token's life after which it is refreshed.";
    "sasl.login.refresh.window.jitter", Double, V("0.05"), Any, Medium, PerBroker,
        "Random share added to the time of a token refresh.";
    "sasl.login.refresh.min.period.seconds", Short, V("60"), Any, Medium, PerBroker,
        "Least time before a login token is refreshed.";
    "sasl.login.refresh.buffer.seconds", Short, V("300"), Any, Medium, PerBroker,
        "Time before its expiry by which a login token must be refreshed.";
    "sasl.login.connect.timeout.ms", Int, Null, Any, Low, AtStart,
        "Limit on connecting to a token provider.";
    "sasl.login.read.timeout.ms", Int, Null, Any, Low, AtStart,
        "Limit on reading from a token provider.";
    "sasl.login.retry.backoff.max.ms", Long, V("10000"), Any, Low, AtStart,
        "Longest pause between two attempts at a token provider.";
    "sasl.login.retry.backoff.ms", Long, V("100"), Any, Low, AtStart,
        "First pause between two attempts at a token provider.";
    "sasl.oauthbearer.jwt.retriever.class", Class, V("org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever"), Any, Medium, AtStart,
        "Java class that fetches a token.";
    "sasl.oauthbearer.jwt.validator.class", Class, V("org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator"), Any, Medium, AtStart,
        "Java class that checks a token.";
    "sasl.oauthbearer.scope", String, Null, Any, Medium, AtStart,
        "OAuth scope that is asked for.";
    "sasl.oauthbearer.client.credentials.client.id", String, Null, Any, Medium, AtStart,
        "OAuth client id of this node.";
    "sasl.oauthbearer.client.credentials.client.secret", Password, Null, Any, Medium, AtStart,
        "OAuth client secret of this node.";
    "sasl.oauthbearer.assertion.algorithm", String, V("RS256"), OneOfAnyCase(&["ES256", "RS256"]), Medium, AtStart,
        "Algorithm that signs an OAuth assertion.";
    "sasl.oauthbearer.assertion.claim.aud", String, Null, Any, Medium, AtStart,
        "Audience claim of an OAuth assertion.";
    "sasl.oauthbearer.assertion.claim.exp.seconds", Int, V("300"), Between(0, 86400), Low, AtStart,
        "Life of an OAuth assertion.";
    "sasl.oauthbearer.assertion.claim.iss", String, Null, Any, Medium, AtStart,
        "Issuer claim of an OAuth assertion.";
    "sasl.oauthbearer.assertion.claim.jti.include", Boolean, V("false"), Any, Medium, AtStart,
        "Adds a unique id to an OAuth assertion.";
    "sasl.oauthbearer.assertion.claim.nbf.seconds", Int, V("60"), Between(0, 3600), Low, AtStart,
        "How far an OAuth assertion's start lies in the past.";
    "sasl.oauthbearer.assertion.claim.sub", String, Null, Any, Medium, AtStart,
        "Subject claim of an OAuth assertion.";
    "sasl.oauthbearer.assertion.file", String, Null, Any, Medium, AtStart,
        "File with a ready OAuth assertion.";
    "sasl.oauthbearer.assertion.private.key.file", String, Null, Any, Medium, AtStart,
        "File with the private key (PEM) that signs OAuth assertions.";
    "sasl.oauthbearer.assertion.private.key.passphrase", Password, Null, Any, Medium, AtStart,
        "Passphrase of that private key.";
    "sasl.oauthbearer.assertion.template.file", String, Null, Any, Medium, AtStart,
        "File with further headers and claims of an OAuth assertion.";
    "sasl.oauthbearer.scope.claim.name", String, V("scope"), Any, Low, AtStart,
        "Name of a token's scope claim.";
    "sasl.oauthbearer.sub.claim.name", String, V("sub"), Any, Low, AtStart,
        "Name of a token's subject claim.";
    "sasl.oauthbearer.token.endpoint.url", String, Null, Any, Medium, AtStart,
        "Address of the OAuth token endpoint.";
    "sasl.oauthbearer.jwks.endpoint.url", String, Null, Any, Medium, AtStart,
        "Address (or file) of the keys that sign tokens.";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms", Long, V("3600000"), Any, Low, AtStart,
        "How often the signing keys are fetched again.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Long, V("100"), Any, Low, AtStart,
        "First pause between two attempts to fetch the signing keys.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Long, V("10000"), Any, Low, AtStart,
        "Longest pause between two attempts to fetch the signing keys.";
    "sasl.oauthbearer.clock.skew.seconds", Int, V("30"), Any, Low, AtStart,
        "Difference of clocks that is tolerated in a token's times.";
    "sasl.oauthbearer.expected.audience", List, V(""), UniqueList, High, AtStart,
        "Audiences one of which a token must name; empty checks none.";
    "sasl.oauthbearer.expected.issuer", String, Null, Any, High, AtStart,
        "Issuer that a token must name; unset checks none.";
    "delegation.token.secret.key", Password, Null, Any, Medium, AtStart,
        "Key that signs delegation tokens, the same on all nodes; unset turns them off.";
    "delegation.token.max.lifetime.ms", Long, V("604800000"), Min(1), Medium, AtStart,
        "A delegation token can't be renewed beyond this age.";
    "delegation.token.expiry.time.ms", Long, V("86400000"), Min(1), Medium, AtStart,
        "How long a delegation token is valid without renewal.";
    "delegation.token.expiry.check.interval.ms", Long, V("3600000"), Min(1), Low, AtStart,
        "How often expired delegation tokens are looked for.";
}
