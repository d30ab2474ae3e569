//! Percentile plots: for each phase of a comparison and each of its latencies one SVG with
//! a line for each side. Called by `report`. Both axes are logarithmic: across, how rare
//! (each step is ten times rarer), up, how long.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::super::compare::plan::Role;
use super::super::compare::summary::is_of_a_broker;
use super::super::record;
use super::collect::{Compared, Group};

const SIZE: (u32, u32) = (720, 400);
const FONT: &str = "sans-serif";
const POINTS_PER_DECADE: u32 = 40;
const DECADES_MAX: f64 = 6.0;
const COLOURS: [(Role, RGBColor); 3] = [
    (Role::A, RGBColor(0, 92, 175)),
    (Role::B, RGBColor(208, 88, 18)),
    (Role::Ceiling, RGBColor(120, 120, 120)),
];

pub struct Plot {
    pub comparison: String,
    pub phase: String,
    pub latency: String,
    pub path: PathBuf,
    pub svg: String,
}

pub fn plots(group: &Group) -> Result<Vec<Plot>, String> {
    let mut plots = Vec::new();
    for compared in &group.comparisons {
        for (phase, latency) in keys(compared) {
            let lines = lines(compared, &phase, &latency)?;
            let file_name = format!("{}-{latency}.svg", file_safe(&phase));
            plots.push(Plot {
                comparison: compared.plan.name.clone(),
                svg: draw(&format!("{latency}, {phase}"), &lines)?,
                path: compared.dir.join(file_name),
                phase,
                latency,
            });
        }
    }
    Ok(plots)
}

/// Phases and latencies, in the order in which they first come.
fn keys(compared: &Compared) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for (_, result) in &compared.results {
        for phase in &result.phases {
            for (name, latency) in &phase.latencies {
                let key = (phase.name.clone(), name.clone());
                let told = is_of_a_broker(name) && latency.count > 1;
                if told && !latency.histogram.is_empty() && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
    }
    keys
}

fn file_safe(phase: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let text: String = phase.chars().map(safe).collect();
    text.trim_end_matches('-').to_owned()
}

struct Line {
    label: String,
    colour: RGBColor,
    /// Decades of rarity, and of µs.
    points: Vec<(f64, f64)>,
}

/// Each side's slices together.
fn lines(compared: &Compared, phase: &str, latency: &str) -> Result<Vec<Line>, String> {
    let mut merged: BTreeMap<Role, Histogram<u64>> = BTreeMap::new();
    for (slice, result) in &compared.results {
        let phases = result.phases.iter().filter(|it| it.name == phase);
        for found in phases.filter_map(|it| it.latencies.get(latency)) {
            if found.histogram.is_empty() {
                continue;
            }
            let values = record::decode(&found.histogram)
                .map_err(|error| format!("{}: {phase}: {error}", compared.dir.display()))?;
            let all = merged.entry(slice.role).or_insert_with(record::histogram);
            record::merge(all, &values);
        }
    }
    let line = |(role, colour): &(Role, RGBColor)| {
        let values = merged.get(role)?;
        let side = compared.plan.side(*role)?;
        Some(Line {
            label: side.name.clone(),
            colour: *colour,
            points: points(values),
        })
    };
    Ok(COLOURS.iter().filter_map(line).collect())
}

fn points(values: &Histogram<u64>) -> Vec<(f64, f64)> {
    // Beyond one in as many as there are values nothing is known.
    let decades = (values.len().max(1) as f64).log10().min(DECADES_MAX);
    let steps = (decades * f64::from(POINTS_PER_DECADE)).floor() as u32;
    let point = |step: u32| {
        let x = f64::from(step) / f64::from(POINTS_PER_DECADE);
        let ns = values.value_at_quantile(1.0 - 10f64.powf(-x));
        (x, (ns.max(1) as f64 / 1e3).log10())
    };
    (0..=steps).map(point).collect()
}

fn draw(title: &str, lines: &[Line]) -> Result<String, String> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let right = all().map(|point| point.0).fold(1.0, f64::max).ceil();
    let low = all().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low.is_finite() {
        (low, high)
    } else {
        (0.0, 1.0)
    };
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let fault = |error: &dyn std::fmt::Display| format!("plot {title}: {error}");
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| fault(&error))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, (FONT, 18))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, low..high)
            .map_err(|error| fault(&error))?;
        chart
            .configure_mesh()
            .x_labels(right as usize + 1)
            .y_labels((high - low) as usize + 1)
            .x_label_formatter(&|x| percentile(*x))
            .y_label_formatter(&|y| duration(*y))
            .x_desc("percentile")
            .label_style((FONT, 13))
            .bold_line_style(RGBColor(225, 225, 225))
            .max_light_lines(0)
            .draw()
            .map_err(|error| fault(&error))?;
        for line in lines {
            let colour = line.colour;
            let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(|error| fault(&error))?
                .label(line.label.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 14))
            .draw()
            .map_err(|error| fault(&error))?;
        root.present().map_err(|error| fault(&error))?;
    }
    svg.push('\n');
    Ok(svg)
}

/// 0 → 0 %, 1 → 90 %, 2 → 99 %, 3 → 99.9 %.
fn percentile(decades: f64) -> String {
    let nines = decades.round() as usize;
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

fn duration(decades_of_micros: f64) -> String {
    let power = decades_of_micros.round() as i32;
    let (unit, digits) = match power {
        ..0 => ("ns", power + 3),
        0..3 => ("µs", power),
        3..6 => ("ms", power - 3),
        _ => ("s", power - 6),
    };
    format!("{} {unit}", 10f64.powi(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let percentiles = [0.0, 1.0, 2.0, 4.0].map(percentile);
        assert_eq!(percentiles, ["0 %", "90 %", "99 %", "99.99 %"]);
        let durations = [-1.0, 0.0, 2.0, 3.0, 6.0].map(duration);
        assert_eq!(durations, ["100 ns", "1 µs", "100 µs", "1 ms", "1 s"]);
        assert_eq!(file_safe("20%"), "20");
    }

    #[test]
    fn a_line_ends_where_nothing_is_known() {
        let mut values = record::histogram();
        for ns in 1..=1000 {
            values.record(ns * 1000).unwrap();
        }
        let points = points(&values);
        let (x, y) = *points.last().unwrap();
        assert!((x - 3.0).abs() < 0.03 && (y - 3.0).abs() < 0.01, "{x} {y}");
        assert_eq!(points[0], (0.0, 0.0));
    }

    #[test]
    fn a_plot_has_its_lines_and_is_the_same_each_time() {
        let line = |label: &str, y| Line {
            label: label.to_owned(),
            colour: RED,
            points: vec![(0.0, y), (2.0, y + 1.0)],
        };
        let lines = [line("ottla", 1.0), line("kafka", 2.0)];
        let svg = draw("publish, 50%", &lines).unwrap();
        assert_eq!(svg, draw("publish, 50%", &lines).unwrap());
        for text in ["ottla", "kafka", "99 %", "100 µs", "publish, 50%"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(draw("nothing", &[]).unwrap().contains("<svg"));
    }
}
