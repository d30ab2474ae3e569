//! Draws a model: cores above, APIs in the middle, topics below. Pure; the loop that calls
//! it is `live`.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::model::Model;
use super::sheet::{self, Sheet};

/// What is shown beside the model.
#[derive(Debug, Default)]
pub struct State {
    /// Index of the core whose APIs and topics are shown, among those of the model.
    pub core: Option<usize>,
    /// Topics that are scrolled away.
    pub scrolled: usize,
    /// Why there is no newer model.
    pub error: Option<String>,
}

const KEYS: &str = "q quit   left/right core   up/down topics";
/// Most of the screen that cores, and that APIs, may take: a third each.
const PART: u16 = 3;
/// Between columns.
const SPACING: u16 = 2;

pub fn draw(frame: &mut Frame<'_>, model: &Model, state: &State) {
    let core = state.core.and_then(|index| model.cores.get(index));
    let core = core.map(|row| &*row.core);
    let (cores, apis, topics) = (
        sheet::cores(model),
        sheet::apis(model, core),
        sheet::topics(model, core),
    );
    let area = frame.area();
    let height = |sheet: &Sheet| {
        let wanted = u16::try_from(sheet.rows.len()).unwrap_or(u16::MAX);
        // The title and the header.
        Constraint::Length(wanted.saturating_add(2).min((area.height / PART).max(3)))
    };
    let layout = Layout::vertical([
        Constraint::Length(1),
        height(&cores),
        height(&apis),
        Constraint::Min(2),
        Constraint::Length(1),
    ]);
    let [head, cores_at, apis_at, topics_at, foot] = layout.areas(area);
    frame.render_widget(Paragraph::new(sheet::summary(model)), head);
    // The cores that matter are those around the chosen one.
    let rows_shown = usize::from(cores_at.height.saturating_sub(2)).max(1);
    let first = state.core.unwrap_or(0).saturating_sub(rows_shown - 1);
    table(frame, cores_at, &cores, first, state.core);
    table(frame, apis_at, &apis, 0, None);
    let last = topics.rows.len().saturating_sub(1);
    table(frame, topics_at, &topics, state.scrolled.min(last), None);
    let line = match &state.error {
        Some(error) => Line::styled(error.clone(), Style::new().fg(Color::Red)),
        None => Line::styled(KEYS, Style::new().add_modifier(Modifier::DIM)),
    };
    frame.render_widget(Paragraph::new(line), foot);
}

fn table(frame: &mut Frame<'_>, area: Rect, sheet: &Sheet, first: usize, chosen: Option<usize>) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let cells = |row: &[String]| -> Vec<Cell<'static>> {
        row.iter()
            .enumerate()
            .map(|(column, cell)| {
                let alignment = match column {
                    0 => Alignment::Left,
                    _ => Alignment::Right,
                };
                Cell::from(Text::from(cell.clone()).alignment(alignment))
            })
            .collect()
    };
    let rows = sheet.rows.iter().enumerate().skip(first);
    let rows = rows.map(|(index, row)| {
        let style = match chosen == Some(index) {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        Row::new(cells(row)).style(style)
    });
    let widths = shown(&sheet.widths(), usize::from(area.width));
    let widths = widths.into_iter().map(Constraint::Length);
    let block = Block::new()
        .borders(Borders::TOP)
        .title(sheet.title.clone());
    let table = Table::new(rows, widths)
        .header(Row::new(cells(&sheet.header)).style(bold))
        .column_spacing(SPACING)
        .block(block);
    frame.render_widget(table, area);
}

/// The columns that there is room for, from the left, and the first in any case.
fn shown(widths: &[usize], room: usize) -> Vec<u16> {
    let spacing = usize::from(SPACING);
    let mut taken = 0;
    let fitting = widths.iter().take_while(|width| {
        taken += **width + spacing;
        taken <= room + spacing
    });
    let count = fitting.count().max(1);
    let cells = |width: &usize| u16::try_from(*width).unwrap_or(u16::MAX);
    widths.iter().take(count).map(cells).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::tests::scrape;
    use super::*;

    fn lines(model: &Model, state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn cores_apis_and_topics_are_shown() {
        let model = Model::between("127.0.0.1:9464", &scrape(100), &scrape(300), 2.0);
        let lines = lines(&model, &State::default(), 132, 20);
        for (at, start) in [
            (
                0,
                "Ottla 1.2.3 at 127.0.0.1:9464: 2 cores, 6 connections, the last 2.00s",
            ),
            (1, "Cores"),
            (2, "core        conns  parts  req/s   in/s  out/s"),
            (3, "0               3      0    100  100Ki      0"),
            (5, "controller      0      0      0      0      0"),
            (6, "Requests, with the 99th percentile of each stage"),
            (7, "api      req/s     p50     p99  received"),
            (8, "Produce    200  3.00ms  3.98ms         -"),
            (9, "Topics"),
            (11, "orders        200  200Ki      0  1.00Ki"),
            (19, "q quit"),
        ] {
            assert!(lines[at].starts_with(start), "{at}: {lines:#?}");
        }
    }

    #[test]
    fn one_core_can_be_chosen_and_an_error_is_told() {
        let model = Model::between("x", &scrape(100), &scrape(300), 2.0);
        let state = State {
            core: Some(1),
            scrolled: 9,
            error: Some("nothing listens on x".to_owned()),
        };
        let lines = lines(&model, &state, 132, 20);
        for (at, start) in [
            (6, "Requests of core 1, "),
            (8, "Produce    100"),
            (9, "Topics of core 1"),
            // The last row stays, however far it was scrolled.
            (11, "orders"),
            (19, "nothing listens on x"),
        ] {
            assert!(lines[at].starts_with(start), "{at}: {lines:#?}");
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out() {
        assert_eq!(shown(&[4, 3, 5], 16), [4, 3, 5]);
        assert_eq!(shown(&[4, 3, 5], 15), [4, 3]);
        assert_eq!(shown(&[4, 3, 5], 2), [4]);
        let model = Model::between("x", &scrape(100), &scrape(300), 2.0);
        let narrow = lines(&model, &State::default(), 60, 20);
        assert!(narrow[2].ends_with("out/s  flight  mem"), "{narrow:#?}");
    }

    #[test]
    fn the_smallest_terminals_do_no_harm() {
        let model = Model::between("x", &scrape(1), &scrape(2), 1.0);
        let state = State {
            core: Some(2),
            ..State::default()
        };
        for (width, height) in [(1, 1), (10, 3), (20, 7), (40, 12), (300, 80)] {
            lines(&model, &state, width, height);
        }
    }
}
