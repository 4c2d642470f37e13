//! Time of a thread on a processor: what others do on the machine does not count.

/// Nanoseconds that this thread has run.
fn on_cpu() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    told.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// Microseconds of processor for each question. All are asked once before: what is remembered is remembered, as in a node that
/// has run for a while.
pub fn cost<T>(questions: &[T], mut ask: impl FnMut(&T)) -> f64 {
    questions.iter().for_each(&mut ask);
    let start = on_cpu();
    questions.iter().for_each(&mut ask);
    (on_cpu() - start) as f64 / 1e3 / questions.len() as f64
}
