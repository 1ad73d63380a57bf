//! Compressed files: decompresses gzip and Zstandard archives up to a limit.

use super::super::DataError;
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;

/// Maximum decompressed size of any archive in bytes.
const MOST_BYTES: u64 = 4 << 30;
/// Maximum ratio of decompressed to compressed size: a small damaged or malicious file must not fill the memory. Gzip can't
/// exceed it; Zstandard can, but not with text.
const MOST_TIMES: u64 = 1000;
/// The decompressed size in bytes that even the smallest archive is allowed.
const LEAST_MOST: u64 = 8 << 20;

/// Maximum window of a Zstandard frame: the default limit of the `zstd` program.
const MOST_WINDOW_BYTES: u64 = 128 << 20;

/// Maximum decompressed size of an archive of `n_bytes` bytes.
pub(super) fn most_of(n_bytes: usize) -> u64 {
    MOST_TIMES.saturating_mul(n_bytes as u64).saturating_add(LEAST_MOST).min(MOST_BYTES)
}

/// The compression of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// Determines it from the last part of a file name, in lower case.
    pub(super) fn of_ending(ending: &str) -> Self {
        match ending {
            "gz" => Self::Gzip,
            "zst" => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Determines it from the first bytes of a file.
    pub(super) fn of_content(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "Zstandard",
        }
    }
}

/// Whether bytes that are no archive are text: more than the beginning of one.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    const MAGIC: [&[u8]; 2] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];
    !MAGIC.iter().any(|magic| magic.starts_with(bytes)) && bytes.iter().take(1000).all(|&byte| byte >= b'\t')
}

/// The decompressed bytes, at most `most`; a plain file is returned as it is.
pub(super) fn unpack<'a>(
    bytes: &'a [u8],
    packing: Packing,
    path: &Path,
    most: u64,
) -> Result<Cow<'a, [u8]>, DataError> {
    let mut unpacked = Vec::new();
    let read = match packing {
        Packing::Plain => return Ok(Cow::Borrowed(bytes)),
        _ if bytes.is_empty() => Err(io::Error::other("it is empty")),
        Packing::Gzip => read_up_to(MultiGzDecoder::new(bytes), most, &mut unpacked),
        Packing::Zstd => read_frames(bytes, most, &mut unpacked),
    };
    if unpacked.len() as u64 > most {
        return Err(DataError::TooLarge { path: path.to_owned(), most });
    }
    match read {
        Ok(()) => Ok(Cow::Owned(unpacked)),
        Err(error) => Err(DataError::Damaged {
            path: path.to_owned(),
            packing: packing.name(),
            reason: error.to_string().trim_end_matches('.').to_owned(),
        }),
    }
}

/// Reads everything, or one byte more than the limit.
fn read_up_to(from: impl Read, most: u64, unpacked: &mut Vec<u8>) -> io::Result<()> {
    let left = (most + 1).saturating_sub(unpacked.len() as u64);
    from.take(left).read_to_end(unpacked).map(drop)
}

