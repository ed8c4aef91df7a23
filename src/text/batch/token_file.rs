//! The tokens of plain text in a file: written once, mapped into memory by every run, so that text
//! which is larger than memory can be learnt from.
//!
//! A header of [`HEADER`] bytes, all numbers little-endian: the magic `MMOPTTOK`; the version and
//! the bytes of a token, u32; the number of tokens and of documents, u64; BLAKE3 of the tokens; of
//! the tokenizer; of what the text was read from; of the header up to here. Then the tokens, u32.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::file::{foreign_kind, map_file, open_file, write_atomically};
use crate::text::batch::parallel::encode_each;
use crate::text::corpus::examples::Example;
use crate::text::corpus::paths::find;
use crate::text::corpus::plain_text::SampleBy;
use crate::text::text_file::{at, read_text};
use crate::text::tokenizer::tokenize::Tokenizer;

const MAGIC: &[u8; 8] = b"MMOPTTOK";
const VERSION: u32 = 1;
const HEADER: usize = 160;
/// Bytes of text that are encoded at once, and the greatest length of a line.
const PIECE: usize = 1 << 20;
const LONGEST_LINE: usize = 64 << 20;

/// Tokens in a mapped file. Made by [`TokenFile::write`], used by
/// [`Dataset::from_token_file`](super::dataset::Dataset::from_token_file).
#[derive(Clone, Debug)]
pub struct TokenFile {
    bytes: Bytes,
    n_documents: u64,
    /// BLAKE3 of the tokenizer and of the source.
    made_of: [[u8; 32]; 2],
}

impl PartialEq for TokenFile {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

struct Header {
    n_tokens: u64,
    n_documents: u64,
    tokens: [u8; 32],
    made_of: [[u8; 32]; 2],
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(self.n_tokens.to_le_bytes());
        bytes.extend(self.n_documents.to_le_bytes());
        bytes.extend(self.tokens);
        bytes.extend(self.made_of.as_flattened());
        let hash = blake3::hash(&bytes);
        bytes.extend(hash.as_bytes());
        bytes
    }

    fn of(bytes: &[u8], path: &Path) -> Result<Self> {
        let bad = |what: &str| Error::data(format!("{}: {what}", path.display()));
        let header = bytes.get(..HEADER).filter(|h| h.starts_with(MAGIC));
        let header = header.ok_or_else(|| bad("not a file of tokens"))?;
        let number = |at: usize| {
            let bytes = header[at..at + 8].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let hash = |at: usize| <[u8; 32]>::try_from(&header[at..at + 32]).unwrap_or_default();
        if number(8) != u64::from(VERSION) | (4 << 32) {
            return Err(bad("a file of tokens of another version; write it again"));
        }
        if blake3::hash(&header[..HEADER - 32]) != hash(HEADER - 32) {
            return Err(bad("the file is damaged; write it again"));
        }
        Ok(Self {
            n_tokens: number(16),
            n_documents: number(24),
            tokens: hash(32),
            made_of: [hash(64), hash(96)],
        })
    }
}

impl TokenFile {
    /// Encodes the documents of plain text, as
    /// [`Corpus::read_plain_text`](crate::text::Corpus::read_plain_text) reads them, each followed
    /// by the end token, and writes them to `file`. `text` may be a pattern of several files. Reads
    /// and encodes about a megabyte at a time; a document is in memory as a whole. A file that is
    /// there already and was made of the same files (by name, size and time of change) by the same
    /// tokenizer is left as it is.
    ///
    /// Errors: text that is not UTF-8 (with its line), a line of more than 64 MiB, a file of white
    /// space alone; `Io` when `file` cannot be written. `file` is unchanged then.
    pub fn write(
        text: &Path,
        sample_by: SampleBy,
        tokenizer: &Tokenizer,
        file: &Path,
    ) -> Result<Self> {
        let sources = find(text)?;
        let made_of = [fingerprint(tokenizer)?, fingerprint_of(&sources, sample_by)?];
        if let Ok(old) = Self::open(file)
            && old.made_of == made_of
        {
            return Ok(old);
        }
        write_atomically(file, |out| {
            let io = |e| Error::io(file, e);
            out.write_all(&[0; HEADER]).map_err(io)?;
            let header = encode(&sources, sample_by, tokenizer, (file, &*out), made_of)?;
            out.seek(SeekFrom::Start(0)).map_err(io)?;
            out.write_all(&header.to_bytes()).map_err(io)
        })?;
        Self::open(file)
    }

