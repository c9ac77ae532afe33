//! From what people write to a checked plan, and the first transaction of a rollout.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{ModelName, ProjectId, ReleaseRef, RolloutId, UnixMillis, Version};
use release::Manifest;
use rollout::schema::{PlanOptions, ReleaseSchema};
use rollout::{
    Actor, Amount, DryRun, Event, Facts, Gate, Input, JudgedBy, Limit, Metric, Plan, Rollout, SkipReason,
    StagePlan, ValidPlan, Verb,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{RolloutError, drive, facts};
use crate::app::AppState;
use crate::domain::access::Principal;
use crate::domain::audit::{self, Change};
use crate::ids::random_bytes;
use crate::store::releases::{self, Release, ReleaseState};
use crate::store::{Conn, StoreError, projects, rollouts};
use crate::tuf::keys;

/// A rollout to make: model, version and stages are enough; everything else has a default.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewRollout {
    /// Which model.
    #[schema(value_type = String)]
    pub model: ModelName,
    /// Which release; may be left out when `release` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<Version>,
    /// The release by version, digest and counter; refused when it isn't the published one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ReleaseSchema>)]
    pub release: Option<ReleaseRef>,
    /// Stages in order: `"2"` for two more devices, `"25%"` for as many as bring the rollout to that share of its
    /// targets, or a stage of the plan. Default: everything in one stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<NewStage>,
    /// Soak time of stages that name none, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_s: Option<u64>,
    /// The rest of the plan, at the top level.
    #[serde(flatten)]
    #[schema(value_type = PlanOptions)]
    pub rest: Map<String, Value>,
}

/// A stage as people write it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NewStage {
    /// An amount as text.
    Text(String),
    /// An amount of devices.
    Count(u64),
    /// A stage of the plan.
    #[schema(value_type = StagePlan)]
    Full(Map<String, Value>),
}

/// Everything that a plan is checked against.
struct Ground {
    manifest: Manifest,
    fleet: Vec<Facts>,
}

/// Makes a rollout and submits it; it starts with the next tick that its start time allows.
///
/// # Errors
/// [`RolloutError`]; nothing is stored then.
pub async fn create(
    state: &AppState,
    project: &ProjectId,
    who: &Principal,
    new: NewRollout,
) -> Result<RolloutId, RolloutError> {
    keys::ensure(&state.store, &state.clock, &state.seal, project).await?;
    let now = state.clock.now();
    let mut tx = state.store.begin().await?;
    // Two at once would each find no open rollout.
    projects::lock(&mut tx, project).await?;
    let (plan, ground) = prepare(&mut tx, project, new, now).await?;
    refuse_without_target(&plan, &ground, now)?;
    if let Some((rollout, state)) = rollouts::open_of(&mut tx, project, &plan.model).await? {
        return Err(RolloutError::Open { rollout, state });
    }
    let id = new_id(&plan, now);
    let author = Actor::User(who.username.clone());
    let rollout = Rollout::new(id.clone(), plan, author.clone(), now);
    rollouts::insert(&mut tx, project, &rollout, &who.username).await?;
    let inputs = [
        Input { actor: Actor::Engine, event: Event::Devices(ground.fleet) },
        Input { actor: author, event: Event::Verb(Verb::Submit) },
    ];
    let mut session = drive::Session::new(project.clone(), rollout, 1, now);
    for input in inputs {
        session.feed(input);
    }
    session.save(&mut tx, &state.seal).await?.then_some(()).ok_or(RolloutError::Busy)?;
    let actor = who.actor();
    let change = Change::new(now, &actor, "rollout.create", "rollout", id.as_str()).in_project(project);
    audit::record(&mut tx, &change.after(session.rollout().plan())).await?;
    tx.commit().await?;
    session.tell(state);
    Ok(id)
}

/// Which devices, when, and what would block.
///
/// # Errors
/// [`RolloutError`] when the plan is wrong.
pub async fn dry_run(state: &AppState, project: &ProjectId, new: NewRollout) -> Result<DryRun, RolloutError> {
    let now = state.clock.now();
    let (plan, ground) = prepare(&mut *state.store.read().await?, project, new, now).await?;
    let id = new_id(&plan, now);
    Ok(rollout::dry_run(id, &plan, &ground.fleet, now))
}

