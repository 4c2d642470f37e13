//! Authentication at a listener: the tokens that it accepts while the node runs, and the subject of each.
//!
//! Files that others write (`token.json`, the file of `server.token_file`) are checked when a request arrives and the
//! last check is at least a second old; that request pays for two calls of `stat`. A file that cannot be read is
//! reported once, and the previous tokens stay valid.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::caller::{Subject, SubjectKind};
use super::files::{self, Stamp};
use super::token::{Token, TokenError, digest_of};
use super::tokens::{self, NamedToken};
use crate::base::{Clock, Digest, SystemClock, UnixMillis};

/// The shortest time between two checks of the files.
pub(super) const CHECK_INTERVAL_MS: u64 = 1_000;
/// A shorter text in `server.token_file` is a mistake, or can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Names of the subjects behind the token of this run and that of `server.token_file`.
pub(super) const LOCAL_TOKEN: &str = "local";
pub(super) const FILE_TOKEN: &str = "token_file";

/// Why a request is not authenticated. Reveals nothing about valid tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no token.
    #[error("this listener asks for the node's token: send `Authorization: Bearer TOKEN`")]
    Missing,
    /// The request has an unknown token.
    #[error("unknown or revoked token")]
    Wrong,
    /// The token was valid once.
    #[error("the token has expired")]
    Expired,
}

/// Authenticates the requests of a listener. Clones share their tokens.
#[derive(Clone)]
pub struct Authenticator {
    /// `None`: every client that reaches the listener is treated as local.
    tokens: Option<Arc<Tokens>>,
}

/// The tokens that are accepted.
struct Tokens {
    data_dir: PathBuf,
    token_file: Option<PathBuf>,
    /// The token of this run, for the command line of the same user.
    local: Accepted,
    clock: Arc<dyn Clock>,
    started: Instant,
    /// When the files were last checked, in milliseconds since `started`.
    last_check: AtomicU64,
    checked: Mutex<[CheckedFile; 2]>,
    accepted: ArcSwap<AcceptedTokens>,
}

/// What is known of a file that others write.
pub(super) struct CheckedFile<S = Stamp> {
    /// Of the content that was read, or that is not what it has to be.
    stamp: S,
    /// Whether an error of the system is reported already.
    is_reported: bool,
}

impl<S: PartialEq> CheckedFile<S> {
    pub(super) fn new(stamp: S) -> Self {
        Self { stamp, is_reported: false }
    }

    /// Whether the file is to be read.
    pub(super) fn is_changed(&self, now: S) -> bool {
        self.stamp != now
    }

    /// What was read; an error is reported once. A file that the system did not read is read again at the next check,
    /// also when it has not changed by then: a revoked token must not stay because descriptors ran out for a moment.
    ///
    /// * `now`: the file's stamp before it was read.
    /// * `is_unread`: whether an error is the system's, and not one of the content.
    pub(super) fn record<T, E>(
        &mut self,
        now: S,
        read: Result<T, E>,
        is_unread: impl FnOnce(&E) -> bool,
        report: impl FnOnce(&E),
    ) -> Option<T> {
        match read {
            Ok(read) => {
                *self = Self::new(now);
                Some(read)
            }
            Err(error) if is_unread(&error) => {
                if !std::mem::replace(&mut self.is_reported, true) {
                    report(&error);
                }
                None
            }
            Err(error) => {
                *self = Self::new(now);
                report(&error);
                None
            }
        }
    }
}

#[derive(Default, Clone)]
struct AcceptedTokens {
    named: Vec<Accepted>,
    /// The token of `server.token_file`.
    from_file: Option<Accepted>,
}

/// A token that is accepted, and its subject.
#[derive(Clone)]
struct Accepted {
    digest: Digest,
    expires: Option<UnixMillis>,
    subject: Arc<Subject>,
}

impl Accepted {
    fn new(name: &str, digest: Digest, expires: Option<UnixMillis>) -> Self {
        let id = digest.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Self { digest, expires, subject: Arc::new(Subject::new(id, name, SubjectKind::Token)) }
    }

    fn named(tokens: Vec<NamedToken>) -> Vec<Self> {
        tokens.into_iter().map(|token| Self::new(&token.name, token.digest, token.expires)).collect()
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.tokens.is_some() { "Authenticator(tokens)" } else { "Authenticator(open)" })
    }
}

impl Authenticator {
    /// Accepts every request as local.
    #[must_use]
    pub fn open() -> Self {
        Self { tokens: None }
    }

    /// Requires one of the tokens of the data directory, the one in `token_file`, or `local`.
    ///
    /// # Errors
    /// When a file cannot be read. A missing `token_file` is not an error; it is checked again later.
    pub fn with_tokens(data_dir: &Path, token_file: Option<&Path>, local: &Token) -> Result<Self, TokenError> {
        Self::with_clock(data_dir, token_file, local, Arc::new(SystemClock))
    }