    /// Maps a file of tokens, and reads it once to compare it with its checksum.
    ///
    /// Errors: `NotFound`; `InvalidData` for another file, another version, and a damaged one.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = map_file(path)?;
        let header = Header::of(&bytes, path)?;
        let tokens = bytes.slice(HEADER..);
        let is_whole = header.n_tokens.checked_mul(4) == Some(tokens.len() as u64)
            && blake3::hash(&tokens) == header.tokens;
        if !is_whole {
            let text = format!("{}: the file is damaged; write it again", path.display());
            return Err(Error::data(text));
        }
        Ok(Self { bytes: tokens, n_documents: header.n_documents, made_of: header.made_of })
    }

    /// Number of tokens, with one at the end of each document where the tokenizer has such a token.
    pub fn n_tokens(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Number of documents.
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    /// Whether this tokenizer made it.
    ///
    /// Errors: only those of writing the tokenizer out.
    pub(crate) fn is_of(&self, tokenizer: &Tokenizer) -> Result<bool> {
        Ok(self.made_of[0] == fingerprint(tokenizer)?)
    }

    /// Tokens `start..end`, up to the last.
    pub(crate) fn tokens(&self, start: usize, end: usize) -> impl Iterator<Item = u32> + '_ {
        let end = end.min(self.n_tokens());
        self.bytes[start.min(end) * 4..end * 4]
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

/// Writes the tokens of all documents; gives the header.
fn encode(
    sources: &[PathBuf],
    sample_by: SampleBy,
    tokenizer: &Tokenizer,
    (path, out): (&Path, &File),
    made_of: [[u8; 32]; 2],
) -> Result<Header> {
    let cached = tokenizer.with_cache();
    let mut writer = Writer {
        tokenizer: &cached,
        end: tokenizer.document_end(),
        out: BufWriter::with_capacity(PIECE, out),
        path,
        documents: Vec::new(),
        n_bytes: 0,
        n_tokens: 0,
        n_documents: 0,
        hash: blake3::Hasher::new(),
    };
    for source in sources {
        let n = |w: &Writer| w.n_documents + w.documents.len() as u64;
        let before = n(&writer);
        documents(source, sample_by, &mut |document| writer.add(document))?;
        if n(&writer) == before {
            return Err(at(source, 1, "the file holds no text"));
        }
    }
    writer.encode()?;
    writer.out.flush().map_err(|e| Error::io(path, e))?;
    Ok(Header {
        n_tokens: writer.n_tokens,
        n_documents: writer.n_documents,
        tokens: *writer.hash.finalize().as_bytes(),
        made_of,
    })
}

fn fingerprint(tokenizer: &Tokenizer) -> Result<[u8; 32]> {
    Ok(*blake3::hash(tokenizer.to_json()?.as_bytes()).as_bytes())
}

/// Of the names, sizes and times of files.
fn fingerprint_of(sources: &[PathBuf], sample_by: SampleBy) -> Result<[u8; 32]> {
    let mut hash = blake3::Hasher::new();
    hash.update(&(sample_by as u32).to_le_bytes());
    for path in sources {
        let metadata = open_file(path)?.metadata().map_err(|e| Error::io(path, e))?;
        let changed = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let name = path.as_os_str().as_encoded_bytes();
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(&metadata.len().to_le_bytes());
        hash.update(&changed.map_or(0, |t| t.as_nanos()).to_le_bytes());
    }
    Ok(*hash.finalize().as_bytes())
}

struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    end: Option<u32>,
    out: BufWriter<&'a File>,
    path: &'a Path,
    /// What is not encoded yet, and its bytes.
    documents: Vec<Example>,
    n_bytes: usize,
    n_tokens: u64,
    n_documents: u64,
    hash: blake3::Hasher,
}

impl Writer<'_> {
    fn add(&mut self, document: String) -> Result<()> {
        self.n_bytes += document.len();
        self.documents.push(Example::Document(document));
        if self.n_bytes < PIECE {
            return Ok(());
        }
        self.encode()
    }

