//! Tasks in a model's own chat template.

use std::fs;

use crate::scene::{Scene, model, root, sentences};
use crate::schema::{Classified, Explained, Inspected};

const TEMPLATE: &str = "\
{{- bos_token }}
{%- for message in messages %}
    {{- '<' + message.role + '>\\n' + message.content | trim + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>\\n' }}{% endif %}
";

/// llama-tiny with a chat template beside it.
fn chatting(scene: &Scene) -> String {
    let dir = scene.copy(&root().join("testdata/models/llama-tiny"), "chatting");
    fs::write(dir.join("chat_template.jinja"), TEMPLATE).unwrap();
    fs::write(dir.join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#)
        .unwrap();
    dir.display().to_string()
}

fn train(scene: &Scene, chatting: &str, out: &str, more: &[&str]) -> crate::scene::Ran {
    let data = sentences();
    let mut args =
        vec!["train", &data, "--model", chatting, "--out", out, "--template", "chat", "--steps", "2"];
    args.extend(["--virtual-tokens", "3", "--batch-size", "4"]);
    args.extend(more);
    scene.run(&args)
}

#[test]
fn a_chat_is_trained_used_and_told_as_it_is_written() {
    let scene = Scene::new();
    let chatting = chatting(&scene);
    for placement in ["front", "after-bos", "system", "suffix"] {
        let ran = train(&scene, &chatting, placement, &["--system", "Be brief.", "--placement", placement]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let shown =
            r#"the user's message: "<s><system>\nBe brief.</s>\n<user>\n{message}</s>\n<assistant>\n""#;
        assert!(ran.stderr.contains(shown), "{}", ran.stderr);
        assert!(ran.stderr.contains(r#"negative → "negative""#), "no space before an answer: {}", ran.stderr);
        let classify =
            ["classify", "--prompt", placement, "--model", &chatting, "--json", "A joy.", "A </s> bore."];
        assert_eq!(scene.run(&classify).lines::<Classified>().len(), 2);
    }
    let inspect = scene.run(&["inspect", "front", "--model", &chatting, "--json"]).line::<Inspected>();
    let passport = inspect.passport.unwrap();
    let chat = passport.chat.unwrap();
    assert_eq!((passport.template.as_str(), chat.system.as_deref()), ("{text}", Some("Be brief.")));
    assert_eq!(
        (chat.before.as_str(), chat.after.as_str()),
        ("<s><system>\nBe brief.</s>\n<user>\n", "</s>\n<assistant>\n")
    );
    assert!(chat.template_digest.starts_with("sha256:"));
    let inspect = scene.run(&["inspect", "system", "--model", &chatting]).stdout;
    assert!(inspect.contains("at the beginning of the system message"), "{inspect}");

    let explain = scene.run(&["explain", "A joy.", "--prompt", "system", "--model", &chatting]).stdout;
    let flat = explain.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(r#"the model's own chat template: "<s><system>\nBe brief.</s>\n<user>\n{message}</s>\n<assistant>\n"."#), "{explain}");
    assert!(flat.contains("<s>|<"), "{explain}");
    let explained = scene.run(&["explain", "A joy.", "--prompt", "front", "--model", &chatting, "--json"]);
    assert!(explained.line::<Explained>().tokens.len() > 20);
}

#[test]
fn a_prompt_in_the_system_message_becomes_a_prefix_that_answers_alike() {
    let scene = Scene::new();
    let chatting = chatting(&scene);
    assert_eq!(train(&scene, &chatting, "p", &["--placement", "system"]).code, 0);
    let compiled = scene.run(&["compile", "p", "--model", &chatting, "--out", "kv"]);
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let scores = |prompt: &str| {
        let ran =
            scene.run(&["classify", "--prompt", prompt, "--model", &chatting, "--json", "A joy.", "A bore."]);
        ran.lines::<Classified>().into_iter().map(|line| line.log_likelihoods).collect::<Vec<_>>()
    };
    assert_eq!(scores("p"), scores("kv"));
}

#[test]
fn another_chat_template_is_refused_where_it_writes_something_else() {
    let scene = Scene::new();
    let chatting = chatting(&scene);
    assert_eq!(train(&scene, &chatting, "p", &[]).code, 0);
    let classify = |more: &[&str]| {
        let mut args = vec!["classify", "--prompt", "p", "--model", &chatting, "A joy."];
        args.extend(more);
        scene.run(&args)
    };
    let template = scene.path("chatting").join("chat_template.jinja");
    fs::write(&template, format!("{{#- the same in other words #}}{TEMPLATE}")).unwrap();
    let ran = classify(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    fs::write(&template, TEMPLATE.replace("<assistant>", "<bot>")).unwrap();
    let ran = classify(&[]);
    assert_eq!(ran.code, 1);
    let said = "error: the prompt was trained with another chat template than the model has now: it wrote \
                \"<s><user>\\n{message}</s>\\n<assistant>\\n\" and now writes \"<s><user>\\n{message}</s>\\n<bot>\\n\"";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert_eq!(classify(&["--template", "chat"]).code, 0);
    fs::remove_file(&template).unwrap();
    assert!(
        classify(&[]).stderr.contains("the model chatting has no chat template"),
        "{}",
        classify(&[]).stderr
    );
}

#[test]
fn a_task_file_says_message_and_system() {
    let scene = Scene::new();
    let chatting = chatting(&scene);
    let data = sentences();
    scene.file(
        "task.toml",
        format!(
            "model = {chatting:?}\n[data]\ntrain = {data:?}\n[task]\ntemplate = \"chat\"\nmessage = \"Review: {{text}}\"\n\
             system = \"Answer in a word.\"\n[prompt]\nvirtual_tokens = 2\n[train]\nsteps = 1\n"
        ),
    );
    let ran = scene.run(&["train", "task.toml", "--out", "p", "--system", "In one word."]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains(r#"with "Review: {text}" as the user's message: "<s><system>\nIn one word."#),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_no_chat_says_so() {
    let scene = Scene::new();
    let (data, plain) = (sentences(), model("llama-tiny"));
    let error = |args: &[&str]| {
        let mut all = vec!["train", &data, "--out", "p"];
        all.extend(args);
        let ran = scene.run(&all);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        ran.stderr
    };
    let none = error(&["--model", &plain, "--template", "chat"]);
    assert!(
        none.contains("error: the model llama-tiny has no chat template, neither chat_template.jinja nor"),
        "{none}"
    );
    assert!(error(&["--template", "chat"]).contains("the model foreword-tiny has no chat template"));
    let words = error(&["--system", "Be brief."]);
    assert!(
        words.contains("error: system belongs to a chat, and the task has a template in words"),
        "{words}"
    );
    assert!(words.contains("--template chat takes the model's chat template"), "{words}");
    assert!(error(&["--message", "{text}!"]).contains("message belongs to a chat"));
    assert!(
        error(&["--placement", "system"]).contains("the placement system is one in a chat's system message")
    );
    let dir = scene.path("chatting").display().to_string();
    chatting(&scene);
    let template = scene.path("chatting").join("chat_template.jinja");
    fs::write(&template, "{% for m in messages %}\n{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}\n{{ m.content }}{% endfor %}").unwrap();
    let refused = error(&["--model", &dir, "--template", "chat", "--placement", "system"]);
    assert!(refused.contains("(chat_template.jinja) leaves the system message out (the model's chat template (chat_template.jinja), line 2: it refuses these messages: no)"), "{refused}");
    let no_bos = error(&["--model", &dir, "--template", "chat", "--placement", "after-bos"]);
    assert!(no_bos.contains("the model's chat template writes none"), "{no_bos}");
    fs::write(&template, "{% for m in messages %}{{ m.content }").unwrap();
    let syntax = error(&["--model", &dir, "--template", "chat"]);
    assert!(
        syntax.contains("the model's chat template (chat_template.jinja), line 1: syntax error"),
        "{syntax}"
    );
}
