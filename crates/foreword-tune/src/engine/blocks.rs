//! The blocks of keys and values that a call reads, each with the target of its gradient.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foreword_backbone::KeyValues;
use foreword_backbone::kernels::{Backend, Source, Span};

/// Consecutive rows of a block, as part of a path.
pub(crate) struct Piece<B: Backend> {
    pub(crate) block: Arc<KeyValues<B>>,
    pub(crate) rows: Range<usize>,
    /// Position of the first row.
    pub(crate) position: usize,
}

impl<B: Backend> Clone for Piece<B> {
    fn clone(&self) -> Self {
        Self { block: Arc::clone(&self.block), rows: self.rows.clone(), position: self.position }
    }
}

impl<B: Backend> Piece<B> {
    /// Its first `n` rows.
    pub(crate) fn first(&self, n: usize) -> Self {
        self.part(0..n)
    }

    /// A range of its rows, which keep their positions.
    pub(crate) fn part(&self, part: Range<usize>) -> Self {
        let rows = self.rows.start + part.start..self.rows.start + part.end;
        Self { block: Arc::clone(&self.block), rows, position: self.position + part.start }
    }

    /// The position after its last row.
    pub(crate) fn end(&self) -> usize {
        self.position + self.rows.len()
    }
}

/// The context blocks of a call. A block with learned rows is listed once per group of examples, since each group has its
/// own gradient; other blocks are listed once, when a path first names them.
pub(crate) struct Blocks<'g, B: Backend> {
    blocks: Vec<Block<'g, B>>,
    /// The index of a block by its address and, if it is learned, its group.
    places: HashMap<(usize, Option<usize>), usize>,
}

struct Block<'g, B: Backend> {
    values: Arc<KeyValues<B>>,
    gradient: Option<&'g mut KeyValues<B>>,
}

impl<'g, B: Backend> Blocks<'g, B> {
    pub(crate) fn new() -> Self {
        Self { blocks: Vec::new(), places: HashMap::new() }
    }

    /// Lists a block for the examples of a group, whose gradient is added to `gradient`.
    pub(crate) fn learned(
        &mut self,
        block: &Arc<KeyValues<B>>,
        group: usize,
        gradient: &'g mut KeyValues<B>,
    ) {
        self.places.insert((address(block), Some(group)), self.blocks.len());
        self.blocks.push(Block { values: Arc::clone(block), gradient: Some(gradient) });
    }

    /// The index of a block for a group; lists it if it is new.
    pub(crate) fn index(&mut self, block: &Arc<KeyValues<B>>, group: usize) -> usize {
        if let Some(&learned) = self.places.get(&(address(block), Some(group))) {
            return learned;
        }
        *self.places.entry((address(block), None)).or_insert_with(|| {
            self.blocks.push(Block { values: Arc::clone(block), gradient: None });
            self.blocks.len() - 1
        })
    }

    /// The spans of a path for the examples of a group.
    pub(crate) fn spans(&mut self, path: &[Piece<B>], group: usize) -> Vec<Span> {
        let span = |piece: &Piece<B>| {
            let source = Source::Context(self.index(&piece.block, group));
            Span { source, rows: piece.rows.clone(), position: piece.position }
        };
        path.iter().map(span).collect()
    }

    /// The blocks.
    pub(crate) fn values(&self) -> Vec<&KeyValues<B>> {
        self.blocks.iter().map(|block| &*block.values).collect()
    }

    /// The blocks and the targets of their gradients.
    pub(crate) fn with_gradients(&mut self) -> (Vec<&KeyValues<B>>, Vec<Option<&mut KeyValues<B>>>) {
        let blocks = self.blocks.iter_mut();
        blocks.map(|Block { values, gradient }| (&**values, gradient.as_deref_mut())).unzip()
    }
}

/// Identifies a block while it exists.
pub(super) fn address<B: Backend>(block: &Arc<KeyValues<B>>) -> usize {
    Arc::as_ptr(block) as usize
}
