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

    Foreword learns a soft prompt: a few rows of numbers that stand before every text, a model's own
    foreword to a task. The model is never changed; what is learned is a file of a few kilobytes.
    `foreword quickstart` shows it at work.

    Usage: foreword <COMMAND>

    Commands:
      train        Learn a soft prompt from examples, to choose a label or to write a text
      eval         Measure a soft prompt, or the bare model, on examples whose label or target is known
      compare      Set tuned prompts beside what costs no training: one table, with intervals and paired
                   tests
      classify     Label texts with a soft prompt
      generate     Write texts with a soft prompt
      explain      Walk through the mathematics of prompt tuning on one text, with real values
      inspect      Tell what is in a prompt directory, and where its rows lie among the model's own
      compile      Turn a soft prompt into a KV prefix, which is never computed again
      import       Make a prompt of another tool into a prompt directory
      export       Write a prompt for other tools: as an array of NumPy's, or as a directory of PEFT's
      quantise     Write a model as a GGUF file, its matrices in fewer bits [alias: quantize]
      similar      Find the nearest of several tuned prompts of the same model
      models       List the models that are here: the bundled one, those in the Hugging Face cache, and
                   those below a directory
      quickstart   See it work: learn sentiment with the bundled model, in about a minute
      completions  Print what a shell needs to complete this command line
      man          Print the manual page of this command, or of one of its verbs
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Environment:
      FOREWORD_CODE_PATH  Processor instructions to use: portable, avx2, avx512, avx512bf16, amx or neon
      FOREWORD_THREADS    Threads to compute with, where --threads does not say
      HF_ENDPOINT         Where the Hugging Face hub is, if not at https://huggingface.co
      HF_HOME             Where its cache and its token lie, if not in ~/.cache/huggingface
      HF_HUB_CACHE        Where its cache lies, if not in the folder hub of HF_HOME
      HF_HUB_OFFLINE      If it is 1: the hub is never asked, only its cache
      HF_TOKEN            Your token, for models that are gated or private
      NO_COLOR            Anything but nothing: no colours, not even on a terminal
      TERM                If it is dumb: neither colours nor progress bars
    "#);
}

