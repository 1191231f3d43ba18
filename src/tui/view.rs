//! Views: which panels stand where. Ours travel in the binary, users add theirs in their config folder; a user's
//! view with the name of one of ours replaces it.

use ratatui::layout::{Constraint, Direction, Layout, Rect};
use serde::Deserialize;

use super::panel::{OptionError, Options, PANELS, Panel};
use super::text;

const BUILT_IN: &[(&str, &str)] = &[
    ("overview.toml", include_str!("../../views/overview.toml")),
    ("attention.toml", include_str!("../../views/attention.toml")),
    ("policies.toml", include_str!("../../views/policies.toml")),
    ("growth.toml", include_str!("../../views/growth.toml")),
    ("memory.toml", include_str!("../../views/memory.toml")),
    ("timings.toml", include_str!("../../views/timings.toml")),
    ("why.toml", include_str!("../../views/why.toml")),
    ("depth.toml", include_str!("../../views/depth.toml")),
    ("exits.toml", include_str!("../../views/exits.toml")),
    ("streams.toml", include_str!("../../views/streams.toml")),
];

#[derive(Debug, Clone, PartialEq, thiserror::Error, miette::Diagnostic)]
pub enum ViewError {
    #[error("view {file}: {message}")]
    Syntax { file: String, message: String },
    #[error("view {file}: no panel \"{panel}\"{}", match nearest { Some(n) => format!("; did you mean \"{n}\"?"), None => String::new() })]
    #[diagnostic(help("panels: {}", PANELS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")))]
    Panel { file: String, panel: String, nearest: Option<&'static str> },
    #[error("view {file}, panel {panel}: {error}")]
    Option { file: String, panel: String, error: OptionError },
    #[error("view {file}: size \"{size}\": write columns (\"12\"), a share of the room (\"30%\") or weights (\"2*\")")]
    Size { file: String, size: String },
    #[error("view {file}: {message}")]
    #[diagnostic(help("each block is one of: panel = \"name\", rows = [ … ], cols = [ … ]"))]
    Block { file: String, message: String },
    #[error("no view \"{name}\"; there are: {known}")]
    Name { name: String, known: String },
    #[error("cannot read {file}: {message}")]
    Read { file: String, message: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    about: String,
    layout: Vec<Variant>,
}

/// A layout for screens of at least `width` × `height` cells.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    #[serde(default)]
    width: u16,
    #[serde(default)]
    height: u16,
    root: Node,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    panel: Option<String>,
    #[serde(default)]
    options: Options,
    #[serde(default)]
    rows: Option<Vec<Node>>,
    #[serde(default)]
    cols: Option<Vec<Node>>,
}

enum Block {
    /// Index into the view's panels.
    Leaf(usize),
    Split(Direction, Vec<(Constraint, Block)>),
}

struct Arrangement {
    width: u16,
    height: u16,
    root: Block,
}

/// A checked view with its panels built.
pub struct View {
    pub name: String,
    pub about: String,
    arrangements: Vec<Arrangement>,
    pub panels: Vec<Box<dyn Panel>>,
    /// Panel that has the keys.
    pub focus: usize,
}

fn size(file: &str, words: Option<&str>) -> Result<Constraint, ViewError> {
    let Some(words) = words.map(str::trim) else { return Ok(Constraint::Fill(1)) };
    let parsed = match words.strip_suffix('%') {
        Some(share) => share.parse().ok().filter(|n| *n <= 100).map(Constraint::Percentage),
        None => match words.strip_suffix('*') {
            Some("") => Some(Constraint::Fill(1)),
            Some(weight) => weight.parse().ok().map(Constraint::Fill),
            None => words.parse().ok().map(Constraint::Length),
        },
    };
    parsed.ok_or_else(|| ViewError::Size { file: file.into(), size: text::line(words) })
}

impl View {
    pub fn parse(file: &str, toml: &str) -> Result<Self, ViewError> {
        let file = text::line(file);
        let parsed: File = toml::from_str(toml).map_err(|e| {
            let line = e.span().map(|s| toml.get(..s.start).map_or(0, |t| t.matches('\n').count()) + 1);
            let place = line.map_or(String::new(), |l| format!("line {l}: "));
            ViewError::Syntax { file: file.clone(), message: format!("{place}{}", text::line(e.message())) }
        })?;
        let mut view = View {
            name: text::line(&parsed.name),
            about: text::line(&parsed.about),
            arrangements: Vec::new(),
            panels: Vec::new(),
            focus: 0,
        };
        let mut seats: Vec<(String, Options)> = Vec::new();
        for variant in parsed.layout {
            let root = view.block(&file, variant.root, &mut seats, 0)?.1;
            view.arrangements.push(Arrangement { width: variant.width, height: variant.height, root });
        }
        if view.arrangements.is_empty() {
            return Err(ViewError::Block { file, message: "no [[layout]]".into() });
        }
        Ok(view)
    }

    /// The same panel with the same options in two layouts is one panel: it keeps its state when the size changes.
    fn block(
        &mut self,
        file: &str,
        node: Node,
        seats: &mut Vec<(String, Options)>,
        depth: usize,
    ) -> Result<(Constraint, Block), ViewError> {
        let constraint = size(file, node.size.as_deref())?;
        let wrong = |message: &str| ViewError::Block { file: file.into(), message: message.into() };
        if depth > 8 {
            return Err(wrong("blocks are nested more than 8 deep"));
        }
        let (direction, nodes) = match (node.panel, node.rows, node.cols) {
            (Some(name), None, None) => {
                return Ok((constraint, Block::Leaf(self.seat(file, name, node.options, seats)?)));
            }
            (None, Some(rows), None) => (Direction::Vertical, rows),
            (None, None, Some(cols)) => (Direction::Horizontal, cols),
            _ => return Err(wrong("a block has none or more than one of panel, rows, cols")),
        };
        if nodes.is_empty() {
            return Err(wrong("rows or cols is empty"));
        }
        let blocks = nodes.into_iter().map(|n| self.block(file, n, seats, depth + 1)).collect::<Result<_, _>>()?;
        Ok((constraint, Block::Split(direction, blocks)))
    }

