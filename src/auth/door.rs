//! The check at a listener, and the tokens that pass it while the node runs.
//!
//! What others write (`token.json`, the file of `server.token_file`) is looked at when a request comes and the last look was a
//! second ago; the request that looks pays two calls of `stat`. What cannot be read then is told once, and what was known stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::files::{self, Stamp};
use super::token::{Token, TokenError, digest_of};
use super::tokens::{self, NamedToken};
use crate::base::{Clock, Digest, SystemClock};

/// How often files are looked at, at most.
pub(super) const LOOK_MS: u64 = 1_000;
/// A shorter text in `server.token_file` is a mistake, or can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Who made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal {
    /// Somebody on this machine.
    Local,
    /// Somebody with one of the node's tokens.
    Token {
        /// Tells tokens apart: the beginning of the token's digest.
        tag: u64,
    },
}

impl Principal {
    /// A number that tells principals apart.
    #[must_use]
    pub fn tag(self) -> u64 {
        match self {
            Self::Local => 0,
            Self::Token { tag } => tag,
        }
    }
}

/// Why a request is not let in. Says nothing of what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token came with it.
    #[error("this listener asks for the node's token: send `Authorization: Bearer TOKEN`")]
    Missing,
    /// Another token came with it.
    #[error("unknown or revoked token")]
    Wrong,
    /// The token was good once.
    #[error("the token has expired")]
    Expired,
}

/// The check at a listener. Clones share what they know.
#[derive(Clone)]
pub struct Door {
    /// `None`: everybody who reaches the listener may come in.
    guard: Option<Arc<Guard>>,
}

struct Guard {
    data_dir: PathBuf,
    token_file: Option<PathBuf>,
    /// The token of this run, for the command line of the same user.
    local: Digest,
    clock: Arc<dyn Clock>,
    begun: Instant,
    /// When the files were looked at, in milliseconds from `begun`.
    looked: AtomicU64,
    stamps: Mutex<[Stamp; 2]>,
    known: ArcSwap<Known>,
}

#[derive(Default, Clone)]
struct Known {
    named: Vec<NamedToken>,
    /// That of `server.token_file`.
    in_file: Option<Digest>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.guard.is_some() { "Door(guarded)" } else { "Door(open)" })
    }
}

impl Door {
    /// A door that asks for nothing.
    #[must_use]
    pub fn open() -> Self {
        Self { guard: None }
    }

    /// A door that asks for one of the tokens of the data directory, for the one in `token_file`, or for `local`.
    ///
    /// # Errors
    /// When a file cannot be read. A `token_file` that is not there is none, and looked for again.
    pub fn guarded(data_dir: &Path, token_file: Option<&Path>, local: &Token) -> Result<Self, TokenError> {
        Self::with_clock(data_dir, token_file, local, Arc::new(SystemClock))
    }

    fn with_clock(
        data_dir: &Path,
        token_file: Option<&Path>,
        local: &Token,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TokenError> {
        let guard = Guard {
            data_dir: data_dir.to_owned(),
            token_file: token_file.map(Path::to_owned),
            local: local.digest(),
            clock,
            begun: Instant::now(),
            looked: AtomicU64::new(0),
            stamps: Mutex::new([Stamp::of(&tokens::path(data_dir)), token_file.map_or(Stamp::NONE, Stamp::of)]),
            known: ArcSwap::default(),
        };
        let in_file = guard.read_file()?;
        if let Some(path) = token_file.filter(|_| in_file.is_none()) {
            tracing::warn!(path = %path.display(), "the file of server.token_file is not there; it is looked for again");
        }
        guard.known.store(Arc::new(Known { named: tokens::list(data_dir)?, in_file }));
        Ok(Self { guard: Some(Arc::new(guard)) })
    }

    /// Decides on a request.
    ///
    /// * `authorization`: the value of its `Authorization` header.
    ///
    /// # Errors
    /// When it may not come in.
    pub fn admit(&self, authorization: Option<&str>) -> Result<Principal, Refusal> {
        let Some(guard) = &self.guard else { return Ok(Principal::Local) };
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or(Refusal::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Missing);
        }
        if is_due(guard.begun, &guard.looked) {
            guard.look();
        }
        guard.decide(digest_of(token.trim()))
    }
}

