//! `flotilla rollout ...`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::{Context, rollout_gate};
use crate::output::{facts, items, shown, table, text};

/// States that nothing follows.
const ENDED: [&str; 6] = ["completed", "aborted", "rolled_back", "superseded", "invalidated", "denied"];

/// Why a gate of the plan doesn't hold in a stage.
const NOT_JUDGED: &str = "the stage has gates of its own, or leaves no device to compare with";

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Bring a release to the fleet in stages.
    Create(Box<Create>),
    /// Every rollout, the newest first.
    List,
    /// One rollout: stages, gates and their evidence, tasks.
    Show {
        /// Rollout id.
        rollout: String,
    },
    /// Follow one rollout until it ends. Fails unless it completes.
    Watch {
        /// Rollout id.
        rollout: String,
        /// Give up after so many seconds.
        #[arg(long)]
        timeout_s: Option<u64>,
    },
    /// Each device's part: where it stands and why.
    Tasks {
        /// Rollout id.
        rollout: String,
        /// Only tasks in this phase, e.g. failed.
        #[arg(long)]
        phase: Option<String>,
    },
    /// What happened, who did it and why.
    Journal {
        /// Rollout id.
        rollout: String,
    },
    /// Agree, as another person than the author.
    Approve(Decision),
    /// Refuse, as another person than the author.
    Deny(Decision),
    /// Stop offering the release; tasks that are activating finish.
    Pause(Decision),
    /// Go on; a failed stage is judged again.
    Resume {
        /// Rollout id.
        rollout: String,
        /// Give failed and unreachable devices of the stage another chance first; also while the rollout runs.
        #[arg(long)]
        retry_failed: bool,
    },
    /// End it; devices that have the release keep it.
    Abort(Decision),
    /// Bring its devices back to their old release.
    Rollback {
        #[command(flatten)]
        decision: Decision,
        /// Which devices.
        #[arg(long, value_parser = ["all", "stage"], default_value = "all")]
        scope: String,
    },
}

/// Which rollout, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// Rollout id.
    rollout: String,
    /// Why, for the journal.
    #[arg(long, default_value = "")]
    reason: String,
}

/// A rollout's plan from flags, from a file, or both: flags win.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the model.
    #[arg(long)]
    model: String,
    /// Version of the release.
    #[arg(long)]
    version: String,
    /// Devices per stage: counts or shares of the fleet, e.g. 1,10%,100%.
    #[arg(long, value_delimiter = ',')]
    stages: Vec<String>,
    /// Seconds between a stage's last commit and its verdict.
    #[arg(long)]
    soak_s: Option<u64>,
    /// Which devices, e.g. 'labels.site = lisbon AND class = rpi4'; all if absent.
    #[arg(long)]
    target: Option<String>,
    /// What each stage must prove, in place of the server's default gates; may repeat. METRIC:LIMIT[:SAMPLES], e.g.
    /// accuracy:0.05:200 (at most five points worse than the control group, judged on 200 labelled answers or more).
    #[arg(long = "gate", value_name = "GATE")]
    gates: Vec<String>,
    /// What a failed gate leads to.
    #[arg(long, value_parser = ["pause", "abort", "roll_back_stage", "roll_back_all"])]
    on_failure: Option<String>,
    /// The rest of the plan as JSON; docs/ROLLOUTS.md lists its fields with types, units and defaults.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Only say which devices, when, and what would block.
    #[arg(long)]
    dry_run: bool,
}

