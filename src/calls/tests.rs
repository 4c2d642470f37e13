use std::sync::Mutex;

use super::*;
use crate::auth::Transport;
use crate::index::filter::Filter;

/// Records its calls, and refuses destructive ones.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Rule for Notes {
    fn admit(&self, call: &Call<'_>, reach: &mut Reach) -> Result<(), Refusal> {
        let Call { operation, caller, scope } = call;
        self.0.lock().expect("unpoisoned").push(format!("{} {} {:?}", caller.name(), operation.name(), scope.names()));
        reach.narrow_to(["notes".to_owned(), "manual".to_owned()]);
        if operation.effect() == Effect::Destroy {
            let (caller, operation) = (caller.name().to_owned(), operation.name().to_owned());
            return Err(Refusal::Forbidden { caller, operation, reason: "a test says so".to_owned() });
        }
        Ok(())
    }

    fn ended(&self, ended: &EndedCall<'_>) {
        self.0.lock().expect("unpoisoned").push(format!("{} {:?}", ended.operation.name(), ended.outcome));
    }
}

#[test]
fn a_call_is_decided_once_and_its_end_is_heard_once() {
    let notes = Notes::default();
    let calls = Calls::new(vec![Box::new(notes.clone())], Metrics::default());
    let caller = Caller::local(Transport::CommandLine);
    let permit = calls.enter(Operation::LIST_SOURCES, &caller, &Scope::One("notes".into())).expect("admitted");
    let reached = ["notes", "manual", "secrets"].map(|name| permit.reach().admits(name));
    assert_eq!(reached, [true, false, false], "only what the call names");
    permit.end(Outcome::Done);
    drop(calls.enter(Operation::FLUSH, &caller, &Scope::Node).expect("admitted"));
    let refused = calls.enter(Operation::PRUNE_SNAPSHOTS, &caller, &Scope::Node).err().expect("refused");
    assert_eq!(refused.to_string(), "local may not prune_snapshots here: a test says so");
    let notes = notes.0.lock().expect("unpoisoned").clone();
    let expected = [
        "local list_sources [\"notes\"]",
        "list_sources Done",
        "local flush []",
        "flush Abandoned",
        "local prune_snapshots []",
        "prune_snapshots Refused",
    ];
    assert_eq!(notes, expected);
}

#[test]
fn reach_only_ever_gets_narrower() {
    let mut reach = Reach::default();
    assert!(reach.admits("anything") && reach.documents().is_none());
    reach.narrow_to(["a".to_owned(), "b".to_owned()]);
    reach.narrow_to(["b".to_owned(), "c".to_owned()]);
    assert_eq!(["a", "b", "c"].map(|name| reach.admits(name)), [false, true, false]);
    let (first, second) = (Filter::Exists("x".into()), Filter::Exists("y".into()));
    reach.narrow_by(first.clone());
    reach.narrow_by(second.clone());
    assert_eq!(reach.documents(), Some(&Filter::And(vec![first.clone(), second])));
    let asked = Filter::Exists("z".into());
    assert_eq!(Reach::default().filter(Some(&asked)), Some(asked.clone()));
    let mut one = Reach::default();
    one.narrow_by(first.clone());
    assert_eq!(one.filter(Some(&asked)), Some(Filter::And(vec![first, asked])));
}
