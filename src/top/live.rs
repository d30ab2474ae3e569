//! The live view: scrapes by the clock, draws, and obeys keys until it is told to quit.
//!
//! A scrape that fails is told on the last line, over the numbers that there were; the next
//! one is tried as ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use signal_hook::consts::{SIGHUP, SIGTERM};

use super::Options;
use super::model::Model;
use super::scrape::scrape;
use super::text::Scrape;
use super::view::{self, State};

/// A signal is seen after so long at the latest.
const PATIENCE: Duration = Duration::from_millis(250);

struct Live<'a> {
    options: &'a Options,
    last: Scrape,
    last_at: Instant,
    model: Model,
    state: State,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Quit,
    Nothing,
}

/// Returns when the user quits or a signal asks for the end. Fails if there is nothing to be seen at the start.
pub fn run(options: &Options) -> Result<(), String> {
    let first = scrape(&options.metrics)?;
    let mut live = Live {
        model: Model::since_start(&options.metrics, &first),
        last: first,
        last_at: Instant::now(),
        options,
        state: State::default(),
    };
    // A terminal is left as it was found, however the view ends.
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone())
            .map_err(|error| format!("can't watch for signals: {error}"))?;
    }
    let terminal = ratatui::try_init();
    let mut terminal = terminal.map_err(|error| format!("can't use the terminal: {error}"))?;
    let outcome = loop {
        let drawn = terminal.draw(|frame| view::draw(frame, &live.model, &live.state));
        if let Err(error) = drawn {
            break Err(format!("can't draw: {error}"));
        }
        match live.wait() {
            _ if ended.load(Ordering::Relaxed) => break Ok(()),
            Ok(Asked::Quit) => break Ok(()),
            Ok(Asked::Nothing) => {}
            Err(error) => break Err(format!("can't read the keyboard: {error}")),
        }
    };
    ratatui::restore();
    outcome
}

impl Live<'_> {
    /// Waits for a key or for the time of the next scrape, and sees to it.
    fn wait(&mut self) -> std::io::Result<Asked> {
        let left = self.options.interval.saturating_sub(self.last_at.elapsed());
        if event::poll(left.min(PATIENCE))? {
            return Ok(match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    on_key(key, &mut self.state, self.model.cores.len())
                }
                _ => Asked::Nothing,
            });
        }
        let now = Instant::now();
        if now - self.last_at < self.options.interval {
            return Ok(Asked::Nothing);
        }
        match scrape(&self.options.metrics) {
            Ok(found) => {
                let seconds = (now - self.last_at).as_secs_f64();
                let address = &self.options.metrics;
                self.model = Model::between(address, &self.last, &found, seconds);
                self.last = found;
                self.state.error = None;
            }
            Err(error) => self.state.error = Some(error),
        }
        self.last_at = now;
        Ok(Asked::Nothing)
    }
}

fn on_key(key: KeyEvent, state: &mut State, cores: usize) -> Asked {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
        KeyCode::Char('c') if control => return Asked::Quit,
        // All cores stand before the first and after the last.
        KeyCode::Right | KeyCode::Tab => {
            let next = state.core.map_or(0, |core| core + 1);
            state.core = (next < cores).then_some(next);
        }
        KeyCode::Left | KeyCode::BackTab => {
            state.core = match state.core {
                None => cores.checked_sub(1),
                Some(core) => core.checked_sub(1),
            };
        }
        KeyCode::Up => state.scrolled = state.scrolled.saturating_sub(1),
        KeyCode::Down => state.scrolled += 1,
        KeyCode::PageUp => state.scrolled = state.scrolled.saturating_sub(10),
        KeyCode::PageDown => state.scrolled += 10,
        KeyCode::Home => state.scrolled = 0,
        _ => {}
    }
    Asked::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_choose_cores_in_a_circle_and_scroll() {
        let mut state = State::default();
        let mut press = |code| {
            let asked = on_key(KeyEvent::from(code), &mut state, 2);
            (asked, state.core, state.scrolled)
        };
        for wanted in [Some(0), Some(1), None] {
            assert_eq!(press(KeyCode::Right), (Asked::Nothing, wanted, 0));
        }
        for wanted in [Some(1), Some(0), None] {
            assert_eq!(press(KeyCode::Left), (Asked::Nothing, wanted, 0));
        }
        assert_eq!(press(KeyCode::Down).2, 1);
        assert_eq!(press(KeyCode::PageUp).2, 0);
        assert_eq!(press(KeyCode::Char('q')).0, Asked::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(on_key(interrupt, &mut state, 2), Asked::Quit);
    }
}