    fn encode(&mut self) -> Result<()> {
        let documents = std::mem::take(&mut self.documents);
        let ids = |_, document: &Example| match document {
            Example::Document(text) => self.tokenizer.raw_ids(text),
            _ => Ok(Vec::new()),
        };
        for ids in encode_each(&documents, ids)? {
            let ids = ids.into_iter().chain(self.end);
            let bytes: Vec<u8> = ids.flat_map(u32::to_le_bytes).collect();
            self.hash.update(&bytes);
            self.out.write_all(&bytes).map_err(|e| Error::io(self.path, e))?;
            self.n_tokens += bytes.len() as u64 / 4;
        }
        self.n_documents += documents.len() as u64;
        self.n_bytes = 0;
        Ok(())
    }
}

/// Gives each document of a file, as the reader of plain text does.
fn documents(
    path: &Path,
    sample_by: SampleBy,
    f: &mut dyn FnMut(String) -> Result<()>,
) -> Result<()> {
    let mut give = |document: String| {
        if document.trim().is_empty() { Ok(()) } else { f(document) }
    };
    if sample_by == SampleBy::Document {
        return give(read_text(path)?.replace("\r\n", "\n"));
    }
    let by_line = sample_by == SampleBy::Line;
    let mut paragraph = String::new();
    let mut line = |line: &str| {
        if by_line {
            return give(line.to_owned());
        }
        if line.trim().is_empty() {
            return give(std::mem::take(&mut paragraph));
        }
        if !paragraph.is_empty() {
            paragraph.push('\n');
        }
        paragraph.push_str(line);
        Ok(())
    };
    lines(path, &mut line)?;
    give(paragraph)
}

