//! The screen's state and what actions do to it. Nothing is drawn here, and nothing about the model is computed.

use crossbeam_channel::Sender;
use crossterm::event::KeyEvent;
use ratatui::layout::{Position, Rect};

use crate::engine::message::{Answer, Command, Event, Grain, Probes, State, Until};

use crate::policy::Spec;

use super::action::Action;
use super::asker::{Asked, Asker};
use super::keymap::{Chord, Keymap};
use super::layer::{self, Layer, Reaction, Wish};
use super::panel::{Panel, Reply};
use super::seen::{Seen, Selection};
use super::session::Session;
use super::text;
use super::theme::Theme;
use super::timeline::Timeline;
use super::view::View;

/// How the screen was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Quit,
    /// Ctrl-C or a signal: exit code 130.
    Interrupted,
}

/// Milliseconds between the steps of a run.
pub const PACES: [u32; 8] = [0, 20, 50, 100, 200, 500, 1000, 2000];

/// Steps that are compared with and without times.
const COMPARED: u32 = 64;

/// Where things were drawn: for the mouse.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Panel index and the inside of its border.
    pub panels: Vec<(usize, Rect)>,
    /// View index and its tab.
    pub tabs: Vec<(usize, Rect)>,
}

pub struct App {
    pub session: Session,
    pub selection: Selection,
    pub timeline: Timeline,
    pub theme: Theme,
    pub keymap: Keymap,
    pub asker: Asker,
    pub views: Vec<View>,
    pub view: usize,
    pub maximized: bool,
    pub layers: Vec<Box<dyn Layer>>,
    /// Positions that the search found, ascending.
    pub found: Vec<usize>,
    pub pace: usize,
    pub probes: Probes,
    pub places: Places,
    /// A lane's policy that was asked for and has not come yet.
    wanted: Option<(u32, String)>,
    /// One line about what a key did not do.
    pub notice: Option<String>,
    pub exit: Option<Exit>,
    /// Something changed since the last drawing.
    pub dirty: bool,
}

impl App {
    /// `views` must not be empty.
    pub fn new(views: Vec<View>, keymap: Keymap, theme: Theme, commands: Sender<Command>) -> Self {
        Self {
            session: Session::default(),
            selection: Selection::default(),
            timeline: Timeline::default(),
            theme,
            keymap,
            asker: Asker::new(commands),
            views,
            view: 0,
            maximized: false,
            layers: Vec::new(),
            found: Vec::new(),
            pace: 0,
            probes: Probes::default(),
            places: Places::default(),
            wanted: None,
            notice: None,
            exit: None,
            dirty: true,
        }
    }

