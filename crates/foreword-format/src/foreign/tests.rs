//! Tests with prompts written by torch, NumPy and PEFT, and with malicious files.

use std::path::PathBuf;

use proptest::prelude::*;

use super::pickle::{Node, Stopped};
use super::*;
use crate::adapter::PeftTask;

fn foreign(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/foreign").join(name)
}

fn message(path: &Path, task: Option<usize>) -> String {
    import(path, task).unwrap_err().to_string()
}

/// The rows in most of the files.
fn rows() -> Vec<f32> {
    (0..96).map(|i| i as f32 / 16.0 - 2.0).collect()
}

#[test]
fn numpy_and_torch_files_give_their_rows() {
    for (name, format) in
        [("rows.npy", "npy"), ("tensor.pt", "torch"), ("state_dict.pt", "torch"), ("nested.pt", "torch")]
    {
        let found = import(&foreign(name), None).unwrap();
        assert_eq!((found.rows.n_virtual(), found.rows.width()), (3, 32), "{name}");
        assert_eq!(found.rows.values(), rows(), "{name}");
        assert_eq!((found.format.as_str(), found.adapter.task), (format, Some(PeftTask::CausalLm)), "{name}");
        assert!(found.notes.last().unwrap().contains("nothing in the file says for which model"), "{name}");
    }
    let with_others = import(&foreign("state_dict.pt"), None).unwrap();
    assert_eq!(
        with_others.notes[0],
        "left out: steps [1]; what was trained with them is not the same without"
    );
}

#[test]
fn npy_is_written_as_numpy_writes_it() {
    let rows = SoftPrompt::new(rows(), 3, 32).unwrap();
    assert_eq!(to_npy(&rows), std::fs::read(foreign("rows.npy")).unwrap());
}

#[test]
fn other_methods_of_peft_give_what_peft_computes() {
    let cpt = import(&foreign("cpt"), None).unwrap();
    assert_eq!((cpt.rows.n_virtual(), cpt.rows.width(), cpt.format.as_str()), (3, 32, "PEFT CPT"));
    for task in 0..2 {
        let found = import(&foreign("mpt"), Some(task)).unwrap();
        let expected = import(&foreign(&format!("mpt-{task}.npy")), None).unwrap();
        for (found, expected) in found.rows.values().iter().zip(expected.rows.values()) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} {expected}");
        }
    }
    assert!(
        message(&foreign("mpt"), None)
            .ends_with("is a prompt of 2 tasks: choose one with --task 0 to --task 1")
    );
    assert!(message(&foreign("mpt"), Some(2)).contains("a prompt of 2 tasks"));
    assert!(message(&foreign("cpt"), Some(0)).ends_with("is the prompt of one task: leave out --task"));
    assert!(message(&foreign("rows.npy"), Some(0)).contains("one task"));
}

#[test]
fn what_is_no_prompt_is_named() {
    assert!(
        message(&foreign("legacy.pt"), None)
            .contains("legacy.pt is a bare pickle, as torch wrote before version 1.6")
    );
    let refused = message(&foreign("module.pt"), None);
    assert!(
        refused.contains(
            "module.pt asks for torch.nn.modules.module.Module, which a file of tensors has no need of"
        ),
        "{refused}"
    );
    assert!(
        message(&foreign("two.pt"), None)
            .contains("two.pt holds a [3, 32], b [3, 32]: the prompt is the tensor")
    );
    assert!(message(&foreign("columns.npy"), None).contains("column after column"));
    assert!(message(&foreign("no-such"), None).starts_with("cannot read"));
    assert!(message(&foreign(""), None).contains("nothing that can be imported"));
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(message(&text, None).contains("Cargo.toml is nothing that can be imported"));
}

#[test]
fn prompts_that_others_released_are_read_where_they_are() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/prompts");
    for (name, p, w) in [
        ("DePT/cola", 80, 768),
        ("DePT/hotpotqa", 60, 768),
        ("ATTEMPT/record_prefix_embeddings_2b.pt", 100, 1024),
    ] {
        let path = shared.join(name);
        if !path.exists() {
            eprintln!("skipped: {} is not here", path.display());
            continue;
        }
        let found = import(&path, None).unwrap();
        assert_eq!((found.rows.n_virtual(), found.rows.width()), (p, w), "{name}");
        if name.starts_with("DePT") {
            assert_eq!(found.adapter.task, Some(PeftTask::Seq2SeqLm));
            assert_eq!(found.adapter.base_model.as_deref(), Some("t5-base"));
        }
        if name == "DePT/cola" {
            let left_out = "left out: prompt_encoder.lora_embedding_A [256, 15], prompt_encoder.lora_embedding_B [15, 768]";
            assert!(found.notes[0].starts_with(left_out), "{:?}", found.notes);
        }
    }
}