/// A Zstandard file is a sequence of frames; some contain only a program's metadata.
pub(super) fn read_frames(mut bytes: &[u8], most: u64, unpacked: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() && unpacked.len() as u64 <= most {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MOST_WINDOW_BYTES);
        let mut stream = match StreamingDecoder::new_with_decoder(&mut bytes, decoder) {
            Ok(stream) => stream,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let after = usize::try_from(length).ok().and_then(|length| bytes.get(length..));
                bytes = after.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                continue;
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        read_up_to(&mut stream, most, unpacked)?;
        let decoder = stream.into_frame_decoder();
        let (stated, counted) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
        if decoder.is_finished() && stated.is_some() && stated != counted {
            return Err(io::Error::other("its checksum is not that of its content"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::Dataset;
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write as _;

    const CSV: &[u8] = b"text,label\nall good,x\nall bad,y\n";
    const TEXT_1: &str = "all bad";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn message(bytes: &[u8], name: &str) -> String {
        Dataset::from_bytes(bytes, Path::new(name)).unwrap_err().to_string()
    }

    #[test]
    fn a_packed_file_is_read_as_what_is_in_it_and_its_digest_is_its_own() {
        for (name, bytes) in [("d.csv.gz", gzip(CSV)), ("D.CSV.ZST", zstd(CSV)), ("d.csv", CSV.to_vec())] {
            let data = Dataset::from_bytes(&bytes, Path::new(name)).unwrap();
            assert_eq!(data.text(1, data.require("text").unwrap()).unwrap(), TEXT_1, "{name}");
            assert_eq!(data.digest(), foreword_format::digest::sha256(&bytes));
        }
        let name = "d.jsonl.gz";
        assert_eq!(
            message(&gzip(b"{\"text\": \"a\"}\n{"), name),
            "d.jsonl.gz, line 2, column 1: EOF while parsing an object"
        );
    }

    #[test]
    fn several_archives_in_a_row_are_one_file() {
        let (first, second) = CSV.split_at(20);
        // A skippable frame of three bytes between the two.
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        for (name, bytes) in [
            ("d.csv.gz", [gzip(first), gzip(second)].concat()),
            ("d.csv.zst", [zstd(first), skipped, zstd(second)].concat()),
        ] {
            assert_eq!(Dataset::from_bytes(&bytes, Path::new(name)).unwrap().n(), 2, "{name}");
        }
    }

    #[test]
    fn an_archive_cut_anywhere_or_damaged_is_named() {
        for (name, whole) in [("d.csv.gz", gzip(CSV)), ("d.csv.zst", zstd(CSV))] {
            for n in 0..whole.len() {
                let error = Dataset::from_bytes(&whole[..n], Path::new(name)).unwrap_err();
                assert!(matches!(error, DataError::Damaged { .. }), "{name} cut to {n}: {error}");
                assert!(error.to_string().starts_with(name), "{error}");
            }
            let mut damaged = whole.clone();
            let last = damaged.len() - if name.ends_with("gz") { 5 } else { 1 };
            damaged[last] ^= 1;
            assert!(message(&damaged, name).contains("cannot be unpacked"), "{name}");
            assert!(message(b"\x00\x01\x02", name).contains("cannot be unpacked"));
        }
    }

    #[test]
    fn a_small_archive_does_not_fill_the_memory() {
        // Blocks that say "this byte, 128 KiB times" in four bytes.
        let block = |last: u32| (last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3].to_vec();
        let mut bomb = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
        for i in 0..1000 {
            bomb.extend([block(u32::from(i == 999)), vec![b'\n']].concat());
        }
        assert_eq!(unpack(&bomb, Packing::Zstd, Path::new("d"), 1 << 30).unwrap().len(), 1000 * (128 << 10));
        let error = Dataset::from_bytes(&bomb, Path::new("d.csv.zst")).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { most, .. } if most < 16 << 20), "{error}");
    }

    #[test]
    fn what_unpacks_to_more_than_the_limit_is_refused() {
        let zeros = vec![b'0'; 100_000];
        for (packing, bytes) in [(Packing::Gzip, gzip(&zeros)), (Packing::Zstd, zstd(&zeros))] {
            let unpacked = |most| unpack(&bytes, packing, Path::new("d.csv.gz"), most);
            assert_eq!(unpacked(100_000).unwrap().len(), 100_000);
            let error = unpacked(99_999).unwrap_err();
            assert_eq!(
                error.to_string(),
                "d.csv.gz: more than 99999 bytes when unpacked, the most that is read from a file of its size: unpack it, or \
                 split it into smaller files"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_an_unpacker_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let with = |magic: &[u8]| [magic, &bytes].concat();
            let _ = unpack(&with(&[0x1f, 0x8b, 8, 0]), Packing::Gzip, Path::new("d"), 1 << 20);
            let _ = unpack(&with(&[0x28, 0xb5, 0x2f, 0xfd]), Packing::Zstd, Path::new("d"), 1 << 20);
        }
    }
}
