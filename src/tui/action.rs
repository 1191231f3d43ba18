//! Everything the screen can be told to do. One enum for keymap, palette, macros and help.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! actions {
    (plain { $($plain:ident $name:literal $about:literal)* } numbered { $($numbered:ident $nname:literal $nabout:literal)* }) => {
        /// Spelled `name` or `name:number` in key files, macros and the palette.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Action {
            $(#[doc = $about] $plain,)*
            $(#[doc = $nabout] $numbered(u32),)*
        }

        impl Action {
            /// Every action without a number, in the order of the help.
            pub const PLAIN: &[Action] = &[$(Action::$plain),*];
            /// Name and meaning of the actions that take a number.
            pub const NUMBERED: &[(&str, &str)] = &[$(($nname, $nabout)),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Action::$plain => $name,)*
                    $(Action::$numbered(_) => $nname,)*
                }
            }

            pub fn about(self) -> &'static str {
                match self {
                    $(Action::$plain => $about,)*
                    $(Action::$numbered(_) => $nabout,)*
                }
            }

            fn numbered(name: &str, number: u32) -> Option<Action> {
                match name {
                    $($nname => Some(Action::$numbered(number)),)*
                    _ => None,
                }
            }
        }
    };
}

actions! {
    plain {
        ToggleRun "run" "run or pause"
        StepToken "step_token" "compute the next token"
        StepLayer "step_layer" "compute one layer"
        StepSublayer "step_sublayer" "compute one sublayer (attention or MLP)"
        Back "back" "one step back in time"
        Forward "forward" "one step forward; at the newest step, compute the next"
        Oldest "oldest" "go to the prompt"
        Newest "newest" "go to the newest step and follow it"
        Rewind "rewind" "drop the steps after this one in the engine too"
        Intervene "intervene" "knock out or change what is chosen, in a lane of its own"
        Fork "fork" "new lane from this lane at this step"
        MoreBudget "more_budget" "more budget for this lane's policy"
        LessBudget "less_budget" "less budget for this lane's policy"
        EditPolicy "policy" "another policy for this lane"
        ToggleProtected "toggle_protected" "protect the first and newest entries in this lane, or not"
        Why "why" "why the chosen token stays or goes"
        Faster "faster" "run faster"
        Slower "slower" "run slower"
        Up "up" "up"
        Down "down" "down"
        Left "left" "left"
        Right "right" "right"
        PageUp "page_up" "a page up"
        PageDown "page_down" "a page down"
        First "first" "to the first"
        Last "last" "to the last"
        Choose "choose" "choose what is under the cursor"
        LayerPrevious "layer_previous" "previous layer"
        LayerNext "layer_next" "next layer"
        HeadPrevious "head_previous" "previous head"
        HeadNext "head_next" "next head"
        LanePrevious "lane_previous" "previous lane"
        LaneNext "lane_next" "next lane"
        PickHead "pick_head" "type a layer and head"
        Search "search" "search the tokens"
        SearchNext "search_next" "next token found"
        SearchPrevious "search_previous" "previous token found"
        ZoomIn "zoom_in" "zoom in"
        ZoomOut "zoom_out" "zoom out"
        ZoomReset "zoom_reset" "show everything again"
        Colour "colour" "next way to colour"
        Scale "scale" "next scale: linear, log, percentile"
        Fold "fold" "next fold: max, mean, sum"
        ToggleSink "toggle_sink" "leave out the sink column (position 0)"
        Sort "sort" "sort by the next column"
        Span "span" "this step, the last steps, or all"
        TimingCost "timing_cost" "run 64 steps, every other one without times, and compare"
        ToggleLens "toggle_lens" "switch the logit lens on or off"
        FocusNext "focus_next" "next panel"
        FocusPrevious "focus_previous" "previous panel"
        Maximize "maximize" "this panel on the whole screen, and back"
        ViewNext "view_next" "next view"
        Prompt "prompt" "start again with another prompt"
        Palette "palette" "all commands"
        Help "help" "these keys"
        Close "close" "close the popup, or let go of the chosen token"
        Quit "quit" "quit"
        Interrupt "interrupt" "stop at once (exit code 130)"
    }
    numbered {
        View "view" "show view number N"
        Layer "layer" "go to layer N"
        Head "head" "go to head N"
        Lane "lane" "go to lane N"
        Token "token" "go to position N"
        At "at" "go to step N in time"
        Run "tokens" "run N tokens, then pause"
        Force "force" "feed token id N in the next step of this lane"
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Action::View(n)
            | Action::Layer(n)
            | Action::Head(n)
            | Action::Lane(n)
            | Action::Token(n)
            | Action::At(n)
            | Action::Run(n)
            | Action::Force(n) => write!(f, "{}:{n}", self.name()),
            plain => f.write_str(plain.name()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no action \"{given}\"{}", match nearest { Some(n) => format!("; did you mean \"{n}\"?"), None => String::new() })]
pub struct UnknownAction {
    pub given: String,
    pub nearest: Option<&'static str>,
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let text = text.trim();
        let numbered =
            text.split_once([':', ' ']).and_then(|(name, number)| Action::numbered(name, number.trim().parse().ok()?));
        if let Some(action) = numbered {
            return Ok(action);
        }
        if let Some(&plain) = Action::PLAIN.iter().find(|a| a.name() == text) {
            return Ok(plain);
        }
        let names = Action::PLAIN.iter().map(|a| a.name()).chain(Action::NUMBERED.iter().map(|&(name, _)| name));
        let wanted = text.split([':', ' ']).next().unwrap_or(text);
        let nearest = names
            .map(|name| (strsim::damerau_levenshtein(name, wanted), name))
            .min()
            .filter(|&(distance, name)| distance <= name.len() / 2)
            .map(|(_, name)| name);
        Err(UnknownAction { given: super::text::line(text), nearest })
    }
}

impl TryFrom<String> for Action {
    type Error = UnknownAction;

    fn try_from(text: String) -> Result<Self, UnknownAction> {
        text.parse()
    }
}

impl From<Action> for String {
    fn from(action: Action) -> String {
        action.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_survives_being_written_and_read() {
        let numbered = Action::NUMBERED.iter().filter_map(|&(name, _)| Action::numbered(name, 7));
        for action in Action::PLAIN.iter().copied().chain(numbered) {
            assert_eq!(action.to_string().parse(), Ok(action));
            assert!(!action.about().is_empty());
        }
        assert_eq!("view 3".parse(), Ok(Action::View(3)));
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        let error = "zoom_im".parse::<Action>().unwrap_err();
        assert_eq!(error.to_string(), "no action \"zoom_im\"; did you mean \"zoom_in\"?");
        assert_eq!("xyzzyplugh".parse::<Action>().unwrap_err().nearest, None);
    }
}
