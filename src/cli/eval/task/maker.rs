//! From texts to prompts of a given number of tokens.

use std::ops::Range;

use miette::Result;

use super::{Ask, Item, Place, Task};
use crate::cli::exit::Usage;
use crate::model::tokenizer::Tokenizer;

/// What tasks make prompts with.
pub struct Maker<'a> {
    pub tokenizer: &'a Tokenizer,
    /// For tasks that read a text as it is.
    pub text: &'a Text,
    /// Tokens whose NLL is taken there.
    pub continuation: u32,
}

/// A text in tokens, without a beginning-of-text token.
pub struct Text {
    /// Where it comes from, for messages.
    pub name: String,
    pub ids: Vec<u32>,
}

/// A prompt as text.
pub struct Draft {
    pub context: String,
    pub asks: Vec<Question>,
}

pub struct Question {
    pub question: String,
    pub lead: String,
    pub answer: String,
    /// Bytes of the context that say the answer.
    pub span: Range<usize>,
}

impl Maker<'_> {
    /// The longest prompt that `draft` gives with some number of filler words and that fits the length asked for.
    /// More words must never make a shorter context.
    pub fn fill(&self, task: &Task, place: &Place, draft: impl Fn(usize) -> Draft) -> Result<Item> {
        let wanted = place.length as usize;
        let tokens = |words: usize| -> Result<usize> { Ok(self.tokenizer.prompt_ids(&draft(words).context)?.len()) };
        let least = tokens(0)?;
        if least > wanted {
            let what = format!("{} needs a length of at least {least} tokens, not {wanted}", task.name);
            return Err(Usage::new(what, "give a larger number to --lengths").into());
        }
        // A word is at least a token, or nearly so: `high` words are too many.
        let (mut low, mut high) = (0, wanted + 1);
        while tokens(high)? <= wanted {
            (low, high) = (high, 2 * high);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            match tokens(middle)? <= wanted {
                true => low = middle,
                false => high = middle,
            }
        }
        self.item(&draft(low))
    }

    /// The parts as the tokens of the whole, cut where the tokens of a part by itself end: where a token reaches over
    /// the border of two parts, it belongs to the later one.
    fn item(&self, draft: &Draft) -> Result<Item> {
        let ids = |text: &str| self.tokenizer.prompt_ids(text);
        let alone = ids(&draft.context)?;
        let mut whole = Vec::new();
        let mut end = alone.len();
        for ask in &draft.asks {
            let Question { question, lead, answer, .. } = ask;
            let texts = [
                format!("{}{question}", draft.context),
                format!("{}{question}{lead}", draft.context),
                format!("{}{question}{lead}{answer}", draft.context),
            ];
            let all = ids(&texts[2])?;
            end = end.min(common(&alone, &all));
            let cuts = [common(&ids(&texts[0])?, &all), common(&ids(&texts[1])?, &all)];
            whole.push((all, cuts));
        }
        let mut asks = Vec::new();
        for ((all, [question, lead]), ask) in whole.iter().zip(&draft.asks) {
            let token = |byte: usize| Ok::<_, miette::Report>(common(&ids(&draft.context[..byte])?, &alone) as u32);
            let span = token(ask.span.start)?..token(ask.span.end)?;
            asks.push(Ask {
                question: all[end..*question].to_vec(),
                lead: all[*question..*lead].to_vec(),
                answer: all[*lead..].to_vec(),
                span: Some(span).filter(|span| !span.is_empty()),
            });
        }
        Ok(Item { context: alone[..end].to_vec(), asks })
    }
}

/// Length of the common beginning.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
