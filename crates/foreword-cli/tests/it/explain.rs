//! What `explain` tells in the terminal, with `--json` and as a page: the same numbers, and nothing that a text can break.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::scene::{Scene, model};
use crate::schema::Explained;

/// A scene with a prompt of four virtual tokens, and what begins each command that explains it.
fn trained(more: &[&str]) -> (Scene, Vec<String>) {
    let scene = Scene::new();
    let ran = scene.train("p", "2", more);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let args = ["explain", "--prompt", "p", "--model", &model("llama-tiny")].map(str::to_owned);
    (scene, args.into())
}

fn with<'a>(args: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    args.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// What HTML's entities stand for.
fn unescaped(html: &str) -> String {
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#x2f;", "/"), ("&amp;", "&")];
    entities.iter().fold(html.to_owned(), |text, (entity, c)| text.replace(entity, c))
}

/// The page's numbers by their names: whole, and as they are shown.
fn numbers(page: &str) -> BTreeMap<String, (f64, String)> {
    let mut numbers = BTreeMap::new();
    for part in page.split("<data data-name=\"").skip(1) {
        let (name, rest) = part.split_once("\" value=\"").unwrap();
        let (value, rest) = rest.split_once("\">").unwrap();
        let (shown, _) = rest.split_once("</data>").unwrap();
        let before = numbers.insert(unescaped(name), (value.parse().unwrap(), unescaped(shown)));
        assert!(before.is_none(), "{name} is there twice");
    }
    numbers
}

