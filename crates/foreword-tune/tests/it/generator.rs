//! Requests that come and go: each gives what it gives alone, and their memory comes back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use foreword_backbone::Model;
use foreword_backbone::kernels::{Cpu, Token};
use foreword_format::SoftPrompt;
use foreword_tune::Task;
use foreword_tune::data::Dataset;
use foreword_tune::engine::generate::{self, GenerateConfig};
use foreword_tune::engine::generator::{
    AdmitError, FinishReason, Generated, Generator, Limits, Output, Request, RequestId, Tell,
};
use foreword_tune::engine::kv_pool::{PAGE_ROWS, PoolError};
use foreword_tune::engine::prefix::{AnchorError, PrefixState, compile};
use foreword_tune::engine::sampling::{LogProbs, Sampling};
use foreword_tune::init::Sources;
use foreword_tune::settings::{Init, Method, Placement};
use foreword_tune::template::Template;
use proptest::prelude::*;

use crate::golden::load;
use crate::laws::task;

static MODEL: LazyLock<Model<Cpu>> =
    LazyLock::new(|| load("testdata/models/llama-tiny", Cpu::new(2).unwrap()));

/// The bare model, and prompts of different lengths, methods and placements.
static PREFIXES: LazyLock<Vec<PrefixState<Cpu>>> = LazyLock::new(|| {
    let soft = |n, seed| Sources::of(&MODEL, None).soft_prompt(&Init::Vocab, n, seed).unwrap();
    let prefix = |method, placement, prompt: Option<&SoftPrompt>| {
        let task = Task { method, ..task(&*MODEL, placement) };
        task.prefix(&MODEL, prompt).unwrap()
    };
    let kv = |n, placement| compile(&MODEL, placement, &soft(n, 9)).unwrap();
    vec![
        prefix(Method::Prompt, Placement::Front, None),
        prefix(Method::Prompt, Placement::Front, Some(&soft(3, 1))),
        prefix(Method::Prompt, Placement::AfterBos, Some(&soft(5, 2))),
        prefix(Method::Prompt, Placement::Suffix, Some(&soft(2, 3))),
        prefix(Method::Prefix, Placement::Front, Some(&kv(4, Placement::Front))),
        prefix(Method::Prefix, Placement::AfterBos, Some(&kv(40, Placement::AfterBos))),
    ]
});

/// What decides a request.
#[derive(Clone, Debug)]
struct Asked {
    prefix: usize,
    /// Behind the BOS; never empty.
    context: Vec<Token>,
    max_tokens: usize,
    sampling: Sampling,
    stream: u64,
    stops: bool,
}

impl Asked {
    fn request(&self) -> Request<Cpu> {
        Request {
            prefix: PREFIXES[self.prefix].clone(),
            context: [MODEL.tokenizer.leading(), &self.context].concat(),
            max_tokens: self.max_tokens,
            sampling: self.sampling,
            stream: self.stream,
            stop: if self.stops { vec!["e".into(), String::new(), "on".into()] } else { Vec::new() },
            end: Some(77),
            is_spaced: true,
            tell: Tell { text: self.stream.is_multiple_of(2), log_probs: Some(2) },
        }
    }
}

/// What a request gave.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    tokens: Vec<(Token, LogProbs)>,
    text: String,
    generated: Option<Generated>,
}

/// Steps once; what was given is added.
fn step(generator: &mut Generator<'_, Cpu>, given: &mut BTreeMap<RequestId, Given>) -> bool {
    generator
        .step(&mut |id, output| {
            let given = given.entry(id).or_default();
            assert!(given.generated.is_none(), "an output after the end");
            match output {
                Output::Token { token, log_probs } => given.tokens.push((token, log_probs)),
                Output::Text(text) => given.text += text,
                Output::Done(generated) => given.generated = Some(generated),
                Output::Failed(error) => panic!("{error}"),
            }
        })
        .unwrap()
}

const ROOM: Limits = Limits { n_running: 64, n_prefill_tokens: 2048, kv_bytes: u64::MAX };

fn alone(asked: &Asked) -> Given {
    let mut generator = Generator::new(&MODEL, ROOM);
    let id = generator.admit(asked.request()).unwrap();
    let mut given = BTreeMap::new();
    while step(&mut generator, &mut given) {}
    given.remove(&id).unwrap()
}

