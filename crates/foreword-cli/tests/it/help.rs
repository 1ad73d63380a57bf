//! The help, as it reads.

use crate::scene::Scene;

const VERBS: [&str; 13] = [
    "train",
    "eval",
    "compare",
    "classify",
    "generate",
    "explain",
    "inspect",
    "quantise",
    "similar",
    "models",
    "quickstart",
    "completions",
    "man",
];

#[test]
fn the_first_help_names_the_verbs() {
    let scene = Scene::new();
    insta::assert_snapshot!(scene.run(&["--help"]).stdout, @r#"
    Teach a frozen language model a task by learning a few input vectors.

    Foreword learns a soft prompt: a few vectors that precede every text, the model's own foreword to a
    task. The model never changes, and the result is a file of a few kilobytes. To see it at work, run
    `foreword quickstart`.

    Usage: foreword <COMMAND>

    Commands:
      train        Learn a soft prompt from examples, for classification or generation
      eval         Evaluate a soft prompt, or the bare model, on examples with known labels or targets
      compare      Compare tuned prompts with baselines that need no training, with intervals and paired
                   tests
      classify     Classify texts with a soft prompt
      generate     Generate texts with a soft prompt
      explain      Walk through the mathematics of prompt tuning on one text, with real values
      inspect      Describe a prompt directory, and compare its rows with the model's vocabulary
      compile      Convert a soft prompt to a KV prefix, which costs nothing to compute
      import       Convert a prompt from another tool to a prompt directory
      export       Export a prompt for other tools, as a NumPy array or a PEFT directory
      quantise     Quantise a model to a GGUF file [alias: quantize]
      similar      Find the nearest of several tuned prompts for the same model
      models       List the available models: the bundled one, the Hugging Face cache, and a directory
      quickstart   Try it: learn sentiment with the bundled model, in about a minute
      completions  Print a shell completion script
      man          Print the man page of this command, or of one of its verbs
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Environment:
      FOREWORD_CODE_PATH  Processor instructions to use: portable, avx2, avx512, avx512bf16, amx or neon
      FOREWORD_THREADS    Number of threads, unless --threads is given
      HF_ENDPOINT         URL of the Hugging Face hub (default: https://huggingface.co)
      HF_HOME             Directory of its cache and token (default: ~/.cache/huggingface)
      HF_HUB_CACHE        Directory of its cache (default: hub in HF_HOME)
      HF_HUB_OFFLINE      If 1, never contact the hub and use only its cache
      HF_TOKEN            Access token for gated or private models
      NO_COLOR            If set and not empty, disable colours, even on a terminal
      TERM                If `dumb`, disable colours and progress bars
    "#);
}

#[test]
fn each_flag_tells_its_unit_and_its_default() {
    let scene = Scene::new();
    insta::assert_snapshot!(scene.run(&["train", "-h"]).stdout, @r#"
    Learn a soft prompt from examples, for classification or generation

    Usage: foreword train [OPTIONS] [TASK.toml|DATA]

    Arguments:
      [TASK.toml|DATA]  A task file (.toml), with any of the settings below, or the training data; flags
                        override the task file

    Options:
          --model <MODEL>  The frozen model: the bundled foreword-tiny; a directory with config.json,
                           tokenizer.json and safetensors; a .gguf file; or org/name[@revision] on the
                           Hugging Face hub, downloaded once [default: foreword-tiny]
      -h, --help           Print help (see more with '--help')

    Data:
          --train <FILE>                Training examples: a .jsonl, .json, .csv, .tsv, .txt, .parquet
                                        or .arrow file, optionally compressed (.gz, .zst); a directory
                                        with a folder of texts for each label, or from Hugging Face
                                        save_to_disk; - reads standard input
          --dev <FILE>                  Development examples, to select the best prompt [default: a
                                        tenth of the training data, drawn by label and seed]
          --test <FILE>                 Test examples, only for the report; nothing is selected on them
          --limit <N>                   Train on this many of the training examples, stratified by label
                                        and sampled with the seed [default: all]
          --text-field <NAME>           The field for {text} in the template [default: guessed from
                                        common names]
          --label-field <NAME>          The field with the label [default: guessed from common names]
          --target-field <NAME>         The field with the target text, for generation
          --label-names <LABEL=NAME,…>  Names of the labels in the data, as 0=negative,1=positive; a
                                        name tells the model more than a number [default: those that the
                                        data itself has for numbers: of a ClassLabel in Parquet, or in a
                                        field like label_text]

    Task:
          --template <TEXT|chat>   The text around the fields, as in '{premise}\nSo {hypothesis}?'; the
                                   label or target follows it. \n is a newline, \t a tab, \\ a
                                   backslash; {{ and }} are literal braces; an example may lack the
                                   field of {?field}. `chat` uses the model's own chat template: the
                                   text is the user message, and the label or target is the assistant's
                                   reply [default: "{text}\nLabel:", or "{text}\nOutput:" where texts
                                   are generated]
          --labels <LABEL=TEXT,…>  The text of each label, as 'negative= negative,positive= positive'. A
                                   word that follows a word is separated from it by exactly one space. A
                                   backslash makes a comma, an equals sign or a backslash literal; \n
                                   and \t are as above. The answers keep the label [default: the labels
                                   in the data, each with a space before its name]

    Prompt:
          --virtual-tokens <N>  Number of virtual tokens, the rows of the soft prompt [default: 20]
          --init <INIT>         Initial rows: the embeddings of a text's tokens (text:…), of the labels'
                                (labels), of random tokens (vocab), noise (random), training examples
                                with their labels (demonstrations), or the rows of another prompt
                                (from:DIR). A KV prefix starts with the keys and values that the model
                                makes of such rows [default: text: and a sentence that names the labels]

    Training:
          --steps <N>                Number of updates. By default a run lasts until dev stops improving
          --minutes <N>              Minutes for the whole run, of which it makes the best; instead of
                                     --steps
          --batch-size <N>           Examples per step [default: 32, or a quarter of the examples, at
                                     least 8, where that is less]
          --learning-rate <RATE>     Peak learning rate of AdamW: a number, a share of the size of the
                                     learned rows (3%), or auto: a share that fits most models [default:
                                     auto]
          --class-weights <WEIGHTS>  Weights of the labels in the training loss: none, or balanced, by
                                     which a rare label counts as much as a common one [default: none]
                                     [possible values: none, balanced]
          --seed <N>                 Random seed; the same seed gives the same prompt, bit for bit
                                     [default: 0]
          --candidates <N>           Train this many candidates at once and keep the best on dev, or
                                     auto: learning rates, inits and lengths vary where they are not
                                     set, then seeds, from --seed on. The worse half stops early, and
                                     half of the rest each time after twice as many steps [default: 1]

    Machine:
          --threads <N>  Number of threads, at most 256 [default: one for each core] [env:
                         FOREWORD_THREADS=]

    Output:
          --out <DIR>  The directory to write the prompt to [default: the name of the task file or data,
                       with -prompt]
          --force      Replace an existing prompt in --out and start over
          --resume     Resume an interrupted run in --out, and give the same result, to the bit, as
                       without the interruption. With --force, also if a finished prompt in --out is
                       then replaced
          --json       Write one JSON object per line to standard output, and nothing else
      -q, --quiet      Print only warnings and errors to standard error
      -v, --verbose    Print more to standard error: the hardware in use, and details of the run

    Examples:
      foreword train reviews.csv --out sentiment
      foreword train task.toml
      foreword train task.toml --steps 800 --seed 1 --out second-try
      foreword train reviews.csv --candidates auto --out best-of-eight
      foreword train reviews.csv --method prefix --out as-keys-and-values
      foreword train restaurants.jsonl --text-field input --target-field output
      foreword train reviews.jsonl --model ./Qwen2.5-0.5B --template '{text}\nSentiment:' \
          --labels 'neg= negative,pos= positive' --log run.jsonl

    `foreword train --help` shows all flags.
    "#);
}

#[test]
fn short_help_is_short_and_long_help_is_complete() {
    let scene = Scene::new();
    let flags = |text: &str| -> std::collections::BTreeSet<String> {
        let flag =
            |line: &str| line.split_whitespace().find(|word| word.starts_with("--")).map(str::to_owned);
        let named =
            text.lines().filter(|line| line.trim_start().starts_with('-') && !line.starts_with("        "));
        named
            .filter_map(|line| Some(flag(line)?.trim_end_matches(',').split(['[', '=']).next()?.to_owned()))
            .collect()
    };
    for verb in VERBS {
        let (short, long) = (scene.run(&[verb, "-h"]).stdout, scene.run(&[verb, "--help"]).stdout);
        let (few, all) = (flags(&short), flags(&long));
        assert!(few.is_subset(&all), "{verb}: {few:?} {all:?}");
        assert!(short.lines().count() < 110, "{verb}: {}", short.lines().count());
        let note = format!("`foreword {verb} --help` shows all flags.\n");
        assert_eq!(few.len() < all.len(), short.ends_with(&note), "{verb}: {short}");
        assert!(!long.contains("shows all flags"), "{verb}");
        assert!(short.contains("Examples:"), "{verb}");
    }
    let (few, all) =
        (flags(&scene.run(&["train", "-h"]).stdout), flags(&scene.run(&["train", "--help"]).stdout));
    assert!(few.len() < 30 && all.len() > 55, "{} of {}", few.len(), all.len());
    for flag in ["--trust-region", "--warmup", "--encoding", "--method", "--dtype", "--ignore-config"] {
        assert!(all.contains(flag) && !few.contains(flag), "{flag}");
    }
}

#[test]
fn verbs_of_other_tools_lead_to_ours() {
    let scene = Scene::new();
    for (other, ours) in
        [("predict", "classify"), ("fit", "train"), ("evaluate", "eval"), ("clasify", "classify")]
    {
        let ran = scene.run(&[other, "x"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
        assert!(ran.stderr.contains(&format!("unrecognized subcommand '{other}'")), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("'{ours}'")), "{}", ran.stderr);
    }
}

#[test]
fn help_needs_nothing_and_bad_flags_are_the_users() {
    let scene = Scene::new();
    for verb in VERBS {
        let help = scene.run(&[verb, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""));
        assert!(help.stdout.contains("Examples:"), "{verb}");
    }
    let version = format!("foreword {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(scene.run(&["-V"]).stdout, version);
    let long = scene.run(&["--version"]).stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert!(long.starts_with(&version) && lines.len() == 4, "{long}");
    let build = if cfg!(debug_assertions) { "build      debug, " } else { "build      release, " };
    assert!(lines[1].starts_with(build) && lines[1].contains(std::env::consts::ARCH), "{long}");
    let bf16 = ["by AMX", "by AVX-512 BF16", "no faster than f32"].map(|means| format!("bf16       {means}"));
    assert!(bf16.iter().any(|line| lines[3] == line), "{long}");
    let paths = ["amx", "avx512bf16", "avx512", "avx2", "neon", "portable"];
    assert!(paths.iter().any(|path| lines[2].starts_with(&format!("code path  {path} ("))), "{long}");
    for wrong in [&["train", "--steps", "0"][..], &["train", "--nope"], &["frobnicate"], &[]] {
        let ran = scene.run(wrong);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{wrong:?}");
    }
}

#[test]
fn a_code_path_can_be_asked_for() {
    let scene = Scene::new();
    let run = |args: &[&str], path: &str| {
        Scene::ran(scene.command(args).env("FOREWORD_CODE_PATH", path).output().unwrap())
    };
    let words = ["classify", "--prompt", "none", "--labels", "a= a,b= b", "-v", "x"];
    let version = run(&["--version"], "portable").stdout;
    assert!(version.contains("\ncode path  portable (set by FOREWORD_CODE_PATH, of "), "{version}");
    let ran = run(&words, "portable");
    assert!(ran.code == 0 && ran.stderr.contains("code path portable, "), "{}", ran.stderr);
    assert!(run(&["--version"], "").stdout.contains(" (the fastest of "), "empty is unset");

    // No processor has both.
    let absent = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    for (path, wrong) in [
        (absent, format!("the code path {absent} cannot run on this machine")),
        ("sse", "there is no code path \"sse\"".to_owned()),
    ] {
        let ran = run(&words, path);
        let message = format!("error: FOREWORD_CODE_PATH: {wrong}; this machine has ");
        assert!(ran.code == 1 && ran.stdout.is_empty() && ran.stderr.starts_with(&message), "{}", ran.stderr);
        assert!(ran.stderr.contains("portable\nhint: unset FOREWORD_CODE_PATH"), "{}", ran.stderr);
        let version = run(&["--version"], path);
        assert_eq!((version.code, version.stderr.as_str()), (0, ""));
        let line = format!("\ncode path  none (FOREWORD_CODE_PATH: {wrong}; this machine has ");
        assert!(version.stdout.contains(&line), "{}", version.stdout);
    }
}

#[test]
fn colours_are_for_terminals_and_no_color_takes_them_away() {
    let scene = Scene::new();
    let run = |verb: &[&str], variables: &[(&str, &str)]| {
        let output = scene.command(verb).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (ours, claps) = (&["classify", "--prompt", "nowhere", "x"][..], &["classify", "--nope"][..]);
    let plain = "error: there is no prompt directory nowhere\nhint: `foreword train` makes one; --prompt none is the bare model\n";
    let force = ("CLICOLOR_FORCE", "1");
    for variables in [&[][..], &[("NO_COLOR", "1"), force], &[("TERM", "dumb")]] {
        assert_eq!(run(ours, variables), (String::new(), plain.to_owned()), "{variables:?}");
        assert!(!run(claps, variables).1.contains('\u{1b}'), "{variables:?}");
        assert!(!run(&["--help"], variables).0.contains('\u{1b}'), "{variables:?}");
    }
    // As on a terminal; an empty NO_COLOR says nothing.
    for variables in [&[force][..], &[("NO_COLOR", ""), force]] {
        let (_, told) = run(ours, variables);
        assert!(
            told.starts_with("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m there")
                && told.contains("\n\u{1b}[36mhint:\u{1b}[0m `")
        );
        assert!(run(claps, variables).1.contains('\u{1b}'));
    }
    // An answer has none, ever.
    let (answer, told) = run(&["explain", "--help"], &[]);
    assert!(!answer.contains('\u{1b}') && told.is_empty());
}

#[test]
fn shells_and_man_know_every_verb() {
    let scene = Scene::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = scene.run(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        assert!(VERBS.iter().all(|verb| ran.stdout.contains(verb)) && ran.stdout.contains("virtual-tokens"));
    }
    let whole = scene.run(&["man"]).stdout;
    assert!(whole.contains(".TH foreword 1"), "{whole}");
    for verb in VERBS {
        assert!(whole.contains(&format!("foreword\\-{verb}(1)")), "{verb}\n{whole}");
        let page = scene.run(&["man", verb]).stdout;
        assert!(page.contains(&format!(".TH foreword-{verb} 1")), "{page}");
        assert!(page.contains(&format!("\\fBforeword {verb}\\fR")) && page.contains("Examples:"), "{page}");
    }
    assert!(scene.run(&["man", "train"]).stdout.contains("FOREWORD_THREADS"));
    let ran = scene.run(&["man", "dance"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("there is no verb \"dance\"\nhint: the verbs are train, eval,"),
        "{}",
        ran.stderr
    );
}

#[test]
fn verbose_tells_what_it_runs_on() {
    let scene = Scene::new();
    let ran = scene.train("p", "1", &["-v", "--threads", "1", "--micro-batch-tokens", "64"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let line = |name: &str| ran.stderr.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(
        line("computing").ends_with(", 1 thread, products in f32, up to 64 tokens at a time"),
        "{}",
        ran.stderr
    );
    assert!(
        line("shared").ends_with("tokens that all training texts begin with, computed once for all of them")
    );

    // The variable stands for the flag, and the flag wins.
    let mut command = scene.command(&["classify", "--prompt", "none", "--labels", "a= a,b= b", "-v", "x"]);
    let told = command.env("FOREWORD_THREADS", "2").output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains(", 2 threads, products in "));
    let told = command.args(["--threads", "1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains(", 1 thread, products in "));
    let ran = scene.run(&["classify", "--prompt", "none", "--labels", "a= a,b= b", "-v", "-q", "x"]);
    assert_eq!(ran.code, 1);
}