/// Every number of an answer by its JSON pointer.
fn leaves(value: &Value, name: &str, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => drop(found.insert(name.to_owned(), number.as_f64().unwrap())),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| leaves(value, &format!("{name}/{i}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            leaves(value, &format!("{name}/{key}"), found);
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A shown number, without its unit: (value, the last digit's worth).
fn shown(text: &str) -> (f64, f64) {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number = number.replace(',', "").replace('−', "-");
    let scale = match unit {
        "" | "B" => 1.0,
        "%" => 0.01,
        "kB" => 1e3,
        "MB" => 1e6,
        unit => unreachable!("{unit}"),
    };
    let (mantissa, exponent) = number.split_once('e').unwrap_or((&number, "0"));
    let digits = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len() as i32);
    let power = 10_f64.powi(exponent.parse().unwrap());
    (scale * number.parse::<f64>().unwrap(), scale * power * 10_f64.powi(-digits))
}

#[test]
fn the_page_has_every_number_of_the_answer() {
    for placement in ["front", "after-bos", "suffix"] {
        let (scene, args) =
            trained(&["--placement", placement, "--labels", "negative= bad,positive= so/good"]);
        let ran =
            scene.run(&with(&args, &["A fine film.", "--as", "negative", "--html", "page.html", "--json"]));
        let answer: Value = ran.line();
        let mut expected = BTreeMap::new();
        leaves(&answer, "", &mut expected);
        assert!(expected.len() > 60, "{expected:?}");
        let page = fs::read_to_string(scene.path("page.html")).unwrap();
        let found = numbers(&page);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, (value, text)) in &found {
            assert_eq!(*value, expected[name], "{name}");
            let (about, last_digit) = shown(text);
            assert!((about - value).abs() <= 0.501 * last_digit, "{name}: {value} is shown as {text}");
        }
        assert_eq!(ran.stderr.lines().last(), Some("the page is in page.html"));
    }
}

#[test]
fn the_terminal_has_the_numbers_of_the_answer() {
    let (scene, args) = trained(&[]);
    let told = scene.run(&with(&args, &["A fine film."]));
    let answer: Explained = scene.run(&with(&args, &["A fine film.", "--json"])).line();
    let Explained {
        text, label, tokens, token_ids, virtual_tokens: p, hidden: h, without, with, loss, ..
    } = answer;
    assert_eq!((text.as_str(), label.as_str(), token_ids.len()), ("A fine film.", "positive", tokens.len()));
    let costs = &answer.costs;
    // The random model finds its label unlikely, and the formula has digits enough even so.
    let chance = with.probabilities[&label];
    let logs: Vec<String> =
        with.log_likelihoods.values().map(|l| format!("e^{l:.3}").replace('-', "−")).collect();
    assert!(chance < 0.01 && (chance.ln() + loss).abs() < 1e-6);
    let mut parts = vec![
        "x = \"A fine film.\"      y = positive".to_owned(),
        format!("reads all of it as {} tokens", tokens.len()),
        format!("p: {p} × {h} = {} numbers", costs.learned),
        format!("has {:.0} times as many", costs.frozen as f64 / costs.learned as f64),
        format!("[p ; E(x)]: ({p} + {t}) × {h} = {} × {h}", p + tokens.len(), t = tokens.len()),
        format!("p(positive) = {} / ({}) = {:.1} %", logs[1], logs.join(" + "), 100.0 * chance),
        format!("L(p) = −log p(y) = −log {chance:.3e} = {loss:.4}"),
        format!("L(p): {:.4} before, {:.4} after", answer.update.before, answer.update.after),
        format!("takes the room of {} such prompts", costs.prompts_per_model),
        format!("the embeddings of the words \"{}\"", answer.init.strip_prefix("text:").unwrap()),
    ];
    for said in [&without, &with] {
        parts.extend(said.probabilities.values().map(|p| format!("{:.1} %", 100.0 * p)));
        parts.extend(said.next_tokens.iter().map(|(_, p)| format!("{:.1} %", 100.0 * p)));
    }
    for row in &answer.run {
        let way = format!("{:.3}", row.distance);
        parts.push(format!("{:>7}  {:.4}  {:.1} %", row.step, row.loss, 100.0 * row.probability));
        parts.push(way);
    }
    // A table's columns and the breaks of lines aside.
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (seen, told) = (squeezed(&told.stdout), told.stdout);
    for part in parts {
        assert!(seen.contains(&squeezed(&part)), "{part}\n{told}");
    }
    assert_eq!(answer.gradient_norms.len(), p);
    assert!(answer.gradient_norms.iter().all(|&norm| norm > 0.0) && answer.update.rate > 0.0);
    assert!(answer.update.change > 0.0);
    assert!(costs.model_bytes > costs.prompt_bytes);
    assert!(costs.model_optimizer_bytes > costs.prompt_optimizer_bytes);
}

/// What there is to read on a page: no tags, drawings and style, no number that another processor may round otherwise.
fn read(page: &str) -> String {
    let (_, mut rest) = page.split_once("<main>").unwrap();
    let mut text = String::new();
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        let (tag, after) = tag.split_once('>').unwrap();
        let skipped = |end: &str| after.split_once(end).unwrap().1;
        rest = if tag.starts_with("svg") {
            text.push_str("[drawing]");
            skipped("</svg>")
        } else if let Some(name) = tag.strip_prefix("data data-name=\"") {
            text.push_str(&format!(" [{}] ", name.split_once('"').unwrap().0));
            skipped("</data>")
        } else if tag == "bdi class=\"token\"" {
            text.push_str("[token]");
            skipped("</bdi>")
        } else {
            after
        };
    }
    let lines = unescaped(&text);
    let lines = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).map(|line| without_decimals(&line)).collect::<Vec<_>>().join("\n")
}

/// `0.0851` and `5.6e-5` as `#`, and no bars; whole numbers stay.
fn without_decimals(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let is_decimal = word.contains('.') && word.chars().any(|c| c.is_ascii_digit());
        let changing = |c: char| c == '█' || is_decimal && (c == '.' || c.is_ascii_digit());
        word.replace(changing, "#")
    });
    let mut line = words.collect::<Vec<String>>().join(" ");
    while line.contains("##") {
        line = line.replace("##", "#");
    }
    line
}

