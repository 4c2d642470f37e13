//! The order in which services start: those that others need come first.
//!
//! A service needs those that its texts name as hosts, and those that a Compose file says it depends on. Invariants: every service is in exactly
//! one phase; services that need each other are in one.

use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::text::{hosts, is_host_variable};
use crate::migrate::stack::{Service, Test};

/// What a stack says of the order in which its services start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// The names of the objects of services, those that others need first.
    pub phases: Vec<Vec<String>>,
    /// The names of those that each needs.
    pub depends_on: BTreeMap<String, Vec<String>>,
}

/// Finds the order.
pub fn order(context: &Context<'_>) -> Order {
    let services = &context.stack.services;
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (number, service) in services.iter().enumerate() {
        for name in super::network::names_of(context, service) {
            owners.entry(name.to_ascii_lowercase()).or_insert(number);
        }
    }
    let needs: Vec<BTreeSet<usize>> = services
        .iter()
        .enumerate()
        .map(|(number, service)| {
            let named = named_hosts(service).into_iter().filter_map(|host| owner(&host, &owners));
            let declared = service
                .compose
                .depends_on
                .iter()
                .filter_map(|one| owners.get(&one.service.to_ascii_lowercase()).copied());
            named.chain(declared).filter(|other| *other != number).collect()
        })
        .collect();
    let name = |number: usize| context.names.service(&services[number].name);
    let depends_on = needs
        .iter()
        .enumerate()
        .filter(|(_, needs)| !needs.is_empty())
        .map(|(number, needs)| (name(number), needs.iter().map(|other| name(*other)).collect()))
        .collect();
    let phases = layers(&needs).into_iter().map(|layer| layer.into_iter().map(name).collect()).collect();
    Order { phases, depends_on }
}

/// The service that has a host name, also as one of its tasks: `etcd-1`, `tasks.etcd`.
fn owner(host: &str, owners: &BTreeMap<String, usize>) -> Option<usize> {
    let host = host.to_ascii_lowercase();
    let plain = host.strip_prefix("tasks.").unwrap_or(&host);
    let of_task = || {
        let slot = plain.trim_end_matches(|letter: char| letter.is_ascii_digit());
        let template = format!("{slot}{{{{.task.slot}}}}");
        owners.get(&template).or_else(|| owners.get(&template.replace(".task.slot", " .task.slot ")))
    };
    owners.get(plain).or_else(of_task).copied()
}

/// The hosts that the texts of a service name.
fn named_hosts(service: &Service) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for variable in &service.environment {
        let Some(value) = &variable.value else { continue };
        found.extend(hosts(value).into_iter().map(str::to_owned));
        if is_host_variable(&variable.name) {
            found.extend(value.split([',', ';', ' ']).map(|host| host.split(':').next().unwrap_or(host).to_owned()));
        }
    }
    let commands = [&service.entrypoint, &service.command].into_iter().flatten();
    let words = commands.flat_map(|words| &words.words).map(|word| word.value.as_str());
    let test = match service.health_check.as_ref().and_then(|check| check.test.as_ref()) {
        Some(Test::Shell(_, line)) => Some(line.value.as_str()),
        _ => None,
    };
    words.chain(test).for_each(|text| found.extend(hosts(text).into_iter().map(str::to_owned)));
    found
}

/// Puts those first that need nobody, then those that need only them, and so on.
///
/// * `needs`: for each the numbers of those that it needs.
fn layers(needs: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..needs.len()).map(|start| reachable(start, needs)).collect();
    let mut open: BTreeSet<usize> = (0..needs.len()).collect();
    let mut order = Vec::new();
    while !open.is_empty() {
        // All that a service still waits for needs the service as well.
        let is_next = |number: &usize| {
            reached[*number].iter().filter(|other| open.contains(other)).all(|other| reached[*other].contains(number))
        };
        let layer: Vec<usize> = open.iter().copied().filter(is_next).collect();
        open.retain(|number| !layer.contains(number));
        order.push(layer);
    }
    order
}

fn reachable(start: usize, needs: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = needs[start].iter().copied().collect();
    while let Some(number) = open.pop() {
        if found.insert(number) {
            open.extend(&needs[number]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn needs(pairs: &[(usize, usize)], count: usize) -> Vec<BTreeSet<usize>> {
        let mut all = vec![BTreeSet::new(); count];
        for (from, to) in pairs {
            all[*from].insert(*to);
        }
        all
    }

    #[test]
    fn those_that_others_need_come_first() {
        assert_eq!(layers(&needs(&[(0, 1), (1, 2), (3, 2)], 4)), [vec![2], vec![1, 3], vec![0]]);
        assert_eq!(layers(&needs(&[(0, 1), (1, 0), (2, 0)], 3)), [vec![0, 1], vec![2]]);
        assert_eq!(layers(&[]), [[0usize; 0]; 0]);
    }

    #[test]
    fn tasks_are_those_of_their_service() {
        let owners = BTreeMap::from([("etcd-{{.task.slot}}".to_owned(), 7), ("web".to_owned(), 3)]);
        assert_eq!(
            [owner("etcd-12", &owners), owner("tasks.web", &owners), owner("other", &owners)],
            [Some(7), Some(3), None]
        );
    }

    proptest! {
        #[test]
        fn each_is_in_one_phase_and_never_before_what_it_needs(pairs in proptest::collection::vec((0usize..9, 0usize..9), 0..30)) {
            let needs = needs(&pairs, 9);
            let order = layers(&needs);
            let place = |number: usize| order.iter().position(|layer| layer.contains(&number)).expect("in a phase");
            prop_assert_eq!(order.iter().map(Vec::len).sum::<usize>(), 9);
            for (from, to) in pairs {
                prop_assert!(place(to) <= place(from));
            }
        }
    }
}
