//! From an error to what the terminal shows and the exit code of the contract: 0 fine, 1 the run failed, 2 wrong
//! usage or input, 3 no device or model as asked, 130 interrupted.

use std::io::{self, ErrorKind, IsTerminal};
use std::process::ExitCode;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, Report};
use thiserror::Error;

use crate::backend::BackendError;
use crate::backend::cuda::error::CudaError;
use crate::engine::EngineError;
use crate::model::chat::ChatError;
use crate::model::error::ModelError;
use crate::model::fetch::FetchError;
use crate::model::locate::LocateError;
use crate::model::tokenizer::TokenizerError;
use crate::policy::SpecError;
use crate::trace::TraceError;
use crate::tui::{ScreenError, text};

use super::session::told;
use super::settings::SettingsError;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const MISSING: u8 = 3;
pub const INTERRUPTED: u8 = 130;

/// The command line or what it names is wrong.
#[derive(Debug, Error, Diagnostic)]
#[error("{what}")]
pub struct Usage {
    what: String,
    #[help]
    help: String,
}

impl Usage {
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into() }
    }
}

/// Ctrl-C, or a signal that asks us to end.
#[derive(Debug, Error, Diagnostic)]
#[error("interrupted")]
pub struct Interrupted;

/// Reading or writing something that the user named, or standard output.
#[derive(Debug, Error, Diagnostic)]
#[error("cannot {doing}: {source}")]
pub struct Io {
    pub doing: String,
    pub source: io::Error,
}

impl Io {
    /// For `map_err`.
    pub fn while_(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self { doing, source }
    }
}

/// Ends the program: shows the error, gives its code. A reader that has seen enough (`| head`) is no error.
pub fn finish(result: Result<(), Report>) -> ExitCode {
    let Err(report) = result else { return ExitCode::SUCCESS };
    told();
    let code = code(&report);
    if let Some(code) = code.filter(|code| *code != INTERRUPTED) {
        show(&report);
        return ExitCode::from(code);
    }
    code.map_or(ExitCode::SUCCESS, ExitCode::from)
}

/// `None`: the reader of standard output has gone, which ends the program quietly.
fn code(report: &Report) -> Option<u8> {
    let of = |code: u8| Some(code);
    let of_io = |source: &io::Error| match source.kind() {
        ErrorKind::BrokenPipe => None,
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory => of(USAGE),
        _ => of(FAILED),
    };
    if let Some(error) = report.downcast_ref::<Io>() {
        return of_io(&error.source);
    }
    if let Some(error) = report.downcast_ref::<TraceError>() {
        return match error {
            TraceError::Io { source, .. } => of_io(source),
            TraceError::Ended { .. } | TraceError::TooLarge { .. } | TraceError::Encode(_) => of(FAILED),
            _ => of(USAGE),
        };
    }
    if report.is::<Interrupted>() {
        return of(INTERRUPTED);
    }
    if report.is::<Usage>()
        || report.is::<SettingsError>()
        || report.is::<SpecError>()
        || report.is::<TokenizerError>()
        || report.is::<ChatError>()
    {
        return of(USAGE);
    }
    if let Some(error) = report.downcast_ref::<CudaError>() {
        return of(match error {
            CudaError::Lost { .. } | CudaError::Full { .. } | CudaError::Call { .. } => FAILED,
            _ => MISSING,
        });
    }
    if let Some(error) = report.downcast_ref::<LocateError>() {
        return of(match error {
            LocateError::Unknown { .. } => MISSING,
            LocateError::Hub(_) => USAGE,
        });
    }
    if let Some(error) = report.downcast_ref::<FetchError>() {
        return of(match error {
            FetchError::Cancelled => INTERRUPTED,
            FetchError::DiskFull { .. } | FetchError::Disk { .. } => FAILED,
            _ => MISSING,
        });
    }
    if let Some(error) = report.downcast_ref::<ModelError>() {
        return of(match error {
            ModelError::Io { source, .. } if source.kind() == ErrorKind::NotFound => MISSING,
            _ => USAGE,
        });
    }
    if let Some(error) = report.downcast_ref::<EngineError>() {
        return of(match error {
            EngineError::Backend(BackendError::Interrupted) => INTERRUPTED,
            EngineError::Backend(_) | EngineError::NoPrompt => FAILED,
            EngineError::Model(ModelError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => MISSING,
            _ => USAGE,
        });
    }
    if let Some(error) = report.downcast_ref::<ScreenError>() {
        return of(if error.is_usage() { USAGE } else { FAILED });
    }
    of(FAILED)
}

/// On standard error. Names from outside may stand in an error: if one holds anything that could steer the terminal,
/// the whole report is shown plain and made visible.
fn show(report: &Report) {
    let plain = rendered(report, GraphicalTheme::unicode_nocolor());
    if io::stderr().is_terminal() && plain.lines().all(text::is_safe) {
        eprint!("{report:?}");
        return;
    }
    for line in plain.lines() {
        eprintln!("{}", text::line(line));
    }
}

fn rendered(report: &Report, theme: GraphicalTheme) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    match handler.render_report(&mut out, report.as_ref()) {
        Ok(()) => out,
        Err(_) => report.to_string(),
    }
}

/// What clap has to say about the command line, made visible; help and version are no errors.
pub fn refused(error: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    let words = error.render().to_string();
    let outcome = if words.lines().all(text::is_safe) {
        error.print()
    } else {
        words.lines().for_each(|line| eprintln!("{}", text::line(line)));
        Ok(())
    };
    // Nothing is left to be told to whoever closed the pipe.
    outcome.map_or(ExitCode::SUCCESS, |()| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_contract() {
        let code = |report: Report| super::code(&report);
        assert_eq!(code(Usage::new("a", "b").into()), Some(2));
        assert_eq!(code(CudaError::NoDriver.into()), Some(3));
        assert_eq!(code(Interrupted.into()), Some(130));
        assert_eq!(code(EngineError::EmptyPrompt.into()), Some(2));
        assert_eq!(code(EngineError::Backend(BackendError::Interrupted).into()), Some(130));
        assert_eq!(code(FetchError::Cancelled.into()), Some(130));
        assert_eq!(code(miette::miette!("anything else")), Some(1));
        let io = |kind: ErrorKind| Io { doing: "write".into(), source: kind.into() };
        assert_eq!(code(io(ErrorKind::BrokenPipe).into()), None);
        assert_eq!(code(io(ErrorKind::StorageFull).into()), Some(1));
    }

    #[test]
    fn a_name_with_an_escape_sequence_is_made_visible() {
        let report: Report = Usage::new("no \x1b[31mfile", "help").into();
        let plain = rendered(&report, GraphicalTheme::unicode_nocolor());
        assert!(!plain.lines().all(text::is_safe));
        assert!(plain.lines().map(text::line).all(|line| text::is_safe(&line) && !line.contains('\x1b')));
    }
}
