#[test]
fn write_seeds() {
    use release::archive::{Name, Writer};
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for d in ["archive", "delta"] {
        std::fs::create_dir_all(dir.join(d)).unwrap();
    }
    let mut writer = Writer::new(Vec::new());
    writer.add(&Name::Metadata("1.root.json".into()), 2, &b"{}"[..]).unwrap();
    writer.add(&Name::Blob(protocol::Digest::from_bytes([1; 32])), 5, &b"hello"[..]).unwrap();
    std::fs::write(dir.join("archive/two_files"), writer.finish().unwrap()).unwrap();
    std::fs::write(dir.join("archive/empty"), Writer::new(Vec::new()).finish().unwrap()).unwrap();
    let base = testkit::fuzz::delta_base();
    let mut target = base.clone();
    target[100] ^= 1;
    target.truncate(5000);
    std::fs::write(dir.join("delta/plain"), release::delta::make(&base, &target, 1 << 24).unwrap()).unwrap();
    let moved: Vec<u8> = base.iter().map(|byte| byte.wrapping_add(1)).collect();
    let delta = release::delta::make(&base, &moved, 1 << 24).unwrap();
    assert!(delta[88] > 0);
    std::fs::write(dir.join("delta/segments"), delta).unwrap();
}
