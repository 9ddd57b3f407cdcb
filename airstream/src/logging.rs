//! Our own log. `up` writes it into a file and lets warnings through to the terminal; `serve` writes it to stderr, where
//! whatever runs it collects it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Metadata;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::config::{Log, LogFormat};
use crate::traces::{self, Traces};

/// Asks a filter about every line.
///
/// What a filter says stays on the thread until a line has followed it. When none follows (sqlx asks after each notice and each
/// statement whether anybody listens), the next line gets that answer, unless it is asked about itself: without this, a warning
/// right after a question of sqlx was lost, once in a while.
struct Afresh<F>(F);

impl<S, F: Filter<S>> Filter<S> for Afresh<F> {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.0.callsite_enabled(metadata);
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

fn filter(log: &Log, verbose: u8) -> EnvFilter {
    let level = match verbose {
        0 => log.level.as_str(),
        1 => "debug",
        _ => "trace",
    };
    let mut filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    // Postgres' own notices ("does not exist, skipping") say nothing to an operator, and of a lost NATS we tell ourselves,
    // once, where its client has a line per try.
    for target in ["sqlx::postgres::notice", "async_nats"] {
        // Who names a target wants to hear it.
        if verbose == 0
            && !level.contains(target)
            && let Ok(directive) = format!("{target}=warn").parse()
        {
            filter = filter.add_directive(directive);
        }
    }
    traces::not_in_the_log(filter)
}

/// A panic is one line of the log. Its backtrace is for whoever asked for one.
fn panics_are_logged() {
    let usual = std::panic::take_hook();
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic: {}", panic.payload_as_str().unwrap_or("(no message)"));
        if backtrace {
            usual(panic);
        }
    }));
}

/// For `serve`.
pub(crate) fn to_stderr(log: &Log, verbose: u8, traces: &Traces) {
    let terminal = io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let layer =
        if json { lines.json().flatten_event(true).boxed() } else { lines.with_ansi(coloured(terminal)).boxed() };
    // It fails only if there is a subscriber already, which then gets the lines.
    let lines = layer.with_filter(Afresh(filter(log, verbose)));
    let _ = tracing_subscriber::registry().with(traces.layer()).with(lines).try_init();
    panics_are_logged();
}

/// For `up`: everything to the file, warnings to the terminal as well, unless the terminal is that file (`detached`).
pub(crate) fn to_file(log: &Log, verbose: u8, detached: bool, traces: &Traces) -> LogFile {
    let file = LogFile::default();
    let lines = fmt::layer().with_writer(file.clone());
    let to_file = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    let terminal = io::stderr().is_terminal();
    let to_terminal = (!detached).then(|| {
        let level = if verbose == 0 { LevelFilter::WARN } else { LevelFilter::TRACE };
        fmt::layer().with_writer(io::stderr).with_ansi(coloured(terminal)).with_target(false).with_filter(level)
    });
    // One filter for both, and around them only: spans go elsewhere.
    let lines = to_file.and_then(to_terminal).with_filter(Afresh(filter(log, verbose)));
    let _ = tracing_subscriber::registry().with(traces.layer()).with(lines).try_init();
    panics_are_logged();
    file
}

fn coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The file of `up`, which is known only when the stack has its folder. What is logged before is kept until then.
#[derive(Clone)]
pub(crate) struct LogFile(Arc<Mutex<Sink>>);

enum Sink {
    Waiting(Vec<u8>),
    Open(File),
}

impl Default for LogFile {
    fn default() -> LogFile {
        LogFile(Arc::new(Mutex::new(Sink::Waiting(Vec::new()))))
    }
}

/// Enough for the lines of a start; more would mean that it never comes.
const WAITING_BYTES: usize = 256 * 1024;

impl LogFile {
    /// From now on lines go here, those that waited first.
    pub(crate) fn open(&self, mut file: File) {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::Waiting(waiting) = &*sink {
            let _ = file.write_all(waiting);
        }
        *sink = Sink::Open(file);
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Open(file) => file.write_all(line)?,
            Sink::Waiting(waiting) if waiting.len() < WAITING_BYTES => waiting.extend_from_slice(line),
            Sink::Waiting(_) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LogFile;

    fn make_writer(&'a self) -> LogFile {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_written_whatever_was_asked_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let file = LogFile::default();
        file.open(File::create(&path).unwrap());
        let log = crate::config::Config::default().log;
        let lines = fmt::layer().with_writer(file).with_ansi(false).with_filter(Afresh(filter(&log, 0)));
        // As in a process that sends its traces nowhere.
        let traces = None::<fmt::Layer<tracing_subscriber::Registry>>;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(traces).with(lines), || {
            for _ in 0..3 {
                let _ = tracing::enabled!(target: "sqlx::postgres::notice", tracing::Level::INFO);
                tracing::warn!("the sky is falling");
            }
        });
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written.matches("the sky is falling").count(), 3, "{written}");
    }

    #[test]
    fn lines_wait_for_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = LogFile::default();
        log.write_all(b"one\n").unwrap();
        log.open(File::create(&path).unwrap());
        log.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }
}
