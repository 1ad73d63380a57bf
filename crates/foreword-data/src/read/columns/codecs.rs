//! The compressions that the parquet crate is built without: Zstandard, LZ4 and Brotli. The decoders here are small and in
//! Rust, where the crate's come with encoders or a C library.

use super::super::packed;
use bytes::Bytes;
use parquet::basic::CompressionCodec;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::record::Row;
use parquet::record::reader::TreeBuilder;
use parquet::schema::types::{SchemaDescriptor, Type};
use std::io::Read;
use std::sync::Arc;

/// A file whose columns may have any compression.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) reader: &'a SerializedFileReader<Bytes>,
    pub(super) bytes: &'a Bytes,
    /// Maximum number of bytes of a page after decompression.
    pub(super) most: u64,
}

impl<'a> File<'a> {
    /// All rows, of the columns in `projection`.
    pub(super) fn rows(self, projection: Type) -> impl Iterator<Item = Result<Row, ParquetError>> + use<'a> {
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(projection)));
        (0..self.reader.num_row_groups()).flat_map(move |index| {
            let rows =
                self.group(index).and_then(|group| TreeBuilder::new().as_iter(Arc::clone(&schema), &group));
            let (rows, error) = match rows {
                Ok(rows) => (Some(rows), None),
                Err(error) => (None, Some(Err(error))),
            };
            rows.into_iter().flatten().chain(error)
        })
    }

    /// A row group.
    pub(super) fn group(self, index: usize) -> Result<Group<'a>, ParquetError> {
        Ok(Group { group: self.reader.get_row_group(index)?, file: self })
    }
}

/// A row group whose columns may have any compression.
pub(super) struct Group<'a> {
    group: Box<dyn RowGroupReader + 'a>,
    file: File<'a>,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>, ParquetError> {
        let stated = self.metadata().column(column);
        let Some(codec) = Codec::of(stated.compression_codec()) else {
            return self.group.get_column_page_reader(column);
        };
        // The crate reads the pages as if they had no compression, and they are decompressed after that.
        let plain =
            stated.clone().into_builder().set_compression_codec(CompressionCodec::UNCOMPRESSED).build()?;
        let n_rows = usize::try_from(self.metadata().num_rows())?;
        let chunk = Arc::new(self.file.bytes.clone());
        let pages = SerializedPageReader::new(chunk, &plain, n_rows, None)?;
        Ok(Box::new(Pages { pages, codec, most: self.file.most }))
    }

    fn get_column_bloom_filter(&self, column: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(column)
    }

    fn get_row_iter(
        &self,
        projection: Option<Type>,
    ) -> Result<parquet::record::reader::RowIter<'_>, ParquetError> {
        parquet::record::reader::RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column, decompressed.
struct Pages {
    pages: SerializedPageReader<Bytes>,
    codec: Codec,
    most: u64,
}

impl Pages {
    fn decompressed(&self, page: Page) -> Result<Page, ParquetError> {
        let unpack = |buf: &[u8]| self.codec.decompress(buf, self.most).map(Bytes::from);
        Ok(match page {
            Page::DataPage {
                buf,
                num_values,
                encoding,
                def_level_encoding,
                rep_level_encoding,
                statistics,
            } => {
                let buf = unpack(&buf)?;
                Page::DataPage {
                    buf,
                    num_values,
                    encoding,
                    def_level_encoding,
                    rep_level_encoding,
                    statistics,
                }
            }
            Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
                Page::DictionaryPage { buf: unpack(&buf)?, num_values, encoding, is_sorted }
            }
            Page::DataPageV2 {
                buf,
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                statistics,
            } => {
                // The levels are never compressed.
                let levels = (def_levels_byte_len as usize).saturating_add(rep_levels_byte_len as usize);
                let (levels, values) = buf
                    .split_at_checked(levels)
                    .ok_or_else(|| ParquetError::General("a page is cut off".to_owned()))?;
                let buf = match is_compressed && !values.is_empty() {
                    true => Bytes::from([levels, &self.codec.decompress(values, self.most)?].concat()),
                    false => buf,
                };
                Page::DataPageV2 {
                    buf,
                    num_values,
                    encoding,
                    num_nulls,
                    num_rows,
                    def_levels_byte_len,
                    rep_levels_byte_len,
                    is_compressed: false,
                    statistics,
                }
            }
        })
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        self.pages.get_next_page()?.map(|page| self.decompressed(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

#[derive(Clone, Copy)]
enum Codec {
    Zstd,
    Brotli,
    /// Blocks with their lengths before them, as Hadoop writes them.
    Lz4Hadoop,
    Lz4,
}

impl Codec {
    fn of(codec: CompressionCodec) -> Option<Self> {
        match codec {
            CompressionCodec::ZSTD => Some(Self::Zstd),
            CompressionCodec::BROTLI => Some(Self::Brotli),
            CompressionCodec::LZ4 => Some(Self::Lz4Hadoop),
            CompressionCodec::LZ4_RAW => Some(Self::Lz4),
            _ => None,
        }
    }

    fn decompress(self, bytes: &[u8], most: u64) -> Result<Vec<u8>, ParquetError> {
        let wrong = |reason: String| ParquetError::General(format!("a page can't be decompressed: {reason}"));
        let mut out = Vec::new();
        match self {
            Self::Zstd => {
                packed::read_frames(bytes, most, &mut out).map_err(|error| wrong(error.to_string()))?;
            }
            Self::Brotli => {
                let decoder = brotli_decompressor::Decompressor::new(bytes, 4096);
                decoder
                    .take(most.saturating_add(1))
                    .read_to_end(&mut out)
                    .map_err(|error| wrong(error.to_string()))?;
            }
            Self::Lz4 => lz4_block(bytes, most, &mut out).map_err(wrong)?,
            Self::Lz4Hadoop => lz4_hadoop(bytes, most, &mut out).map_err(wrong)?,
        }
        if out.len() as u64 > most { Err(wrong("it is too large".to_owned())) } else { Ok(out) }
    }
}

/// Blocks of LZ4, each after its two lengths, or one block alone: writers disagree about what the codec means.
fn lz4_hadoop(bytes: &[u8], most: u64, out: &mut Vec<u8>) -> Result<(), String> {
    let mut rest = bytes;
    while let [a, b, c, d, e, f, g, h, after @ ..] = rest {
        let unpacked = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let packed = u32::from_be_bytes([*e, *f, *g, *h]) as usize;
        let Some((block, next)) = after.split_at_checked(packed) else { break };
        let before = out.len();
        if lz4_block(block, most, out).is_err() || out.len() - before != unpacked {
            break;
        }
        rest = next;
    }
    if rest.is_empty() {
        return Ok(());
    }
    out.clear();
    lz4_block(bytes, most, out)
}

/// One block of LZ4. Its length after decompression is not in it: it is found by trying larger ones.
fn lz4_block(bytes: &[u8], most: u64, out: &mut Vec<u8>) -> Result<(), String> {
    // A byte of a block stands for at most 255.
    let limit =
        (bytes.len().saturating_mul(255).saturating_add(64)).min(usize::try_from(most).unwrap_or(usize::MAX));
    let mut size = bytes.len().saturating_mul(4).saturating_add(64).min(limit);
    loop {
        let mut block = vec![0; size];
        match lz4_flex::block::decompress_into(bytes, &mut block) {
            Ok(n) => {
                out.extend_from_slice(&block[..n]);
                return Ok(());
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if size < limit => {
                size = size.saturating_mul(4).min(limit);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