async fn prepare(
    conn: &mut Conn,
    project: &ProjectId,
    mut new: NewRollout,
    now: UnixMillis,
) -> Result<(ValidPlan, Ground), RolloutError> {
    let (release, manifest) = find_release(conn, project, &new).await?;
    new.release = Some(release);
    let fleet = facts::fleet(conn, project, &new.model, &manifest).await?;
    let ground = Ground { manifest, fleet };
    let plan = plan(new, &ground, now)?;
    Ok((plan, ground))
}

async fn find_release(
    conn: &mut Conn,
    project: &ProjectId,
    new: &NewRollout,
) -> Result<(ReleaseRef, Manifest), RolloutError> {
    let version = new.version.clone().or_else(|| new.release.as_ref().map(|r| r.version.clone()));
    let Some(version) = version else {
        return Err(RolloutError::Shape(serde::de::Error::missing_field("version")));
    };
    let refuse = |why| RolloutError::Release { model: new.model.clone(), version: version.clone(), why };
    let found = releases::get(conn, project, &new.model, &version).await?;
    let found = found.ok_or_else(|| refuse("it was never published"))?;
    if found.state == ReleaseState::Withdrawn {
        return Err(refuse(why_withdrawn(conn, project, &found).await?));
    }
    let release = ReleaseRef { version: found.version, digest: found.digest, counter: found.counter };
    if new.release.as_ref().is_some_and(|given| *given != release) {
        return Err(refuse("the published release has another digest or counter"));
    }
    let manifest = Manifest::reopen(&found.manifest, found.digest);
    Ok((release, manifest.map_err(|_| refuse("its stored manifest can't be read"))?))
}

/// What its publisher did to a release that is no longer to be had.
pub(super) async fn why_withdrawn(
    conn: &mut Conn,
    project: &ProjectId,
    found: &Release,
) -> Result<&'static str, StoreError> {
    let all = releases::list(conn, project, &found.model).await?;
    let valid = all.iter().filter(|release| release.state == ReleaseState::Published);
    let manifests = valid.filter_map(|release| Manifest::reopen(&release.manifest, release.digest).ok());
    let is_fenced = manifests.map(|manifest| manifest.min_counter).any(|fence| found.counter < fence);
    Ok(if is_fenced {
        "it was withdrawn: a newer release fenced it off by its min_counter"
    } else {
        "it was withdrawn: its publisher's metadata names it no longer"
    })
}

/// Fills in what was left out.
fn plan(new: NewRollout, ground: &Ground, now: UnixMillis) -> Result<ValidPlan, RolloutError> {
    let NewRollout { model, release, stages, soak_s, mut rest, .. } = new;
    let stages = if stages.is_empty() { vec![NewStage::Text("100%".into())] } else { stages };
    let stages: Vec<Value> = stages.into_iter().map(|stage| stage.into_json(soak_s)).collect();
    let has_gates = rest.contains_key("gates");
    rest.insert("model".into(), json(&model)?);
    rest.insert("release".into(), json(&release)?);
    rest.insert("fallbacks".into(), json(&ground.manifest.fallback)?);
    rest.insert("stages".into(), Value::Array(stages));
    let mut plan: Plan = serde_json::from_value(Value::Object(rest)).map_err(RolloutError::Shape)?;
    if !has_gates {
        plan.gates = default_gates(ground);
    }
    drop_impossible_comparisons(&mut plan, ground, now)?;
    Ok(plan.check()?)
}

fn json<T: Serialize>(value: &T) -> Result<Value, RolloutError> {
    serde_json::to_value(value).map_err(RolloutError::Shape)
}

/// Install failures always; errors and latency too once there is an old release to compare with. Gates on accuracy
/// or drift are for those who know that labels come or that distributions should stay.
fn default_gates(ground: &Ground) -> Vec<Gate> {
    let gate = |metric, limit| Gate {
        metric,
        kind: None,
        slice: None,
        limit,
        min_sample: 100,
        min_control_sample: 100,
    };
    let mut gates = vec![install_failures()];
    if ground.fleet.iter().any(|facts| facts.current.is_some()) {
        let worse = |by_at_most| Limit::WorseThanControl { by_at_most, judged_by: JudgedBy::ShownWorse };
        gates.push(gate(Metric::ErrorRate, worse(0.01)));
        let by_point = Limit::WorseThanControl { by_at_most: 0.5, judged_by: JudgedBy::Point };
        gates.push(gate(Metric::LatencyP95, by_point));
    }
    gates
}