    fn with_clock(
        data_dir: &Path,
        token_file: Option<&Path>,
        local: &Token,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TokenError> {
        let tokens = Tokens {
            data_dir: data_dir.to_owned(),
            token_file: token_file.map(Path::to_owned),
            local: Accepted::new(LOCAL_TOKEN, local.digest(), None),
            clock,
            started: Instant::now(),
            last_check: AtomicU64::new(0),
            checked: Mutex::new(
                [Stamp::of(&tokens::path(data_dir)), token_file.map_or(Stamp::NONE, Stamp::of)].map(CheckedFile::new),
            ),
            accepted: ArcSwap::default(),
        };
        let from_file = tokens.read_file()?;
        if let Some(path) = token_file.filter(|_| from_file.is_none()) {
            tracing::warn!(path = %path.display(), "the file of server.token_file is not there; it is looked for again");
        }
        let named = Accepted::named(tokens::list(data_dir)?);
        tokens.accepted.store(Arc::new(AcceptedTokens { named, from_file }));
        Ok(Self { tokens: Some(Arc::new(tokens)) })
    }

    /// The subject of a request.
    ///
    /// * `authorization`: the value of its `Authorization` header.
    ///
    /// # Errors
    /// When the request carries no accepted token.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Arc<Subject>, AuthError> {
        let Some(tokens) = &self.tokens else { return Ok(Subject::local()) };
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        if is_check_due(tokens.started, &tokens.last_check) {
            tokens.reload();
        }
        tokens.find(digest_of(token.trim()))
    }
}

/// Whether the last check is old enough. A caller that gets `true` must check.
pub(super) fn is_check_due(started: Instant, last_check: &AtomicU64) -> bool {
    let now = started.elapsed().as_millis() as u64;
    let last = last_check.load(Ordering::Relaxed);
    now.saturating_sub(last) >= CHECK_INTERVAL_MS
        && last_check.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl Tokens {
    fn find(&self, presented: Digest) -> Result<Arc<Subject>, AuthError> {
        let accepted = self.accepted.load();
        let presented = blake3::Hash::from_bytes(presented.0);
        // blake3 compares in constant time, and every digest is compared, so the timing reveals nothing. Names are
        // unique and tokens are random: at most one matches.
        let all = std::iter::once(&self.local).chain(&accepted.from_file).chain(&accepted.named);
        let found =
            all.fold(
                None,
                |found, token| {
                    if presented == blake3::Hash::from_bytes(token.digest.0) { Some(token) } else { found }
                },
            );
        match found {
            Some(token) if token.expires.is_some_and(|expires| expires <= self.clock.now()) => Err(AuthError::Expired),
            Some(token) => Ok(Arc::clone(&token.subject)),
            None => Err(AuthError::Wrong),
        }
    }

    /// Reads the files that changed.
    fn reload(&self) {
        let mut checked = self.checked.lock();
        let [named, from_file] = &mut *checked;
        let path = tokens::path(&self.data_dir);
        let now = [Stamp::of(&path), self.token_file.as_deref().map_or(Stamp::NONE, Stamp::of)];
        if !named.is_changed(now[0]) && !from_file.is_changed(now[1]) {
            return;
        }
        let is_unread = |error: &TokenError| matches!(error, TokenError::File(_));
        let mut accepted = AcceptedTokens::clone(&self.accepted.load());
        if named.is_changed(now[0]) {
            let report = |error: &TokenError| not_reloaded(error, &path);
            if let Some(named) = named.record(now[0], tokens::list(&self.data_dir), is_unread, report) {
                tracing::info!(tokens = named.len(), "the node's tokens changed");
                accepted.named = Accepted::named(named);
            }
        }
        if from_file.is_changed(now[1]) {
            let report = |error: &TokenError| not_reloaded(error, self.token_file.as_deref().unwrap_or(&path));
            if let Some(from_file) = from_file.record(now[1], self.read_file(), is_unread, report) {
                tracing::info!(is_there = from_file.is_some(), "the file of server.token_file changed");
                accepted.from_file = from_file;
            }
        }
        self.accepted.store(Arc::new(accepted));
    }

    /// The token of `server.token_file`.
    fn read_file(&self) -> Result<Option<Accepted>, TokenError> {
        let digest = self.token_file.as_deref().map_or(Ok(None), token_in)?;
        Ok(digest.map(|digest| Accepted::new(FILE_TOKEN, digest, None)))
    }
}

/// Whether the file of `server.token_file` contains a token. A missing or blank one does not: systemd passes a blank
/// file where the installer created none.
///
/// # Errors
/// When it cannot be read, or contains something that is not a token.
pub fn gives_token(file: &Path) -> Result<bool, TokenError> {
    token_in(file).map(|token| token.is_some())
}

fn token_in(file: &Path) -> Result<Option<Digest>, TokenError> {
    let Some(bytes) = files::read(file)? else { return Ok(None) };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if text.len() < TOKEN_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Weak { path: file.to_owned(), least: TOKEN_BYTES_MIN });
    }
    Ok(Some(digest_of(text)))
}