/// Whether the last look was long enough ago; whoever is told so looks.
pub(super) fn is_due(begun: Instant, looked: &AtomicU64) -> bool {
    let now = begun.elapsed().as_millis() as u64;
    let last = looked.load(Ordering::Relaxed);
    now.saturating_sub(last) >= LOOK_MS
        && looked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl Guard {
    fn decide(&self, shown: Digest) -> Result<Principal, Refusal> {
        let known = self.known.load();
        let shown = blake3::Hash::from_bytes(shown.0);
        // blake3 compares in constant time; every digest is looked at, so the time tells nothing.
        let same = |digest: &Digest| shown == blake3::Hash::from_bytes(digest.0);
        let here =
            [Some(&self.local), known.in_file.as_ref()].into_iter().flatten().filter(|digest| same(digest)).count();
        // Names are used once and tokens are random: at most one is the same.
        let named = known.named.iter().fold(None, |found, token| if same(&token.digest) { Some(token) } else { found });
        let tag = shown.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        match named {
            _ if here > 0 => Ok(Principal::Token { tag }),
            Some(token) if token.is_expired(self.clock.now()) => Err(Refusal::Expired),
            Some(_) => Ok(Principal::Token { tag }),
            None => Err(Refusal::Wrong),
        }
    }

    /// Reads again what changed.
    fn look(&self) {
        let mut stamps = self.stamps.lock();
        let path = tokens::path(&self.data_dir);
        let now = [Stamp::of(&path), self.token_file.as_deref().map_or(Stamp::NONE, Stamp::of)];
        if *stamps == now {
            return;
        }
        let mut known = Known::clone(&self.known.load());
        if stamps[0] != now[0] {
            match tokens::list(&self.data_dir) {
                Ok(named) => {
                    tracing::info!(tokens = named.len(), "the node's tokens changed");
                    known.named = named;
                }
                Err(error) => told(&error, &path),
            }
        }
        if stamps[1] != now[1] {
            match self.read_file() {
                Ok(in_file) => {
                    tracing::info!(is_there = in_file.is_some(), "the file of server.token_file changed");
                    known.in_file = in_file;
                }
                Err(error) => told(&error, self.token_file.as_deref().unwrap_or(&path)),
            }
        }
        self.known.store(Arc::new(known));
        *stamps = now;
    }

    /// The token of `server.token_file`.
    fn read_file(&self) -> Result<Option<Digest>, TokenError> {
        self.token_file.as_deref().map_or(Ok(None), token_in)
    }
}

/// Whether the file of `server.token_file` gives the node a token. One that is missing or blank does not: systemd hands over a blank
/// one where the installer made none.
///
/// # Errors
/// When it cannot be read, or has something in it that is no token.
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

fn told(error: &TokenError, path: &Path) {
    let error = crate::base::with_causes(error);
    tracing::error!(%error, path = %path.display(), "cannot reload tokens; keeping the previous ones");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use super::*;
    use crate::base::UnixMillis;

    #[derive(Default)]
    struct TestClock(AtomicI64);

    impl Clock for TestClock {
        fn now(&self) -> UnixMillis {
            UnixMillis(self.0.load(Ordering::Relaxed))
        }
    }

    fn show(door: &Door, token: &str) -> Result<Principal, Refusal> {
        door.guard.as_ref().expect("guarded").look();
        door.admit(Some(&format!("Bearer {token}")))
    }

    #[test]
    fn a_guarded_door_lets_in_its_tokens_only() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (local, other) = (Token::random().expect("random"), Token::random().expect("random"));
        let door = Door::guarded(directory.path(), None, &local).expect("made");
        let admitted = door.admit(Some(&format!("Bearer {}", local.reveal())));
        assert!(matches!(admitted, Ok(Principal::Token { .. })));
        assert_eq!(door.admit(Some(&format!("bearer {}", local.reveal()))), admitted);
        assert_eq!(door.admit(Some(&format!("Bearer {}", other.reveal()))), Err(Refusal::Wrong));
        assert_eq!(door.admit(Some("Basic abc")), Err(Refusal::Missing));
        assert_eq!(door.admit(None), Err(Refusal::Missing));
        assert_eq!(Door::open().admit(None), Ok(Principal::Local));
    }

    #[test]
    fn tokens_come_and_go_while_the_door_is_watched() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let clock = Arc::new(TestClock::default());
        let local = Token::random().expect("random");
        let file = directory.path().join("token");
        let door = Door::with_clock(directory.path(), Some(&file), &local, Arc::<TestClock>::clone(&clock) as _);
        let door = door.expect("made");
        let make =
            |name: &str, expires| tokens::create(directory.path(), name, UnixMillis(0), expires).expect("made").0;
        let is_in = |token: &str| matches!(show(&door, token), Ok(Principal::Token { .. }));
        let (laptop, visitor) = (make("laptop", None), make("visitor", Some(UnixMillis(1_000))));
        assert!(is_in(laptop.reveal()));
        clock.0.store(999, Ordering::Relaxed);
        assert!(is_in(visitor.reveal()));
        assert_ne!(show(&door, laptop.reveal()), show(&door, visitor.reveal()), "tokens are told apart");
        clock.0.store(1_000, Ordering::Relaxed);
        assert_eq!(show(&door, visitor.reveal()), Err(Refusal::Expired));
        tokens::revoke(directory.path(), "laptop").expect("revoked");
        assert_eq!(show(&door, laptop.reveal()), Err(Refusal::Wrong));

        assert_eq!(show(&door, "a secret of the cluster"), Err(Refusal::Wrong));
        std::fs::write(&file, "a-secret-of-the-cluster\n").expect("written");
        assert!(is_in("a-secret-of-the-cluster"));
        std::fs::write(&file, "short").expect("written");
        assert_eq!(show(&door, "short"), Err(Refusal::Wrong));
        assert!(is_in("a-secret-of-the-cluster"), "what cannot be read changes nothing");
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(show(&door, "a-secret-of-the-cluster"), Err(Refusal::Wrong));
        std::fs::write(&file, "\n").expect("written");
        assert_eq!(show(&door, "\n"), Err(Refusal::Wrong));
        assert!(Door::guarded(directory.path(), Some(&file), &local).is_ok(), "a blank file is none, and no mistake");

        std::fs::write(tokens::path(directory.path()), "{").expect("written");
        let again = tokens::create(directory.path(), "again", UnixMillis(0), None);
        assert!(matches!(again, Err(TokenError::Content { .. })));
        assert_eq!(show(&door, visitor.reveal()), Err(Refusal::Expired), "still known");
    }
}
