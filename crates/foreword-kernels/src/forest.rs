//! Which row attends to which: segments that see all of their ancestors and, causally, themselves.

use std::ops::Range;

/// Where the keys and values of a span are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Among the rows of this call.
    Own,
    /// Among the rows of an earlier call: the context block of this index.
    Context(usize),
}

/// Consecutive rows of one source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Where the rows are.
    pub source: Source,
    /// The rows.
    pub rows: Range<usize>,
    /// Position of the first of them on its path.
    pub position: usize,
}

impl Span {
    /// The position after its last row's.
    #[must_use]
    pub fn end(&self) -> usize {
        self.position + self.rows.len()
    }
}

/// Consecutive rows of one call that see all of `ancestors` and, causally, themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    rows: Range<usize>,
    position: usize,
    ancestors: Vec<Span>,
}

impl Segment {
    /// Its rows among those of the call.
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Position of its first row: the number of rows on the path before it, masked ones included.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Number of rows of the ancestors.
    #[must_use]
    pub fn n_ancestor_rows(&self) -> usize {
        self.ancestors.iter().map(|span| span.rows.len()).sum()
    }

    /// The rows that all of its rows see besides their own segment, in the order of the path from the root.
    #[must_use]
    pub fn ancestors(&self) -> &[Span] {
        &self.ancestors
    }
}

/// The parent of a new segment.
#[derive(Clone, Debug)]
pub enum Parent {
    /// None: it is a root.
    Root,
    /// A segment of the same call, by index.
    Segment(usize),
    /// The same, at this position: as if there were rows in between that it does not see.
    SegmentAt(usize, usize),
    /// Rows of earlier calls, in the order of the path from the root; without any, the segment is a root.
    Context(Vec<Span>),
    /// The same if some rows of the path are masked: the segment begins at this position, as if it saw them all.
    ContextAt(Vec<Span>, usize),
}

/// The segments of one call, parents before children. Several roots are several trees over the same weights.
#[derive(Clone, Debug, Default)]
pub struct Forest {
    segments: Vec<Segment>,
    n_rows: usize,
}

/// Consecutive queries of one segment.
#[derive(Clone, Debug)]
pub struct QueryBlock {
    /// The segment's index.
    pub segment: usize,
    /// Indices of the queries.
    pub queries: Range<usize>,
}

impl Forest {
    /// No segments yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a segment of `n_rows` rows below `parent` and returns its index.
    ///
    /// # Panics
    /// If the parent segment does not exist yet.
    pub fn push(&mut self, parent: Parent, n_rows: usize) -> usize {
        let (ancestors, position) = match parent {
            Parent::Root => (Vec::new(), None),
            Parent::Context(spans) => (spans, None),
            Parent::ContextAt(spans, position) => (spans, Some(position)),
            Parent::Segment(i) => {
                (self.visible_from(i), Some(self.segments[i].position + self.segments[i].rows.len()))
            }
            Parent::SegmentAt(i, position) => (self.visible_from(i), Some(position)),
        };
        let ancestors: Vec<Span> = ancestors.into_iter().filter(|span| !span.rows.is_empty()).collect();
        let position = position.unwrap_or_else(|| ancestors.last().map_or(0, Span::end));
        let rows = self.n_rows..self.n_rows + n_rows;
        self.n_rows = rows.end;
        self.segments.push(Segment { rows, position, ancestors });
        self.segments.len() - 1
    }

    /// The rows that a child of segment `i` sees.
    fn visible_from(&self, i: usize) -> Vec<Span> {
        let mut spans = self.segments[i].ancestors.clone();
        let Segment { rows, position, .. } = &self.segments[i];
        spans.push(Span { source: Source::Own, rows: rows.clone(), position: *position });
        spans
    }

    /// N, the rows of all segments.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The segments, parents before children.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Position of every row on its path, `[N]`.
    #[must_use]
    pub fn positions(&self) -> Vec<usize> {
        self.segments.iter().flat_map(|s| s.position..s.position + s.rows.len()).collect()
    }

    /// The path from the root to segment `i` inclusive, as context of a later call in which the rows of this call are context
    /// block `block`.
    #[must_use]
    pub fn path(&self, i: usize, block: usize) -> Vec<Span> {
        let moved = |span: &Span| match span.source {
            Source::Own => Span { source: Source::Context(block), ..span.clone() },
            Source::Context(_) => span.clone(),
        };
        let mut path: Vec<Span> = self.segments[i].ancestors.iter().map(moved).collect();
        let Segment { rows, position, .. } = &self.segments[i];
        path.push(Span { source: Source::Context(block), rows: rows.clone(), position: *position });
        path
    }

    /// The queries of each segment if only the rows `query_rows` have one (ascending; `None`: all). Segments without queries are
    /// omitted.
    ///
    /// # Panics
    /// If `query_rows` is not ascending or leaves the forest.
    #[must_use]
    pub fn query_blocks(&self, query_rows: Option<&[usize]>) -> Vec<QueryBlock> {
        let Some(query_rows) = query_rows else {
            let block = |(segment, s): (usize, &Segment)| QueryBlock { segment, queries: s.rows() };
            return self.segments.iter().enumerate().map(block).filter(|b| !b.queries.is_empty()).collect();
        };
        assert!(
            query_rows.is_sorted() && query_rows.last().is_none_or(|&row| row < self.n_rows),
            "query rows out of order"
        );
        let mut blocks = Vec::new();
        let mut start = 0;
        for (segment, s) in self.segments.iter().enumerate() {
            let end = start + query_rows[start..].partition_point(|&row| row < s.rows.end);
            if end > start {
                blocks.push(QueryBlock { segment, queries: start..end });
            }
            start = end;
        }
        blocks
    }
}