fn not_reloaded(error: &TokenError, path: &Path) {
    let error = crate::base::with_causes(error);
    tracing::error!(%error, path = %path.display(), "cannot reload tokens; keeping the previous ones");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;
    #[derive(Default)]
    struct TestClock(AtomicI64);

    impl Clock for TestClock {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::Relaxed))
        }
    }

    fn authenticate(authenticator: &Authenticator, token: &str) -> Result<Arc<Subject>, AuthError> {
        authenticator.tokens.as_ref().expect("guarded").reload();
        authenticator.authenticate(Some(&format!("Bearer {token}")))
    }

    #[test]
    fn tokens_are_accepted_and_nothing_else() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (local, other) = (Token::random().expect("random"), Token::random().expect("random"));
        let authenticator = Authenticator::with_tokens(directory.path(), None, &local).expect("made");
        let admitted = authenticator.authenticate(Some(&format!("Bearer {}", local.reveal())));
        assert_eq!(
            admitted.as_ref().map(|subject| (subject.kind, subject.name.as_str())),
            Ok((SubjectKind::Token, LOCAL_TOKEN))
        );
        assert_eq!(authenticator.authenticate(Some(&format!("bearer {}", local.reveal()))), admitted);
        assert_eq!(authenticator.authenticate(Some(&format!("Bearer {}", other.reveal()))), Err(AuthError::Wrong));
        assert_eq!(authenticator.authenticate(Some("Basic abc")), Err(AuthError::Missing));
        assert_eq!(authenticator.authenticate(None), Err(AuthError::Missing));
        assert_eq!(Authenticator::open().authenticate(None), Ok(Subject::local()));
    }

    #[test]
    fn what_the_system_did_not_read_is_read_again() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let (mut checked, now) = (CheckedFile::new(Stamp::NONE), Stamp::of(file.path()));
        let mut reports = 0;
        let mut take = |checked: &mut CheckedFile, read: Result<(), bool>| {
            checked.record(now, read, |is_unread| *is_unread, |_| reports += 1);
            checked.is_changed(now)
        };
        assert!(take(&mut checked, Err(true)) && take(&mut checked, Err(true)), "it was not read");
        assert!(!take(&mut checked, Ok(())));
        let mut checked = CheckedFile::new(Stamp::NONE);
        assert!(!take(&mut checked, Err(false)), "its content is no other the next time");
        assert_eq!(reports, 2, "each is reported once");
    }

    #[test]
    fn tokens_come_and_go_while_the_node_runs() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let clock = Arc::new(TestClock::default());
        let local = Token::random().expect("random");
        let file = directory.path().join("token");
        let authenticator =
            Authenticator::with_clock(directory.path(), Some(&file), &local, Arc::<TestClock>::clone(&clock) as _);
        let authenticator = authenticator.expect("made");
        let make =
            |name: &str, expires| tokens::create(directory.path(), name, UnixMillis(0), expires).expect("made").0;
        let is_in =
            |token: &str| authenticate(&authenticator, token).is_ok_and(|subject| subject.kind == SubjectKind::Token);
        let (laptop, visitor) = (make("laptop", None), make("visitor", Some(UnixMillis(1_000))));
        assert!(is_in(laptop.reveal()));
        assert_eq!(
            authenticate(&authenticator, laptop.reveal()).map(|subject| subject.name.clone()),
            Ok("laptop".to_owned())
        );
        clock.0.store(999, Ordering::Relaxed);
        assert!(is_in(visitor.reveal()));
        assert_ne!(
            authenticate(&authenticator, laptop.reveal()),
            authenticate(&authenticator, visitor.reveal()),
            "tokens are told apart"
        );
        clock.0.store(1_000, Ordering::Relaxed);
        assert_eq!(authenticate(&authenticator, visitor.reveal()), Err(AuthError::Expired));
        tokens::revoke(directory.path(), "laptop").expect("revoked");
        assert_eq!(authenticate(&authenticator, laptop.reveal()), Err(AuthError::Wrong));

        assert_eq!(authenticate(&authenticator, "a secret of the cluster"), Err(AuthError::Wrong));
        std::fs::write(&file, "a-secret-of-the-cluster\n").expect("written");
        assert!(is_in("a-secret-of-the-cluster"));
        std::fs::write(&file, "short").expect("written");
        assert_eq!(authenticate(&authenticator, "short"), Err(AuthError::Wrong));
        assert!(is_in("a-secret-of-the-cluster"), "what cannot be read changes nothing");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(authenticate(&authenticator, "a-secret-of-the-cluster"), Err(AuthError::Wrong));
        std::fs::write(&file, "\n").expect("written");
        assert_eq!(authenticate(&authenticator, "\n"), Err(AuthError::Wrong));
        assert!(
            Authenticator::with_tokens(directory.path(), Some(&file), &local).is_ok(),
            "a blank file is none, and no mistake"
        );

        std::fs::write(tokens::path(directory.path()), "{").expect("written");
        let again = tokens::create(directory.path(), "again", UnixMillis(0), None);
        assert!(matches!(again, Err(TokenError::Content { .. })));
        assert_eq!(authenticate(&authenticator, visitor.reveal()), Err(AuthError::Expired), "still known");
    }
}
