//! Who may connect, and how a node proves its identity: tokens, the check that every listener makes, and the
//! certificate of a TLS listener.
//!
//! Invariants: a token is random and shown once; only its digest is stored, in a file that only the owner can read. A
//! loopback listener requires no token, because clients that reach it can read the owner's files as well or are blocked
//! by the machine; every other listener requires a token unless the operator turns this off. A private key is readable
//! by its owner only and never leaves the machine. Files that others change are checked when a request arrives, at most
//! once a second: an idle node does nothing.

mod authenticator;
mod authority;
mod caller;
mod files;
mod identity;
mod names;
mod token;
mod tokens;

pub use authenticator::{AuthError, Authenticator, gives_token};
pub use authority::{Authority, LOCAL_NAME, make_authority};
pub use caller::{Caller, Subject, SubjectKind, Transport};
pub use files::FileError;
pub use identity::{CertificateFiles, Identity, IdentityError, Source};
pub use names::{Name, NameError};
pub use token::{Token, TokenError};
pub use tokens::{NODE, NamedToken, create, list, revoke, token_of_node};
