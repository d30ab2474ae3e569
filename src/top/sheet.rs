//! A model as tables of text, for the terminal and for plain output alike.

use super::model::{Model, SHOWN_STAGES};
use super::units::{bytes, count, duration};

/// The first column is a name, the others are numbers.
#[derive(Debug)]
pub struct Sheet {
    pub title: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    /// Cells that each column needs.
    pub fn widths(&self) -> Vec<usize> {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        self.header
            .iter()
            .enumerate()
            .map(|(column, head)| {
                let widest = cells(column).chain([head]).map(|cell| cell.chars().count());
                widest.max().unwrap_or(0)
            })
            .collect()
    }
}

/// One line about the node.
pub fn summary(model: &Model) -> String {
    let data = model.cores.iter().filter(|row| row.core != "controller");
    let connections: f64 = model.cores.iter().map(|row| row.connections).sum();
    let when = match model.seconds {
        Some(seconds) => format!("the last {}", duration(Some(seconds))),
        None => "since its start".to_owned(),
    };
    format!(
        "Ottla {} at {}: {} cores, {} connections, {when}",
        model.version,
        model.address,
        data.count(),
        count(connections)
    )
}

pub fn cores(model: &Model) -> Sheet {
    let each = |name: &str| each(model, name);
    let rows = model.cores.iter().map(|row| {
        vec![
            row.core.clone(),
            count(row.connections),
            count(row.partitions),
            count(row.requests),
            bytes(row.bytes_in),
            bytes(row.bytes_out),
            count(row.in_flight),
            bytes(row.memory),
            count(row.unanswered),
            count(row.in_line),
            count(row.slow_polls),
            count(row.blocked_calls),
            count(row.silences),
            count(row.parks),
        ]
    });
    Sheet {
        title: "Cores".to_owned(),
        header: vec![
            "core".to_owned(),
            "conns".to_owned(),
            "parts".to_owned(),
            each("req"),
            each("in"),
            each("out"),
            "flight".to_owned(),
            "mem".to_owned(),
            "mesh".to_owned(),
            "line".to_owned(),
            each("slow"),
            each("blocked"),
            each("silent"),
            each("parks"),
        ],
        rows: rows.collect(),
    }
}

/// Of one core, or of all.
pub fn apis(model: &Model, core: Option<&str>) -> Sheet {
    let rows = model.apis(core).into_iter().map(|row| {
        let head = [row.api, count(row.requests), duration(row.median)];
        head.into_iter().chain(row.p99.map(duration)).collect()
    });
    let head = ["api".to_owned(), each(model, "req"), "p50".to_owned()];
    let stages = SHOWN_STAGES.map(|stage| match stage {
        "total" => "p99".to_owned(),
        stage => stage.to_owned(),
    });
    Sheet {
        title: format!(
            "Requests{}, with the 99th percentile of each stage",
            of(core)
        ),
        header: head.into_iter().chain(stages).collect(),
        rows: rows.collect(),
    }
}

/// Of one core, or of all.
pub fn topics(model: &Model, core: Option<&str>) -> Sheet {
    let rows = model.topics(core).into_iter().map(|row| {
        let size = row.batch_bytes.map_or_else(|| "-".to_owned(), bytes);
        vec![
            row.topic,
            count(row.batches),
            bytes(row.bytes_in),
            bytes(row.bytes_out),
            size,
        ]
    });
    Sheet {
        title: format!("Topics{}", of(core)),
        header: vec![
            "topic".to_owned(),
            each(model, "batches"),
            each(model, "in"),
            each(model, "out"),
            "batch".to_owned(),
        ],
        rows: rows.collect(),
    }
}

fn each(model: &Model, name: &str) -> String {
    match model.seconds {
        Some(_) => format!("{name}/s"),
        None => name.to_owned(),
    }
}

fn of(core: Option<&str>) -> String {
    core.map_or(String::new(), |core| match core {
        "controller" => " of the controller's core".to_owned(),
        core => format!(" of core {core}"),
    })
}
