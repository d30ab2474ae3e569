//! Where clients reach a broker: its endpoint on the listener that they came in by.

use crate::base::BrokerId;
use crate::metadata::{BrokerImage, MetadataImage};

/// A broker as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: BrokerId,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
    pub fenced: bool,
}

/// The unfenced brokers that have this listener, by id.
pub fn alive(image: &MetadataImage, listener: &str) -> Vec<Endpoint> {
    image
        .cluster
        .brokers
        .values()
        .filter(|broker| !broker.fenced)
        .filter_map(|broker| of(broker, listener))
        .collect()
}

/// Endpoint of one unfenced broker.
pub fn find(image: &MetadataImage, id: BrokerId, listener: &str) -> Option<Endpoint> {
    let broker = image.cluster.brokers.get(&id)?;
    if broker.fenced {
        return None;
    }
    of(broker, listener)
}

/// The controllers that have this listener, by id.
pub fn controllers(image: &MetadataImage, listener: &str) -> Vec<Endpoint> {
    image
        .cluster
        .controllers
        .values()
        .filter_map(|controller| {
            let endpoint = controller.listeners.iter().find(|l| l.name == listener)?;
            Some(Endpoint {
                id: controller.id,
                host: endpoint.host.clone(),
                port: i32::from(endpoint.port),
                rack: None,
                fenced: false,
            })
        })
        .collect()
}

pub fn of(broker: &BrokerImage, listener: &str) -> Option<Endpoint> {
    let endpoint = broker.listener(listener)?;
    Some(Endpoint {
        id: broker.id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        rack: broker.rack.clone(),
        fenced: broker.fenced,
    })
}
