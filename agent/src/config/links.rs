//! Variables that container hosts set for the services beside a container: of one called `flotilla`, `flotilla-server` or
//! the like they begin as ours do and mean nothing to us. Docker's links and Kubernetes name them alike.

/// Whether a variable, without our prefix, is one of `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_<name>`, `PORT`,
/// `PORT_<number>_<protocol>` and the latter's `_PROTO`, `_PORT` and `_ADDR`, alone or behind the rest of a service's
/// name. What a person may have meant for a port of ours is none: a host gives numbers and addresses where it does.
pub(super) fn is_link(rest: &str, text: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    (0..words.len()).any(|at| is_form(&words[at..], text))
}

fn is_form(words: &[&str], text: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|protocol| text.starts_with(protocol));
    match words {
        ["SERVICE", "HOST"] => true,
        ["SERVICE", "PORT", ..] => text.parse::<u16>().is_ok(),
        ["PORT"] => is_address,
        ["PORT", number, protocol] => is_port(number, protocol) && is_address,
        ["PORT", number, protocol, "PROTO" | "PORT" | "ADDR"] => is_port(number, protocol),
        _ => false,
    }
}

fn is_port(number: &str, protocol: &str) -> bool {
    number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
}