/// Runs one of them.
///
/// # Errors
/// What the server refused.
pub(crate) async fn run(context: &Context, command: Command) -> Result<()> {
    let client = &context.client;
    match command {
        Command::Create(create) => {
            let path = if create.dry_run { "/rollouts/dry-run" } else { "/rollouts" };
            let made = client.post(path, &create.body()?).await?;
            let is_dry_run = create.dry_run;
            context.format.print(&made, |made| if is_dry_run { dry_run(made) } else { show(made) })
        }
        Command::List => {
            let all = json!(client.list("/rollouts", &[]).await?);
            context.format.print(&all, list)
        }
        Command::Show { rollout } => context.format.print(&client.get(&path(&rollout, "")).await?, show),
        Command::Watch { rollout, timeout_s } => watch(context, &rollout, timeout_s).await,
        Command::Tasks { rollout, phase } => tasks(context, &rollout, phase.as_deref()).await,
        Command::Journal { rollout } => journal(context, &rollout).await,
        Command::Approve(decision) => decide(context, &decision, "approve").await,
        Command::Deny(decision) => decide(context, &decision, "deny").await,
        Command::Pause(decision) => decide(context, &decision, "pause").await,
        Command::Abort(decision) => decide(context, &decision, "abort").await,
        Command::Resume { rollout, retry_failed } => {
            act(context, &rollout, "resume", &json!({ "retry_failed": retry_failed })).await
        }
        Command::Rollback { decision, scope } => {
            let body = json!({ "reason": decision.reason, "scope": scope });
            act(context, &decision.rollout, "rollback", &body).await
        }
    }
}

async fn decide(context: &Context, decision: &Decision, verb: &str) -> Result<()> {
    act(context, &decision.rollout, verb, &json!({ "reason": decision.reason })).await
}

async fn tasks(context: &Context, rollout: &str, phase: Option<&str>) -> Result<()> {
    let query: Vec<(&str, &str)> = phase.map(|phase| ("phase", phase)).into_iter().collect();
    let found = json!(context.client.list(&path(rollout, "/tasks"), &query).await?);
    context.format.print(&found, |tasks| {
        let row = |task: &Value| {
            ["/device", "/stage", "/phase", "/attempt", "/why"].map(|at| text(task, at)).to_vec()
        };
        let headings = ["device", "stage", "phase", "tries", "why"];
        table(&headings, items(tasks).iter().map(row).collect(), "no device takes part yet")
    })
}

async fn journal(context: &Context, rollout: &str) -> Result<()> {
    let found = json!(context.client.list(&path(rollout, "/journal"), &[]).await?);
    context.format.print(&found, |entries| {
        let row = |entry: &Value| ["/at", "/actor", "/message", "/cause"].map(|at| text(entry, at)).to_vec();
        let headings = ["when", "who", "what", "why"];
        table(&headings, items(entries).iter().map(row).collect(), "nothing has happened yet")
    })
}

impl Create {
    fn body(&self) -> Result<Value> {
        let mut body = match &self.plan {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a JSON object", file.display()))?
            }
            None => Map::new(),
        };
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(key.into(), value);
            }
        };
        set("model", Some(json!(self.model)));
        set("version", Some(json!(self.version)));
        set("soak_s", self.soak_s.map(Value::from));
        set("target", self.target.clone().map(Value::from));
        set("on_failure", self.on_failure.clone().map(Value::from));
        let gates = self.gates.iter().map(|text| rollout_gate::parse(text)).collect::<Result<Vec<_>>>()?;
        set("gates", (!gates.is_empty()).then_some(Value::Array(gates)));
        set("stages", (!self.stages.is_empty()).then(|| json!(self.stages)));
        Ok(Value::Object(body))
    }
}

fn path(rollout: &str, rest: &str) -> String {
    format!("/rollouts/{rollout}{rest}")
}

async fn act(context: &Context, rollout: &str, verb: &str, body: &Value) -> Result<()> {
    let after = context.client.post(&path(rollout, &format!("/{verb}")), body).await?;
    context.format.print(&after, show)
}

