//! A TIFF file's first directory: the numbers behind its tags. EXIF data are such a file, too.
//!
//! Read as leniently as Pillow does: an entry that is cut, of an unknown type or outside the file is left out, the
//! entries before it count.

/// The first directory of a TIFF file.
pub struct Directory<'a> {
    /// Whether numbers begin with their most significant byte.
    pub big_endian: bool,
    data: &'a [u8],
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    tag: u16,
    kind: u16,
    value: &'a [u8],
}

impl<'a> Directory<'a> {
    /// `None` when `data` does not begin as a TIFF file does, or is cut before the directory's place is reported.
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let (big_endian, big) = match data.get(..4)? {
            b"MM\0*" | b"MM*\0" => (true, false),
            b"II*\0" | b"II\0*" => (false, false),
            b"MM\0+" => (true, true),
            b"II+\0" => (false, true),
            _ => return None,
        };
        let mut directory = Self { big_endian, data, entries: Vec::new() };
        let at = if big { directory.number(8, 8)? } else { directory.number(4, 4)? };
        let at = usize::try_from(at).ok()?;
        directory.read_entries(at, big);
        Some(directory)
    }

    /// Reads what can be read.
    fn read_entries(&mut self, at: usize, big: bool) -> Option<()> {
        let (word, entry) = if big { (8, 20) } else { (4, 12) };
        let count_size = if big { 8 } else { 2 };
        let count = self.number(at, count_size)?;
        for index in 0..usize::try_from(count).ok()? {
            let at = at.checked_add(count_size)?.checked_add(index.checked_mul(entry)?)?;
            let (tag, kind) = (self.number(at, 2)? as u16, self.number(at + 2, 2)? as u16);
            let count = self.number(at + 4, word)?;
            let inline = self.data.get(at + 4 + word..at + 4 + 2 * word)?;
            let Some(size) = size_of(kind).and_then(|size| usize::try_from(count).ok()?.checked_mul(size)) else {
                continue;
            };
            let value = if size <= word {
                inline.get(..size)
            } else {
                let start = self.number(at + 4 + word, word).and_then(|start| usize::try_from(start).ok());
                start.and_then(|start| self.data.get(start..start.checked_add(size)?))
            };
            let known = self.entries.iter().any(|entry| entry.tag == tag);
            if let (Some(value), false) = (value.filter(|value| !value.is_empty()), known) {
                self.entries.push(Entry { tag, kind, value });
            }
        }
        Some(())
    }

    /// The number of `size` bytes at `at`.
    pub fn number(&self, at: usize, size: usize) -> Option<u64> {
        Some(number(self.data.get(at..at.checked_add(size)?)?, self.big_endian))
    }

    fn entry(&self, tag: u16) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// The bytes of a tag of any type.
    pub fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        self.entry(tag).map(|entry| entry.value)
    }

    /// The integers of a tag; empty when it is absent or holds something else. Signed and broken ones are numbers
    /// only when they are whole and not negative.
    pub fn integers(&self, tag: u16) -> Vec<u64> {
        let Some(Entry { kind, value, .. }) = self.entry(tag) else { return Vec::new() };
        let Some(size) = size_of(*kind) else { return Vec::new() };
        value.chunks_exact(size).filter_map(|value| self.integer_of(*kind, value)).collect()
    }

    /// The first integer of a tag.
    pub fn integer(&self, tag: u16) -> Option<u64> {
        let Entry { kind, value, .. } = self.entry(tag)?;
        self.integer_of(*kind, value.get(..size_of(*kind)?)?)
    }

    fn integer_of(&self, kind: u16, value: &[u8]) -> Option<u64> {
        let unsigned = number(value, self.big_endian);
        match kind {
            3 | 4 | 13 | 16 => Some(unsigned),
            6 => u64::try_from(unsigned as u8 as i8).ok(),
            8 => u64::try_from(unsigned as u16 as i16).ok(),
            9 => u64::try_from(unsigned as u32 as i32).ok(),
            _ => self.real_of(kind, value).filter(|real| *real >= 0.0 && real.fract() == 0.0).map(|real| real as u64),
        }
    }

    /// The fractions and floating-point numbers of a tag.
    pub fn reals(&self, tag: u16) -> Vec<f64> {
        let Some(Entry { kind, value, .. }) = self.entry(tag) else { return Vec::new() };
        let Some(size) = size_of(*kind) else { return Vec::new() };
        value.chunks_exact(size).filter_map(|value| self.real_of(*kind, value)).collect()
    }

    fn real_of(&self, kind: u16, value: &[u8]) -> Option<f64> {
        let half = |at: usize| value.get(at..at + 4).map(|half| number(half, self.big_endian) as u32);
        match kind {
            5 => Some(f64::from(half(0)?) / f64::from(half(4)?)),
            10 => Some(f64::from(half(0)? as i32) / f64::from(half(4)? as i32)),
            11 => Some(f64::from(f32::from_bits(half(0)?))),
            12 => Some(f64::from_bits(number(value, self.big_endian))),
            _ => None,
        }
    }
}

/// The bytes of one value of a type. `None`: Pillow does not know it either.
fn size_of(kind: u16) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
    }
}

fn number(bytes: &[u8], big_endian: bool) -> u64 {
    let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
}
