//! The few pickle instructions in files of tensors, interpreted without executing any code.
//!
//! A pickle is a program for a stack machine that can import and call anything by name. Here, any name outside the table
//! below ends the reading, and the names in the table stand for data, not code. Each instruction makes at most one node, so
//! memory use is limited to a fixed number of bytes per byte of the file. (candle-core has such a reader too; it requires a
//! tensor library, and trusts the sizes in the file.)

use std::collections::HashMap;

/// The first instruction of every torch pickle.
pub(super) const PROTO: u8 = 0x80;
/// Maximum size of a pickle in bytes; that of a prompt has a few hundred.
const MOST_BYTES: usize = 1 << 20;

/// An index into the arena of nodes.
pub(super) type Id = usize;

/// A value in a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Known(Known),
    /// Numbers of a type in entry `key` of the archive.
    Storage {
        kind: Kind,
        key: String,
        n: usize,
    },
    /// A view of a storage.
    Tensor {
        storage: Id,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    },
}

/// The allowed names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
}

/// The type of numbers in a storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    /// Integers, by their width in bytes: not a prompt, but possibly next to one.
    Whole(usize),
}

const KNOWN: [(&str, &str, Known); 13] = [
    ("collections", "OrderedDict", Known::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Known::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Known::RebuildParameter),
    ("torch", "HalfStorage", Known::Storage(Kind::F16)),
    ("torch", "BFloat16Storage", Known::Storage(Kind::Bf16)),
    ("torch", "FloatStorage", Known::Storage(Kind::F32)),
    ("torch", "DoubleStorage", Known::Storage(Kind::F64)),
    ("torch", "ByteStorage", Known::Storage(Kind::Whole(1))),
    ("torch", "CharStorage", Known::Storage(Kind::Whole(1))),
    ("torch", "BoolStorage", Known::Storage(Kind::Whole(1))),
    ("torch", "ShortStorage", Known::Storage(Kind::Whole(2))),
    ("torch", "IntStorage", Known::Storage(Kind::Whole(4))),
    ("torch", "LongStorage", Known::Storage(Kind::Whole(8))),
];

/// Why reading stopped.
#[derive(Debug, PartialEq)]
pub(super) enum Stopped {
    /// It refers to another name.
    Refused(String),
    /// It is damaged, or has an instruction that tensors do not need.
    Damaged(String),
}

