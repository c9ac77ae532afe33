//! People: an admin makes a user by the command line, who may do what was granted and nothing more, forgets the password in
//! the same office, gets another one, and leaves. Nobody else is kept out meanwhile.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::rig::Cli;

use super::Outcome;
use super::world::World;

const CHOSEN: &str = "chosen by herself";
const NEXT: &str = "chosen once again";

pub(super) fn play(world: &mut World) -> Result<Outcome> {
    let admin = &world.fleet.cli;
    let made = admin.json(&["user", "create", "ana", "--grant", "default:viewer"])?;
    let one_time = made["one_time_password"].as_str().context("no one-time password")?.to_owned();
    let ana = Person::new(world, "ana")?;
    ana.login(&format!("{one_time}\n{CHOSEN}\n")).context("the first sign-in")?;
    ana.cli.run(&["device", "list"])?;
    refused(&ana.cli, &["user", "list"], "role_required")?;
    refused(&ana.cli, &["device", "token", "--unpinned"], "role_required")?;
    admin.run(&["user", "set", "ana", "--grant", "default:operator"])?;
    ensure!(user(admin, "ana")?["grants"][0]["role"] == "operator", "the grant was not replaced");

    ana.feed(&["user", "password"], &format!("{CHOSEN}\n{NEXT}\n")).context("another password")?;
    let old = ana.login(&format!("{CHOSEN}\n"));
    ensure!(format!("{old:?}").contains("wrong_password"), "the old password still works: {old:?}");
    forgets(&ana, admin)?;
    let again = admin.json(&["user", "password", "ana", "--yes"])?;
    ensure!(again["one_time_password"].is_string(), "no one-time password: {again}");

    admin.run(&["user", "set", "ana", "--disable"])?;
    refused(&ana.cli, &["device", "list"], "token_invalid")?;
    refused(admin, &["user", "delete", "admin", "--yes"], "last_admin")?;
    admin.run(&["user", "delete", "ana", "--yes"])?;
    ensure!(user(admin, "ana").is_err(), "ana is still listed");
    Ok(Outcome::Ok(
        "users: made, granted, passwords changed and reset by the command line, passwords by stdin only; ten wrong \
         passwords of one person kept her waiting and nobody else"
            .into(),
    ))
}

/// The server refuses the eleventh try of hers for a minute; the admin, at the same address, signs in.
fn forgets(ana: &Person<'_>, admin: &Cli) -> Result<()> {
    let mut said = String::new();
    for _ in 0..11 {
        said = format!("{:?}", ana.login("something else\n"));
    }
    ensure!(said.contains("too_many_requests"), "guessing isn't slowed down: {said}");
    ana.world.fleet.colleague("office").context("somebody else in the office signs in")?;
    ensure!(user(admin, "ana")?["is_disabled"] == false, "she was only to wait");
    Ok(())
}

/// Someone with a command line of their own.
struct Person<'a> {
    world: &'a World,
    name: &'static str,
    cli: Cli,
}

impl<'a> Person<'a> {
    fn new(world: &'a World, name: &'static str) -> Result<Self> {
        let home = world.folder.join(name);
        std::fs::create_dir_all(&home)?;
        Ok(Self { world, name, cli: Cli::new(&world.binaries.cli, &home, &world.folder) })
    }

    /// Signs in with these lines on stdin.
    fn login(&self, lines: &str) -> Result<String> {
        let server = &self.world.fleet.server;
        let (url, ca) = (server.url(), server.ca_file().display().to_string());
        self.feed(&["login", "--server", &url, "--ca", &ca, "--user", self.name], lines)
    }

    fn feed(&self, args: &[&str], lines: &str) -> Result<String> {
        self.cli.run_fed(args, lines)
    }
}

fn refused(cli: &Cli, args: &[&str], code: &str) -> Result<()> {
    let output = cli.output(args, &[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(code), "{args:?} should be refused as {code}: {said}");
    Ok(())
}

fn user(admin: &Cli, name: &str) -> Result<Value> {
    let all = admin.json(&["user", "list"])?;
    let found = all.as_array().context("no list of users")?.iter().find(|user| user["username"] == name);
    found.cloned().with_context(|| format!("{name} is not listed"))
}