fn asked() -> impl Strategy<Value = Asked> {
    let sampling =
        (any::<bool>(), 0..4_usize, 0.5..1.0_f64, any::<u64>()).prop_map(|(is_drawn, top_k, top_p, seed)| {
            Sampling {
                temperature: if is_drawn { 0.9 } else { 0.0 },
                top_k: 5 * top_k,
                top_p,
                repetition_penalty: 1.2,
                seed,
            }
        });
    let context = proptest::collection::vec(3..400_u32, 1..40);
    // More tokens than a page has rows, sometimes.
    (0..6_usize, context, prop_oneof![1..8_usize, 30..45_usize], sampling, 0..9_u64, any::<bool>()).prop_map(
        |(prefix, context, max_tokens, sampling, stream, stops)| Asked {
            prefix,
            context,
            max_tokens,
            sampling,
            stream,
            stops,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_request_gives_what_it_gives_alone_whatever_comes_and_goes_beside_it(
        // Steps before the next one comes, and after how many steps it is cancelled, where it is.
        schedule in proptest::collection::vec((0..5_usize, asked(), proptest::option::weighted(0.3, 0..6_usize)), 1..12),
        (n_running, n_prefill_tokens, n_pages) in (1..6_usize, 1..100_usize, 8..30_u64),
    ) {
        let page_bytes = (PAGE_ROWS * MODEL.backbone.spec().cache_width() * 4) as u64;
        let limits = Limits { n_running, n_prefill_tokens, kv_bytes: n_pages * page_bytes };
        let mut generator = Generator::new(&MODEL, limits);
        let (mut given, mut admitted) = (BTreeMap::new(), Vec::new());
        let mut now = 0;
        let mut schedule = schedule.into_iter().peekable();
        let mut next = 0;
        loop {
            while let Some((wait, asked, cancelled)) = schedule.next_if(|(wait, ..)| next + wait <= now) {
                next += wait;
                admitted.push((generator.admit(asked.request()).unwrap(), asked, cancelled.map(|after| now + after)));
            }
            for (id, _, cancelled) in &admitted {
                if cancelled.is_some_and(|at| at == now) {
                    let is_whole = given.get(id).is_some_and(|given: &Given| given.generated.is_some());
                    prop_assert_eq!(generator.cancel(*id), !is_whole);
                    prop_assert!(!generator.cancel(*id));
                }
            }
            let goes_on = step(&mut generator, &mut given);
            now += 1;
            prop_assert!(generator.pool().bytes() <= limits.kv_bytes);
            prop_assert!(generator.pool().leased_bytes() <= limits.kv_bytes);
            prop_assert!(generator.n_running() <= n_running);
            if !goes_on && schedule.peek().is_none() {
                break;
            }
        }
        prop_assert_eq!((generator.pool().leased_bytes(), generator.pool().n_blocks()), (0, 0));
        for (id, asked, cancelled) in &admitted {
            let alone = alone(asked);
            let given = given.get(id).cloned().unwrap_or_default();
            if given.generated.is_some() {
                prop_assert_eq!(&given, &alone, "{:?}", asked);
            } else {
                prop_assert!(cancelled.is_some());
                prop_assert!(alone.tokens.starts_with(&given.tokens) && alone.text.starts_with(&given.text));
            }
        }
    }
}

fn small(i: usize) -> Asked {
    Asked {
        prefix: i % 6,
        context: vec![3 + i as Token % 100, 9],
        max_tokens: 1 + i % 3,
        sampling: Sampling::default(),
        stream: i as u64,
        stops: false,
    }
}

#[test]
fn memory_is_flat_over_ten_thousand_requests() {
    let mut generator = Generator::new(&MODEL, ROOM);
    let (mut given, mut bytes) = (BTreeMap::new(), Vec::new());
    for round in 0..10 {
        for i in 0..1000 {
            let id = generator.admit(small(i).request()).unwrap();
            if i % 7 == round % 7 {
                assert!(generator.cancel(id));
            }
        }
        while step(&mut generator, &mut given) {}
        assert_eq!((generator.pool().leased_bytes(), generator.pool().n_blocks()), (0, 0));
        assert_eq!((generator.n_waiting(), generator.n_running()), (0, 0));
        bytes.push(generator.pool().bytes());
    }
    assert!(bytes[0] > 0 && bytes.iter().all(|&later| later == bytes[0]), "{bytes:?}");
    assert!(given.len() > 8_000);
}

#[test]
fn what_is_cancelled_is_freed_at_once_and_what_is_shared_stays() {
    let mut generator = Generator::new(&MODEL, ROOM);
    let long = Asked { max_tokens: 100, prefix: 5, ..small(1) };
    let held =
        |generator: &Generator<'_, Cpu>| (generator.pool().leased_bytes(), generator.pool().n_blocks());
    let mut given = BTreeMap::new();
    let first = generator.admit(long.request()).unwrap();
    step(&mut generator, &mut given);
    let one = held(&generator);
    let second = generator.admit(long.request()).unwrap();
    step(&mut generator, &mut given);
    let two = held(&generator);
    // The second brings a page, and none of the prefix's blocks.
    assert_eq!(two.1, one.1 + 1);
    assert!(two.0 < 2 * one.0);
    assert!(generator.cancel(second));
    assert_eq!(held(&generator), one);
    assert!(generator.cancel(first));
    assert_eq!(held(&generator), (0, 0));
}

#[test]
fn what_never_fits_is_refused_and_what_does_not_fit_yet_waits() {
    let page_bytes = (PAGE_ROWS * MODEL.backbone.spec().cache_width() * 4) as u64;
    let mut generator = Generator::new(&MODEL, Limits { kv_bytes: 3 * page_bytes, ..ROOM });
    let of = |max_tokens| Asked { prefix: 0, max_tokens, ..small(0) };
    let refused = generator.admit(of(200).request()).unwrap_err();
    assert!(matches!(refused, AdmitError::Pool(PoolError::TooLarge { .. })), "{refused}");
    for _ in 0..5 {
        generator.admit(of(20).request()).unwrap();
    }
    let mut given = BTreeMap::new();
    let mut most = 0;
    while step(&mut generator, &mut given) {
        most = most.max(generator.n_running());
        assert!(generator.pool().bytes() <= 3 * page_bytes);
    }
    assert!((1..=3).contains(&most), "{most}");
    let alone = alone(&of(20));
    assert!(given.len() == 5 && given.values().all(|given| *given == alone));
}

#[test]
fn what_can_not_stand_below_its_prefix_or_in_the_model_is_refused() {
    let mut generator = Generator::new(&MODEL, ROOM);
    let with =
        |prefix: usize, context: Vec<Token>| Request { context, ..Asked { prefix, ..small(0) }.request() };
    let bos = MODEL.tokenizer.leading().to_vec();
    for (prefix, context, expected) in [
        (2, vec![5, 6], AnchorError::Beginning),
        (5, vec![5, 6], AnchorError::Beginning),
        (5, bos.clone(), AnchorError::NothingBelow),
    ] {
        assert_eq!(generator.admit(with(prefix, context)).unwrap_err(), AdmitError::Anchor(expected));
    }
    let context = MODEL.backbone.spec().context;
    let long = |n: usize| with(1, [&bos[..], &vec![9; n - bos.len()]].concat());
    assert!(matches!(generator.admit(long(context - 2)), Err(AdmitError::TooLong { .. })));

    // A soft prompt stands below the BOS alone, too; and a text ends where the model's context does.
    generator.admit(Request { max_tokens: 5, ..with(2, bos.clone()) }).unwrap();
    let full = generator.admit(Request { max_tokens: 50, ..long(context - 5) }).unwrap();
    let mut given = BTreeMap::new();
    while step(&mut generator, &mut given) {}
    let Generated { tokens, finish_reason, .. } = given[&full].generated.clone().unwrap();
    assert_eq!((tokens.len(), finish_reason), (3, FinishReason::Length));
}

#[test]
fn a_prefix_holds_what_its_template_begins_with_and_gives_what_the_task_gives() {
    let model = load("crates/foreword-tiny", Cpu::new(2).unwrap());
    let soft = Sources::of(&model, None).soft_prompt(&Init::Vocab, 4, 5).unwrap();
    let beginning = "Here is a review of a film:";
    let texts = ["A joy from start to finish.", "", "é", "0", " twice  spaced"].map(str::to_owned).to_vec();
    let data = Dataset::from_texts(texts).unwrap();
    let sampling = Sampling { temperature: 0.8, seed: 3, ..Sampling::default() };
    let config = GenerateConfig { sampling, max_new_tokens: Some(6), ..GenerateConfig::default() };
    for (placement, soft) in [
        (Placement::Front, None),
        (Placement::Front, Some(&soft)),
        (Placement::AfterBos, Some(&soft)),
        (Placement::Suffix, Some(&soft)),
    ] {
        let template = Template::parse(&format!("{beginning} {{text}}\nIt is")).unwrap();
        let task = Task { template, ..task(&model, placement) };
        let (of, most) = task.openings(&model, 4, &data, &config).unwrap();
        let go_on = &mut |_: generate::Event<'_>| ControlFlow::Continue(());
        let expected = task.generate(&model, soft, (&of, most), &config, 100, go_on).unwrap();

        let prefix = task.prefix(&model, soft).unwrap();
        let n_beginning = model.tokenizer.encode_context(beginning).unwrap().len();
        let mut generator = Generator::new(&model, ROOM);
        for (i, context) in of.contexts.iter().enumerate() {
            assert!(prefix.n_held(context).unwrap() + 1 >= n_beginning, "{placement}");
            let request = Request {
                prefix: prefix.clone(),
                context: context.clone(),
                max_tokens: most,
                sampling,
                stream: i as u64,
                stop: Vec::new(),
                end: None,
                is_spaced: true,
                tell: Tell::default(),
            };
            generator.admit(request).unwrap();
        }
        let mut given = Vec::new();
        while generator
            .step(&mut |id, output| {
                if let Output::Done(generated) = output {
                    given.push((id, generated));
                }
            })
            .unwrap()
        {}
        given.sort_by_key(|(id, _)| *id);
        let given: Vec<Generated> = given.into_iter().map(|(_, generated)| generated).collect();
        assert_eq!(given, expected, "{placement}");
    }
}