/// The result of a pickle with these instructions.
fn run(program: &[u8]) -> Result<(Vec<Node>, usize), Stopped> {
    pickle::read(&[&[0x80, 2], program].concat())
}

#[test]
fn a_pickle_calls_nothing() {
    let refused =
        |program: &[u8], name: &str| assert_eq!(run(program), Err(Stopped::Refused(name.to_owned())));
    refused(b"cos\nsystem\n(X\x06\0\0\0rm -rftR.", "os.system");
    refused(b"cbuiltins\neval\n.", "builtins.eval");
    refused(
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "torch._utils._rebuild_tensor_v2.__globals__",
    );
    refused(b"\x8c\x05posix\x8c\x06system\x93.", "posix.system");
    refused(b"ctorch.jit\n\x1b[31m_unpickle\n.", "torch.jit.[31m_unpickle");
    // INST, OBJ, NEWOBJ, EXT1, PERSID, BINBYTES8: instructions of which tensors have no need.
    for code in [b'i', b'o', 0x81, 0x82, b'P', 0x8e, b'I', b'S', b'V', b'd', b'l'] {
        let Err(Stopped::Damaged(reason)) = run(&[code, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'.']) else {
            panic!("{code}")
        };
        assert!(reason.contains(&format!("{code:#04x} at byte 2")), "{reason}");
    }
    // A known name that is called with what it does not take.
    for program in [
        b"ccollections\nOrderedDict\nK\x01\x85R.".as_slice(),
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_parameter\nN\x85R.",
        b"ctorch\nFloatStorage\n)R.",
        b"NNb.",
    ] {
        assert!(matches!(run(program), Err(Stopped::Damaged(_))), "{program:?}");
    }
}

#[test]
fn damaged_pickles_are_errors() {
    for program in [
        b"".as_slice(),
        b".",
        b"t.",
        b"0.",
        b"(0.",
        b"a.",
        b"Na.",
        b"NNs.",
        b"(Nu.",
        b"}(Nu.",
        b"h\x01.",
        b"q\x01.",
        b"Q.",
        b"NQ.",
        b"NNR.",
        b"NNb.",
        b"\x8a\xff.",
        b"X\xff\xff\xff\xffx.",
        b"X\x01\0\0\0\xff.",
        b"cno newline",
        b"\x93.",
        b"NN\x93.",
        b"\x95\0.",
        b"\x80\x09.",
        b"((((((((\x87.",
        b"c\xff\nx\n.",
    ] {
        assert!(matches!(run(program), Err(Stopped::Damaged(_))), "{program:?}");
    }
    assert_eq!(run(b"\x8a\x01\xff.").unwrap().0, [Node::Int(-1)]);
    assert_eq!(run(b"J\xfe\xff\xff\xff.").unwrap().0, [Node::Int(-2)]);
    assert!(matches!(pickle::read(&vec![0x80; (1 << 20) + 1]), Err(Stopped::Damaged(_))));
}

