//! Roles, grants and who is asking. Pure; the API's extractors are the only callers.

use std::str::FromStr;

use protocol::{ProjectId, UnixMillis};
use serde::{Deserialize, Serialize};

/// What someone may do; each role includes the ones before.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything of a project.
    Viewer,
    /// Runs devices and rollouts.
    Operator,
    /// Stores blobs and publications.
    Publisher,
    /// Manages users, tokens and projects.
    Admin,
}

impl Role {
    /// The role's name in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; roles are viewer, operator, publisher and admin")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let all = [Self::Viewer, Self::Operator, Self::Publisher, Self::Admin];
        all.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// Where a grant or token holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// In every project, and for what concerns the whole server.
    All,
    /// In one project.
    Project(ProjectId),
}

impl Scope {
    /// `*` or the project's id, as JSON and the database hold it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::All => "*",
            Self::Project(project) => project.as_str(),
        }
    }

    /// Whether it holds in `project`.
    pub fn covers(&self, project: &ProjectId) -> bool {
        match self {
            Self::All => true,
            Self::Project(own) => own == project,
        }
    }
}

impl FromStr for Scope {
    type Err = protocol::IdError;
    fn from_str(text: &str) -> Result<Self, protocol::IdError> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::Project) }
    }
}

/// One role in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub scope: Scope,
    /// What.
    pub role: Role,
}

impl Grant {
    /// Whether everything that `other` allows is allowed here too.
    pub fn includes(&self, other: &Self) -> bool {
        let is_wider = match (&self.scope, &other.scope) {
            (Scope::All, _) => true,
            (Scope::Project(own), Scope::Project(project)) => own == project,
            (Scope::Project(_), Scope::All) => false,
        };
        is_wider && self.role >= other.role
    }
}

/// How someone proved who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The console's cookie.
    Session,
    /// An API token, which can only narrow what its owner may do.
    Token {
        /// Which token.
        id: String,
        /// What it is limited to.
        limit: Grant,
        /// When it ends by itself.
        expires_at: Option<UnixMillis>,
    },
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user; a token's owner.
    pub username: String,
    /// How it was proved.
    pub proof: Proof,
    /// Whether only changing the password is allowed.
    pub must_change_password: bool,
    /// The user's grants.
    pub grants: Vec<Grant>,
}

impl Principal {
    /// The name in audit rows: the user, and the token if one was used.
    pub fn actor(&self) -> String {
        match &self.proof {
            Proof::Session => self.username.clone(),
            Proof::Token { id, .. } => format!("{} (token {id})", self.username),
        }
    }

    /// The role in a project; `None` when there is none, which is answered like a project that doesn't exist.
    pub fn role_in(&self, project: &ProjectId) -> Option<Role> {
        self.narrowed(|scope| scope.covers(project))
    }

    /// The role over all projects and the server itself.
    pub fn role_everywhere(&self) -> Option<Role> {
        self.narrowed(|scope| *scope == Scope::All)
    }

    fn narrowed(&self, holds: impl Fn(&Scope) -> bool) -> Option<Role> {
        let granted = self.grants.iter().filter(|g| holds(&g.scope)).map(|g| g.role).max()?;
        match &self.proof {
            Proof::Session => Some(granted),
            Proof::Token { limit, .. } => holds(&limit.scope).then(|| granted.min(limit.role)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        ProjectId::new(name).unwrap()
    }

    fn user(grants: &[(&str, Role)], proof: Proof) -> Principal {
        let grants =
            grants.iter().map(|(s, role)| Grant { scope: s.parse().unwrap(), role: *role }).collect();
        Principal { username: "ana".into(), proof, must_change_password: false, grants }
    }

    #[test]
    fn a_grant_holds_in_its_project_only() {
        let ana = user(&[("a", Role::Publisher)], Proof::Session);
        assert_eq!(ana.role_in(&project("a")), Some(Role::Publisher));
        assert_eq!(ana.role_in(&project("b")), None);
        assert_eq!(ana.role_everywhere(), None);
    }

    #[test]
    fn the_stronger_of_two_grants_counts() {
        let ana = user(&[("*", Role::Viewer), ("a", Role::Operator)], Proof::Session);
        assert_eq!(ana.role_in(&project("a")), Some(Role::Operator));
        assert_eq!(ana.role_in(&project("b")), Some(Role::Viewer));
    }

    #[test]
    fn a_token_narrows_and_never_widens() {
        let token = |scope: &str, role| Proof::Token {
            id: "t".into(),
            limit: Grant { scope: scope.parse().unwrap(), role },
            expires_at: None,
        };
        let ana = user(&[("*", Role::Operator)], token("a", Role::Admin));
        assert_eq!(ana.role_in(&project("a")), Some(Role::Operator));
        assert_eq!(ana.role_in(&project("b")), None);
        assert_eq!(ana.role_everywhere(), None);
        let ana = user(&[("*", Role::Admin)], token("*", Role::Viewer));
        assert_eq!(ana.role_everywhere(), Some(Role::Viewer));
    }
}
