//! What is wrong with the input is said, with what to do about it, and the exit code follows the contract.

use super::{attnscope, code, ids, on_tiny, run, said, stderr};

/// Runs `args` on the tiny model: its exit code, and that all `words` are said.
fn refuses(subcommand: &str, args: &[&str], expected: i32, words: &[&str]) {
    let output = on_tiny(subcommand, args);
    let flat = said(&output);
    assert_eq!(code(&output), expected, "{subcommand} {args:?}: {flat}");
    assert!(output.stdout.is_empty(), "{subcommand} {args:?}");
    for word in words {
        assert!(flat.contains(word), "{subcommand} {args:?}: {word:?} is not in {flat}");
    }
}

#[test]
fn prompts() {
    refuses("compare", &["--ids", "", "--lane", "knorm@50%"], 2, &["the prompt is empty", "--prompt"]);
    refuses("trace", &["--prompt", "", "--out", "x"], 2, &["the prompt is empty"]);
    refuses("run", &["--ids", "1,2,320"], 2, &["token id 320", "0 to 319"]);
    refuses("run", &["--ids", "1,two"], 2, &["no token id"]);
    refuses("run", &["--ids", &ids(5000)], 2, &["5000 tokens", "4096"]);
    refuses("run", &["--ids", &ids(4000), "--steps", "200"], 2, &["do not fit", "at most 96 steps"]);
    refuses("run", &["--prompt", "hello"], 2, &["no tokenizer", "--ids"]);
    refuses("run", &["--prompt", "a", "--ids", "1"], 2, &["cannot be used with"]);
    refuses("run", &["--prompt-file", "no/such/file"], 2, &["read the prompt", "no/such/file"]);
    refuses("run", &["--sample", "nedle"], 2, &["there is no sample prompt", "induction", "needle"]);
}

#[test]
fn lanes() {
    let some = ids(20);
    let lane = |spec, words: &[&str]| refuses("compare", &["--ids", &some, "--lane", spec], 2, words);
    lane("nonsense", &["nonsense", "known:"]);
    lane("snapkw@50%", &["did you mean `snapkv`?"]);
    lane("snapkv@50%:windwo=3", &["did you mean `window`?"]);
    lane("snapkv@200%", &["200%"]);
    lane("knorm+full", &["`full`", "stands alone"]);
    lane("adakv", &["`adakv`", "behind it"]);
    lane("adakv@50%+snapkv", &["takes no budget"]);
    lane("decoding:every=8+snapkv@50%", &["after a step"]);
    lane("qfilter:file=no-such-file.safetensors", &["no-such-file"]);
    refuses("compare", &["--ids", &some], 2, &["no --lane"]);
    refuses("compare", &["--ids", &some, "--lane", "full"], 2, &["no --lane"]);
}

#[test]
fn usage() {
    refuses("run", &["--ids", "1", "--device", "cuda:99"], 3, &[]);
    refuses("run", &["--ids", "1", "--device", "gpu"], 2, &["cuda:N"]);
    refuses("run", &["--ids", "1", "--precision", "f16"], 2, &["native or f32"]);
    refuses("run", &["--ids", "1", "--top-p", "1.5"], 2, &["from 0 to 1"]);
    refuses("trace", &["--ids", "1"], 2, &["--out"]);
    assert_eq!(code(&run(&["no-such-command"])), 2);
    assert_eq!(code(&run(&["man", "no-such-command"])), 2);
    assert_eq!(code(&run(&["--help"])), 0);
    assert_eq!(code(&run(&["--version"])), 0);
}

#[test]
fn models() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a UTF-8 path").to_owned();
    let refused = |model: &str, expected: i32, words: &[&str]| {
        let output = run(&["run", "--model", model, "--ids", "1,2"]);
        let said = said(&output);
        assert_eq!(code(&output), expected, "{model}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{model}: {said}");
    };
    refused(&path("absent.gguf"), 3, &["there is no model", "catalog"]);
    refused("smollm2-135n", 3, &["did you mean smollm2-135m?"]);
    refused("hf:only-an-owner", 2, &["hf:owner/name"]);
    refused(folder.path().to_str().expect("a UTF-8 path"), 2, &["no model"]);
    // The beginning of a GGUF header, cut short.
    std::fs::write(path("short.gguf"), b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x05\0").expect("a file");
    refused(&path("short.gguf"), 2, &["cannot be used"]);
    std::fs::write(path("empty.gguf"), b"").expect("a file");
    refused(&path("empty.gguf"), 2, &[]);
    std::fs::write(path("text.gguf"), "no model at all").expect("a file");
    refused(&path("text.gguf"), 2, &[]);
}

#[test]
fn a_file_that_cannot_be_written() {
    refuses("trace", &["--ids", "1,2", "--out", "no/such/folder/x.safetensors"], 2, &["write"]);
    let folder = tempfile::tempdir().expect("a folder");
    refuses("trace", &["--ids", "1,2", "--out", folder.path().to_str().expect("UTF-8")], 2, &["is a folder"]);
}

#[test]
fn nothing_that_steers_the_terminal_is_said() {
    for args in [
        &["run", "--sample", "\x1b[31mred\u{202e}"][..],
        &["run", "--model", "\x1b]0;title\x07.gguf"],
        &["compare", "--lane", "snapkv\x1b[2J"],
        &["run", "--prompt-file", "\u{9b}2J"],
        &["\x1b[31m"],
        &["run", "--ids", "\x1b[31m"],
    ] {
        let output = attnscope(args).output().expect("the program starts");
        let said = stderr(&output);
        assert!(matches!(code(&output), 2 | 3), "{args:?}: {said}");
        assert!(!said.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{args:?}: {said:?}");
    }
}