/// A torch archive with this pickle and these numbers.
fn archive(program: &[u8], numbers: &[u8]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, body) in [("x/data.pkl", program), ("x/data/0", numbers)] {
        let sizes = [body.len() as u32, body.len() as u32].map(u32::to_le_bytes).concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let local = (bytes.len() as u32).to_le_bytes();
        bytes.extend(
            [b"PK\x03\x04".as_slice(), &[0; 14], &sizes, &name_length, &[0; 2], name.as_bytes(), body]
                .concat(),
        );
        directory.extend(
            [b"PK\x01\x02".as_slice(), &[0; 16], &sizes, &name_length, &[0; 12], &local, name.as_bytes()]
                .concat(),
        );
    }
    let (size, at) = ((directory.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    bytes.extend([directory.as_slice(), b"PK\x05\x06\0\0\0\0\x02\0\x02\0", &size, &at, &[0; 2]].concat());
    bytes
}

/// A tensor of f32 with `n` declared numbers, this shape and these strides, each one byte.
fn tensor(n: u8, shape: [u8; 2], strides: [u8; 2], numbers: usize) -> Result<SoftPrompt, String> {
    let [a, b] = shape;
    let [c, d] = strides;
    let program = [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK".as_slice(),
        &[n, b't', b'Q', b'K', 0, b'K', a, b'K', b, 0x86, b'K', c, b'K', d, 0x86, 0x89],
        b"ccollections\nOrderedDict\n)RtR.",
    ]
    .concat();
    let numbers: Vec<u8> = (0..numbers).flat_map(|i| (i as f32).to_le_bytes()).collect();
    from_torch(&archive(&program, &numbers)).map_err(|error| error.to_string())
}

#[test]
fn sizes_are_what_they_are_and_not_what_is_stated() {
    assert_eq!(tensor(6, [2, 3], [3, 1], 6).unwrap().values(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(tensor(6, [3, 2], [1, 3], 6).unwrap().values(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let error = |result: Result<SoftPrompt, String>| result.unwrap_err();
    assert!(
        error(tensor(200, [2, 3], [3, 1], 6))
            .contains("200 numbers of 4 bytes are stated, and 24 bytes are there")
    );
    assert!(error(tensor(6, [255, 255], [0, 0], 6)).contains("takes more numbers than are there"));
    assert!(error(tensor(6, [2, 3], [255, 255], 6)).contains("lead beyond its numbers"));
    assert!(error(tensor(0, [0, 3], [3, 1], 0)).contains("0"));
    let names = [b"\x80\x02".as_slice(), b"}(X\x01\0\0\0a".repeat(40).as_slice(), b"."].concat();
    assert!(from_torch(&archive(&names, &[])).is_err());
}

#[test]
fn dictionaries_that_hold_each_other_end() {
    // A dictionary in itself, and each of forty twice in the next.
    let itself = b"\x80\x02}q\0X\x01\0\0\0ah\0s.".as_slice();
    assert!(from_torch(&archive(itself, &[])).unwrap_err().to_string().contains("too deep"));
    let mut often = b"\x80\x02]q\0".to_vec();
    for i in 0..40_u8 {
        often.extend([b']', b'(', b'h', i, b'h', i, b'h', i, b'h', i, b'e', b'q', i + 1]);
    }
    often.push(b'.');
    assert!(from_torch(&archive(&often, &[])).is_err());
}

#[test]
fn a_torch_file_cut_anywhere_is_an_error() {
    let whole = std::fs::read(foreign("state_dict.pt")).unwrap();
    assert!(from_torch(&whole).is_ok());
    for end in (0..whole.len()).step_by(7) {
        assert!(from_torch(&whole[..end]).is_err(), "{end}");
    }
    let npy = std::fs::read(foreign("rows.npy")).unwrap();
    for end in 0..npy.len() {
        assert!(from_npy(&npy[..end]).is_err(), "{end}");
    }
}

#[test]
fn packed_and_large_archives_are_refused() {
    let mut packed = archive(b"\x80\x02.", b"");
    let at = packed.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    packed[at + 10] = 8;
    assert!(from_torch(&packed).unwrap_err().to_string().contains("packed or encrypted"));
    let mut large = archive(b"\x80\x02.", b"");
    let n = large.len();
    large[n - 6..n - 2].copy_from_slice(&[0xff; 4]);
    assert!(from_torch(&large).unwrap_err().to_string().contains("it is no prompt"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = run(&bytes);
        let _ = from_npy(&[npy::MAGIC, &bytes].concat());
        let _ = from_torch(&archive(&[&[0x80, 2], bytes.as_slice()].concat(), &bytes));
    }

    #[test]
    fn no_changed_byte_makes_them_panic(at in 0_usize..2_173, byte in any::<u8>()) {
        let mut bytes = std::fs::read(foreign("state_dict.pt")).unwrap();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = from_torch(&bytes);
    }

    #[test]
    fn npy_gives_back_what_it_was_given(p in 1_usize..5, w in 1_usize..70, seed in any::<f32>()) {
        prop_assume!(seed.is_finite() && seed.abs() < 1e30);
        let rows = SoftPrompt::new((0..p * w).map(|i| seed + i as f32).collect(), p, w).unwrap();
        prop_assert_eq!(from_npy(&to_npy(&rows)).unwrap(), rows);
    }
}