/// At most 5 % of a stage's devices may fail to take the release.
fn install_failures() -> Gate {
    Gate {
        metric: Metric::InstallFailures,
        kind: None,
        slice: None,
        limit: Limit::Tasks { at_most: Amount::Percent(rollout::Percent::whole(5)) },
        min_sample: 1,
        min_control_sample: 0,
    }
}

/// The plan's gates that compare with a control group leave those stages out in which no device would be left on an
/// old release. The stored plan says so, and installs are counted there at least; a stage's own gates are kept as they
/// were written.
fn drop_impossible_comparisons(
    plan: &mut Plan,
    ground: &Ground,
    now: UnixMillis,
) -> Result<(), RolloutError> {
    let id = RolloutId::new("dry-run").expect("a constant name is an id");
    let tried = rollout::dry_run(id, &plan.clone().check()?, &ground.fleet, now);
    let without: BTreeSet<usize> =
        tried.problems.iter().filter(|p| p.is_blocking).filter_map(|p| p.stage).map(usize::from).collect();
    let mut kept: Vec<Gate> = plan.gates.iter().filter(|gate| !gate.needs_control()).cloned().collect();
    if kept.is_empty() {
        kept.push(install_failures());
    }
    for (i, stage) in plan.stages.iter_mut().enumerate() {
        if without.contains(&i) && stage.gates.is_none() {
            stage.gates = Some(kept.clone());
        }
    }
    Ok(())
}

/// A rollout that nobody can take is refused at once, unless devices may join it later.
fn refuse_without_target(plan: &ValidPlan, ground: &Ground, now: UnixMillis) -> Result<(), RolloutError> {
    if plan.is_dynamic {
        return Ok(());
    }
    let tried = rollout::dry_run(new_id(plan, now), plan, &ground.fleet, now);
    if tried.targets > 0 {
        return Ok(());
    }
    let mut reasons: BTreeMap<SkipReason, u64> = BTreeMap::new();
    for (_, reason) in &tried.skipped {
        *reasons.entry(*reason).or_default() += 1;
    }
    let mut why: Vec<String> = reasons
        .iter()
        .map(|(reason, n)| format!("{n} of {}: {}", ground.fleet.len(), reason.text()))
        .collect();
    if ground.fleet.is_empty() {
        why.push("the project has no device yet".into());
    } else if why.is_empty() {
        why.push(format!("the target filter selects none of {} devices", ground.fleet.len()));
    }
    let (model, version) = (plan.model.clone(), plan.release.version.clone());
    Err(RolloutError::NoTarget { model, version, why: why.join("; ") })
}

/// `digits-1.1.0-3f09ab`, or something shorter where names are long. It is the seed of the order too.
fn new_id(plan: &ValidPlan, now: UnixMillis) -> RolloutId {
    let tail = hex::encode(random_bytes::<3>());
    let readable = RolloutId::new(format!("{}-{}-{tail}", plan.model, plan.release.version));
    readable.unwrap_or_else(|_| {
        let short = format!("{:012x}{tail}", now.0.max(0));
        RolloutId::new(short).expect("hex digits are an id")
    })
}

impl NewStage {
    fn into_json(self, soak_s: Option<u64>) -> Value {
        let mut stage = match self {
            Self::Text(text) => Self::amount(Value::String(text)),
            Self::Count(count) => Self::amount(count.into()),
            Self::Full(stage) => stage,
        };
        if let Some(soak_s) = soak_s {
            stage.entry("soak_s").or_insert(soak_s.into());
        }
        Value::Object(stage)
    }

    fn amount(amount: Value) -> Map<String, Value> {
        let fill: Map<String, Value> = [("amount".to_owned(), amount)].into_iter().collect();
        [("fill".to_owned(), Value::Object(fill))].into_iter().collect()
    }
}