    fn seat(
        &mut self,
        file: &str,
        name: String,
        options: Options,
        seats: &mut Vec<(String, Options)>,
    ) -> Result<usize, ViewError> {
        if let Some(at) = seats.iter().position(|(n, o)| *n == name && *o == options) {
            return Ok(at);
        }
        let Some((_, build)) = PANELS.iter().find(|(known, _)| *known == name) else {
            let nearest = PANELS
                .iter()
                .map(|&(known, _)| (strsim::damerau_levenshtein(known, &name), known))
                .min()
                .filter(|&(distance, known)| distance <= known.len() / 2)
                .map(|(_, known)| known);
            return Err(ViewError::Panel { file: file.into(), panel: text::line(&name), nearest });
        };
        let mut panel = build();
        panel.configure(&options).map_err(|error| ViewError::Option {
            file: file.into(),
            panel: name.clone(),
            error,
        })?;
        self.panels.push(panel);
        seats.push((name, options));
        Ok(seats.len() - 1)
    }

    /// Panels with their places for a screen part; the first layout that fits, else the last.
    pub fn arrange(&self, area: Rect) -> Vec<(usize, Rect)> {
        let fits = |a: &&Arrangement| area.width >= a.width && area.height >= a.height;
        let mut places = Vec::new();
        if let Some(chosen) = self.arrangements.iter().find(fits).or(self.arrangements.last()) {
            place(&chosen.root, area, &mut places);
        }
        places
    }
}

fn place(block: &Block, area: Rect, places: &mut Vec<(usize, Rect)>) {
    match block {
        Block::Leaf(panel) => places.push((*panel, area)),
        Block::Split(direction, blocks) => {
            let areas = Layout::new(*direction, blocks.iter().map(|(c, _)| *c)).split(area);
            for ((_, block), &area) in blocks.iter().zip(areas.iter()) {
                place(block, area, places);
            }
        }
    }
}

/// All views: ours, then the user's files (name, contents) in the order given.
pub fn load(users: &[(String, String)]) -> Result<Vec<View>, ViewError> {
    let mut views: Vec<View> = Vec::new();
    let built_in = BUILT_IN.iter().map(|&(file, toml)| (file, toml));
    for (file, toml) in built_in.chain(users.iter().map(|(file, toml)| (file.as_str(), toml.as_str()))) {
        let view = View::parse(file, toml)?;
        match views.iter_mut().find(|v| v.name == view.name) {
            Some(old) => *old = view,
            None => views.push(view),
        }
    }
    Ok(views)
}

/// Index of the view called `name`.
pub fn find(views: &[View], name: &str) -> Result<usize, ViewError> {
    views.iter().position(|v| v.name == name).ok_or_else(|| ViewError::Name {
        name: text::line(name),
        known: views.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_views_are_valid_and_fill_the_screen_without_overlap() {
        let views = load(&[]).unwrap();
        assert_eq!(views.len(), BUILT_IN.len());
        for view in &views {
            for (width, height) in [(80, 22), (120, 38), (200, 58)] {
                let area = Rect::new(0, 0, width, height);
                let places = view.arrange(area);
                let cells: u32 = places.iter().map(|(_, r)| r.area()).sum();
                assert_eq!(cells, area.area(), "{} at {width}x{height}", view.name);
                assert!(places.iter().all(|(_, r)| r.width >= 20 && r.height >= 4), "{} {places:?}", view.name);
            }
        }
    }

    fn parse(toml: &str) -> Result<View, ViewError> {
        View::parse("mine.toml", toml)
    }

    fn message(toml: &str) -> String {
        parse(toml).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn mistakes_name_the_file_the_place_and_the_way_out() {
        let with = |root: &str| format!("name = \"x\"\nabout = \"y\"\n[[layout]]\nroot = {root}");
        assert_eq!(message(&with("{ panel = \"mapp\" }")), "view mine.toml: no panel \"mapp\"; did you mean \"map\"?");
        assert!(message(&with("{ panel = \"map\", size = \"wide\" }")).contains("size \"wide\""));
        assert!(message(&with("{ panel = \"map\", options = { fold = \"min\" } }")).contains("max, mean, sum"));
        assert!(message(&with("{ panel = \"map\", options = { colour = \"x\" } }")).contains("knows: fold, scale"));
        assert!(message(&with("{ rows = [] }")).contains("empty"));
        assert!(message(&with("{ }")).contains("none or more than one"));
        assert!(message("name = 3").starts_with("view mine.toml: line 1"));
        assert!(message("name = \"x\"\nabout = \"y\"\nlayout = []").contains("no [[layout]]"));
    }

    #[test]
    fn a_users_view_replaces_ours_of_the_same_name() {
        let mine = "name = \"growth\"\nabout = \"mine\"\n[[layout]]\nroot = { panel = \"tokens\" }";
        let views = load(&[("growth.toml".into(), mine.into())]).unwrap();
        assert_eq!(views.len(), BUILT_IN.len());
        assert_eq!(views[find(&views, "growth").unwrap()].about, "mine");
        assert!(find(&views, "nope").err().unwrap().to_string().contains("overview"));
    }
}
