//! A user's own session, by name and password: what an API token may not do is done with it. Passwords are asked for on
//! the terminal, or come from the environment or stdin; never from an argument, which other users of the machine see.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use serde_json::{Value, json};

use crate::client::Client;

/// Environment variable with the password, for scripts.
const PASSWORD: &str = "FLOTILLA_PASSWORD";
/// Environment variable with the password to set in place of the present one.
const NEW_PASSWORD: &str = "FLOTILLA_NEW_PASSWORD";

/// A session by cookie, only long enough for what needs one.
pub(crate) struct Session {
    cookie: String,
    /// Whether only another password may be set.
    pub(crate) must_change_password: bool,
    /// What the user may do where.
    pub(crate) grants: Vec<Value>,
}

impl Session {
    /// Signs in.
    ///
    /// # Errors
    /// When name or password are wrong, or the server can't be reached.
    pub(crate) async fn open(client: &Client, user: &str, password: &str) -> Result<Self> {
        let request =
            client.request(Method::POST, "/session").json(&json!({ "username": user, "password": password }));
        let response = client.send(request).await?;
        let cookie = response.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.and_then(cookie_of).context("the server set no session")?;
        let body: Value = response.json().await.context("the server's answer is not JSON")?;
        let must_change_password = body["must_change_password"].as_bool().unwrap_or(false);
        let grants = body["grants"].as_array().cloned().unwrap_or_default();
        Ok(Self { cookie, must_change_password, grants })
    }

    /// A request with the session's cookie.
    pub(crate) fn request(&self, client: &Client, method: Method, path: &str) -> reqwest::RequestBuilder {
        // A cookie alone could be another web site's doing: the server asks where the request comes from.
        client.request(method, path).header(COOKIE, &self.cookie).header(ORIGIN, client.server())
    }

    /// Sets another password. The server ends all sessions and opens a new one, which this is afterwards.
    ///
    /// # Errors
    /// When the server refuses the new password.
    pub(crate) async fn change_password(&mut self, client: &Client, old: &str, new: &str) -> Result<()> {
        let body = json!({ "old_password": old, "new_password": new });
        let answer = client.send(self.request(client, Method::POST, "/session/password").json(&body)).await?;
        let cookie = answer.headers().get(SET_COOKIE).and_then(|value| value.to_str().ok());
        self.cookie = cookie.and_then(cookie_of).context("the server set no session")?;
        self.must_change_password = false;
        Ok(())
    }

    /// Signs out.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub(crate) async fn close(self, client: &Client) -> Result<()> {
        client.send(self.request(client, Method::DELETE, "/session")).await?;
        Ok(())
    }
}

fn cookie_of(header: &str) -> Option<String> {
    header.split(';').next().map(str::to_owned)
}

/// The present password: from the environment, the terminal, or the next line of stdin.
///
/// # Errors
/// When there is none.
pub(crate) fn password(user: &str) -> Result<String> {
    secret(PASSWORD, &format!("password of {user}: "))
}

/// The password to set, typed twice: nobody sees what is typed, and a slip would lock its user out.
///
/// # Errors
/// When there is none, or the two differ.
pub(crate) fn new_password(why: &str) -> Result<String> {
    let new = secret(NEW_PASSWORD, &format!("{why}new password: "))?;
    if std::env::var(NEW_PASSWORD).is_err() && std::io::stdin().is_terminal() {
        let again = secret(NEW_PASSWORD, "the new password again: ")?;
        ensure!(new == again, "the two passwords differ; nothing has changed");
    }
    Ok(new)
}

fn secret(variable: &str, prompt: &str) -> Result<String> {
    if let Ok(value) = std::env::var(variable) {
        return Ok(value);
    }
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(prompt).context("cannot read the password");
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the password from stdin")?;
    let value = line.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        bail!("no terminal to ask on; give the password on stdin, a line each, or set {variable}");
    }
    Ok(value.to_owned())
}
