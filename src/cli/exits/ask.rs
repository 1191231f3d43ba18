//! Drafts as users name them: `exit=20`, `skip=6`, `cosine=0.95`, `sublayers=1/5/7`.

use std::fmt;
use std::str::FromStr;

use miette::Result;

use crate::cli::exit::Usage;

#[derive(Debug, Clone, PartialEq)]
pub enum DraftAsk {
    /// The first layers.
    Exit(usize),
    /// Without so many attention sublayers, those that turn the residual stream least.
    Skip(usize),
    /// Without the attention sublayers whose cosine is at least this.
    Cosine(f32),
    /// Without these.
    Sublayers(Vec<usize>),
}

impl FromStr for DraftAsk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "exit=L, skip=N, cosine=C or sublayers=1/5/7".to_owned();
        let count = |value: &str| value.parse::<usize>().map_err(|_| form());
        match text.split_once('=').ok_or_else(form)? {
            ("exit", value) => count(value).map(Self::Exit),
            ("skip", value) => count(value).map(Self::Skip),
            ("cosine", value) => {
                let cosine = value.parse::<f32>().ok().filter(|c| (-1.0..=1.0).contains(c));
                cosine.map(Self::Cosine).ok_or_else(|| "a cosine is from -1 to 1".into())
            }
            ("sublayers", value) => value.split('/').map(count).collect::<Result<_, _>>().map(Self::Sublayers),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for DraftAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(layers) => write!(f, "exit={layers}"),
            Self::Skip(count) => write!(f, "skip={count}"),
            Self::Cosine(least) => write!(f, "cosine={least}"),
            Self::Sublayers(list) => {
                write!(f, "sublayers={}", list.iter().map(usize::to_string).collect::<Vec<_>>().join("/"))
            }
        }
    }
}

impl DraftAsk {
    /// A few of each for a model of `layers` layers; where depth is `mixed`, none with gaps.
    pub fn usual(layers: usize, mixed: bool) -> Vec<Self> {
        let parts = [(1, 8), (1, 4), (1, 2)].map(|(n, of)| Self::Skip((layers * n / of).max(1)));
        let exits = [(1, 2), (3, 4)].map(|(n, of)| Self::Exit((layers * n / of).max(1)));
        parts.into_iter().filter(|_| !mixed).chain(exits).collect()
    }

    /// Which sublayers are left out [2L], where attention sublayers turn the stream by `influence` [2L], 1 − cosine.
    pub fn skip(&self, influence: &[f32]) -> Result<Vec<bool>, Usage> {
        let layers = influence.len() / 2;
        let outside = |what: String, help: String| Usage::new(format!("--draft {self}: {what}"), help);
        match self {
            Self::Exit(first) if (1..=layers).contains(first) => Ok((0..2 * layers).map(|i| i >= 2 * first).collect()),
            Self::Exit(_) => Err(outside("no such layer".into(), format!("the model has layers 1 to {layers}"))),
            Self::Skip(count) if *count <= layers => {
                let mut attention: Vec<usize> = (0..2 * layers).step_by(2).collect();
                attention.sort_by(|&a, &b| influence[a].total_cmp(&influence[b]));
                Ok((0..2 * layers).map(|i| attention[..*count].contains(&i)).collect())
            }
            Self::Skip(_) => Err(outside("more than there are".into(), format!("the model has {layers} layers"))),
            Self::Cosine(least) => Ok((0..2 * layers).map(|i| i % 2 == 0 && 1.0 - influence[i] >= *least).collect()),
            Self::Sublayers(list) => match list.iter().find(|&&i| i >= 2 * layers) {
                Some(i) => {
                    Err(outside(format!("no sublayer {i}"), format!("they are numbered 0 to {}", 2 * layers - 1)))
                }
                None => Ok((0..2 * layers).map(|i| list.contains(&i)).collect()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(ask: &str) -> Result<Vec<usize>, String> {
        let ask: DraftAsk = ask.parse()?;
        assert_eq!(ask.to_string().parse(), Ok(ask.clone()));
        let skip = ask.skip(&[0.3, 0.0, 0.1, 0.0, 0.2, 0.0]).map_err(|error| error.to_string())?;
        Ok((0..skip.len()).filter(|&i| skip[i]).collect())
    }

    #[test]
    fn drafts_leave_out_what_they_say() {
        assert_eq!(left_out("exit=2"), Ok(vec![4, 5]));
        assert_eq!(left_out("exit=3"), Ok(vec![]));
        assert_eq!(left_out("skip=2"), Ok(vec![2, 4]));
        assert_eq!(left_out("cosine=0.85"), Ok(vec![2]));
        assert_eq!(left_out("sublayers=0/3"), Ok(vec![0, 3]));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for ask in ["exit=0", "exit=4", "skip=4", "sublayers=6", "cosine=2", "depth=3", "skip", "sublayers="] {
            assert!(left_out(ask).is_err(), "{ask}");
        }
        assert_eq!((DraftAsk::usual(30, false).len(), DraftAsk::usual(30, true).len()), (5, 2));
        assert!(DraftAsk::usual(1, false).iter().all(|ask| ask.skip(&[0.1, 0.2]).is_ok()));
    }
}
