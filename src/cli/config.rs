//! `ottla config [KEY]...`: the table of settings on the terminal.

use super::args::ConfigArgs;
use super::output;
use crate::config::docs;
use crate::config::table::{self, Scope};

pub fn run(args: &ConfigArgs) -> Result<(), String> {
    let scope = match (args.topic, args.group) {
        (true, _) => Scope::Topic,
        (_, true) => Scope::Group,
        _ => Scope::Broker,
    };
    if args.keys.is_empty() {
        return output::print(&docs::listing(scope));
    }
    let mut text = String::new();
    for key in &args.keys {
        let found = table::find(scope, key)
            .or_else(|| table::find_broker(key))
            .or_else(|| table::find(Scope::Topic, key))
            .or_else(|| table::find(Scope::Group, key));
        match found {
            Some(property) => text.push_str(&docs::entry(property)),
            None => {
                return Err(format!(
                    "unknown key {key}; did you mean {}?",
                    table::nearest(scope, key)
                ));
            }
        }
    }
    output::print(&text)
}
