//! Compressed messages (LZ4 frames and Zstandard), made plain before the arrow crate reads them: its own decoders allocate as
//! many bytes as a buffer claims to have, and that of Zstandard is a C library.

use super::super::packed;
use super::CONTINUATION;
use arrow_ipc::{
    Buffer as Span, CompressionType, DictionaryBatch, DictionaryBatchArgs, Message, MessageArgs,
    MessageHeader, RecordBatch, RecordBatchArgs, root_as_message,
};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use std::borrow::Cow;
use std::io::Read;

/// Before each compressed buffer: its length after decompression.
const N_PREFIX: usize = 8;
/// In place of that length: the buffer is not compressed.
const PLAIN: i64 = -1;
/// Messages and their buffers begin at multiples of this.
const ALIGNMENT: usize = 8;

/// A message without compression, as it is in a file.
pub(super) struct Plain {
    /// With its length before it.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// A stream without compression. `left`: maximum number of bytes of all buffers, from which they are subtracted. What is no
/// message is left as it is, for the arrow crate to say.
pub(super) fn plain_stream<'a>(bytes: &'a [u8], left: &mut u64) -> Result<Cow<'a, [u8]>, String> {
    let (mut out, mut n_copied, mut at) = (Vec::new(), 0, 0);
    while let Some((start, message)) = head(&bytes[at..]) {
        let body = usize::try_from(message.bodyLength()).ok();
        let Some(body) = body.and_then(|n| bytes.get(at + start..)?.get(..n)) else { break };
        let end = at + start + body.len();
        if let Some(plain) = plain(&message, body, left)? {
            out.extend([&bytes[n_copied..at], &plain.head, &plain.body].concat());
            n_copied = end;
        }
        at = end;
    }
    if n_copied == 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    out.extend(&bytes[n_copied..]);
    Ok(Cow::Owned(out))
}

/// A message of a file without compression; `None` if it has none, or is no message.
pub(super) fn plain_message(bytes: &[u8], n_of_head: usize, left: &mut u64) -> Result<Option<Plain>, String> {
    match (head(bytes), bytes.get(n_of_head..)) {
        (Some((_, message)), Some(body)) => plain(&message, body, left),
        _ => Ok(None),
    }
}

/// The message at the beginning, and its length; `None` at the end of a stream.
fn head(bytes: &[u8]) -> Option<(usize, Message<'_>)> {
    let rest = bytes.strip_prefix(CONTINUATION).unwrap_or(bytes);
    let n = u32::from_le_bytes(*rest.first_chunk()?) as usize;
    let message = rest.get(4..)?.get(..n).filter(|message| !message.is_empty())?;
    Some((bytes.len() - rest.len() + 4 + n, root_as_message(message).ok()?))
}

/// The message without compression; `None` if it has none.
fn plain(message: &Message<'_>, body: &[u8], left: &mut u64) -> Result<Option<Plain>, String> {
    let dictionary = message.header_as_dictionary_batch();
    let batch = message.header_as_record_batch().or_else(|| dictionary?.data());
    let Some((batch, compression)) = batch.and_then(|batch| Some((batch, batch.compression()?))) else {
        return Ok(None);
    };
    let (mut plain, mut spans) = (Vec::new(), Vec::new());
    for span in batch.buffers().iter().flatten() {
        let from = usize::try_from(span.offset()).ok();
        let part = from.and_then(|from| body.get(from..)?.get(..usize::try_from(span.length()).ok()?));
        let part = part.ok_or("a buffer lies outside its message")?;
        let start = plain.len();
        decompress(part, compression.codec(), left, &mut plain)?;
        spans.push(Span::new(start as i64, (plain.len() - start) as i64));
        plain.resize(plain.len().next_multiple_of(ALIGNMENT), 0);
    }
    let head = head_of(message, dictionary, batch, &spans, plain.len());
    Ok(Some(Plain { head, body: plain }))
}

/// The head of a message whose buffers are at these places.
fn head_of(
    message: &Message<'_>,
    dictionary: Option<DictionaryBatch<'_>>,
    batch: RecordBatch<'_>,
    spans: &[Span],
    n_of_body: usize,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let nodes: Vec<_> = batch.nodes().iter().flatten().copied().collect();
    let counts: Option<Vec<i64>> = batch.variadicBufferCounts().map(|counts| counts.iter().collect());
    let nodes = Some(builder.create_vector(&nodes));
    let buffers = Some(builder.create_vector(spans));
    let counts = counts.map(|counts| builder.create_vector(&counts));
    let arguments = RecordBatchArgs {
        length: batch.length(),
        nodes,
        buffers,
        compression: None,
        variadicBufferCounts: counts,
    };
    let data = RecordBatch::create(&mut builder, &arguments);
    let (header_type, header): (_, WIPOffset<flatbuffers::UnionWIPOffset>) = match dictionary {
        Some(dictionary) => {
            let arguments =
                DictionaryBatchArgs { id: dictionary.id(), data: Some(data), isDelta: dictionary.isDelta() };
            let dictionary = DictionaryBatch::create(&mut builder, &arguments);
            (MessageHeader::DictionaryBatch, dictionary.as_union_value())
        }
        None => (MessageHeader::RecordBatch, data.as_union_value()),
    };
    let arguments = MessageArgs {
        version: message.version(),
        header_type,
        header: Some(header),
        bodyLength: n_of_body as i64,
        custom_metadata: None,
    };
    let written = Message::create(&mut builder, &arguments);
    builder.finish(written, None);
    let written = builder.finished_data();
    let n = written.len().next_multiple_of(ALIGNMENT);
    let mut head = [CONTINUATION, &(n as u32).to_le_bytes(), written].concat();
    head.resize(CONTINUATION.len() + 4 + n, 0);
    head
}

/// Adds a buffer after decompression.
fn decompress(bytes: &[u8], codec: CompressionType, left: &mut u64, out: &mut Vec<u8>) -> Result<(), String> {
    let Some((prefix, packed)) = bytes.split_first_chunk::<N_PREFIX>() else {
        return if bytes.is_empty() { Ok(()) } else { Err("a buffer is cut off".to_owned()) };
    };
    let length = i64::from_le_bytes(*prefix);
    let stated = if length == PLAIN { packed.len() as u64 } else { length.try_into().unwrap_or(u64::MAX) };
    *left = left.checked_sub(stated).ok_or("a buffer claims to be larger than such a small file has")?;
    let before = out.len();
    // One byte more shows that it is longer than it claims.
    let most = stated.saturating_add(1);
    match codec {
        _ if length == PLAIN => out.extend_from_slice(packed),
        _ if stated == 0 => {}
        CompressionType::LZ4_FRAME => {
            let decoder = lz4_flex::frame::FrameDecoder::new(packed);
            decoder.take(most).read_to_end(out).map_err(|error| error.to_string())?;
        }
        CompressionType::ZSTD => {
            packed::read_frames(packed, (before as u64).saturating_add(stated), out)
                .map_err(|error| error.to_string())?;
        }
        _ => return Err("the kind of compression is unknown".to_owned()),
    }
    if (out.len() - before) as u64 == stated {
        Ok(())
    } else {
        Err("a buffer has another length than it claims".to_owned())
    }
}