#[test]
fn each_flag_tells_its_unit_and_its_default() {
    let scene = Scene::new();
    insta::assert_snapshot!(scene.run(&["train", "-h"]).stdout, @r#"
    Learn a soft prompt from examples, to choose a label or to write a text

    Usage: foreword train [OPTIONS] [TASK.toml|DATA]

    Arguments:
      [TASK.toml|DATA]  A task file (.toml), which holds any of the settings below, or the training
                        data; flags win over the task file

    Options:
          --model <MODEL>  The frozen model: the bundled foreword-tiny; a directory with config.json,
                           tokenizer.json and safetensors; a .gguf file; or org/name of the Hugging Face
                           hub, with @revision where one is meant, which is downloaded once [default:
                           foreword-tiny]
      -h, --help           Print help (see more with '--help')

    Data:
          --train <FILE>                Examples to learn from: a .jsonl, .json, .csv, .tsv or .parquet
                                        file, also packed (.gz, .zst); - is standard input
          --dev <FILE>                  Examples to choose the best prompt by [default: a tenth of the
                                        training data, drawn by label and seed]
          --test <FILE>                 Examples to report on; nothing is chosen by them
          --limit <N>                   Learn from this many of the training examples, drawn by label
                                        and seed [default: all]
          --shots <N>                   Learn from this many examples of each label, and choose by as
                                        many others: five runs, whose examples the seeds 13, 21, 42, 87
                                        and 100 draw, or one where --seed is given. Their mean and
                                        deviation is told
          --strict                      Where the data is doubtful (empty texts, duplicates,
                                        contradictory or rare labels, test texts that are learned from,
                                        cut texts, …), end with an error instead of a warning
          --text-field <NAME>           The field that {text} in the template stands for [default:
                                        guessed from common names]
          --label-field <NAME>          The field with the label [default: guessed from common names]
          --target-field <NAME>         The field with the text to be written, where examples have no
                                        label but a target
          --label-names <LABEL=NAME,…>  The names of the labels that stand in the data, as
                                        0=negative,1=positive; a name says to the model what a number
                                        does not [default: those that the data itself has for numbers:
                                        of a ClassLabel in Parquet, or in a field like label_text]

    Task:
          --kind <KIND>            What the examples teach [default: generation where --target-field
                                   names a target, classification otherwise] [possible values:
                                   classification, generation]
          --template <TEXT|chat>   The text around the fields, as in '{premise}\nSo {hypothesis}?'; the
                                   label or target follows it. \n is a newline, \t a tab, \\ a
                                   backslash; {{ and }} are braces. `chat` is the model's own chat
                                   template, in which the text is what the user says, and the label or
                                   target what the assistant answers [default: "{text}\nLabel:", or
                                   "{text}\nOutput:" where texts are generated]
          --message <TEXT>         In a chat, the text around the fields in the user's message, written
                                   as a template [default: "{text}"]
          --system <TEXT>          In a chat, the system message [default: none, or what the model's
                                   chat template says itself]
          --placement <PLACE>      Where the soft prompt stands: before all, as PEFT has it; after the
                                   BOS token; at the beginning of a chat's system message; or between
                                   the template's end and the label or target [default: front] [possible
                                   values: front, after-bos, system, suffix]
          --max-length <TOKENS>    The most tokens of template, text and label or target together;
                                   longer texts are cut. Virtual tokens do not count, but must fit into
                                   the model's context as well [default: 512]
          --labels <LABEL=TEXT,…>  The text that stands for each label, as 'negative= negative,positive=
                                   positive'. A word that follows a word gets a space before it, and
                                   never two. A backslash before a comma, an equals sign or a backslash
                                   takes it literally; \n and \t are as above [default: the labels in
                                   the data, each with a space before its name]
          --exact-labels           Use the texts of --labels exactly as written, without adding or
                                   removing a space
          --objective <LOSS>       What counts: the true label against the others (label), or its text
                                   against all texts (lm) [default: label] [possible values: label, lm]

    Prompt:
          --method <METHOD>     What is learned: a soft prompt, rows of the model's input (prompt), or a
                                KV prefix, keys and values of each of its layers (prefix), which has
                                many more numbers and costs nothing to compute [default: prompt]
                                [possible values: prompt, prefix]
          --virtual-tokens <N>  Number of virtual tokens, the rows of the soft prompt [default: 20]
          --init <INIT>         Initial rows: the embeddings of a text's tokens (text:…), of the labels'
                                (labels), of random tokens (vocab), noise (random), training examples
                                with their labels (demonstrations), or the rows of another prompt
                                (from:DIR). A KV prefix starts with the keys and values that the model
                                makes of such rows [default: text: and a sentence that names the labels]

    Training:
          --steps <N>             Number of updates [default: 400]
          --batch-size <N>        Examples per step [default: 32, or a quarter of the examples, at least
                                  8, where that is less]
          --learning-rate <RATE>  Peak learning rate of AdamW: a number, a share of the size of the
                                  learned rows (3%), or auto: a share that fits most models [default:
                                  auto]
          --schedule <SHAPE>      Learning-rate decay after the warm-up: constant, linear or cosine (to
                                  10 %) [default: cosine] [possible values: constant, linear, cosine]
          --warmup <STEPS|SHARE>  Warm-up: a number of steps, or a share of all steps if below 1
                                  [default: 0.05]
          --max-grad-norm <NORM>  Clip the gradient norm to this value; 0 disables clipping [default: 1]
          --weight-decay <DECAY>  AdamW's weight decay [default: 0]
          --no-shuffle            Take the examples in the order of the file in every epoch
          --eval-every <STEPS>    Steps between evaluations on dev; 0: only at the end [default: about
                                  ten evaluations a run]
          --patience <N>          Stop after this many evaluations in a row without a lower loss on dev;
                                  0: never [default: 5]
          --keep <WHICH>          The prompt to keep: the best, with the lowest loss on dev, or the last
                                  [default: best] [possible values: best, last]
          --seed <N>              Random seed; the same seed gives the same prompt, bit for bit
                                  [default: 0]
          --candidates <N>        Train this many candidates at once and keep the best on dev, or auto:
                                  learning rates, inits and lengths vary where they are not set, then
                                  seeds, from --seed on. The worse half stops early, and half of the
                                  rest each time after twice as many steps [default: 1]
          --ensemble <N>          Train this many of the candidates to the end and write them all, to
                                  answer together: the best to --out and the others below it [default:
                                  1]

    Machine:
          --memory <SIZE>                The most memory for the run, as 500MB or 2GB: fewer tokens at a
                                         time, and activation checkpointing where that is needed; it
                                         changes no result [default: half of the free memory]
          --context-cache-dir <DIR>      Placement suffix: keep the keys and values of each text before
                                         the prompt that do not fit into memory in a temporary file in
                                         this directory; without it they are computed again in every
                                         step. It changes no result
          --threads <N>                  Threads to compute with, at most 256 [default: one for each
                                         core] [env: FOREWORD_THREADS=]
          --dtype <FORMAT>               What the model's matrices are multiplied in: f32; bf16, which
                                         rounds both sides of each product; or bf16 where the model is
                                         stored so and the processor has instructions for it, and f32
                                         elsewhere (auto) [default: auto] [possible values: auto, f32,
                                         bf16]
          --micro-batch-tokens <TOKENS>  The most tokens computed at a time: fewer take less memory, and
                                         change no result [default: 2048]
          --device <DEVICE>              What to compute on: cpu, cuda:0, metal; or auto, which is the
                                         GPU where this build can use one that answers, and else cpu
                                         [default: auto]

    Output:
          --out <DIR>   The directory to write the prompt to [default: the name of the task file or
                        data, with -prompt]
          --force       Replace the prompt in --out, if there is one, and begin anew
          --resume      Go on with the run into --out that was interrupted or killed; the result is the
                        same, to the bit, as without
          --log <FILE>  Also write the lines of --json to this file, replacing it
          --json        Write one JSON object per line to standard output, and nothing else there
      -q, --quiet       Say nothing on standard error but warnings and errors
      -v, --verbose     Say more on standard error: what it runs on, and how much all training texts
                        share

    Regularisation:
          --token-dropout <SHARE>  Probability of dropping each virtual token in a step [default: 0]
          --noise <SHARE>          Standard deviation of the noise added to the rows in each step, as a
                                   share of their size [default: 0]
          --ema-decay <SHARE>      Evaluate and keep an exponential moving average of the rows with this
                                   decay; 0: the rows themselves [default: 0]
          --trust-region <SHARE>   The most that a row may move from its init, as a share of its size;
                                   0: no limit [default: 0]

    Examples:
      foreword train reviews.csv --out sentiment
      foreword train task.toml
      foreword train task.toml --steps 800 --seed 1 --out second-try
      foreword train reviews.csv --candidates auto --out best-of-eight
      foreword train reviews.csv --method prefix --out as-keys-and-values
      foreword train restaurants.jsonl --text-field input --target-field output
      foreword train reviews.jsonl --model ./Qwen2.5-0.5B --template '{text}\nSentiment:' \
          --labels 'neg= negative,pos= positive' --log run.jsonl
    "#);
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
