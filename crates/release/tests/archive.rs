//! A8 for archives: nothing that is no plainly named file comes out of one, and a cut is always noticed.

#![expect(clippy::unwrap_used, reason = "tests")]

use protocol::Digest;
use release::archive::{ArchiveError, Limits, Name, Reader, Writer};

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn good() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let files = [
        (Name::Metadata("1.root.json".into()), &b"{}"[..]),
        (Name::Metadata("timestamp.json".into()), &[b'x'; 512]),
        (Name::Manifest(digest(1)), b"manifest"),
        (Name::Blob(digest(2)), &[7; 700]),
        (Name::Blob(digest(3)), b""),
    ];
    for (name, content) in files {
        writer.add(&name, u64::try_from(content.len()).unwrap(), content).unwrap();
    }
    writer.finish().unwrap()
}

fn read(archive: &[u8], limits: Limits) -> Result<Vec<(Name, Vec<u8>)>, ArchiveError> {
    let mut reader = Reader::new(archive, limits);
    let mut files = Vec::new();
    while let Some((name, _)) = reader.next_file()? {
        let mut content = Vec::new();
        reader.read_to(&mut content)?;
        files.push((name, content));
    }
    Ok(files)
}

/// A tar header with its checksum, whatever it says.
fn raw(name: &str, kind: u8, link: &str) -> Vec<u8> {
    let mut block = good()[..512].to_vec();
    block[..100].fill(0);
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    checksum(&mut block);
    block.resize(512 * 3, 0);
    block
}

fn checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn what_was_written_is_read() {
    let files = read(&good(), Limits::default()).unwrap();
    assert_eq!(files.len(), 5);
    assert_eq!(files[3], (Name::Blob(digest(2)), vec![7; 700]));
    let mut reader = Reader::new(&*good().leak(), Limits::default());
    let mut names = 0;
    while reader.next_file().unwrap().is_some() {
        names += 1;
    }
    assert_eq!(names, 5, "content that nobody wants is passed over");
}

#[test]
fn a8_names_that_lead_elsewhere_are_refused() {
    let hex = digest(0xab).to_hex();
    for name in [
        "/etc/passwd",
        "../blobs/x",
        "metadata/../../x.json",
        "metadata//x.json",
        "metadata/.json",
        "metadata/a b.json",
        "metadata/COM1",
        "dev/null",
        "blobs/AUX",
        "blobs",
        "",
        &format!("blobs/{}", hex.to_uppercase()),
        &format!("blobs/sha256:{hex}"),
        &format!("./blobs/{hex}"),
        &format!("blobs/{hex}/"),
        &format!("other/{hex}"),
    ] {
        let refused = read(&raw(name, b'0', ""), Limits::default());
        assert!(matches!(refused, Err(ArchiveError::Name { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn a8_links_folders_devices_and_extensions_are_refused() {
    let name = Name::Blob(digest(1)).to_string();
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'x', b'g', b'L', b'S', 0] {
        let refused = read(&raw(&name, kind, "/etc/passwd"), Limits::default());
        assert!(matches!(refused, Err(ArchiveError::Kind { .. })), "{kind}: {refused:?}");
    }
    let refused = read(&raw(&name, b'0', "/etc/passwd"), Limits::default());
    assert!(matches!(refused, Err(ArchiveError::Header { .. })), "{refused:?}");
    let mut prefixed = raw(&name, b'0', "");
    prefixed[345..348].copy_from_slice(b"../");
    checksum(&mut prefixed[..512]);
    assert!(matches!(read(&prefixed, Limits::default()), Err(ArchiveError::Header { .. })));
}

#[test]
fn a8_a_name_twice_or_out_of_order_is_refused() {
    let write = |names: &[Name]| {
        let mut writer = Writer::new(Vec::new());
        for name in names {
            writer.add(name, 1, &b"x"[..]).unwrap();
        }
        writer.finish().unwrap()
    };
    let (blob, metadata) = (Name::Blob(digest(1)), Name::Metadata("1.root.json".into()));
    let twice = read(&write(&[blob.clone(), blob.clone()]), Limits::default());
    assert!(matches!(twice, Err(ArchiveError::Duplicate { .. })));
    let late = read(&write(&[blob, metadata]), Limits::default());
    assert!(matches!(late, Err(ArchiveError::Order { .. })));
}

#[test]
fn d2_bounds_hold_before_content_is_read() {
    let few = Limits { files: 2, ..Limits::default() };
    assert!(matches!(read(&good(), few), Err(ArchiveError::TooMany { max: 2 })));
    let small = Limits { small_bytes: 100, ..Limits::default() };
    assert!(matches!(read(&good(), small), Err(ArchiveError::TooLarge { got: 512, .. })));
    let blobs = Limits { blob_bytes: 699, ..Limits::default() };
    assert!(matches!(read(&good(), blobs), Err(ArchiveError::TooLarge { got: 700, .. })));
}

#[test]
fn every_cut_and_every_changed_header_is_noticed() {
    let archive = good();
    for length in 0..archive.len() {
        let refused = read(&archive[..length], Limits::default());
        assert!(matches!(refused, Err(ArchiveError::Truncated { .. })), "{length}: {refused:?}");
    }
    for at in (0..512).chain(1024..1536) {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        let got = read(&changed, Limits::default());
        assert!(got.is_err(), "a change of byte {at} is not noticed");
    }
    let longer = [&archive[..], b"x"].concat();
    assert!(matches!(read(&longer, Limits::default()), Err(ArchiveError::Trailing)));
}
