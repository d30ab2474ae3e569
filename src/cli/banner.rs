//! The few lines that a node says of itself once it serves.

use std::fmt::Write as _;

use crate::node::{Ready, cores};

/// Version, cluster, node, cores, listeners, data and a line to try.
pub fn text(ready: &Ready) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    line("cluster", ready.cluster_id.clone());
    line("node", ready.node_id.to_string());
    line("cores", cores::text(&ready.cores));
    for listener in &ready.listeners {
        let role = if listener.is_controller {
            " (controller)"
        } else {
            ""
        };
        line(
            "listener",
            format!("{}://{}{role}", listener.name, listener.address),
        );
    }
    for address in &ready.metrics {
        line("metrics", format!("http://{address}/metrics"));
    }
    let dirs: Vec<String> = ready
        .log_dirs
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let formatted = if ready.formatted {
        " (formatted now)"
    } else {
        ""
    };
    line("data", format!("{}{formatted}", dirs.join(", ")));
    if let Some(listener) = ready.listeners.iter().find(|l| !l.is_controller) {
        let mut address = listener.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        line("try", format!("echo hello | kcat -b {address} -t hello -P"));
    }
    format!("Ottla {} is serving\n{out}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::BrokerId;
    use crate::node::cores::Place;
    use crate::node::listeners::BoundListener;

    #[test]
    fn it_tells_what_a_person_needs() {
        let listener = |name: &str, address: &str, is_controller| BoundListener {
            name: name.into(),
            advertised_host: String::new(),
            advertised_port: 0,
            protocol: 0,
            address: address.parse().unwrap(),
            is_controller,
        };
        let place = |cpu| Place {
            cpu: Some(cpu),
            numa_node: Some(0),
        };
        let ready = Ready {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
            node_id: BrokerId(1),
            listeners: vec![
                listener("PLAINTEXT", "0.0.0.0:9092", false),
                listener("CONTROLLER", "127.0.0.1:9093", true),
            ],
            metrics: vec!["127.0.0.1:9464".parse().unwrap()],
            log_dirs: vec!["./data".into()],
            cores: vec![place(0), place(1)],
            formatted: true,
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text(&ready),
            format!(
                "Ottla {version} is serving\n\
                 \x20 cluster    MkU3OEVBNTcwNTJENDM2Qg\n\
                 \x20 node       1\n\
                 \x20 cores      2 (pinned to CPU 0-1; NUMA node 0)\n\
                 \x20 listener   PLAINTEXT://0.0.0.0:9092\n\
                 \x20 listener   CONTROLLER://127.0.0.1:9093 (controller)\n\
                 \x20 metrics    http://127.0.0.1:9464/metrics\n\
                 \x20 data       ./data (formatted now)\n\
                 \x20 try        echo hello | kcat -b 127.0.0.1:9092 -t hello -P\n"
            )
        );
    }
}
