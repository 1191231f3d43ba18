//! Turns of a conversation, by the marks that chat templates put around them.

use std::ops::Range;

/// What stands around a role's name: ChatML (SmolLM2, Qwen), Gemma, Llama 3, Granite, Zephyr and Phi.
const NAMED: [(&str, &str); 5] = [
    ("<|im_start|>", "\n"),
    ("<start_of_turn>", "\n"),
    ("<|start_header_id|>", "<|end_header_id|>"),
    ("<|start_of_role|>", "<|end_of_role|>"),
    ("<|", "|>"),
];

/// Marks that stand for a role themselves (Llama 2, Mistral); `None` ends a turn.
const FIXED: [(&str, Option<Role>); 12] = [
    ("[INST]", Some(Role::User)),
    ("[/INST]", Some(Role::Assistant)),
    ("<<SYS>>", Some(Role::System)),
    ("<</SYS>>", Some(Role::User)),
    ("[SYSTEM_PROMPT]", Some(Role::System)),
    ("[/SYSTEM_PROMPT]", None),
    ("<|im_end|>", None),
    ("<end_of_turn>", None),
    ("<|eot_id|>", None),
    ("<|end|>", None),
    ("<|end_of_text|>", None),
    ("</s>", None),
];

/// Longest name of a role.
const NAME: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    /// Also what tools answer.
    Assistant,
}

fn role(name: &[u8]) -> Option<Role> {
    match name {
        b"system" | b"developer" => Some(Role::System),
        b"user" | b"human" => Some(Role::User),
        b"assistant" | b"model" | b"tool" | b"ipython" => Some(Role::Assistant),
        _ => None,
    }
}

/// The mark that `text` begins with, and its length.
fn mark(text: &[u8]) -> Option<(Option<Role>, usize)> {
    if let Some((mark, role)) = FIXED.iter().find(|(mark, _)| text.starts_with(mark.as_bytes())) {
        return Some((*role, mark.len()));
    }
    NAMED.iter().find_map(|(open, close)| {
        let rest = text.strip_prefix(open.as_bytes())?;
        let length = (0..rest.len().min(NAME)).find(|at| rest[*at..].starts_with(close.as_bytes()))?;
        Some((Some(role(&rest[..length])?), open.len() + length + close.len()))
    })
}

/// What is said in each turn, as bytes of `text`; none where it is no conversation: the first turn's mark must stand at
/// its beginning, with blanks and control tokens before it at most, which end at `leading`.
pub fn turns(text: &[u8], leading: usize) -> Vec<(Role, Range<usize>)> {
    let mut turns: Vec<(Role, Range<usize>)> = Vec::new();
    let (mut at, mut open) = (0, false);
    while at < text.len() {
        let Some((role, length)) = mark(&text[at..]) else {
            if turns.is_empty() && at >= leading && !text[at].is_ascii_whitespace() {
                return Vec::new();
            }
            at += 1;
            continue;
        };
        if let Some(turn) = turns.last_mut().filter(|_| open) {
            turn.1.end = at;
        }
        at += length;
        open = role.is_some();
        turns.extend(role.map(|role| (role, at..text.len())));
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(Role, &str)> {
        turns(text.as_bytes(), 0)
            .into_iter()
            .map(|(role, range)| (role, text[range].trim()))
            .filter(|t| !t.1.is_empty())
            .collect()
    }

    #[test]
    fn templates_of_all_families() {
        let expected = [(Role::System, "S"), (Role::User, "U"), (Role::Assistant, "A"), (Role::User, "V")];
        for text in [
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n\
             <|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
            "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>",
            "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s>[INST] V [/INST]",
            "[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]A</s>[INST]V[/INST]",
            "<|system|>\nS</s>\n<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nV</s>\n<|assistant|>\n",
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        let gemma = "<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n";
        assert_eq!(said(gemma), expected[1..3]);
    }

    #[test]
    fn what_does_not_begin_with_a_turn_has_none() {
        for text in ["", "Say [INST] once", "<|im_start|>nobody\nU", "<|im_start|>user", "a <|user|> b", "<s>"] {
            assert_eq!(said(text), [], "{text}");
        }
        assert_eq!(turns(b"<s>[INST] U [/INST]", 0), []);
        assert_eq!(turns(b"<s>[INST] U [/INST]", 3).len(), 2);
    }
}
