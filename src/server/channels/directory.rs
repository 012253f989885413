//! Which channels of webhook-over-websocket have a client, for whatever is in front of several
//! servers.

use http::request::Parts;
use serde_json::{Map, Value, json};

use super::json;
use crate::server::reply::Reply;
use crate::server::service::Asked;

/// The channels, for other servers.
pub(super) fn channels(asked: Asked<'_>, request: &Parts) -> Reply {
    let responders = asked.state.responders.ids();
    let ids: Vec<_> = responders.iter().map(|id| id.expose()).collect();
    let list = json!({
        // Of those that wait for a client nothing is known: any server will do for them.
        "ws_channels": ids,
        "webhook_channels": ids,
        "server_url": asked.own_url(&request.headers),
    });
    json(format!("{list}\n"))
}

/// The channels as routes for Traefik's HTTP provider.
pub(super) fn traefik(asked: Asked<'_>, request: &Parts) -> Reply {
    let url = asked.own_url(&request.headers);
    let (mut routers, mut services) = (Map::new(), Map::new());
    for id in asked.state.responders.ids() {
        let id = id.expose();
        let service = format!("service-{id}");
        for door in ["webhook", "ws"] {
            let rule = format!("PathPrefix(`/{door}/{id}`)");
            let router = json!({ "rule": rule, "service": service });
            routers.insert(format!("{door}-{id}"), router);
        }
        let server = json!({ "loadBalancer": { "servers": [{ "url": url }] } });
        services.insert(service, server);
    }
    let config = match routers.is_empty() {
        // Traefik takes no empty tables.
        true => Value::Object(Map::new()),
        false => json!({ "http": { "routers": routers, "services": services } }),
    };
    json(format!("{config}\n"))
}
