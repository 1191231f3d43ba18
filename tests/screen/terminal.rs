//! The screen on a real terminal (a pty): drawn, left, and the terminal as it was, on every way out.

use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use attnscope::tui::guard::Guard;
use attnscope::tui::{Exit, ScreenOptions, run};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::script;

/// Tells the test below that it is the program on the pty, and what it shall do.
const ROLE: &str = "ATTNSCOPE_TEST_TERMINAL";

/// Not a test of its own: what runs on the pty.
#[test]
fn on_the_terminal() {
    match std::env::var(ROLE).as_deref() {
        Ok("screen") => {
            let (commands, events) = script::engine(40, 2);
            let left = run(&ScreenOptions { mouse: true, ..Default::default() }, commands, events);
            std::process::exit(match left {
                Ok(Exit::Quit) => 0,
                Ok(Exit::Interrupted) => 130,
                Err(error) => {
                    println!("{error}");
                    1
                }
            });
        }
        Ok("panic") => {
            let _guard = Guard::enter(false).expect("a terminal");
            panic!("on purpose");
        }
        _ => {}
    }
}

struct Terminal {
    screen: vt100::Parser,
    output: Receiver<Vec<u8>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn start(role: &str) -> Self {
        let size = PtySize { rows: 40, cols: 120, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pty");
        let mut command = CommandBuilder::new(std::env::current_exe().expect("this test's program"));
        command.args(["--exact", "terminal::on_the_terminal", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role);
        command.env("TERM", "xterm-256color");
        command.env("COLORTERM", "truecolor");
        command.env_remove("NO_COLOR");
        let child = pair.slave.spawn_command(command).expect("the program starts");
        let mut reader = pair.master.try_clone_reader().expect("its output");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 || sender.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let (rows, columns) = (NonZero::new(40).expect("rows"), NonZero::new(120).expect("columns"));
        let keys = pair.master.take_writer().expect("its keyboard");
        Self { screen: vt100::Parser::new(rows, columns, 0), output, keys, child, _master: pair.master }
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Reads until the screen holds `words`.
    fn until(&mut self, words: &str) {
        let start = Instant::now();
        while !self.text().contains(words) {
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                self.screen.process(&bytes);
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no {words:?} on\n{}", self.text());
        }
    }

    /// Reads until the screen holds `words` no longer.
    fn until_gone(&mut self, words: &str) {
        let start = Instant::now();
        while self.text().contains(words) {
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                self.screen.process(&bytes);
            }
            assert!(start.elapsed() < Duration::from_secs(60), "still {words:?} on\n{}", self.text());
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the keyboard");
    }

    /// Waits for the end; returns the exit code.
    fn end(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the program's status") {
                while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                    self.screen.process(&bytes);
                }
                return status.exit_code();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "still there\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn assert_restored(&self) {
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "the alternate screen was left");
        assert!(!screen.hide_cursor(), "the cursor shows");
        assert!(!screen.bracketed_paste(), "pasting is as before");
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    }
}

#[test]
fn keys_reach_the_screen_and_quitting_restores_the_terminal() {
    let mut terminal = Terminal::start("screen");
    terminal.until("step 0");
    assert!(terminal.screen.screen().alternate_screen());
    terminal.press("n");
    terminal.until("step 1");
    terminal.press("3");
    terminal.until("streaming@25%:sinks=4");
    terminal.press(":zoom");
    terminal.until("zoom");
    // An escape that the next key follows at once is read as Alt and that key: wait for what it does.
    terminal.press("\x1b");
    terminal.until_gone("zoom");
    terminal.press("q");
    let code = terminal.end();
    assert_eq!(code, 0, "{}", terminal.text());
    terminal.assert_restored();
}

#[test]
fn ctrl_c_interrupts_and_restores() {
    let mut terminal = Terminal::start("screen");
    terminal.until("step 0");
    terminal.press("\x03");
    assert_eq!(terminal.end(), 130);
    terminal.assert_restored();
}

#[test]
fn a_signal_interrupts_and_restores() {
    let mut terminal = Terminal::start("screen");
    terminal.until("step 0");
    let id = terminal.child.process_id().expect("a process").to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &id]).status();
    assert!(sent.is_ok_and(|s| s.success()));
    assert_eq!(terminal.end(), 130);
    terminal.assert_restored();
}

#[test]
fn a_panic_restores_and_then_tells() {
    let mut terminal = Terminal::start("panic");
    terminal.end();
    terminal.assert_restored();
    assert!(terminal.text().contains("on purpose"), "{}", terminal.text());
}