/// Gives each line of a file without its end. A file without any LF may end its lines with CR.
fn lines(path: &Path, f: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::with_capacity(PIECE, open_file(path)?);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut limited = std::io::Read::take(&mut reader, LONGEST_LINE as u64 + 1);
        limited.read_until(b'\n', &mut bytes).map_err(|e| Error::io(path, e))?;
        if bytes.is_empty() {
            break;
        }
        if number == 1 {
            if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
                return Err(at(path, 1, "the file is UTF-16; convert it to UTF-8"));
            }
            if let Some(kind) = foreign_kind(&bytes) {
                return Err(at(path, 1, format!("the file is {kind}")));
            }
        }
        if bytes.len() > LONGEST_LINE {
            return Err(at(path, number, "the line is longer than 64 MiB; break it"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let byte = bytes.get(e.valid_up_to()).copied().unwrap_or_default();
            at(path, number, format!("byte 0x{byte:02X} is not UTF-8; convert the file to UTF-8"))
        })?;
        let text = if number == 1 { text.trim_start_matches('\u{FEFF}') } else { text };
        match text.strip_suffix('\n') {
            Some(line) => f(line.strip_suffix('\r').unwrap_or(line))?,
            None if number == 1 => {
                text.strip_suffix('\r').unwrap_or(text).split('\r').try_for_each(&mut *f)?;
            }
            None => f(text)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::text::{
        Corpus, Dataset, EncodeOptions, Loader, LoaderOptions, TokenizerStyle,
        TokenizerTrainOptions,
    };

    fn tokenizer(style: TokenizerStyle) -> Tokenizer {
        let texts = ["the river rises in spring and falls in autumn".to_owned()];
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 300,
            min_frequency: 1,
            model_max_length: 24,
            ..Default::default()
        };
        Tokenizer::train(&options, &texts).unwrap()
    }

    fn text() -> String {
        let words = ["river", "spring", "the", "falls", "in", "and", "caf\u{e9}"];
        let mut text = String::from("\u{FEFF}");
        for i in 0..700usize {
            let line: Vec<&str> = (0..i % 13).map(|j| words[(i * 5 + j * 3) % 7]).collect();
            text += &line.join(" ");
            text += if i % 3 == 0 { "\r\n" } else { "\n" };
        }
        text
    }

    /// Every batch of two epochs equals that of the text in memory.
    #[test]
    fn batches_are_those_of_the_text_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (source, file) = (dir.path().join("t.txt"), dir.path().join("t.tokens"));
        for (content, n) in [(text(), 0), ("river\rthe falls\r\rspring".to_owned(), 0)] {
            std::fs::write(&source, content).unwrap();
            for sample_by in [SampleBy::Line, SampleBy::Paragraph, SampleBy::Document] {
                for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2] {
                    let tokenizer = tokenizer(style);
                    let corpus = Corpus::read_plain_text(&source, sample_by).unwrap();
                    let options = EncodeOptions::default();
                    let own = Dataset::encode(&corpus, &tokenizer, &options).unwrap();
                    let tokens = TokenFile::write(&source, sample_by, &tokenizer, &file).unwrap();
                    assert_eq!(tokens.n_documents(), corpus.len() as u64 + n);
                    let data = Dataset::from_token_file(&tokens, &tokenizer, &options).unwrap();
                    assert_eq!(data.stats(), own.stats());
                    let options = LoaderOptions { batch_size: 3, ..Default::default() };
                    let loader = |d| Loader::new(vec![Arc::new(d)], options.clone()).unwrap();
                    let (mut a, mut b) = (loader(own), loader(data));
                    assert_eq!(a.state(), b.state());
                    assert_eq!(a.shapes(0), b.shapes(0));
                    for _ in 0..2 * a.n_batches() + 2 {
                        let (a, b) = (a.next_batches().unwrap(), b.next_batches().unwrap());
                        let all = |b: Option<Vec<crate::text::Batch>>| {
                            b.map(|mut b| b.remove(0)).map(|b| format!("{:?}", b.tensors))
                        };
                        assert_eq!(all(a), all(b));
                    }
                }
            }
        }
    }

    #[test]
    fn is_written_again_only_when_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (source, file) = (dir.path().join("a.txt"), dir.path().join("t.tokens"));
        std::fs::write(&source, "the river\n\nrises").unwrap();
        let bert = tokenizer(TokenizerStyle::Bert);
        let write = |t: &Tokenizer| {
            TokenFile::write(&dir.path().join("*.txt"), SampleBy::Line, t, &file).unwrap()
        };
        let first = write(&bert);
        let inode = |path: &Path| {
            #[cfg(unix)]
            return std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
            #[cfg(not(unix))]
            return std::fs::metadata(path).unwrap().modified().unwrap();
        };
        let before = inode(&file);
        assert_eq!(write(&bert), first);
        assert_eq!(inode(&file), before);
        assert_eq!(first.n_documents(), 2);
        std::fs::write(dir.path().join("b.txt"), "in spring").unwrap();
        assert_eq!(write(&bert).n_documents(), 3);
        let gpt2 = tokenizer(TokenizerStyle::Gpt2);
        assert!(!write(&bert).is_of(&gpt2).unwrap());
        let tokens = write(&gpt2);
        assert!(tokens.is_of(&gpt2).unwrap());
        let options = EncodeOptions::default();
        let e = Dataset::from_token_file(&tokens, &bert, &options).unwrap_err();
        assert!(e.message().contains("another tokenizer"), "{e}");
        let e = EncodeOptions { pack: false, ..options };
        let e = Dataset::from_token_file(&tokens, &gpt2, &e).unwrap_err();
        assert!(e.message().contains("pack"), "{e}");
    }

    #[test]
    fn damage_and_bad_text_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (source, file) = (dir.path().join("a.txt"), dir.path().join("t.tokens"));
        let gpt2 = tokenizer(TokenizerStyle::Gpt2);
        let write = |text: &[u8]| {
            std::fs::write(&source, text).unwrap();
            TokenFile::write(&source, SampleBy::Line, &gpt2, &file).map_err(|e| e.to_string())
        };
        write(b"the river\nrises").unwrap();
        let whole = std::fs::read(&file).unwrap();
        for text in [&b"ok\nna\xEFve\n"[..], b"\xFF\xFEa\0", b" \n\n", b"\x1F\x8B\x08\0"] {
            assert!(write(text).is_err());
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
        assert!(write(b"ok\nna\xEFve\n").unwrap_err().contains("a.txt:2: byte 0xEF"));
        let open = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            TokenFile::open(&file).map_err(|e| (e.kind(), e.to_string()))
        };
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert_eq!(open(&bytes).unwrap_err().0, crate::error::Kind::InvalidData);
            assert!(open(&whole[..at]).is_err());
        }
        assert!(open(&[&whole[..], b"1234"].concat()).unwrap_err().1.contains("damaged"));
        assert!(open(&whole).is_ok());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(TokenFile::open(&file).unwrap_err().kind(), crate::error::Kind::NotFound);
    }
}
