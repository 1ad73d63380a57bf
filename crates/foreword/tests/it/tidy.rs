//! The rules of the repository that a compiler can't hold: arrows between crates, first lines, forbidden words.

use foreword_testkit::root;
use std::fs;
use std::process::Command;

/// Which crates of ours each crate may use; ARCHITECTURE.md says why.
const ARROWS: [(&str, &[&str]); 11] = [
    ("foreword-format", &[]),
    ("foreword-kernels", &[]),
    ("foreword-backbone", &["foreword-kernels"]),
    ("foreword-data", &["foreword-format"]),
    ("foreword-tune", &["foreword-backbone", "foreword-data", "foreword-format", "foreword-kernels"]),
    ("foreword-hub", &["foreword-backbone", "foreword-format"]),
    ("foreword-tiny", &[]),
    (
        "foreword",
        &[
            "foreword-backbone",
            "foreword-data",
            "foreword-format",
            "foreword-hub",
            "foreword-kernels",
            "foreword-tiny",
            "foreword-tune",
        ],
    ),
    ("foreword-cli", &["foreword"]),
    ("foreword-testkit", &[]),
    ("foreword-fuzz", &["foreword", "foreword-backbone", "foreword-kernels"]),
];
/// Lines of a file beyond which its reader is lost.
const MOST_LINES: usize = 600;

/// Every Rust file below `dir`: (path from the root, text).
fn rust_files(dir: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(dir)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "no Rust files in {dir}");
    files.sort();
    files
}

/// Fails with every (file, line) in which one of `words` stands, letter case aside.
fn forbid(files: &[(String, String)], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for (name, text) in files {
        for (i, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.to_lowercase().contains(**word)) {
                found.push(format!("{name}:{}: {word}", i + 1));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

#[test]
fn arrows_between_crates_go_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ARROWS.len(), "a crate without arrows");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = ARROWS.iter().find(|(crate_name, _)| *crate_name == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let for_tests = dependency["kind"].as_str() == Some("dev");
            let ours = to.starts_with("foreword");
            assert!(!ours || for_tests || allowed.contains(&to), "{name} must not depend on {to}");
        }
    }
}

#[test]
fn every_file_begins_with_what_it_is_for_and_ends_before_it_is_too_long() {
    for (name, text) in rust_files("crates") {
        assert!(text.starts_with("//! "), "{name} does not begin with `//! ` and its purpose");
        let n = text.lines().count();
        assert!(n <= MOST_LINES, "{name} has {n} lines, more than {MOST_LINES}");
    }
}

#[test]
fn only_kernels_the_mapping_of_files_and_what_allocators_are_told_are_unsafe() {
    let mut files = rust_files("crates");
    files.retain(|(name, _)| {
        !name.starts_with("crates/foreword-kernels/") && !name.ends_with("tests/it/tidy.rs")
    });
    let places = [
        "crates/foreword-backbone/src/files.rs",
        "crates/foreword-cli/src/memory.rs",
        "crates/foreword-fuzz/src/memory.rs",
    ];
    files.retain(|(name, _)| !places.contains(&name.as_str()));
    forbid(&files, &["unsafe {", "unsafe fn", "unsafe impl"], "unsafe code outside its places");
}

#[test]
fn the_backbone_knows_nothing_of_what_its_rows_stand_for() {
    let mut files = rust_files("crates/foreword-backbone/src");
    files.extend(rust_files("crates/foreword-kernels/src"));
    // The tokenizer joins what follows a text, and foreign configurations have keys about labels.
    let allowed = ["src/tokenizer.rs", "src/config.rs", "src/config/harmless.rs"];
    files.retain(|(name, _)| !allowed.iter().any(|file| name.ends_with(file)));
    for (_, text) in &mut files {
        // Comments may say what a soft prompt's file remembers of a model.
        *text = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n");
    }
    forbid(&files, &["prompt", "label", "verbalizer"], "what rows stand for is not the backbone's business");
}

#[test]
fn only_families_name_architectures() {
    let mut files = rust_files("crates/foreword-backbone/src");
    // GGUF has names of its own, which `gguf/` translates.
    files.retain(|(name, _)| !name.contains("/families/") && !name.contains("/gguf/"));
    for (_, text) in &mut files {
        // Comments may name an example; `Llama3` names a scaling of frequencies by its inventors.
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_lowercase());
        *text = code.map(|line| line.replace("llama3", "")).collect::<Vec<_>>().join("\n");
    }
    let names = [
        "llama", "gpt", "qwen", "gemma", "mistral", "mixtral", "falcon", "bloom", "granite", "cohere",
        "olmo", "phi3", "neox", "stablelm", "smollm",
    ];
    forbid(&files, &names, "an architecture is named outside families/");
}

#[test]
fn nothing_is_left_undone() {
    let mut files = rust_files("crates");
    files.retain(|(name, _)| !name.ends_with("tests/it/tidy.rs"));
    forbid(&files, &["todo!(", "unimplemented!(", "fixme", "#[ignore"], "left undone");
}

#[test]
fn files_that_the_architecture_names_are_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    // A path without its folder is beside the one before it.
    let (mut n, mut folder) = (0, root());
    for path in text.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") && !word.contains(' '))
    {
        let whole = [root().join(path), root().join("crates").join(path), folder.join(path)];
        let found = whole.iter().find(|path| path.is_file());
        let found = found.unwrap_or_else(|| panic!("ARCHITECTURE.md names {path}, which is not there"));
        folder = found.parent().unwrap().to_owned();
        n += 1;
    }
    assert!(n > 15, "paths are looked for where there are none");
}

#[test]
fn no_function_of_the_program_is_longer_than_sixty_lines() {
    for (name, text) in rust_files("crates/foreword-cli/src") {
        let mut begun: Vec<(usize, usize)> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_fn = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn "];
            if is_fn.iter().any(|start| line.trim_start().starts_with(start)) {
                begun.push((indent, i));
            } else if line.trim_start().starts_with('}')
                && let Some(&(at, first)) = begun.last()
                && at == indent
            {
                begun.pop();
                assert!(i - first < 60, "{name}:{} has {} lines", first + 1, i - first + 1);
            }
        }
    }
}
