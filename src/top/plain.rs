//! A model as lines, for scripts and for whoever has no terminal.

use std::fmt::Write as _;

use super::model::Model;
use super::sheet::{self, Sheet};

pub fn text(model: &Model) -> String {
    let mut out = format!("{}\n", sheet::summary(model));
    for sheet in [
        sheet::cores(model),
        sheet::apis(model, None),
        sheet::topics(model, None),
    ] {
        table(&mut out, &sheet);
    }
    out
}

fn table(out: &mut String, sheet: &Sheet) {
    let _ = writeln!(out, "\n{}", sheet.title);
    let widths = sheet.widths();
    for row in std::iter::once(&sheet.header).chain(&sheet.rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "  {:<width$}", printable(cell)),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// What another program said might move the cursor.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::scrape;
    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let text = text(&Model::since_start("127.0.0.1:9464", &scrape(100)));
        let start = "Ottla 1.2.3 at 127.0.0.1:9464: 2 cores, 6 connections, since its start\n\
                     \n\
                     Cores\n\
                     \x20 core        conns  parts  req     in  out  flight  mem  mesh  line";
        assert!(text.starts_with(start), "{text}");
        for line in [
            "  0               3      0  100  100Ki    0       0    0     0     0     1        0       0      0",
            "  controller      0      0    0      0    0       0    0     0     0     1        0       0      0",
            "  api      req     p50     p99  received  parsed  hop  appended  read  purgatory  flushed  sent",
            "  Produce  200  3.00ms  3.98ms         -       -    -         -     -          -        -     -",
            "  topic   batches     in  out   batch",
            "  orders      200  200Ki    0  1.00Ki",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let rates = Model::between("x", &scrape(1), &scrape(2), 2.0);
        let text = super::text(&rates);
        assert!(
            text.contains("req/s") && text.contains("the last 2.00s"),
            "{text}"
        );
    }
}
