//! `listeners`, `advertised.listeners` and what belongs to them, with Kafka's rules
//! (names are upper case; one security protocol a name; the controller's listeners
//! default to PLAINTEXT).

use super::layers::Reader;

/// The node's listeners, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    /// In the order of `listeners`: those of the broker and those of the controller.
    pub all: Vec<Listener>,
    /// Names of `controller.listener.names`.
    pub controller_names: Vec<String>,
    /// Name of the listener through which brokers talk to each other.
    pub inter_broker_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    pub protocol: SecurityProtocol,
    /// None: every interface.
    pub host: Option<String>,
    /// 0: any free port.
    pub port: u16,
    /// What clients are told; the machine's name where nothing is configured.
    pub advertised_host: String,
    /// 0: the port that was bound.
    pub advertised_port: u16,
    pub is_controller: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// The number in broker registrations.
    pub fn wire_id(self) -> i16 {
        self as i16
    }

    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    fn parse(text: &str) -> Option<SecurityProtocol> {
        match text.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Some(SecurityProtocol::Plaintext),
            "SSL" => Some(SecurityProtocol::Ssl),
            "SASL_PLAINTEXT" => Some(SecurityProtocol::SaslPlaintext),
            "SASL_SSL" => Some(SecurityProtocol::SaslSsl),
            _ => None,
        }
    }
}

impl Listeners {
    pub fn broker(&self) -> impl Iterator<Item = &Listener> {
        self.all.iter().filter(|listener| !listener.is_controller)
    }

    pub fn controller(&self) -> impl Iterator<Item = &Listener> {
        self.all.iter().filter(|listener| listener.is_controller)
    }

    pub fn find(&self, name: &str) -> Option<&Listener> {
        self.all.iter().find(|listener| listener.name == name)
    }