/// The nodes of a pickle, and the index of its value.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Node>, Id), Stopped> {
    if bytes.len() > MOST_BYTES {
        let n = bytes.len();
        return Err(Stopped::Damaged(format!(
            "a pickle of {n} bytes, more than the {MOST_BYTES} that are read"
        )));
    }
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        if let Some(value) = machine.step()? {
            return Ok((machine.nodes, value));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// Executes one instruction; returns the value if it is the last.
    fn step(&mut self) -> Result<Option<Id>, Stopped> {
        let at = self.at;
        let code = self.take(1)?[0];
        match code {
            PROTO => match self.take(1)?[0] {
                2..=5 => {}
                other => return Err(self.wrong(format!("pickle protocol {other} is not known"))),
            },
            // FRAME: the length of the next part.
            0x95 => _ = self.take(8)?,
            b'(' => self.marks.push(self.stack.len()),
            b'.' => return self.pop().map(Some),
            b'0' => _ = self.pop()?,
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'K' | b'M' | b'J' | 0x8a => self.whole(code)?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Float);
            }
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            b'}' => self.push(Node::Dict(Vec::new())),
            b']' => self.push(Node::List(Vec::new())),
            b')' => self.push(Node::Tuple(Vec::new())),
            b't' | 0x85..=0x87 => self.tuple(code)?,
            b'a' | b'e' => self.append(code)?,
            b's' | b'u' => self.set_items(code)?,
            b'q' | b'r' | 0x94 => self.memoize(code)?,
            b'h' | b'j' => self.recall(code)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (module, name) = (self.as_text(module)?, self.as_text(name)?);
                self.global(&module, &name)?;
            }
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => {
                let reason = format!(
                    "its pickle has the instruction {other:#04x} at byte {at}, of which tensors have no need"
                );
                return Err(Stopped::Damaged(reason));
            }
        }
        Ok(None)
    }

    fn wrong(&self, reason: impl Into<String>) -> Stopped {
        Stopped::Damaged(format!("its pickle is damaged at byte {}: {}", self.at, reason.into()))
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Stopped> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.wrong("it ends too early"))?;
        self.at += n;
        Ok(taken)
    }

    /// A little-endian number of up to eight bytes.
    fn number(&mut self, n: usize) -> Result<u64, Stopped> {
        Ok(self.take(n)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<String, Stopped> {
        let rest = &self.bytes[self.at..];
        let end =
            rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.wrong("a name without an end"))?;
        let line =
            std::str::from_utf8(&rest[..end]).map_err(|_| self.wrong("a name that is no text"))?.to_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    /// Pops the top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Id, Stopped> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err(self.wrong("the stack is empty")),
        }
    }

    /// Pops everything above the last mark, and the mark.
    fn above_mark(&mut self) -> Result<Vec<Id>, Stopped> {
        let mark = self.marks.pop().ok_or_else(|| self.wrong("there is no mark"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn whole(&mut self, code: u8) -> Result<(), Stopped> {
        let number = match code {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as u32 as i32),
            _ => {
                let n = usize::from(self.take(1)?[0]);
                if n > 8 {
                    return Err(self.wrong("a number of more than 64 bits"));
                }
                let number = self.number(n)?;
                let unused = 64 - 8 * n as u32;
                if n == 0 { 0 } else { ((number << unused) as i64) >> unused }
            }
        };
        self.push(Node::Int(number));
        Ok(())
    }

    fn text(&mut self, length_bytes: usize) -> Result<(), Stopped> {
        let n = usize::try_from(self.number(length_bytes)?).unwrap_or(usize::MAX);
        let text = std::str::from_utf8(self.take(n)?).map(str::to_owned);
        let text = text.map_err(|_| self.wrong("a text that is none"))?;
        self.push(Node::Text(text));
        Ok(())
    }

    fn tuple(&mut self, code: u8) -> Result<(), Stopped> {
        let items = if code == b't' {
            self.above_mark()?
        } else {
            let mut items = (0..code - 0x84).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
            items.reverse();
            items
        };
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn append(&mut self, code: u8) -> Result<(), Stopped> {
        let items = if code == b'a' { vec![self.pop()?] } else { self.above_mark()? };
        let list = self.stack.last().copied();
        match list.and_then(|id| self.nodes.get_mut(id)) {
            Some(Node::List(list)) => list.extend(items),
            _ => return Err(self.wrong("items for what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, code: u8) -> Result<(), Stopped> {
        let items = if code == b's' {
            let (value, key) = (self.pop()?, self.pop()?);
            vec![key, value]
        } else {
            self.above_mark()?
        };
        let (pairs, []) = items.as_chunks::<2>() else { return Err(self.wrong("a key without a value")) };
        let dict = self.stack.last().copied();
        match dict.and_then(|id| self.nodes.get_mut(id)) {
            Some(Node::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(self.wrong("entries for what is no dictionary")),
        }
        Ok(())
    }

    fn memoize(&mut self, code: u8) -> Result<(), Stopped> {
        let slot = match code {
            b'q' => self.number(1)? as u32,
            b'r' => self.number(4)? as u32,
            _ => self.memo.len() as u32,
        };
        let top = self.stack.last().copied().ok_or_else(|| self.wrong("the stack is empty"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, code: u8) -> Result<(), Stopped> {
        let slot = self.number(if code == b'h' { 1 } else { 4 })? as u32;
        let id = self.memo.get(&slot).copied().ok_or_else(|| self.wrong("there is no such memo entry"))?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Stopped> {
        let known = KNOWN.iter().find(|known| (known.0, known.1) == (module, name));
        match known {
            Some((_, _, known)) => self.push(Node::Known(*known)),
            None => {
                let name = format!("{module}.{name}");
                return Err(Stopped::Refused(name.chars().filter(|c| !c.is_control()).take(100).collect()));
            }
        }
        Ok(())
    }

    /// `("storage", type, key, device, n)`: numbers in an entry of the archive.
    fn storage(&mut self) -> Result<(), Stopped> {
        let id = self.pop()?;
        let items = self.items(id)?.to_vec();
        let node = |i: usize| items.get(i).map(|&id| &self.nodes[id]);
        let storage = match (node(0), node(1), node(2), node(4)) {
            (
                Some(Node::Text(tag)),
                Some(&Node::Known(Known::Storage(kind))),
                Some(Node::Text(key)),
                Some(&Node::Int(n)),
            ) if tag == "storage" => {
                usize::try_from(n).ok().map(|n| Node::Storage { kind, key: key.clone(), n })
            }
            _ => None,
        };
        let storage = storage.ok_or_else(|| self.wrong("a storage that is none"))?;
        self.push(storage);
        Ok(())
    }

    /// A call of an allowed name: makes a node.
    fn reduce(&mut self) -> Result<(), Stopped> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let items = self.items(arguments)?.to_vec();
        match (&self.nodes[callee], &items[..]) {
            (Node::Known(Known::OrderedDict), []) => self.push(Node::Dict(Vec::new())),
            (Node::Known(Known::RebuildParameter), &[tensor, ..])
                if matches!(self.nodes[tensor], Node::Tensor { .. }) =>
            {
                self.stack.push(tensor);
            }
            (Node::Known(Known::RebuildTensor), &[storage, offset, shape, strides, ..])
                if matches!(self.nodes[storage], Node::Storage { .. }) =>
            {
                let offset = self.as_sizes(&[offset])?[0];
                let (shape, strides) = (self.items(shape)?.to_vec(), self.items(strides)?.to_vec());
                let (shape, strides) = (self.as_sizes(&shape)?, self.as_sizes(&strides)?);
                self.push(Node::Tensor { storage, offset, shape, strides });
            }
            _ => return Err(self.wrong("a call that makes neither a tensor nor a dictionary")),
        }
        Ok(())
    }

    /// The state of an object besides its contents: irrelevant for a dictionary.
    fn build(&mut self) -> Result<(), Stopped> {
        self.pop()?;
        match self.stack.last().map(|&id| &self.nodes[id]) {
            Some(Node::Dict(_)) => Ok(()),
            _ => Err(self.wrong("a state for an object without one")),
        }
    }

    fn items(&self, id: Id) -> Result<&[Id], Stopped> {
        match &self.nodes[id] {
            Node::Tuple(items) => Ok(items),
            _ => Err(self.wrong("no tuple where there should be one")),
        }
    }

    fn as_text(&self, id: Id) -> Result<String, Stopped> {
        match &self.nodes[id] {
            Node::Text(text) => Ok(text.clone()),
            _ => Err(self.wrong("no text where there should be one")),
        }
    }

    fn as_sizes(&self, ids: &[Id]) -> Result<Vec<usize>, Stopped> {
        let size = |&id: &Id| match self.nodes[id] {
            Node::Int(size) => usize::try_from(size).ok(),
            _ => None,
        };
        ids.iter().map(size).collect::<Option<_>>().ok_or_else(|| self.wrong("a size that is none"))
    }
}