    pub fn seen(&self) -> Seen<'_> {
        seen_of(&self.session, &self.timeline, &self.theme, &self.found, &self.selection)
    }

    pub fn focused(&self) -> &dyn Panel {
        let view = &self.views[self.view];
        &*view.panels[view.focus]
    }

    /// Takes what the engine said.
    pub fn take(&mut self, event: Event) {
        self.dirty = true;
        match event {
            Event::Answer { id, answer } => {
                let took = self.asker.answered(Asked(id)).unwrap_or_default();
                let mut panels = self.views.iter_mut().flat_map(|v| &mut v.panels);
                if !panels.any(|p| p.answer(Asked(id), &answer, took)) {
                    if let Answer::Nothing(why) = &answer {
                        self.notice = Some(text::line(why));
                    }
                    self.session.take(Event::Answer { id, answer });
                }
                return;
            }
            Event::Prompt(_) => {
                self.timeline.follow();
                (self.selection.token, self.selection.key, self.selection.lane) = (None, 0, 0);
                self.found.clear();
            }
            Event::Rewound { .. } => self.timeline.follow(),
            Event::Notice(ref what) => (self.wanted, self.notice) = (None, Some(text::line(what))),
            Event::Frame(ref frame) => {
                let came = |(lane, spec): &(u32, String)| {
                    frame.lanes.get(*lane as usize).is_none_or(|lane| *lane.spec == **spec)
                };
                self.wanted = self.wanted.take().filter(|wanted| !came(wanted));
            }
            Event::Failed(ref why) => self.layers.push(Box::new(layer::error::Error::new("the run failed", why))),
            _ => {}
        }
        self.session.take(event);
    }

    /// The engine's end of the channel is gone.
    pub fn lost(&mut self, why: &str) {
        if self.session.failed.is_none() && self.exit.is_none() {
            self.take(Event::Failed(why.into()));
        }
    }

    pub fn key(&mut self, key: KeyEvent) {
        self.dirty = true;
        self.notice = None;
        let chord = Chord::from(key);
        let action = self.keymap.action(chord);
        // Whatever the key file says, Ctrl-C gets out.
        if action == Some(Action::Interrupt) || chord.to_string() == "c-c" {
            self.exit = Some(Exit::Interrupted);
            return;
        }
        if let Some(mut top) = self.layers.pop() {
            let reaction = top.key(chord, action, &self.seen());
            self.react(top, reaction);
        } else if let Some(action) = action {
            self.act(action);
        }
    }

    pub fn paste(&mut self, words: &str) {
        self.dirty = true;
        if let Some(mut top) = self.layers.pop() {
            let reaction = top.paste(words, &self.seen());
            self.react(top, reaction);
        }
    }

    fn react(&mut self, top: Box<dyn Layer>, reaction: Reaction) {
        if reaction.stays {
            self.layers.push(top);
        }
        for wish in reaction.wishes {
            match wish {
                Wish::Act(action) => self.act(action),
                Wish::Search(words) => self.search(&words),
                Wish::Prompt(words) => self.send(Command::Prompt(words)),
                Wish::Policy(lane, spec) => self.change(lane, spec),
                Wish::Open(spec) => self.open(spec),
            }
        }
    }

    fn search(&mut self, words: &str) {
        let tokens = self.session.tokens(self.seen().lane_index(), self.seen().at.unwrap_or(0));
        self.found = layer::search::matches(&self.session, &tokens, words);
        let from = self.seen().token();
        if let Some(&next) = self.found.iter().find(|&&p| p >= from).or(self.found.first()) {
            self.selection.token = Some(next);
        }
    }

    fn send(&mut self, command: Command) {
        if !self.asker.send(command) {
            self.notice =
                Some(if self.asker.gone { "the engine has stopped" } else { "the engine is busy: press again" }.into());
        }
    }

    /// What the focused panel does not want, the screen does.
    pub fn act(&mut self, action: Action) {
        self.dirty = true;
        let before = self.selection;
        let mut after = before;
        let seen = seen_of(&self.session, &self.timeline, &self.theme, &self.found, &before);
        let view = &mut self.views[self.view];
        let reply = view.panels[view.focus].act(action, &seen, &mut after);
        self.selection = after;
        match reply {
            Reply::Done => {}
            Reply::Then(next) => self.screen(next),
            Reply::Ignored => self.screen(action),
        }
    }

    fn screen(&mut self, action: Action) {
        let (layers, heads) = self.session.model.as_ref().map_or((1, 1), |m| (m.layers.max(1), m.heads.max(1)));
        let lanes = self.seen().frame().map_or(1, |f| f.lanes.len().max(1));
        let Selection { layer, head, .. } = self.selection;
        match action {
            Action::ToggleRun => self.toggle_run(),
            Action::StepToken => self.step(Grain::Token),
            Action::StepLayer => self.step(Grain::Layer),
            Action::StepSublayer => self.step(Grain::Sublayer),
            Action::Back => self.timeline.back(&self.session),
            Action::Forward => {
                if !self.timeline.forward(&self.session) {
                    self.step(Grain::Token);
                }
            }
            Action::Oldest => self.timeline.go(0, &self.session),
            Action::Newest => self.timeline.follow(),
            Action::At(step) => self.timeline.go(step, &self.session),
            Action::Rewind => self.at_step(|step, _| Command::Rewind { step }),
            Action::Fork => self.at_step(|step, lane| Command::Fork { lane, step }),
            Action::Force(token) => {
                let lane = self.seen().lane_index() as u32;
                self.timeline.follow();
                self.send(Command::Force { lane, token });
            }
            Action::Run(tokens) => self.run(Until::Tokens(tokens)),
            Action::MoreBudget | Action::LessBudget => {
                self.edit_spec(|spec| spec.nudged(action == Action::MoreBudget).ok_or("this policy has no budget"));
            }
            Action::ToggleProtected => self.edit_spec(|spec| Ok(spec.protection_toggled())),
            Action::EditPolicy => {
                if let Some((lane, spec)) = self.chosen_spec() {
                    self.layers.push(Box::new(layer::policy::PolicyEditor::new(lane, &spec)));
                }
            }
            Action::Intervene => self.layers.push(Box::new(layer::intervene::Intervene::new(layer, head))),
            Action::Why => {
                if let Some(view) = self.views.iter().position(|view| view.panels.iter().any(|p| p.name() == "why")) {
                    self.show(view);
                }
            }
            Action::Faster => self.set_pace(self.pace.saturating_sub(1)),
            Action::Slower => self.set_pace((self.pace + 1).min(PACES.len() - 1)),
            Action::Left => self.selection.token = Some(self.seen().token().saturating_sub(1)),
            Action::Right => {
                let next = self.seen().token() + 1;
                self.selection.token = Some(next).filter(|n| n + 1 < self.seen().positions());
            }
            Action::First => self.selection.token = Some(0),
            Action::Last => self.selection.token = None,
            Action::LayerPrevious => self.selection.layer = layer.saturating_sub(1),
            Action::LayerNext => self.selection.layer = (layer + 1).min(layers - 1),
            Action::HeadPrevious => self.selection.head = head.saturating_sub(1),
            Action::HeadNext => self.selection.head = (head + 1).min(heads - 1),
            Action::LanePrevious => self.selection.lane = (self.seen().lane_index() + lanes - 1) % lanes,
            Action::LaneNext => self.selection.lane = (self.seen().lane_index() + 1) % lanes,
            Action::Layer(n) => self.selection.layer = (n as usize).min(layers - 1),
            Action::Head(n) => self.selection.head = (n as usize).min(heads - 1),
            Action::Lane(n) => self.selection.lane = (n as usize).min(lanes - 1),
            Action::Token(n) => self.selection.token = Some(n as usize).filter(|n| *n < self.seen().positions()),
            Action::SearchNext | Action::SearchPrevious => self.next_found(action == Action::SearchNext),
            Action::TimingCost => {
                self.timeline.follow();
                self.send(Command::CompareTimings { steps: COMPARED });
            }
            Action::ToggleLens => {
                self.probes.lens = !self.probes.lens;
                self.send(Command::SetProbes(self.probes));
                let state = if self.probes.lens { "on: from the next step" } else { "off" };
                self.notice = Some(format!("logit lens {state}"));
            }
            Action::FocusNext | Action::FocusPrevious => self.move_focus(action == Action::FocusNext),
            Action::Maximize => self.maximized = !self.maximized,
            Action::View(n) => self.show((n as usize).wrapping_sub(1)),
            Action::ViewNext => self.show((self.view + 1) % self.views.len()),
            Action::Search => self.layers.push(Box::new(layer::search::Search::default())),
            Action::PickHead => self.layers.push(Box::new(layer::head_picker::HeadPicker::default())),
            Action::Prompt => self.layers.push(Box::new(layer::prompt::Prompt::default())),
            Action::Palette => self.layers.push(Box::new(layer::palette::Palette::new(&self.views, &self.keymap))),
            Action::Help => {
                let help = layer::help::Help::new(&self.keymap, self.focused(), &self.views);
                self.layers.push(Box::new(help));
            }
            Action::Close => {
                self.found.clear();
                self.maximized = false;
                self.selection.token = None;
            }
            Action::Quit => self.exit = Some(Exit::Quit),
            Action::Interrupt => self.exit = Some(Exit::Interrupted),
            // Actions that only some panels understand.
            Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::Choose => {}
            Action::ZoomIn | Action::ZoomOut | Action::ZoomReset | Action::Colour | Action::Scale => {
                self.not_here(action);
            }
            Action::Fold | Action::ToggleSink | Action::Sort | Action::Span => self.not_here(action),
        }
    }

    fn not_here(&mut self, action: Action) {
        self.notice = Some(format!("the panel \"{}\" has no {action}", self.focused().name()));
    }

    fn toggle_run(&mut self) {
        match self.session.state {
            State::Running | State::Prefill { .. } => self.send(Command::Pause),
            _ => self.run(Until::Forever),
        }
    }

    fn run(&mut self, until: Until) {
        self.timeline.follow();
        self.send(Command::Run { until, pace_ms: PACES[self.pace] });
    }

    fn step(&mut self, grain: Grain) {
        self.timeline.follow();
        self.send(Command::Step(grain));
    }

    fn set_pace(&mut self, pace: usize) {
        self.pace = pace;
        self.notice = Some(match PACES[pace] {
            0 => "pace: as fast as it goes".into(),
            ms => format!("pace: one step every {ms} ms"),
        });
        if self.session.state == State::Running {
            self.send(Command::Run { until: Until::Forever, pace_ms: PACES[pace] });
        }
    }

    /// The chosen lane and its spec, where it is one that may be changed.
    fn chosen_spec(&mut self) -> Option<(u32, String)> {
        let lane = self.seen().lane_index();
        // keys may come faster than lanes start again
        let wanted = self.wanted.as_ref().filter(|(of, _)| *of as usize == lane).map(|(_, spec)| spec.clone());
        let spec = wanted.or_else(|| self.seen().lane().map(|lane| lane.spec.to_string()));
        if lane == 0 {
            let key = self.keymap.key(Action::LaneNext);
            self.notice = Some(format!("lane 0 keeps everything, as the yardstick; {key} chooses another lane"));
        }
        spec.filter(|_| lane > 0).map(|spec| (lane as u32, spec))
    }

    fn edit_spec(&mut self, edit: impl FnOnce(&Spec) -> Result<Spec, &'static str>) {
        let Some((lane, spec)) = self.chosen_spec() else { return };
        let Ok(old) = Spec::parse(&spec) else { return };
        match edit(&old) {
            Ok(new) if new == old => self.notice = Some("the budget ends here".into()),
            Ok(new) => self.change(lane, new.to_string()),
            Err(why) => self.notice = Some(why.into()),
        }
    }

    fn change(&mut self, lane: u32, spec: String) {
        self.timeline.follow();
        self.notice = Some(format!("lane {lane} starts again as {}", text::line(&spec)));
        self.wanted = Some((lane, spec.clone()));
        self.send(Command::Change { lane, spec });
    }

    /// A lane more, chosen once it comes.
    fn open(&mut self, spec: String) {
        self.timeline.follow();
        self.notice = Some(format!("a lane reads the prompt as {}", text::line(&spec)));
        if let Some(lanes) = self.seen().frame().map(|frame| frame.lanes.len()) {
            self.selection.lane = lanes;
        }
        self.send(Command::Open { spec });
    }

    /// A command about the chosen lane at the step on the screen.
    fn at_step(&mut self, command: impl Fn(u32, u32) -> Command) {
        match self.seen().frame().map(|f| (f.step, f.partial)) {
            Some((step, None)) => self.send(command(step, self.seen().lane_index() as u32)),
            Some(_) => self.notice = Some("the step is not complete".into()),
            None => self.notice = Some("nothing has been computed yet".into()),
        }
    }

    fn next_found(&mut self, forward: bool) {
        let here = self.seen().token();
        let next = if forward {
            self.found.iter().find(|&&p| p > here).or(self.found.first())
        } else {
            self.found.iter().rev().find(|&&p| p < here).or(self.found.last())
        };
        match next {
            Some(&position) => self.selection.token = Some(position),
            None => self.notice = Some(format!("nothing found; {} searches", self.keymap.key(Action::Search))),
        }
    }

    /// Round the panels that are on the screen.
    fn move_focus(&mut self, forward: bool) {
        let order: Vec<usize> = self.places.panels.iter().map(|(panel, _)| *panel).collect();
        let order = if self.maximized { (0..self.views[self.view].panels.len()).collect() } else { order };
        let Some(n) = Some(order.len()).filter(|n| *n > 0) else { return };
        let view = &mut self.views[self.view];
        let at = order.iter().position(|p| *p == view.focus).unwrap_or(0);
        view.focus = order[(at + if forward { 1 } else { n - 1 }) % n];
    }

    fn show(&mut self, view: usize) {
        if view < self.views.len() {
            self.view = view;
            self.maximized = false;
        } else {
            self.notice = Some(format!("there are {} views", self.views.len()));
        }
    }

    pub fn click(&mut self, at: Position) {
        self.dirty = true;
        if !self.layers.is_empty() {
            return;
        }
        if let Some(&(view, _)) = self.places.tabs.iter().find(|(_, r)| r.contains(at)) {
            self.show(view);
        } else if let Some(&(panel, inside)) = self.places.panels.iter().find(|(_, r)| r.contains(at)) {
            let before = self.selection;
            let mut after = before;
            let seen = seen_of(&self.session, &self.timeline, &self.theme, &self.found, &before);
            let view = &mut self.views[self.view];
            view.focus = panel;
            let reply = view.panels[panel].click(at.x - inside.x, at.y - inside.y, &seen, &mut after);
            self.selection = after;
            if let Reply::Then(action) = reply {
                self.screen(action);
            }
        }
    }

    pub fn scroll(&mut self, at: Position, down: bool) {
        let under = self.places.panels.iter().find(|(_, r)| r.contains(at)).map(|(panel, _)| *panel);
        if let Some(panel) = under.filter(|_| self.layers.is_empty()) {
            let view = &mut self.views[self.view];
            view.focus = panel;
            let zooms = view.panels[panel].keys().iter().any(|(a, _)| *a == Action::ZoomIn);
            self.act(match (zooms, down) {
                (true, false) => Action::ZoomIn,
                (true, true) => Action::ZoomOut,
                (false, false) => Action::Up,
                (false, true) => Action::Down,
            });
        }
    }
}

/// What panels see, from the parts of the app that are not borrowed otherwise.
pub fn seen_of<'a>(
    session: &'a Session,
    timeline: &Timeline,
    theme: &'a Theme,
    found: &'a [usize],
    selection: &'a Selection,
) -> Seen<'a> {
    Seen { session, selection, theme, at: timeline.index(session), live: timeline.is_live(), focused: false, found }
}
