//! A6 and A7: delegated roles speak only about their paths, and only for their current delegator.

use trust::Limits;
use trust::client;
use trust::repo::{TargetsBuilder, Terminating};

use crate::repo::{CONTENT, MANIFEST, NOW, Repo, attack, key, later, publics};

fn put(repo: &mut Repo, role: &str, builder: &TargetsBuilder, signer: u8) {
    let version = builder.version();
    repo.put_role(role, version, &builder.sign(&[&key(signer)]).unwrap());
}

#[test]
fn a6_role_cannot_speak_about_paths_outside_its_delegation() {
    let mut repo = Repo::new();
    let other = "models/other/1.0.0/manifest.json";
    let digits = TargetsBuilder::new(later(30)).target(MANIFEST, CONTENT, None).target(other, CONTENT, None);
    put(&mut repo, "digits", &digits, 4);
    repo.publish(&["targets", "digits"]);
    let view = client::run(&mut repo.device(), &[MANIFEST, other], NOW, &Limits::default(), |path| {
        repo.files.get(path).cloned()
    })
    .unwrap();
    assert!(view.find_target(MANIFEST).is_ok());
    assert_eq!(attack(view.find_target(other).cloned()), "A5");
}

#[test]
fn a6_terminating_role_ends_the_search() {
    for (terminating, is_found) in [(Terminating::Yes, false), (Terminating::No, true)] {
        let mut repo = Repo::new();
        let all = ["models/digits/*/manifest.json".to_owned()];
        let targets = TargetsBuilder::new(later(30))
            .delegate_as("first", &publics(&[&key(30)]), 1, &all, terminating)
            .delegate("second", &publics(&[&key(31)]), 1, &all);
        put(&mut repo, "targets", &targets, 3);
        put(&mut repo, "first", &TargetsBuilder::new(later(30)), 30);
        put(&mut repo, "second", &TargetsBuilder::new(later(30)).target(MANIFEST, CONTENT, None), 31);
        repo.publish(&["targets", "first", "second"]);
        let view = repo.refresh(&mut repo.device()).unwrap();
        assert_eq!(view.find_target(MANIFEST).is_ok(), is_found);
    }
}

#[test]
fn a6_search_is_pre_order_depth_first() {
    let mut repo = Repo::new();
    let all = ["models/digits/*/manifest.json".to_owned()];
    let delegate = |b: TargetsBuilder, role: &str, n: u8| {
        b.delegate_as(role, &publics(&[&key(n)]), 1, &all, Terminating::No)
    };
    let targets = delegate(delegate(TargetsBuilder::new(later(30)), "a", 30), "b", 31);
    put(&mut repo, "targets", &targets, 3);
    put(&mut repo, "a", &delegate(TargetsBuilder::new(later(30)), "deep", 32), 30);
    put(&mut repo, "b", &TargetsBuilder::new(later(30)).target(MANIFEST, b"from b", None), 31);
    put(&mut repo, "deep", &TargetsBuilder::new(later(30)).target(MANIFEST, b"deep", None), 32);
    repo.publish(&["targets", "a", "b", "deep"]);
    let view = repo.refresh(&mut repo.device()).unwrap();
    assert_eq!(view.find_target(MANIFEST).unwrap().role(), "deep");
}

#[test]
fn a6_cycles_end_and_the_number_of_roles_is_bounded() {
    let mut repo = Repo::new();
    let all = ["models/digits/*/manifest.json".to_owned()];
    let to = |role: &str, n: u8| {
        TargetsBuilder::new(later(30)).delegate_as(role, &publics(&[&key(n)]), 1, &all, Terminating::No)
    };
    put(&mut repo, "targets", &to("a", 30), 3);
    put(&mut repo, "a", &to("b", 31), 30);
    put(&mut repo, "b", &to("a", 30), 31);
    repo.publish(&["targets", "a", "b"]);
    let view = repo.refresh(&mut repo.device()).unwrap();
    assert_eq!(attack(view.find_target(MANIFEST).cloned()), "A5");
    let limits = Limits { delegated_roles: 1, ..Limits::default() };
    let result =
        client::run(&mut repo.device(), &[MANIFEST], NOW, &limits, |path| repo.files.get(path).cloned());
    assert_eq!(attack(result), "A6");
}

#[test]
fn a7_cached_role_is_verified_against_the_current_delegator() {
    let mut repo = Repo::new();
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    // The publisher revokes the model's key; the server goes on serving the old role file.
    let targets = TargetsBuilder::resume(&repo.files["targets.json"], later(30)).unwrap().delegate(
        "digits",
        &publics(&[&key(44)]),
        1,
        &["models/digits/*/manifest.json".into()],
    );
    put(&mut repo, "targets", &targets, 3);
    repo.publish(&["targets", "digits"]);
    assert_eq!(attack(repo.refresh(&mut device)), "A1");
    let digits = TargetsBuilder::resume(&repo.files["digits.json"], later(30)).unwrap();
    put(&mut repo, "digits", &digits, 44);
    repo.publish(&["targets", "digits"]);
    repo.refresh(&mut device).unwrap();
}

#[test]
fn a7_role_loaded_for_one_delegator_is_verified_again_for_another() {
    let mut repo = Repo::new();
    let other = "models/other/1.0.0/manifest.json";
    let shared = |n: u8, path: &str| {
        TargetsBuilder::new(later(30)).delegate("shared", &publics(&[&key(n)]), 1, &[path.to_owned()])
    };
    let targets = TargetsBuilder::new(later(30))
        .delegate("one", &publics(&[&key(30)]), 1, &["models/digits/*/manifest.json".into()])
        .delegate("two", &publics(&[&key(31)]), 1, &["models/other/*/manifest.json".into()]);
    put(&mut repo, "targets", &targets, 3);
    put(&mut repo, "one", &shared(32, "models/digits/*/manifest.json"), 30);
    put(&mut repo, "two", &shared(33, "models/other/*/manifest.json"), 31);
    let both = TargetsBuilder::new(later(30)).target(MANIFEST, CONTENT, None).target(other, CONTENT, None);
    put(&mut repo, "shared", &both, 32);
    repo.publish(&["targets", "one", "two", "shared"]);
    let result = client::run(&mut repo.device(), &[MANIFEST, other], NOW, &Limits::default(), |path| {
        repo.files.get(path).cloned()
    });
    assert_eq!(attack(result), "A1", "key 32 is not trusted by role two");
}

#[test]
fn a8_role_names_cannot_leave_their_folder() {
    let mut repo = Repo::new();
    let all = ["models/digits/*/manifest.json".to_owned()];
    let name = "../../etc/passwd";
    put(
        &mut repo,
        "targets",
        &TargetsBuilder::new(later(30)).delegate(name, &publics(&[&key(30)]), 1, &all),
        3,
    );
    let role = TargetsBuilder::new(later(30)).target(MANIFEST, CONTENT, None).sign(&[&key(30)]).unwrap();
    repo.files.insert(format!("{name}.json"), role.clone());
    repo.files.insert("1...%2F..%2Fetc%2Fpasswd.json".into(), role);
    repo.publish(&["targets", name]);
    let mut device = repo.device();
    repo.refresh(&mut device).unwrap();
    assert!(device.files.keys().all(|name| !name.contains('/')), "{:?}", device.files.keys());
}