    /// Reads and checks them. An error is the key at fault and what is wrong with it.
    pub(super) fn read(
        r: &Reader<'_>,
        roles: super::node::Roles,
        host_name: &str,
    ) -> Result<Listeners, (&'static str, String)> {
        let controller_names: Vec<String> = r
            .list("controller.listener.names")
            .iter()
            .map(|n| n.to_uppercase())
            .collect();
        let protocols = protocols(r, &controller_names)?;
        let bound = endpoints("listeners", &r.list("listeners"))?;
        let advertised = match r.opt_list("advertised.listeners") {
            Some(entries) => Some(endpoints("advertised.listeners", &entries)?),
            None => None,
        };
        let inter_broker_name = inter_broker_name(r, &protocols)?;
        check_names(
            &bound,
            advertised.as_deref(),
            &controller_names,
            &inter_broker_name,
            roles,
        )?;
        let all = bound
            .into_iter()
            .map(|endpoint| {
                listener(
                    endpoint,
                    &protocols,
                    advertised.as_deref(),
                    &controller_names,
                    host_name,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        check_advertised(&all)?;
        Ok(Listeners {
            all,
            controller_names,
            inter_broker_name,
        })
    }
}

/// `NAME://host:port` taken apart.
struct Endpoint {
    name: String,
    host: Option<String>,
    port: u16,
}

fn endpoints(
    key: &'static str,
    entries: &[String],
) -> Result<Vec<Endpoint>, (&'static str, String)> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for entry in entries {
        let endpoint = endpoint(entry).ok_or_else(|| {
            (
                key,
                format!("`{entry}` is not of the form NAME://host:port"),
            )
        })?;
        if endpoints.iter().any(|other| other.name == endpoint.name) {
            return Err((key, format!("the name {} is there twice", endpoint.name)));
        }
        let same_port = |other: &Endpoint| {
            other.port == endpoint.port
                && endpoint.port != 0
                && (other.host == endpoint.host || other.host.is_none() || endpoint.host.is_none())
        };
        if key == "listeners" && endpoints.iter().any(same_port) {
            return Err((key, format!("the port {} is there twice", endpoint.port)));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn endpoint(entry: &str) -> Option<Endpoint> {
    let (name, address) = entry.split_once("://")?;
    let (host, port) = match address.strip_prefix(':') {
        Some(port) => (None, port.parse().ok()?),
        None => {
            let (host, port) = super::value::split_endpoint(address)?;
            (Some(host.to_owned()), port)
        }
    };
    (!name.is_empty()).then(|| Endpoint {
        name: name.to_uppercase(),
        host,
        port,
    })
}

/// The protocol of each name, the controller's own default included.
fn protocols(
    r: &Reader<'_>,
    controller_names: &[String],
) -> Result<Vec<(String, SecurityProtocol)>, (&'static str, String)> {
    const KEY: &str = "listener.security.protocol.map";
    let mut protocols = Vec::new();
    for entry in super::value::split_list(&r.text(KEY)) {
        let parsed = entry
            .split_once(':')
            .and_then(|(name, protocol)| Some((name, SecurityProtocol::parse(protocol.trim())?)));
        let Some((name, protocol)) = parsed else {
            return Err((
                KEY,
                format!(
                    "`{entry}` is not of the form NAME:PROTOCOL with one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
                ),
            ));
        };
        protocols.push((name.trim().to_uppercase(), protocol));
    }
    for name in controller_names {
        // As in Kafka, a controller listener needs no entry as long as none is for TLS
        // or SASL by its name.
        if !protocols.iter().any(|(known, _)| known == name)
            && SecurityProtocol::parse(name).is_none()
        {
            protocols.push((name.clone(), SecurityProtocol::Plaintext));
        }
    }
    Ok(protocols)
}

fn inter_broker_name(
    r: &Reader<'_>,
    protocols: &[(String, SecurityProtocol)],
) -> Result<String, (&'static str, String)> {
    let Some(name) = r.opt_text("inter.broker.listener.name") else {
        return Ok(r.text("security.inter.broker.protocol").to_uppercase());
    };
    let name = name.to_uppercase();
    if protocols.iter().any(|(known, _)| *known == name) {
        Ok(name)
    } else {
        Err((
            "inter.broker.listener.name",
            format!("{name} has no entry in listener.security.protocol.map"),
        ))
    }
}

fn check_names(
    bound: &[Endpoint],
    advertised: Option<&[Endpoint]>,
    controller_names: &[String],
    inter_broker_name: &str,
    roles: super::node::Roles,
) -> Result<(), (&'static str, String)> {
    let is_bound = |name: &str| bound.iter().any(|endpoint| endpoint.name == name);
    if let Some(extra) = advertised
        .unwrap_or_default()
        .iter()
        .find(|e| !is_bound(&e.name))
    {
        return Err((
            "advertised.listeners",
            format!("{} is not one of the names in listeners", extra.name),
        ));
    }
    if roles.controller
        && let Some(missing) = controller_names.iter().find(|name| !is_bound(name))
    {
        return Err((
            "listeners",
            format!("{missing}, which controller.listener.names names, is missing"),
        ));
    }
    if roles.broker {
        if controller_names
            .iter()
            .any(|name| name == inter_broker_name)
        {
            return Err((
                "controller.listener.names",
                format!(
                    "{inter_broker_name} is the listener between brokers and can't also be the controller's"
                ),
            ));
        }
        if !is_bound(inter_broker_name) {
            return Err((
                "listeners",
                format!("{inter_broker_name}, the listener between brokers, is missing"),
            ));
        }
    }
    Ok(())
}

fn listener(
    endpoint: Endpoint,
    protocols: &[(String, SecurityProtocol)],
    advertised: Option<&[Endpoint]>,
    controller_names: &[String],
    host_name: &str,
) -> Result<Listener, (&'static str, String)> {
    let Endpoint { name, host, port } = endpoint;
    let Some((_, protocol)) = protocols.iter().find(|(known, _)| *known == name) else {
        return Err((
            "listeners",
            format!("{name} has no entry in listener.security.protocol.map"),
        ));
    };
    let told = advertised
        .unwrap_or_default()
        .iter()
        .find(|other| other.name == name);
    let advertised_host = told
        .map_or(&host, |told| &told.host)
        .clone()
        .unwrap_or_else(|| host_name.to_owned());
    Ok(Listener {
        is_controller: controller_names.contains(&name),
        protocol: *protocol,
        advertised_port: told.map_or(port, |told| told.port),
        advertised_host,
        name,
        host,
        port,
    })
}

fn check_advertised(all: &[Listener]) -> Result<(), (&'static str, String)> {
    match all
        .iter()
        .find(|l| !l.is_controller && ["0.0.0.0", "::"].contains(&l.advertised_host.as_str()))
    {
        None => Ok(()),
        Some(listener) => Err((
            "advertised.listeners",
            format!(
                "clients can't connect to {}; set advertised.listeners={}://<name or address of this machine>:{}",
                listener.advertised_host, listener.name, listener.advertised_port
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::{ConfigMap, Layers};
    use super::super::node::Roles;
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Listeners, (&'static str, String)> {
        let mut map: ConfigMap = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        map.entry("controller.listener.names".to_owned())
            .or_insert("CONTROLLER".to_owned());
        let roles = Roles {
            broker: true,
            controller: true,
        };
        Listeners::read(&Reader::new(Layers::of_node(&map)), roles, "here")
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        let (key, what) = read(pairs).unwrap_err();
        format!("{key}: {what}")
    }

    #[test]
    fn a_stock_file_is_understood() {
        let listeners = read(&[
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("inter.broker.listener.name", "PLAINTEXT"),
            ("advertised.listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
            (
                "listener.security.protocol.map",
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            ),
        ])
        .unwrap();
        let broker: Vec<_> = listeners.broker().collect();
        assert_eq!(broker.len(), 1);
        assert_eq!(broker[0].host, None);
        assert_eq!(
            (
                broker[0].advertised_host.as_str(),
                broker[0].advertised_port
            ),
            ("localhost", 9092)
        );
        assert_eq!(listeners.controller().next().unwrap().port, 9093);
        assert_eq!(listeners.inter_broker_name, "PLAINTEXT");
    }

    #[test]
    fn an_empty_host_advertises_the_machine() {
        let listeners = read(&[("listeners", "plaintext://:0,CONTROLLER://[::1]:9093")]).unwrap();
        let listener = listeners.find("PLAINTEXT").unwrap();
        assert_eq!(listener.advertised_host, "here");
        assert_eq!(listener.advertised_port, 0);
        let controller = listeners.find("CONTROLLER").unwrap();
        assert_eq!(controller.host.as_deref(), Some("::1"));
        assert_eq!(controller.protocol, SecurityProtocol::Plaintext);
    }

    #[test]
    fn mistakes_name_the_key_and_what_is_wrong() {
        for (listeners, message) in [
            (
                "PLAINTEXT",
                "listeners: `PLAINTEXT` is not of the form NAME://host:port",
            ),
            (
                "PLAINTEXT://h:70000",
                "listeners: `PLAINTEXT://h:70000` is not of the form NAME://host:port",
            ),
            (
                "PLAINTEXT://:9092",
                "listeners: CONTROLLER, which controller.listener.names names, is missing",
            ),
            (
                "CONTROLLER://:9093",
                "listeners: PLAINTEXT, the listener between brokers, is missing",
            ),
            (
                "PLAINTEXT://:1,CONTROLLER://:1",
                "listeners: the port 1 is there twice",
            ),
            (
                "PLAINTEXT://:1,plaintext://:2,CONTROLLER://:3",
                "listeners: the name PLAINTEXT is there twice",
            ),
            (
                "PLAINTEXT://:1,CONTROLLER://:2,X://:3",
                "listeners: X has no entry in listener.security.protocol.map",
            ),
        ] {
            assert_eq!(error(&[("listeners", listeners)]), message);
        }
        let both = ("listeners", "PLAINTEXT://0.0.0.0:9092,CONTROLLER://:9093");
        assert!(error(&[both]).starts_with("advertised.listeners: clients can't connect to 0.0.0.0; set advertised.listeners=PLAINTEXT://"));
        assert_eq!(
            error(&[both, ("advertised.listeners", "Y://h:1")]),
            "advertised.listeners: Y is not one of the names in listeners"
        );
        assert_eq!(
            error(&[both, ("listener.security.protocol.map", "PLAINTEXT:TLS")]),
            "listener.security.protocol.map: `PLAINTEXT:TLS` is not of the form NAME:PROTOCOL with one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
        );
        assert_eq!(
            error(&[both, ("inter.broker.listener.name", "Z")]),
            "inter.broker.listener.name: Z has no entry in listener.security.protocol.map"
        );
    }
}
