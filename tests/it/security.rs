//! `docs/security.md` names tests, and a claim without one is worth nothing.

use std::fs;
use std::path::Path;

/// Everything below a folder that may hold tests, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", ".git"].contains(&&*name) {
                sources(&path, text);
            }
        } else if name.ends_with(".rs") || name.ends_with(".py") {
            *text += &fs::read_to_string(&path).unwrap_or_default();
        }
    }
}

#[test]
fn the_tests_that_are_named_here_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["src", "crates", "tests"] {
        sources(&root.join(folder), &mut text);
    }
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let quoted = page.split('`').skip(1).step_by(2);
    let is_name = |text: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        text.matches('_').count() >= 2 && text.bytes().all(is_plain) && !text.starts_with("HOOKBOT")
    };
    let mut named = 0;
    for name in quoted.filter(is_name) {
        let is_there = ["fn", "def"]
            .iter()
            .any(|word| text.contains(&format!("{word} {name}(")));
        assert!(is_there, "there is no test {name}");
        named += 1;
    }
    assert!(named > 50, "only {named} tests are named");
    for file in page
        .split('`')
        .filter(|text| text.starts_with("tests/") || text.starts_with("crates/"))
    {
        assert!(
            root.join(file.trim_end_matches('/')).exists(),
            "there is no {file}"
        );
    }
}
