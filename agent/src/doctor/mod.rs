//! `flotilla-agent doctor`: looks at everything that the agent stands on, whether it runs or not, and says for each
//! thing whether it is well and what to do if not. It changes nothing but one probe file that it removes again, and it
//! never takes the running agent's session: on the MQTT port it only shakes hands.

mod ahead;
mod finding;
mod inputs;
mod local;
mod server;
mod stored;

pub use finding::{Finding, Level, Report};

use finding::disk_advice;

use crate::config::{Config, ConfigErrors};
use crate::health::Clock;
use crate::link::{Identity, has_next};
use crate::status;

/// Looks at everything. Blocks: on the disk, and on the network within its timeouts.
pub fn examine(config: &Result<Config, ConfigErrors>) -> Report {
    let mut report = Report::default();
    let config = match config {
        Ok(config) => {
            report.ok("config", "valid");
            config
        }
        Err(ConfigErrors(problems)) => {
            for problem in problems {
                report.fail(
                    "config",
                    problem.to_string(),
                    "correct it; `flotilla-agent check-config` checks again",
                );
            }
            return report;
        }
    };
    local::hardware(&mut report, config);
    let is_usable = local::state_dir(&mut report, config);
    let asked = status::ask(config);
    local::exposure(&mut report, config);
    local::agent(&mut report, config, asked.as_ref());
    let running = asked.ok();
    inputs::inputs(&mut report, config, running.is_some());
    inputs::asked_models(&mut report, config, running.as_ref());
    if !is_usable {
        return report;
    }
    local::disk(&mut report, config);
    let clock = match Clock::open(&config.state_dir) {
        Ok(clock) => clock,
        Err(error) => {
            let what = format!("its stored bound can't be read: {}", crate::chain(&error));
            report.fail("clock", what, disk_advice(&error));
            return report;
        }
    };
    let identity = Identity::load(&config.state_dir);
    if let Some(ca) = identity.as_ref().ok().and_then(|identity| identity.ca_validity().ok()) {
        clock.bound(ca.not_after);
    }
    local::clock(&mut report, &clock);
    match identity {
        Ok(identity) => {
            // Asked first: whether a certificate has expired or the clock is wrong, the server's time tells.
            let mut way = Report::default();
            let heard = server::reach(&mut way, config, &identity, &clock);
            local::identity(&mut report, &identity, &config.state_dir);
            local::certificates(&mut report, &identity, clock.now(), heard);
            if has_next(&config.state_dir) {
                let what = "a renewed certificate waits; the server may have retired the one before it";
                report.warn("certificate", what, "start the agent, or let it run: it tries the renewed one first");
            }
            stored::metadata(&mut report, config, &identity, clock.now(), heard);
            stored::models(&mut report, config, running.is_some());
            stored::telemetry(&mut report, config);
            report.checks.append(&mut way.checks);
        }
        Err(error) => report.fail(
            "identity",
            crate::chain(&error),
            "make a token (`flotilla device token --device NAME`; a name that is taken must go first: `flotilla device \
             delete NAME`) and run `flotilla-agent enroll --token ...`",
        ),
    }
    report
}
