//! Who may come in, and how a node shows that it is itself: tokens, the check that every listener makes, and the certificate
//! of a listener that speaks TLS.
//!
//! Invariants: a token is random and shown once; what is kept is its digest, in a file that only the owner reads. A
//! loopback listener asks for nothing, because whoever reaches it can read the data directory's owner's files as well
//! or is kept out by the machine; every other listener asks for a token unless the operator says otherwise. A private key
//! is readable by its owner only and never leaves the machine. Files that others change are looked at when somebody comes,
//! at most once a second: an idle node does nothing.

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
pub use identity::{CertificateFiles, Identity, IdentityError, Source, provider};
pub use names::{Name, NameError};
pub use token::{Token, TokenError};
pub use tokens::{NODE, NamedToken, create, list, revoke, token_of_node};
