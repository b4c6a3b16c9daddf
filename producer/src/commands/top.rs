//! `forebay top`: a live screen of the fleet.
//!
//! Observing ([`source`]), history ([`past`]), assembling a [`view`] and rendering a [`page`] are separate: a page is a
//! pure function of a view and a size.

mod line;
mod page;
mod past;
mod screen;
mod source;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod view;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use forebay_fabric::clock::now_ms;
use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval};

use super::duration;
use crate::{
    context::Context,
    error::{CommandError, CommandResult},
};
use page::Page;
use past::Past;
use screen::Screen;
use source::Sources;
use view::{View, remember};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The refresh interval: 1, 500ms, 10s
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_every)]
    every: Duration,
    /// Print one frame and end; most rates are missing, because they need a second frame
    #[arg(long)]
    once: bool,
}

const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_secs(3_600);

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = duration::parse(text)?;
    if (EVERY_MIN..=EVERY_MAX).contains(&every) {
        Ok(every)
    } else {
        Err("choose between 100ms and 1h".to_owned())
    }
}

pub(crate) async fn run(args: Args, context: &mut Context) -> CommandResult {
    let live = !args.once && !context.output.json;
    if live && !io::stdout().is_terminal() {
        let remedy = "standard output is no terminal: use --once, or --json for one line per frame";
        return Err(CommandError::Usage(remedy.to_owned()));
    }
    let client = context.client()?;
    let sources = Sources::ask(&client, &context.config, args.every, &context.stop);
    let ended = if live {
        watch(sources, args.every, context).await
    } else {
        print(sources, &args, context).await
    };
    client.close().await;
    ended
}

/// Prints one frame, or frame after frame as JSON, once every source has answered.
async fn print(mut sources: Sources, args: &Args, context: &mut Context) -> CommandResult {
    let stop = context.stop.clone();
    let answered = stop.run_until_cancelled(sources.all_answered()).await;
    answered.ok_or_else(|| CommandError::Interrupted(String::new()))?;
    let mut past = Past::default();
    let mut tick = ticks(args.every);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let view = next_view(&sources, &mut past);
        if context.output.json {
            context.output.json_line(&view)?;
        } else {
            for line in (Page { width: screen::width(), height: None }).lines(&view) {
                context.output.line(line.text())?;
            }
        }
        if args.once {
            break;
        }
    }
    Ok(())
}

/// Draws until the user quits.
async fn watch(sources: Sources, every: Duration, context: &Context) -> CommandResult {
    let mut screen = Screen::open()?;
    let mut events = EventStream::new();
    let mut past = Past::default();
    let mut tick = ticks(every);
    let mut view = next_view(&sources, &mut past);
    loop {
        screen.draw(&view)?;
        tokio::select! {
            _ = tick.tick() => view = next_view(&sources, &mut past),
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if quits(&key) => return Ok(()),
                // A new size is drawn at once; other keys are ignored.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            () = context.stop.cancelled() => return Ok(()),
        }
    }
}

/// Ticks at this interval; missed ones are not caught up on.
fn ticks(every: Duration) -> tokio::time::Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

fn next_view(sources: &Sources, past: &mut Past) -> View {
    let seen = sources.seen();
    let now_ms = now_ms();
    remember(past, &seen);
    View::of(&seen, past, now_ms)
}

/// Whether the key is `q`, Escape, Ctrl-C or Ctrl-D. On a raw terminal Ctrl-C is a key like others.
fn quits(key: &KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c' | 'd') => control,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
            _ => false,
        }
}

#[cfg(test)]
mod keys {
    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_quit_and_nothing_else() {
        let key = |code, modifiers| quits(&KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE));
        assert!(!key(KeyCode::Enter, KeyModifiers::NONE));
    }

    #[test]
    fn an_interval_that_is_too_short_or_too_long_is_refused() {
        assert_eq!(parse_every("1"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_every("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["0", "1ms", "2h", "often"] {
            assert!(parse_every(wrong).is_err(), "{wrong}");
        }
    }
}