#[test]
fn the_page_reads_as_a_story() {
    let (scene, args) = trained(&[]);
    let ran = scene.run(&with(&args, &["A fine film.", "--html", "page.html"]));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let page = fs::read_to_string(scene.path("page.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("default-src 'none'"));
    // It needs nothing from elsewhere and runs nothing.
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link", "javascript:", " on"] {
        let (_, body) = page.split_once("<body>").unwrap();
        let found = if outside == " on" { body.contains(" onload=") } else { page.contains(outside) };
        assert!(!found, "{outside}");
    }
    insta::assert_snapshot!(read(&page));
    insta::assert_snapshot!(
        ran.stdout
            .lines()
            .filter(|line| !line.contains("next token,"))
            .map(without_decimals)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn nothing_in_a_text_a_label_or_a_token_is_markup() {
    let hostile = "<script>alert(\"x\")</script> & 'q' </style> <!-- \u{202e}";
    let (scene, mut args) =
        trained(&["--labels", "negative=<b>,positive=\"></svg><img src\\=x onerror\\=alert(1)>"]);
    let passport = fs::read_to_string(scene.path("p/foreword.json")).unwrap();
    // A label's name may be anything too, and so may the model's.
    scene.file("p/foreword.json", passport.replace("\"positive\"", "\"<i onclick=x>/~\""));
    let folder = scene.copy(std::path::Path::new(args.last().unwrap()), "<u>model");
    *args.last_mut().unwrap() = folder.display().to_string();
    let ran = scene.run(&with(&args, &[hostile, "--html", "page.html", "--json", "--as", "<i onclick=x>/~"]));
    let answer: Value = ran.line();
    assert_eq!(answer["text"], hostile);
    let page = fs::read_to_string(scene.path("page.html")).unwrap();
    let known = [
        "!DOCTYPE",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "header",
        "h1",
        "h2",
        "p",
        "q",
        "b",
        "bdi",
        "span",
        "section",
        "ol",
        "li",
        "data",
        "figure",
        "figcaption",
        "svg",
        "rect",
        "text",
        "line",
        "polyline",
        "circle",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "div",
        "caption",
        "details",
        "summary",
    ];
    for tag in page.split('<').skip(1) {
        let name = tag.trim_start_matches('/').split([' ', '>', '\n']).next().unwrap();
        assert!(known.contains(&name), "<{tag}");
        let (attributes, _) = tag.split_once('>').unwrap();
        for forbidden in ["onerror", "onclick", "src="] {
            // Inside quotation marks it is a value, such as the name of a number.
            let outside: String = attributes.split('"').step_by(2).collect();
            assert!(!outside.contains(forbidden), "<{tag}");
        }
    }
    for text in [
        "&lt;script&gt;alert(&quot;x&quot;)",
        "&lt;i onclick=x&gt;",
        "&lt;u&gt;model",
        "onerror=alert(1)&gt;",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let mut expected = BTreeMap::new();
    leaves(&answer, "", &mut expected);
    let found = numbers(&page);
    assert!(found.contains_key("/with/probabilities/<i onclick=x>~1~0"), "{found:?}");
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_page_is_replaced_whole_and_where_it_cannot_be_written_is_told_first() {
    let (scene, args) = trained(&[]);
    fs::create_dir(scene.path("folder")).unwrap();
    scene.file("plain", "");
    for (html, why) in [
        ("folder", "it is there and is not a file"),
        ("nowhere/page.html", "nowhere is not a directory"),
        ("plain/page.html", "plain is not a directory"),
    ] {
        // Told before the prompt is looked for.
        let ran = scene.run(&["explain", "--prompt", "nothing", "--html", html]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(&format!("error: cannot write --html {html}: {why}")), "{}", ran.stderr);
    }
    let ran = scene.run(&with(&args, &["--html", "p/foreword.json"]));
    assert!(ran.code == 1 && ran.stderr.contains("p/foreword.json: p is read for it"), "{}", ran.stderr);
    assert!(fs::read_to_string(scene.path("p/foreword.json")).unwrap().starts_with('{'));
    scene.file("page.html", "old");
    #[cfg(unix)]
    std::os::unix::fs::symlink("page.html", scene.path("link.html")).unwrap();
    let to = if cfg!(unix) { "link.html" } else { "page.html" };
    assert_eq!(scene.run(&with(&args, &["--html", to, "--quiet"])).stderr, "");
    assert!(fs::read_to_string(scene.path("page.html")).unwrap().ends_with("</html>\n"));
    assert_eq!(scene.path(to).is_symlink(), cfg!(unix));
    let left = scene.names();
    assert!(left.iter().all(|name| !name.starts_with(".foreword")), "{left:?}");
}