async fn watch(context: &Context, rollout: &str, timeout_s: Option<u64>) -> Result<()> {
    let deadline = timeout_s.map(|s| std::time::Instant::now() + Duration::from_secs(s));
    let mut said = String::new();
    loop {
        let now = context.client.get(&path(rollout, "")).await?;
        let line = progress(&now);
        if line != said {
            eprintln!("{}", shown(&line));
            said = line;
        }
        let state = text(&now, "/state");
        if ENDED.contains(&state.as_str()) {
            context.format.print(&now, show)?;
            ensure!(state == "completed", "rollout {rollout} did not complete: {state}");
            return Ok(());
        }
        if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
            bail!("rollout {rollout} has not ended in time; it is {}", text(&now, "/state"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How a stage is shown that no device was left for.
const NOT_NEEDED: &str = "not_needed";

fn progress(rollout: &Value) -> String {
    let stages = rollout["stages"].as_array().into_iter().flatten();
    let stages: Vec<String> = stages.map(|stage| stage_state(rollout, stage)).collect();
    let waits_for = rollout["waits_for"].as_str().map_or(String::new(), |why| format!(": {why}"));
    format!("{}: {}{waits_for}", text(rollout, "/state"), stages.join(" | "))
}

fn list(all: &Value) -> String {
    let row = |rollout: &Value| {
        ["/rollout", "/model", "/version", "/state", "/created_at", "/created_by"]
            .map(|at| text(rollout, at))
            .to_vec()
    };
    let headings = ["rollout", "model", "release", "state", "created", "by"];
    table(&headings, items(all).iter().map(row).collect(), "no rollout has been created yet")
}

fn show(rollout: &Value) -> String {
    let head = facts(&[
        ("rollout", text(rollout, "/rollout")),
        ("model", text(rollout, "/model")),
        ("release", text(rollout, "/version")),
        ("state", text(rollout, "/state")),
        ("why", rollout["reason"].as_str().or(rollout["waits_for"].as_str()).unwrap_or_default().into()),
    ]);
    let stages = rollout["stages"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = stages.iter().flat_map(|stage| stage_rows(rollout, stage)).collect();
    format!("{head}\n{}", table(&["stage", "state", "gate", "verdict", "because"], rows, "no stage yet"))
}

/// A stage that never began because earlier ones took every device is not one that still waits.
fn stage_state(rollout: &Value, stage: &Value) -> String {
    if rollout["state"] == "completed" && stage["state"] == "pending" {
        return NOT_NEEDED.into();
    }
    text(stage, "/state")
}

/// One row per gate, the stage's name and state on the first.
fn stage_rows(rollout: &Value, stage: &Value) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let gates = stage["gates"].as_array().filter(|_| stage_state(rollout, stage) != NOT_NEEDED);
    for gate in gates.into_iter().flatten() {
        let cells = ["/metric", "/verdict", "/because"].map(|pointer| text(gate, pointer));
        rows.push([&[String::new(), String::new()], cells.as_slice()].concat());
    }
    for label in stage["not_judged"].as_array().filter(|_| !rows.is_empty()).into_iter().flatten() {
        let cells = ["", "", label.as_str().unwrap_or_default(), "not judged", NOT_JUDGED];
        rows.push(cells.map(ToOwned::to_owned).to_vec());
    }
    if rows.is_empty() {
        rows.push(vec![String::new(); 5]);
    }
    rows[0][0] = text(stage, "/name");
    rows[0][1] = stage_state(rollout, stage);
    rows
}

/// Which devices, when, and what would block.
fn dry_run(plan: &Value) -> String {
    let list = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let stage = |stage: &Value| {
        let devices = list(stage, "/devices");
        let first: Vec<&str> = devices.iter().take(5).filter_map(Value::as_str).collect();
        let more = if devices.len() > first.len() {
            format!(" and {} more", devices.len() - first.len())
        } else {
            String::new()
        };
        vec![
            text(stage, "/name"),
            devices.len().to_string(),
            text(stage, "/online"),
            text(stage, "/controls"),
            format!("{}{more}", first.join(", ")),
        ]
    };
    let stages = table(
        &["stage", "devices", "online", "control", "which"],
        list(plan, "/stages").iter().map(stage).collect(),
        "no device would take part",
    );
    let problem = |problem: &Value| {
        let word = if problem["is_blocking"] == true { "blocks" } else { "warning" };
        format!("{word}: {}", text(problem, "/why"))
    };
    let skip = |skip: &Value| format!("skipped: {}: {}", text(skip, "/device"), text(skip, "/reason"));
    let lines = list(plan, "/problems")
        .iter()
        .map(problem)
        .chain(list(plan, "/skipped").iter().map(skip))
        .collect::<Vec<_>>();
    format!("{stages}\n{}", lines.join("\n"))
}
